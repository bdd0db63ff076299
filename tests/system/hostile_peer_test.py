#!/usr/bin/python3
"""Goal: whatever a peer sends that curve_tun doesn't allow, the daemon closes that connection without a byte, counts it under a named
reason that `status` shows, and other sessions don't notice. Both ways: hostile clients at [[listen]], hostile servers at [[connect]].
"""

import json
import select
import threading
import unittest

from harness import SystemTest, ct
import hostile
from traffic import Service, plain, read_all


class HostileClients(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("hostile")
        cls.alice, cls.bob = site.peer("alice"), site.peer("bob")
        cls.service = Service(Service.swallow)
        cls.addClassCleanup(cls.service.close)
        cls.echo = site.listen("echo", ["alice"], "echo")
        cls.tunnel = site.listen("tunnel", ["alice"], cls.service.where)
        cls.channel = site.listen("channel", ["alice"], "channel")
        cls.ended = Service(cls.swallow_and_stay)
        cls.addClassCleanup(cls.ended.close)
        cls.ends = site.listen("ends", ["alice"], cls.ended.where)
        site.start()
        cls.bystander = site.connect(cls.echo, cls.alice)
        cls.addClassCleanup(cls.bystander.close)

    @staticmethod
    def swallow_and_stay(sock, arrival):
        """Gets a genuine end, and ends its own half only with the connection: otherwise its end may overtake the fault."""
        Service.swallow(sock, arrival)
        watch = select.poll()
        watch.register(sock, select.POLLHUP | select.POLLERR)
        watch.poll(5000)

    def play(self, port, case, pair=None):
        before = self.site.drops()
        with self.site.client(port, pair or self.alice) as client:
            answer, end = hostile.run(case, client)
        self.assertEqual(answer, b"")
        self.assertIn(end, ("eof", "reset"))
        self.assert_dropped(self.site, before, case.reasons)
        self.assert_echo(self.bystander)

    def test_every_fault_at_an_echo_entry(self):
        for case in hostile.CASES:
            with self.subTest(case.name):
                self.play(self.echo, case)

    def test_every_fault_at_a_tunnel_and_its_service_sees_no_byte(self):
        for case in hostile.CASES:
            with self.subTest(case.name):
                self.play(self.tunnel, case)
        self.assertEqual([bytes(a.data) for a in self.service.arrivals if a.data], [])

    def test_no_fault_gives_the_service_a_clean_end(self):
        for i, arrival in enumerate(self.service.arrivals):
            self.service.ended(i)
            self.assertEqual(arrival.end, "reset")

    def test_a_known_peer_that_this_entry_does_not_allow(self):
        self.play(self.echo, hostile.Case("bob", ["peer_not_allowed"], lambda c: c.handshake().send(b"let me in")), self.bob)

    def test_a_message_after_the_authenticated_end(self):
        def act(client):
            session = client.handshake()
            session.finish()
            session.send(b"one thing more")
        self.play(self.ends, hostile.Case("after the end", ["after_end"], act))
        self.assertEqual(bytes(self.ended.ended().data), b"")

    def test_the_status_command_names_the_reasons(self):
        self.play(self.echo, hostile.CASES[0])
        status = self.site.cli("status", "--json").stdout.decode()
        json.loads(status)
        for reason in hostile.CASES[0].reasons:
            self.assertIn(reason, status)

    def test_a_thousand_faulty_connections_leave_nothing_behind(self):
        for i in range(1000):
            with self.site.client(self.echo, self.alice) as client:
                client.send_raw(ct.frame(ct.flip(client.hello(), i % 128)) if i % 2 else b"\0\0")
                self.assert_closed_silently(client.sock)
        status = self.site.net_status()
        self.assertEqual(status["counters"]["half_open"], 0)
        self.assertEqual([worker["restarts"] for worker in status["workers"]], [0, 0])
        self.assert_echo(self.bystander)


class HostileServers(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("hostile-server")
        client = site.key("client")
        cls.pair = ct.KeyPair()
        site.peer("server", cls.pair.public)
        cls.good = ct.Server(cls.pair, {client})
        cls.bad = ct.Server(cls.pair, {client}, handler=cls.misbehave)
        cls.addClassCleanup(cls.good.close)
        cls.addClassCleanup(cls.bad.close)
        cls.good_port = site.connect_entry("good", cls.good.address, "server")
        cls.bad_port = site.connect_entry("bad", cls.bad.address, "server")
        site.start()
        cls.bystander = plain(cls.good_port)
        cls.addClassCleanup(cls.bystander.close)

    @classmethod
    def misbehave(cls, connection):
        try:
            cls.case.act(connection)
        except (BrokenPipeError, ConnectionResetError):
            pass
        cls.heard = ct.read_to_end(connection.sock, 8)
        cls.done.set()

    def test_every_fault(self):
        for case in hostile.SERVER_CASES:
            with self.subTest(case.name):
                HostileServers.case, HostileServers.done, HostileServers.heard = case, threading.Event(), None
                before = self.site.drops()
                with plain(self.bad_port) as sock:
                    data, end = read_all(sock, 10)
                    self.assertTrue(case.genuine.startswith(data), data)
                    self.assertEqual(end, "reset")
                self.assertTrue(self.done.wait(10), "our side didn't close")
                self.assertEqual(self.heard[0], b"", "the server got an answer to nonsense")
                self.assertIn(self.heard[1], ("eof", "reset"))
                self.assert_dropped(self.site, before, case.reasons)
                self.bystander.sendall(b"ping")
                self.assertEqual(self.bystander.recv(10), b"ping")


if __name__ == "__main__":
    unittest.main()
