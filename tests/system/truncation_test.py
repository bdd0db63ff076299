#!/usr/bin/python3
"""Goal: what an attacker in the middle does to the wire never looks like a complete stream. A FIN or RST injected, a bit turned over,
bytes cut out, doubled or swapped: both applications get a reset, and what they got before is a prefix of what was sent. Only the
authenticated end gives an end of file; half-close passes both ways; a local application that dies is no clean end either.
"""

import socket
import time
import unittest

from harness import Crowd, SystemTest
from traffic import Mitm, Service, patterned, plain, read_all, read_count, reset, sha256

SIZE = 300_000
AT = 100_000  # wire bytes before the attack


def at_offset(direction, change):
    """An attack on the piece in which wire byte AT of `direction` comes by; `change(data, i)` gets its place in the piece."""
    state = {"done": False}

    def attack(way, offset, data):
        if way == direction and not state["done"] and offset + len(data) > AT:
            state["done"] = True
            return change(data, max(0, AT - offset))
        return data
    return attack


ATTACKS = {
    "fin injected": lambda data, i: "fin",
    "rst injected": lambda data, i: "rst",
    "bit flipped": lambda data, i: data[:i] + bytes([data[i] ^ 1]) + data[i + 1:],
    "100 bytes cut out": lambda data, i: data[:i] + data[i + 100:],
    "a piece doubled": lambda data, i: data + data,
    "bytes inserted": lambda data, i: data[:i] + b"\0" * 34 + data[i:],
    "a piece zeroed": lambda data, i: bytes(len(data)),
}
REASONS = ["truncated", "transport_error", "bad_box", "bad_magic", "bad_length", "bad_counter"]


class Truncation(SystemTest):
    """plain client -> our [[connect]] -> attacker -> our [[listen]] -> service, one pair of daemons playing both hosts."""

    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("truncation")
        site.peer("client", site.key("client"))
        cls.services = {"swallow": Service(Service.swallow), "source": Service(cls.source), "digest": Service(cls.digest),
                        "echo": Service()}
        cls.mitms, cls.ports = {}, {}
        for name, service in cls.services.items():
            wire = site.listen(name, ["client"], service.where)
            cls.mitms[name] = Mitm(("127.0.0.1", wire))
        site.peer("server", site.publics["server"])
        for name, mitm in cls.mitms.items():
            cls.ports[name] = site.connect_entry(name, ("127.0.0.1", mitm.port), "server")
            cls.addClassCleanup(mitm.close)
            cls.addClassCleanup(cls.services[name].close)
        cls.data = patterned(SIZE)
        site.start()

    @staticmethod
    def source(sock, arrival):
        sock.sendall(Truncation.data)
        arrival.end = read_all(sock)[1]

    @staticmethod
    def digest(sock, arrival):
        data, arrival.end = read_all(sock)
        arrival.data += data
        if arrival.end == "eof":
            sock.sendall(sha256(data).encode())

    def tearDown(self):
        # What a test has cut must not be counted in the next one.
        deadline = time.monotonic() + 10
        while self.site.counter("connections") > 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        for mitm in self.mitms.values():
            mitm.attack = lambda direction, offset, data: data

    def test_attacks_on_the_way_up(self):
        for name, change in ATTACKS.items():
            with self.subTest(name):
                before, count = self.site.drops(), len(self.services["swallow"].arrivals)
                self.mitms["swallow"].attack = at_offset("up", change)
                with plain(self.ports["swallow"]) as sock:
                    try:
                        sock.sendall(self.data)
                    except OSError:
                        pass  # the reset was faster
                    end = read_all(sock, 10)[1]
                    self.assertEqual(end, "reset", "the client's application")
                arrival = self.services["swallow"].ended(count)
                self.assertEqual(arrival.end, "reset", "the service")
                self.assertTrue(self.data.startswith(bytes(arrival.data)), "wrong bytes were delivered")
                self.assertLess(len(arrival.data), SIZE)
                self.assert_dropped(self.site, before, REASONS)

    def test_attacks_on_the_way_down(self):
        for name, change in ATTACKS.items():
            with self.subTest(name):
                count = len(self.services["source"].arrivals)
                self.mitms["source"].attack = at_offset("down", change)
                with plain(self.ports["source"]) as sock:
                    data, end = read_all(sock, 10)
                self.assertEqual(end, "reset", "the client's application")
                self.assertTrue(self.data.startswith(data), "wrong bytes were delivered")
                self.assertLess(len(data), SIZE)
                self.assertEqual(self.services["source"].ended(count).end, "reset", "the service")

    def test_a_fin_on_an_idle_session(self):
        # Hello 130, Initiate 226, first message 134 bytes: strikes in place of what follows them.
        self.mitms["echo"].attack = lambda way, offset, data: "fin" if way == "up" and offset >= 490 else data
        count = len(self.services["echo"].arrivals)
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"x" * 100)
            self.assertEqual(read_count(sock, 100), b"x" * 100)
            sock.sendall(b"y" * 300)
            self.assertEqual(read_all(sock, 10)[1], "reset")
        self.assertEqual(self.services["echo"].ended(count).end, "reset")

    def test_the_genuine_end_is_an_end_of_file(self):
        before = self.site.drops()
        with plain(self.ports["digest"]) as sock:
            sock.sendall(self.data)
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(sock), (sha256(self.data).encode(), "eof"))
        # By its content: connections that another test has reset may still be arriving.
        ours = [arrival for arrival in self.services["digest"].arrivals if bytes(arrival.data) == self.data]
        self.assertEqual([arrival.end for arrival in ours], ["eof"])
        self.assertEqual(self.site.drops_since(before), {})

    def test_half_close_leaves_the_other_direction_open(self):
        with plain(self.ports["source"]) as sock:
            sock.shutdown(socket.SHUT_WR)
            data, end = read_all(sock)
        self.assertEqual((sha256(data), end), (sha256(self.data), "eof"))

    def test_a_client_application_that_dies_is_a_reset_at_the_service(self):
        count = len(self.services["swallow"].arrivals)
        sock = plain(self.ports["swallow"])
        sock.sendall(b"half of an order")
        self.services["swallow"].arrival(count)
        reset(sock)
        self.assertEqual(self.services["swallow"].ended(count).end, "reset")

    def test_a_service_that_dies_is_a_reset_at_the_client(self):
        def dies(sock, arrival):
            read_count(sock, 5)
            sock.sendall(b"half of an answer")
            reset(sock)
        self.services["echo"].handler = dies
        self.addCleanup(setattr, self.services["echo"], "handler", Service._echo)
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"hello")
            self.assertEqual(read_all(sock, 10)[1], "reset")

    def test_many_streams_end_each_in_its_own_way(self):
        with Crowd() as crowd:
            results = []

            def one(i):
                data = patterned(50_000 + i, i)
                with plain(self.ports["digest"]) as sock:
                    sock.sendall(data)
                    if i % 3 == 0:
                        reset(sock)
                        return
                    sock.shutdown(socket.SHUT_WR)
                    results.append(read_all(sock) == (sha256(data).encode(), "eof"))
            for i in range(60):
                crowd.start(one, i)
        self.assertEqual(crowd.errors, [])
        self.assertEqual(results, [True] * 40)


if __name__ == "__main__":
    unittest.main()
