#!/usr/bin/python3
"""Goal: SIGTERM drains: nothing new is accepted, streams on their way are carried to their end, then the daemons stop by themselves with
status 0; what has not ended by the drain time is cut off with a reset; nothing is left behind, and a second start works at once.
"""

import os
import signal
import socket
import threading
import time
import unittest

from harness import SystemTest, ct, is_alive, processes_of_session, wait_until
from traffic import Service, patterned, plain, read_all, read_count, sha256


class Drain(SystemTest):
    def start(self, drain_ms):
        self.host = site = self.site("drain")
        site.limits["drain_timeout_ms"] = drain_ms
        self.alice = site.peer("alice")
        site.peer("client", site.key("client"))
        self.service = Service()
        self.addCleanup(self.service.close)
        self.port = site.listen("tunnel", ["alice", "client"], self.service.where)
        site.peer("server", site.publics["server"])
        self.plain_port = site.connect_entry("tunnel", ("127.0.0.1", self.port), "server")
        site.start()
        return site

    def test_a_stream_on_its_way_is_finished(self):
        site = self.start(10_000)
        wire = site.connect(self.port, self.alice)
        local = plain(self.plain_port)
        self.addCleanup(wire.close)
        self.addCleanup(local.close)
        wire.send(b"first half, ")
        local.sendall(b"first half, ")
        self.assertEqual(wire.receive_bytes(12), b"first half, ")
        self.assertEqual(read_count(local, 12), b"first half, ")
        site.up.terminate()
        wait_until(lambda: not site._accepts(f"127.0.0.1:{self.port}"), 5, "nothing new is accepted")
        data = patterned(1_000_000)

        def send_all():
            for at in range(0, len(data), 50_000):
                wire.send(data[at:at + 50_000])
            wire.finish()
            local.sendall(b"second half")
            local.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=send_all)
        thread.start()
        self.assertEqual(sha256(wire.receive_stream()), sha256(data))
        self.assertEqual(read_all(local), (b"second half", "eof"))
        thread.join()
        self.assertEqual(site.up.wait(10), 0)
        self.assertEqual([a.end for a in self.service.arrivals], ["eof"] * len(self.service.arrivals))

    def test_what_does_not_end_is_cut_off(self):
        site = self.start(1000)
        wire = site.connect(self.port, self.alice)
        local = plain(self.plain_port)
        self.addCleanup(wire.close)
        self.addCleanup(local.close)
        self.assert_echo(wire)
        local.sendall(b"x")
        read_count(local, 1)
        start = time.monotonic()
        site.up.terminate()
        self.assertEqual(site.up.wait(10), 0)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(read_all(local, 5), (b"", "reset"))
        self.assertEqual(ct.read_to_end(wire.sock, 5)[0], b"")
        for i in range(len(self.service.arrivals)):
            self.assertEqual(self.service.ended(i).end, "reset")

    def test_idle_it_stops_at_once_and_starts_again(self):
        site = self.start(10_000)
        for stop in (signal.SIGTERM, signal.SIGINT):
            session = site.up.pid
            start = time.monotonic()
            site.up.send_signal(stop)
            self.assertEqual(site.up.wait(8), 0)
            self.assertLess(time.monotonic() - start, 5)
            wait_until(lambda: not processes_of_session(session), 5, "no process is left")
            site.processes.clear()
            site.start()
            with site.connect(self.port, self.alice) as again:
                self.assert_echo(again)

    def test_up_killed_leaves_no_orphan_that_holds_the_ports(self):
        """`kill -9` of `sallyport up` itself: its daemons end with it."""
        site = self.start(500)
        session = site.up.pid
        os.kill(site.up.pid, signal.SIGKILL)
        site.up.wait()
        wait_until(lambda: not processes_of_session(session), 10, "its daemons end")
        site.processes.clear()
        site.start()
        with site.connect(self.port, self.alice) as again:
            self.assert_echo(again)

    def test_a_killed_monitor_takes_its_workers_along_and_comes_back(self):
        site = self.start(500)
        before = site.pids()
        os.kill(before["monitor"], signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in before["workers"]), 10, "workers without a monitor end")

        def works():
            try:
                with site.connect(self.port, self.alice, timeout=2) as session:
                    session.send(b"x")
                    return session.receive(2) == b"x"
            except (OSError, ct.Closed, TimeoutError):
                return False
        wait_until(works, 10, "`up` started a new netd")
        self.assertEqual(site.pids()["vaultd"], before["vaultd"])

    def test_daemons_alone_end_on_sigterm(self):
        self.host = site = self.site("alone")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        vault, net = site.start_vaultd(), site.start_netd()
        with site.connect(port, alice) as session:
            self.assert_echo(session)
        for process in (net, vault):
            process.terminate()
            self.assertEqual(process.wait(10), 0)


if __name__ == "__main__":
    unittest.main()
