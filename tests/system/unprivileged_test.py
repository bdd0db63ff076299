#!/usr/bin/python3
"""Goal: an ordinary user has the same pair as root, sandbox included: keys load, sessions run, a restarted vault comes back, reload works.
Method: real daemons, started as uid 65534 from copies that it may run. Needs root, to become that user.
"""

import os
import pathlib
import signal
import socket
import unittest

from harness import SystemTest, ct, wait_until
from users import AS_NOBODY, StartedBy, run_copies_of_the_programs
from worker_killed_test import shut_down_listeners


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Unprivileged(SystemTest):
    @classmethod
    def setUpClass(cls):
        run_copies_of_the_programs(cls)

    def test_a_pair_of_an_ordinary_user(self):
        site = StartedBy("nobody", AS_NOBODY)
        self._sites.append(site)
        self.addCleanup(site.stop)
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        vault = site.vault_status()
        self.assertEqual(os.stat(f"/proc/{vault['pid']}/mem").st_uid, 0, "another process of this user could trace it")
        self.assertIn("\nUid:\t65534\t", pathlib.Path(f"/proc/{vault['pid']}/status").read_text())
        for layers in (vault["sandbox"], site.net_status()["workers"][0]["sandbox"]):
            self.assertNotIn("failed", layers.values())
            self.assertEqual(layers["seccomp"], "active")
        with site.connect(port, alice) as session:
            self.assert_echo(session)
            os.kill(vault["pid"], signal.SIGKILL)
            wait_until(lambda: is_served(site, port, alice), 20, "the vault is back")
            self.assert_echo(session)
        bob = site.peer("bob")
        site.listens["echo"]["allow"].append("bob")
        site.reload()
        with site.connect(port, bob) as session:
            self.assert_echo(session)

    def test_unix_sockets_that_a_worker_has_shut_down_are_bound_again(self):
        site = StartedBy("nobody2", AS_NOBODY)
        self._sites.append(site)
        self.addCleanup(site.stop)
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        sockets = [site.dir / "run" / name for name in ("wire.sock", "plain.sock")]
        site.listen("local", ["alice"], "echo", address=f"unix:{sockets[0]}")
        site.connect_entry("out", ("127.0.0.1", port), "alice", listen=f"unix:{sockets[1]}")
        site.start()
        before = site.pids()["workers"]
        for victim in before:
            shut_down_listeners(victim)
        for victim in before:
            os.kill(victim, signal.SIGKILL)

        def all_answer():
            try:
                for path in sockets:
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.connect(str(path))
                site.metrics()
                return not set(before) & set(site.pids()["workers"])
            except OSError:
                return False
        wait_until(all_answer, 10, "all sockets answer again")
        wait_until(lambda: is_served(site, port, alice), 10, "the port too")
        self.assertNotIn("can't be bound again", site.log())


def is_served(site, port, pair):
    try:
        with site.connect(port, pair, timeout=2) as session:
            session.send(b"x")
            return session.receive(2) == b"x"
    except (OSError, ct.Closed):
        return False


if __name__ == "__main__":
    unittest.main()
