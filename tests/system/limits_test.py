#!/usr/bin/python3
"""Goal: each configured limit holds, drops under its own name what is too much, and leaves what was there before untouched.
Method: real daemons with very small limits; one client more, one second longer, one handshake faster than allowed.
"""

import time
import unittest

from harness import SystemTest, ct, wait_until
from traffic import Service, reset


class Limits(SystemTest):
    def start(self, vault=None, **limits):
        site = self.site("limits", workers=1)
        site.limits.update(limits)
        site.vault.update(vault or {})
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo")
        return site

    def session(self, site):
        session = site.connect(self.port, self.alice)
        self.addCleanup(session.close)
        return session

    def test_one_connection_more_is_closed(self):
        site = self.start(connections=2).start()
        wait_until(lambda: site.counter("connections") == 0, 5, "the start's own connections are gone")
        before = site.drops()
        sessions = [self.session(site), self.session(site)]
        for session in sessions:
            self.assert_echo(session)
        with site.client(self.port, self.alice) as third:
            self.assert_closed_silently(third.sock)
        self.assert_dropped(site, before, ["connection_limit"])
        for session in sessions:
            self.assert_echo(session)
        sessions[0].close()
        wait_until(lambda: site.counter("connections") == 1, 5, "room again")
        self.assert_echo(self.session(site))

    def test_one_connection_more_of_a_source_is_closed(self):
        site = self.start(connections_per_source=1).start()
        wait_until(lambda: site.counter("connections") == 0, 5, "the start's own connections are gone")
        before = site.drops()
        session = self.session(site)
        with site.client(self.port, self.alice) as second:
            self.assert_closed_silently(second.sock)
        self.assert_dropped(site, before, ["source_limit"])
        self.assert_echo(session)

    def test_a_session_without_traffic_ends_and_a_busy_one_does_not(self):
        site = self.start(idle_timeout_s=1).start()
        before = site.drops()
        idle, busy = self.session(site), self.session(site)
        self.assert_echo(idle)
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            self.assert_echo(busy)
            time.sleep(0.2)
        self.assert_closed_silently(idle.sock)
        self.assertEqual(site.drops_since(before), {"idle_timeout": 1})
        self.assert_echo(busy)

    def test_handshakes_beyond_the_keys_rate_are_refused_and_the_next_second_has_its_own(self):
        site = self.start(vault={"handshakes_per_second": 5}).start()
        before = site.drops()
        refused = 0
        for _ in range(30):
            try:
                session = site.connect(self.port, self.alice)
                session.close()
            except (ct.Closed, ConnectionError, EOFError):
                refused += 1
        self.assertGreater(refused, 0)
        self.assert_dropped(site, before, ["rate_limited"])
        time.sleep(2)
        self.assert_echo(self.session(site))

    def test_a_service_that_resets_is_a_local_error_and_the_peer_sees_no_end(self):
        site = self.start()

        def refuse(sock, _arrival):
            sock.recv(1)
            reset(sock)

        service = Service(refuse)
        self.addCleanup(service.close)
        port = site.listen("tunnel", ["alice"], service.where)
        site.start()
        before = site.drops()
        with site.connect(port, self.alice) as session:
            session.send(b"hello")
            self.assert_closed_silently(session.sock)
        self.assert_dropped(site, before, ["local_error"])


if __name__ == "__main__":
    unittest.main()
