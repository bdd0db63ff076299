#!/usr/bin/python3
"""Goal: a recorded session is worth nothing. Its bytes on a new connection, while the original lives and after it, with the recorded
Hello or a fresh one, in pieces or at once: the service sees no byte, the reason is counted. The same for a recorded server.
"""

import unittest

from harness import SystemTest, ct
from traffic import Mitm, Service, plain, read_all

ORDER = b"pay 100 to mallory"


class Replay(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("replay")
        cls.alice = site.peer("alice")
        cls.service = Service(Service.swallow)
        cls.addClassCleanup(cls.service.close)
        cls.port = site.listen("orders", ["alice"], cls.service.where)
        cls.echo = site.listen("echo", ["alice"], "echo")
        site.peer("itself", site.publics["server"])
        cls.mitm = Mitm(("127.0.0.1", cls.echo))
        cls.addClassCleanup(cls.mitm.close)
        site.start()

    def replay(self, pieces, wait_for_cookie):
        """A new connection with recorded pieces; returns the bytes it got."""
        sock = plain(self.port)
        got = b""
        try:
            sock.sendall(pieces[0])
            if wait_for_cookie:
                got += ct.frame(ct.read_packet(sock))
            for piece in pieces[1:]:
                sock.sendall(piece)
        except OSError:
            pass
        more, end = ct.read_to_end(sock, 8)
        sock.close()
        self.assertIn(end, ("eof", "reset"))
        return got + more

    def try_all(self, record):
        # bytes after the service's connection opened would show as a second arrival with data
        for wait in (True, False):
            before = self.site.drops()
            answer = self.replay(record, wait)
            self.assertLessEqual(len(answer), 170, "more than a cookie came back")
            self.assert_dropped(self.site, before, ["unknown_cookie"])
        # with a Hello of the thief's own, and with a Hello under a key that the thief knows
        thief = self.site.client(self.port, self.alice)
        thief.send_hello()
        thief.read_cookie()
        thief.send_raw(b"".join(record[1:]))
        self.assert_closed_silently(thief.sock)
        thief.close()
        # without a Hello
        self.assertEqual(self.replay(record[1:], False), b"")

    def orders(self):
        return [bytes(arrival.data) for arrival in self.service.arrivals if arrival.data]

    def test_while_the_original_is_open_and_after(self):
        with self.site.connect(self.port, self.alice) as session:
            session.send(ORDER)
            self.service.arrival(0)
            record = list(session.record)
            self.assertEqual(len(record), 3)  # hello, initiate, message
            self.try_all(record)
            session.send(b", please")
            session.finish()
            self.assertEqual(session.receive_stream(), b"")
        self.try_all(record)
        self.assertEqual(self.orders(), [ORDER + b", please"])

    def test_fifty_replays_at_once(self):
        with self.site.connect(self.echo, self.alice) as session:
            self.assert_echo(session)
            record = b"".join(session.record)
            thieves = [plain(self.echo) for _ in range(50)]
            for thief in thieves:
                thief.sendall(record)
            for thief in thieves:
                self.assertLessEqual(len(ct.read_to_end(thief, 8)[0]), 170)
                thief.close()
            self.assert_echo(session)

    def test_a_recorded_server_session(self):
        """What a genuine server once said, said again to our [[connect]] side."""
        site = self.site
        with ct.connect(("127.0.0.1", self.mitm.port), site.publics["server"], self.alice) as session:
            self.assert_echo(session, ORDER)
        recorded = bytes(self.mitm.recorded["down"])
        self.assertEqual(len(recorded), 170 + 34 + len(ORDER))

        def parrot(connection):
            ct.read_packet(connection.sock)
            connection.sock.sendall(recorded)
            ct.read_to_end(connection.sock, 8)

        with ct.Server(handler=parrot) as server:
            port = site.connect_entry("parrot", server.address, "itself")
            site.cli("check")
            # the key of this entry is new, so the vault has to be started again to know it
            site.stop_daemons()
            site.start()
            before = site.drops()
            with plain(port) as sock:
                self.assertEqual(read_all(sock, 8), (b"", "reset"))
            self.assert_dropped(site, before, ["bad_box"])


if __name__ == "__main__":
    unittest.main()
