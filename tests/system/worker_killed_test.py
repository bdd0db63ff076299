#!/usr/bin/python3
"""Goal: `kill -9` of one worker ends its own sessions, with a reset at the local side and not a clean end; the sessions of the other
worker, the monitor and the vault go on; a new worker takes its place and serves.
"""

import ctypes
import os
import signal
import socket
import unittest

from harness import SystemTest, ct, wait_until
from traffic import Service

SESSIONS = 40


class WorkerKilled(SystemTest):
    def open_sessions(self, site, port, alice):
        sessions = []
        for _ in range(SESSIONS):
            session = site.connect(port, alice)
            self.addCleanup(session.close)
            session.send(b"hello")
            self.assertEqual(session.receive(), b"hello")
            sessions.append(session)
        return sessions

    @staticmethod
    def ended(session):
        session.sock.settimeout(0.1)
        try:
            return session.sock.recv(1) == b""
        except socket.timeout:
            return False
        except ConnectionResetError:
            return True

    def test_only_its_sessions_end(self):
        site = self.site("worker")
        alice = site.peer("alice")
        service = Service()
        self.addCleanup(service.close)
        port = site.listen("tunnel", ["alice"], service.where)
        site.start()
        sessions = self.open_sessions(site, port, alice)
        before = site.net_status()
        victim, other = sorted(before["workers"], key=lambda worker: worker["counters"]["tunnels"], reverse=True)
        self.assertEqual(victim["counters"]["tunnels"] + other["counters"]["tunnels"], SESSIONS)
        self.assertGreater(other["counters"]["tunnels"], 0, "all connections went to one worker")

        os.kill(victim["pid"], signal.SIGKILL)
        wait_until(lambda: sum(arrival.end != "open" for arrival in service.arrivals) >= victim["counters"]["tunnels"], 5,
                   "the dead worker's local connections end")
        dead = [session for session in sessions if self.ended(session)]
        alive = [session for session in sessions if session not in dead]
        self.assertEqual(len(dead), victim["counters"]["tunnels"])
        for session in alive:
            self.assert_echo(session)
        ends = [arrival.end for arrival in service.arrivals if arrival.end != "open"]
        self.assertEqual(ends, ["reset"] * len(dead), "a worker's death looked like a complete stream")

        wait_until(lambda: len(site.net_status()["workers"]) == 2 and victim["pid"] not in site.pids()["workers"], 5, "a new worker")
        after = site.net_status()
        self.assertEqual(after["monitor"]["pid"], before["monitor"]["pid"])
        self.assertIn(other["pid"], [worker["pid"] for worker in after["workers"]])
        self.assertEqual(sum(worker["restarts"] for worker in after["workers"]), 1)
        self.assertEqual({worker["verdict"] for worker in after["workers"]}, {victim["verdict"]})
        for session in self.open_sessions(site, port, alice):
            self.assert_echo(session)

    def test_killed_again_and_again(self):
        site = self.site("worker2")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        for _ in range(5):
            victim = site.pids()["workers"][0]
            os.kill(victim, signal.SIGKILL)

            def works():
                try:
                    with site.connect(port, alice, timeout=2) as session:
                        session.send(b"x")
                        return session.receive(2) == b"x"
                except (OSError, ct.Closed, TimeoutError):
                    return False
            wait_until(works, 10, "service after a killed worker")
        wait_until(lambda: len(site.net_status()["workers"]) == 2, 20, "both workers are back")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, to reach into a worker")
    def test_what_it_did_to_its_listeners_ends_with_it(self):
        """It shuts down every listener that it was lent, and so all copies of them: ports are bound again, inside the sandbox. Unix sockets
        are when netd owns their folder (see unprivileged_test.py); else the log says so."""
        site = self.site("worker3")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        wait_until(lambda: site.log().count(" ready pid=") == 2, 10, "both workers have their listeners")
        for victim in site.pids()["workers"]:
            self.assertGreaterEqual(shut_down_listeners(victim), 1)
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: site.log().count("starting it again") == 2 and site.log().count(" ready pid=") == 4, 10, "new workers")
        for _ in range(20):  # whichever worker they go to
            with site.connect(port, alice) as session:
                self.assert_echo(session)
        self.assertRegex(site.log(), "can't be bound again: .*/run/metrics.sock.*; restart netd")


def shut_down_listeners(pid):
    """As the process itself could. Returns how many there were."""
    pidfd_getfd = 438
    libc = ctypes.CDLL(None, use_errno=True)
    process, count = os.pidfd_open(pid), 0
    for entry in os.listdir(f"/proc/{pid}/fd"):
        if not os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
            continue
        copy = libc.syscall(pidfd_getfd, process, int(entry), 0)
        if copy < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with socket.socket(fileno=copy) as sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.shutdown(socket.SHUT_RDWR)
                count += 1
    os.close(process)
    return count


if __name__ == "__main__":
    unittest.main()
