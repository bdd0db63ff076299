#!/usr/bin/python3
"""Goal: an independent curve_tun client works against our [[listen]] entries: echo, TCP and Unix services, message channels; every
size of message, bulk data in both directions, a service that speaks first, half-close, and any slicing of the bytes on the way.
"""

import pathlib
import socket
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
from harness import Crowd, SystemTest, ct, free_port, minicapnp, wait_until  # noqa: E402
from traffic import Service, answers_after_end, ends_first, patterned, read_all, sha256, speaks_first  # noqa: E402

SIZES = [0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1000, 1460, 4095, 4096, 16383, 16384, 16385, 32767, 32768,
         65000, 65471, 65472, 65501, 65502, 65503]
BULK_BYTES = 24 << 20


class ToListen(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("listen")
        cls.alice = site.peer("alice")
        cls.services = {"plain": Service(), "first": Service(speaks_first), "after": Service(answers_after_end),
                        "ends": Service(ends_first), "unix": Service(path=site.dir / "service.sock"), "six": Service(host="::1")}
        cls.ports = {name: site.listen(name, ["alice"], service.where) for name, service in cls.services.items()}
        cls.ports["echo"] = site.listen("echo", ["alice"], "echo")
        cls.ports["channel"] = site.listen("channel", ["alice"], "channel")
        cls.six = free_port("::1")
        site.listen("echo6", ["alice"], "echo", address=f"[::1]:{cls.six}")
        for service in cls.services.values():
            cls.addClassCleanup(service.close)
        site.start()

    def open(self, entry):
        session = self.site.connect(self.ports[entry], self.alice)
        self.addCleanup(session.close)
        return session

    def test_echo_returns_every_size_as_it_came(self):
        session = self.open("echo")
        for size in SIZES:
            text = patterned(size, size)
            session.send(text)
            self.assertEqual(session.receive(), text, f"size {size}")

    def test_echo_keeps_order_of_many_messages_in_flight(self):
        session = self.open("echo")
        texts = [patterned(i * 37 % 3000, i) for i in range(300)]
        session.send_many(texts)
        for text in texts:
            self.assertEqual(session.receive(), text)

    def test_messages_right_behind_the_initiate(self):
        client = self.site.client(self.ports["echo"], self.alice)
        self.addCleanup(client.close)
        client.send_hello()
        client.read_cookie()
        session = client.session()
        client.send_raw(ct.frame(client.initiate()) + session.seal_next(b"early") + session.seal_next(b"bird"))
        self.assertEqual([session.receive(), session.receive()], [b"early", b"bird"])

    def test_bytes_one_by_one(self):
        client = self.site.client(self.ports["echo"], self.alice)
        self.addCleanup(client.close)
        ct.drip(client.sock, ct.frame(client.hello()), 0)
        client.read_cookie()
        session = client.session()
        ct.drip(client.sock, ct.frame(client.initiate()) + session.seal_next(b"slowly"), 0)
        self.assertEqual(session.receive(), b"slowly")

    def test_over_ipv6(self):
        with ct.connect(("::1", self.six), self.site.publics["server"], self.alice) as session:
            self.assert_echo(session)

    def test_every_size_through_a_tunnel(self):
        session = self.open("plain")
        for size in SIZES[1:]:
            text = patterned(size, size)
            session.send(text)
            self.assertEqual(session.receive_bytes(size), text, f"size {size}")

    def test_bulk_both_ways_at_once(self):
        session = self.open("plain")
        data = patterned(BULK_BYTES)
        with Crowd() as crowd:
            def send():
                for at in range(0, len(data), 65503):
                    session.send(data[at:at + 65503])
                session.finish()
            crowd.start(send)
            received = session.receive_stream()
        self.assertEqual(crowd.errors, [])
        self.assertEqual(sha256(received), sha256(data))

    def test_bulk_in_small_messages(self):
        session = self.open("after")
        data = patterned(1 << 20)
        for at in range(0, len(data), 10000):
            session.send_many(data[i:min(i + 100, at + 10000)] for i in range(at, min(at + 10000, len(data)), 100))
        session.finish()
        self.assertEqual(session.receive_stream(), sha256(data).encode())

    def test_service_speaks_first(self):
        session = self.open("first")
        self.assertEqual(session.receive(), b"220 welcome\r\n")
        session.send(b"HELO")
        self.assertEqual(session.receive_bytes(4), b"HELO")

    def test_half_close_by_the_client(self):
        session = self.open("after")
        session.send(b"request")
        session.finish()
        self.assertEqual(session.receive_stream(), sha256(b"request").encode())
        self.assertEqual(ct.read_to_end(session.sock)[0], b"")

    def test_half_close_by_the_service(self):
        count = len(self.services["ends"].arrivals)
        session = self.open("ends")
        self.assertEqual(session.receive_stream(), b"all I have to say")
        session.send(b"thanks")
        session.finish()
        arrival = self.services["ends"].ended(count)
        self.assertEqual((bytes(arrival.data), arrival.end), (b"thanks", "eof"))

    def test_services_on_unix_sockets_and_ipv6(self):
        for name in ("unix", "six"):
            session = self.open(name)
            data = patterned(300_000)
            for at in range(0, len(data), 50_000):
                session.send(data[at:at + 50_000])
            self.assertEqual(session.receive_bytes(len(data)), data)

    def test_a_slow_reader_stops_the_sender_and_loses_nothing(self):
        """Back-pressure from end to end: the daemon may not hold what nobody takes."""
        taken = []

        def slow(sock, arrival):
            time.sleep(1.5)
            taken.append(read_all(sock)[0])

        service = Service(slow)
        self.addCleanup(service.close)
        # Before a connection exists: a window that shrinks below what was promised makes TCP itself crawl, by its probe timer.
        service.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        site = self.site
        port = site.listen("slow", ["alice"], service.where)
        site.reload()
        wait_until(lambda: site._accepts(f"127.0.0.1:{port}"), 5, "the new entry listens")
        session = site.connect(port, self.alice)
        self.addCleanup(session.close)
        data = patterned(BULK_BYTES)
        start = time.monotonic()
        for at in range(0, len(data), 65000):
            session.send(data[at:at + 65000])
        self.assertGreater(time.monotonic() - start, 0.5, "24 MiB vanished into the daemon while nobody read")
        session.finish()
        session.receive_stream()
        wait_until(lambda: taken, 20, "the slow service got all")
        self.assertEqual(sha256(taken[0]), sha256(data))

    def test_a_hundred_at_once(self):
        sessions = [self.open("plain") for _ in range(100)]
        for i, session in enumerate(sessions):
            session.send(b"%d" % i * 100)
        for i, session in enumerate(sessions):
            self.assertEqual(session.receive_bytes(len(b"%d" % i * 100)), b"%d" % i * 100)

    def test_message_channel(self):
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            texts = [patterned(size, size) for size in SIZES]
            session.send_many(texts)
            channel, peer, key, address = listener.accept()
            self.assertEqual((peer, key), ("alice", self.alice.public))
            self.assertTrue(address.startswith("127.0.0.1:"), address)
            self.assertEqual(channel.receive_all(len(texts)), texts)
            for batch in (texts[:10], texts[10:]):
                channel.send(batch)
            self.assertEqual([session.receive() for _ in texts], texts)
            channel.close()
            self.assertEqual(ct.read_to_end(session.sock)[0], b"")

    def test_plain_reads_after_the_wire_closed_are_complete(self):
        """The service closes at once after its last byte; nothing of it may be lost."""
        data = patterned(2_000_000)

        def burst(sock, arrival):
            sock.sendall(data)

        service = Service(burst)
        self.addCleanup(service.close)
        port = self.site.listen("burst", ["alice"], service.where)
        self.site.reload()
        wait_until(lambda: self.site._accepts(f"127.0.0.1:{port}"), 5, "the new entry listens")
        for _ in range(5):
            with self.site.connect(port, self.alice) as session:
                self.assertEqual(sha256(session.receive_stream()), sha256(data))


if __name__ == "__main__":
    unittest.main()
