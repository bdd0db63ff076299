#!/usr/bin/python3
"""Goal: the Python client and the Python server talk to each other, and the server refuses what it must refuse. This is the
instrument's own check: the hostile table that is used against our daemons is used against it first.
"""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import curvetun as ct  # noqa: E402
import hostile  # noqa: E402


class Pair(unittest.TestCase):
    def setUp(self):
        self.alice = ct.KeyPair()
        self.server = ct.Server(allow={self.alice.public})
        self.addCleanup(self.server.close)

    def connect(self):
        session = ct.connect(self.server.address, self.server.long_term.public, self.alice)
        self.addCleanup(session.close)
        return session

    def test_messages_of_many_sizes_come_back(self):
        session = self.connect()
        for size in (0, 1, 15, 16, 17, 1000, 65502, 65503):
            text = bytes(i & 0xFF for i in range(size))
            session.send(text)
            self.assertEqual(session.receive(), text)

    def test_the_server_refuses_every_hostile_thing(self):
        for case in hostile.CASES:
            with self.subTest(case.name):
                with ct.Client(self.server.address, self.server.long_term.public, self.alice, timeout=5) as client:
                    answer, end = hostile.run(case, client)
                    self.assertEqual(answer, b"")
                    self.assertIn(end, ("eof", "reset"))

    def test_a_replayed_session_is_refused(self):
        session = self.connect()
        session.send(b"pay 100")
        self.assertEqual(session.receive(), b"pay 100")
        with ct.Client(self.server.address, self.server.long_term.public, self.alice) as thief:
            thief.send_raw(b"".join(session.record))
            answer, end = ct.read_to_end(thief.sock)
        self.assertEqual(len(answer), 170)  # a cookie of its own, and nothing after it
        self.assertIn(end, ("eof", "reset"))

    def test_the_client_refuses_a_low_order_server_key(self):
        for key in ct.LOW_ORDER_KEYS:
            def handler(connection, key=key):
                connection.read_hello()
                connection.send_cookie(es_public=key)
                connection.read_initiate()
            with ct.Server(handler=handler) as server, self.assertRaises(ct.BadPeer):
                ct.connect(server.address, server.long_term.public, self.alice)


if __name__ == "__main__":
    unittest.main()
