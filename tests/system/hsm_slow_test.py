#!/usr/bin/python3
"""Goal: a token that is slow, hangs or is stopped keeps nobody waiting but those who need its keys.
Method: real daemons, one netd-worker, our mock as two tokens. While handshakes run with a key of the one token, and that token is harmed,
handshakes with a software key and with a key of the other token go on, each within a time that is far below the handshake's limit.
"""

import os
import pathlib
import signal
import sys
import time
import unittest

import tokens
from harness import Crowd, SystemTest, ct, process_stat, processes_of_session, wait_until

LOAD_THREADS = 6
PATIENCE_S = 2.5  # half of handshake_timeout_ms, and of what it takes a hundred times
RESUME_S = 40


class SlowToken(SystemTest):
    def setUp(self):
        self.slow, self.quick = tokens.Mock(), tokens.Mock()
        for token in (self.slow, self.quick):
            self.addCleanup(token.remove)
        self.site_ = site = self.site("slow", workers=1)
        site.token("slow", self.slow)
        site.token("quick", self.quick)
        self.alice = site.peer("alice")
        self.ports = {}
        for name, token in (("in-slow", "slow"), ("in-quick", "quick"), ("soft", None)):
            if token:
                site.token_key(name, token)
            self.ports[name] = site.listen(name, ["alice"], "echo", key=name)
        site.start()
        for name in self.ports:
            wait_until(lambda key=name: self.works(key), RESUME_S, f"a handshake with {name}", step=0.1)

    def works(self, key, timeout=10):
        try:
            with self.site_.connect(self.ports[key], self.alice, key=key, timeout=timeout) as session:
                session.send(b"x")
                return session.receive(timeout) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def worker_of(self, token):
        """Its hsmd-worker: the grandchild of the guard that was started for this token."""
        for pid, name in processes_of_session(self.site_.up.pid).items():
            launcher = name == "hsmd-worker" and process_stat(process_stat(pid)[2])
            if launcher and b"--token\0" + token.encode() + b"\0" in pathlib.Path(f"/proc/{launcher[2]}/cmdline").read_bytes():
                return pid
        return None

    def harm(self, harm, until):
        """harm() under load; then until(done), which is given how many handshakes with the harmed key have worked, says when it is
        enough. All other keys work, always."""
        before = self.site_.drops()
        done, others = [], {"in-quick": [], "soft": []}
        with Crowd() as crowd:
            def load():
                while not crowd.stop.is_set():
                    done.append(self.works("in-slow"))

            def others_go_on(key):
                while not crowd.stop.is_set():
                    others[key].append(self.works(key, PATIENCE_S))
                    time.sleep(0.02)
            for _ in range(LOAD_THREADS):
                crowd.start(load)
            for key in others:
                crowd.start(others_go_on, key)
            wait_until(lambda: sum(done) > 2 * LOAD_THREADS, 30, "handshakes under load")
            harm()
            for results in others.values():
                results.clear()
            until(done)
        self.assertEqual(crowd.errors, [])
        for key, results in others.items():
            self.assertTrue(all(results), f"{results.count(False)} of {len(results)} handshakes with {key} suffer with another's token")
            self.assertGreater(len(results), 10, f"handshakes with {key} stand still")
        for key in others:
            self.assertNotRegex(self.site_.log(), f"drop reason=.* entry={key}")
        return self.site_.drops_since(before)

    def test_stopped(self):
        def stop():
            os.kill(wait_until(lambda: self.worker_of("slow"), 10, "the worker of the token"), signal.SIGSTOP)

        def resumed(done):
            wait_until(lambda: not all(done[-LOAD_THREADS:]), 20, "handshakes are refused")
            marker = len(done)
            wait_until(lambda: any(done[marker:]), RESUME_S, "handshakes with the key of the token again")
        drops = self.harm(stop, resumed)
        self.assertIn("hsm_unavailable", drops)
        self.assertNotIn("vault_unavailable", drops, "the token's refusal comes before the handshake's own end")

    def test_each_call_takes_most_of_a_second(self):
        def some_more(done):
            marker = len(done)
            wait_until(lambda: len(done) > marker + 2 * LOAD_THREADS, 60, "slow handshakes", step=0.1)
        self.harm(lambda: self.slow.faults("C_DeriveKey latency=700"), some_more)

    def test_each_call_hangs(self):
        def some_refused(done):
            wait_until(lambda: done.count(False) > LOAD_THREADS, 40, "handshakes are refused", step=0.1)
        self.harm(lambda: self.slow.faults("C_DeriveKey hang"), some_refused)


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
