#!/usr/bin/python3
"""Goal: one deadline of 5 s covers the handshake from accept to a valid Initiate; sending a byte now and then doesn't extend it, and
it ends no finished session. A server that is silent is given up after the same time.
"""

import threading
import time
import unittest

from harness import Crowd, SystemTest, ct
from traffic import plain, read_all

DEADLINE_S = 5.0
SLACK_S = 3.0  # a busy machine may be late, never early by more than the first byte's travel


class Deadline(SystemTest):
    def test_dripping_does_not_extend_the_deadline(self):
        site = self.site("deadline")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        before = site.drops()
        lives, lock = {}, threading.Lock()

        def timed(name, send):
            client = site.client(port, alice)
            start = time.monotonic()
            stop = threading.Event()
            dripping = threading.Thread(target=send, args=(client, stop), daemon=True)
            dripping.start()
            data, end = b"", "open"
            while end == "open" and time.monotonic() - start < 12:
                more, end = ct.read_to_end(client.sock, 1)
                data += more
            stop.set()
            with lock:
                lives[name] = (time.monotonic() - start, len(data), end)
            dripping.join()
            client.close()

        def nothing(client, stop):
            stop.wait(15)

        def hello_drip(client, stop):
            ct.drip(client.sock, ct.frame(client.hello()), 0.3, stop)

        def length_only(client, stop):
            client.sock.sendall(b"\x00\x80")
            stop.wait(15)

        def hello_then_nothing(client, stop):
            client.send_hello()
            stop.wait(15)

        def initiate_drip(client, stop):
            client.send_hello()
            ct.drip(client.sock, b"\x00\xe0" + ct.INITIATE_MAGIC + bytes(216), 0.3, stop)

        def all_but_the_last_byte(client, stop):
            client.send_hello()
            client.sock.sendall(b"\x00\xe0" + ct.INITIATE_MAGIC + bytes(215))
            stop.wait(15)

        session = site.connect(port, alice)
        self.addCleanup(session.close)
        kinds = [nothing, hello_drip, length_only, hello_then_nothing, initiate_drip, all_but_the_last_byte]
        with Crowd() as crowd:
            for send in kinds:
                crowd.start(timed, send.__name__, send)
        self.assertEqual(crowd.errors, [])
        for name, (life, count, end) in lives.items():
            with self.subTest(name):
                self.assertIn(end, ("eof", "reset"))
                self.assertGreater(life, DEADLINE_S - 1)
                self.assertLess(life, DEADLINE_S + SLACK_S)
                self.assertLessEqual(count, 170)
        self.assertEqual(site.drops_since(before).get("handshake_timeout"), len(kinds))
        self.assert_echo(session)

    def test_the_deadline_is_configurable_and_holds_for_servers_too(self):
        site = self.site("deadline2")
        site.key("client")
        pair = ct.KeyPair()
        site.peer("server", pair.public)
        site.limits["handshake_timeout_ms"] = 1000
        stages = {
            "silent": lambda c: ct.read_to_end(c.sock, 20),
            "dripping": lambda c: (c.read_hello(), ct.drip(c.sock, ct.frame(c.cookie_packet()), 0.1)),
        }
        ports = {}
        for name, handler in stages.items():
            server = ct.Server(pair, None, handler=handler)
            self.addCleanup(server.close)
            ports[name] = site.connect_entry(name, server.address, "server")
        site.start()
        for name, port in ports.items():
            with self.subTest(name), plain(port) as sock:
                start = time.monotonic()
                self.assertEqual(read_all(sock, 10), (b"", "reset"))
                self.assertLess(time.monotonic() - start, 1 + SLACK_S)


if __name__ == "__main__":
    unittest.main()
