#!/usr/bin/python3
"""Goal: our [[connect]] entries work against an independent curve_tun server that allows nothing but the exact protocol: plain TCP and
Unix clients, message channels and `sallyport pipe`, bulk data, a server that speaks first, half-close; and a server that refuses or
isn't there shows as a reset, never as an empty success.
"""

import pathlib
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
from harness import Crowd, SystemTest, binary, ct, free_port, minicapnp, wait_until  # noqa: E402
from traffic import acknowledged, patterned, plain, read_all, read_count, sha256  # noqa: E402

BULK_BYTES = 24 << 20


def stream_echo(session):
    """Returns the bytes and, after the authenticated end, its own."""
    while text := session.receive(30):
        session.send(text)
    session.finish()
    ct.read_to_end(session.sock, 5)


def message_echo(session):
    while True:
        session.send(session.receive(60))


def digest(session):
    session.send(sha256(session.receive_stream()).encode())
    session.finish()
    ct.read_to_end(session.sock, 5)


def greets(session):
    session.send(b"220 welcome\r\n")
    stream_echo(session)


def ends_first(session):
    session.send(b"all I have to say")
    session.finish()
    session.record.append(session.receive_stream())


def source(session):
    data = patterned(BULK_BYTES)
    for at in range(0, len(data), 65503):
        session.send(data[at:at + 65503])
    session.finish()
    session.receive_stream()


class FromConnect(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("connect")
        client = site.key("client")
        cls.server_key = ct.KeyPair()
        site.peer("server", cls.server_key.public)
        cls.servers, cls.ports = {}, {}
        for name, serve in (("echo", stream_echo), ("messages", message_echo), ("digest", digest), ("greets", greets),
                            ("ends", ends_first), ("source", source)):
            cls.servers[name] = ct.Server(cls.server_key, {client}, serve)
            cls.ports[name] = site.connect_entry(name, cls.servers[name].address, "server")
        cls.servers["refuses"] = ct.Server(cls.server_key, set())
        cls.servers["stranger"] = ct.Server(ct.KeyPair(), None)
        cls.servers["silent"] = ct.Server(cls.server_key, None, handler=lambda connection: ct.read_to_end(connection.sock, 30))
        for name in ("refuses", "stranger", "silent"):
            cls.ports[name] = site.connect_entry(name, cls.servers[name].address, "server")
        cls.ports["nobody"] = site.connect_entry("nobody", ("127.0.0.1", free_port()), "server")
        cls.ports["unix"] = site.connect_entry("unix", cls.servers["echo"].address, "server", listen=f"unix:{site.dir}/plain.sock")
        for server in cls.servers.values():
            cls.addClassCleanup(server.close)
        site.start()

    def open(self, name):
        address = self.ports[name]
        sock = plain(address.removeprefix("unix:") if isinstance(address, str) else address)
        self.addCleanup(sock.close)
        return sock

    def no_errors(self, name):
        """The strict server had nothing to object to."""
        self.assertEqual([e for e in self.servers[name].errors if isinstance(e, ct.BadPeer)], [])

    def test_bytes_come_back(self):
        sock = self.open("echo")
        for size in (1, 2, 16, 100, 1459, 1460, 1461, 65502, 65503, 65504, 131006, 131007, 500_000):
            data = patterned(size, size)
            with Crowd() as crowd:
                crowd.start(sock.sendall, data)
                self.assertEqual(read_count(sock, size), data)
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(sock), (b"", "eof"))
        self.no_errors("echo")

    def test_bulk_up(self):
        sock = self.open("digest")
        data = patterned(BULK_BYTES)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(sock), (sha256(data).encode(), "eof"))
        self.no_errors("digest")

    def test_bulk_down(self):
        sock = self.open("source")
        data, end = read_all(sock)
        self.assertEqual((sha256(data), end), (sha256(patterned(BULK_BYTES)), "eof"))

    def test_server_speaks_first(self):
        sock = self.open("greets")
        self.assertEqual(read_count(sock, 13), b"220 welcome\r\n")
        sock.sendall(b"HELO")
        self.assertEqual(read_count(sock, 4), b"HELO")

    def test_server_ends_first_and_still_gets_the_rest(self):
        sock = self.open("ends")
        self.assertEqual(read_all(sock), (b"all I have to say", "eof"))
        sock.sendall(b"thanks")
        sock.shutdown(socket.SHUT_WR)
        self.no_errors("ends")

    def test_an_end_without_a_byte(self):
        sock = self.open("digest")
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(sock), (sha256(b"").encode(), "eof"))

    def test_unix_plain_side(self):
        sock = self.open("unix")
        sock.sendall(b"over a path")
        self.assertEqual(read_count(sock, 11), b"over a path")

    def test_a_hundred_at_once_with_keys_of_their_own(self):
        socks = [self.open("echo") for _ in range(100)]
        for i, sock in enumerate(socks):
            sock.sendall(b"%03d" % i)
        for i, sock in enumerate(socks):
            self.assertEqual(read_count(sock, 3), b"%03d" % i)
        self.no_errors("echo")

    def test_failures_are_resets(self):
        for name in ("refuses", "stranger", "nobody"):
            with self.subTest(name):
                before = self.site.drops()
                sock = self.open(name)
                data, end = read_all(sock, 10)
                self.assertEqual((data, end), (b"", "reset"))
                self.assert_dropped(self.site, before, {"refuses": ["closed_in_handshake", "truncated", "transport_error"],
                                                        "stranger": ["closed_in_handshake"],
                                                        "nobody": ["target_unavailable"]}[name])

    def test_a_silent_server_is_given_up_within_the_deadline(self):
        before = self.site.drops()
        self.assertEqual(read_all(self.open("silent"), 8), (b"", "reset"))
        self.assert_dropped(self.site, before, ["handshake_timeout"])

    def test_channel(self):
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            channel = network.connect("messages")
            texts = [patterned(size, size) for size in (0, 1, 16, 1000, 65502, 65503, 0, 5)]
            channel.send(texts)
            self.assertEqual(channel.receive_all(len(texts)), texts)
            self.assertEqual(channel.receive(timeout_ms=50), ([], minicapnp.OPEN, ""))
            with self.assertRaises(minicapnp.Refused) as refused:
                channel.send([b"fits", bytes(65504)])
            self.assertEqual(str(refused.exception), "tooBig")
            channel.send([b"and nothing of that call was sent"])
            self.assertEqual(channel.receive_all(1), [b"and nothing of that call was sent"])
            channel.close()

    def test_what_arrived_before_a_failed_send_is_still_received(self):
        """A server that leaves without waiting: what is sent to it then fails, and takes no message that had arrived with it."""
        arrived = []

        def leaves(session):
            """Goes when our kernel holds all that it takes of messages that nobody receives."""
            count, deadline = 0, time.monotonic() + 10
            while time.monotonic() < deadline:
                session.send_many(patterned(4096, number) for number in range(count, count + 16))
                if not acknowledged(session.sock):
                    break
                count += 16
            arrived.append(count)

        with ct.Server(self.server_key, {self.site.publics["client"]}, leaves) as server:
            self.site.connect_entry("leaves", server.address, "server", listen=False)
            self.site.reload()
            with minicapnp.Network(self.site.dir / "run/net.sock") as network:
                channel = network.connect("leaves")
                wait_until(lambda: arrived, 15, "the server has gone")
                with self.assertRaises(BrokenPipeError) as broken:
                    for _ in range(50):
                        channel.send([b"anybody?"])
                        time.sleep(0.05)
                self.assertEqual(str(broken.exception), "transport_error")
                received, end = [], minicapnp.OPEN
                while end == minicapnp.OPEN:
                    more, end, reason = channel.receive()
                    received += more
                self.assertGreater(arrived[0] * 4096, 1 << 20, "all of it fitted into the channel: nothing was tested")
                self.assertGreaterEqual(len(received), arrived[0])
                self.assertEqual(received, [patterned(4096, number) for number in range(len(received))])
                self.assertEqual((end, reason), (minicapnp.BROKEN, "transport_error"))
                with self.assertRaises(BrokenPipeError):
                    channel.send([b"still nobody?"])

    def test_a_send_that_waits_is_answered_when_the_server_resets(self):
        full = threading.Event()

        def resets(session):
            session.send_many(b"%d" % number for number in range(100))
            self.assertTrue(acknowledged(session.sock))
            full.wait(20)
            session.sock.close()  # with bytes unread

        with ct.Server(self.server_key, {self.site.publics["client"]}, resets) as server:
            self.site.connect_entry("resets", server.address, "server", listen=False)
            self.site.reload()
            with minicapnp.Network(self.site.dir / "run/net.sock") as network:
                channel = network.connect("resets")
                question = None
                with self.assertRaises(TimeoutError):
                    for _ in range(50):
                        question = channel.start_send([bytes(65503)] * 30)
                        channel.sent(network.rpc.wait(question, 0.5))
                behind = channel.start_send([b"one more"])
                full.set()
                for waiting in (question, behind):
                    with self.assertRaises(BrokenPipeError) as broken:
                        channel.sent(network.rpc.wait(waiting, 10))
                    self.assertEqual(str(broken.exception), "transport_error")
                self.assertEqual(channel.receive_all(100), [b"%d" % number for number in range(100)])
                self.assertEqual(channel.receive(), ([], minicapnp.BROKEN, "transport_error"))

    def test_channel_refusals(self):
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            for name, reason in (("nosuch", "unknownName"), ("nobody", "unreachable"), ("stranger", "handshakeFailed")):
                with self.subTest(name), self.assertRaises(minicapnp.Refused) as refused:
                    network.connect(name)
                self.assertEqual(str(refused.exception), reason)

    def test_pipe(self):
        data = patterned(3_000_000)
        done = self.site.cli("pipe", "echo", stdin=data)
        self.assertEqual(sha256(done.stdout), sha256(data))
        self.no_errors("echo")

    def test_pipe_fails_when_the_server_refuses(self):
        for name in ("refuses", "nobody", "stranger"):
            done = self.site.cli("pipe", name, stdin=b"x", check=False)
            self.assertEqual((done.returncode, done.stdout), (1, b""), name)
            self.assertTrue(done.stderr.startswith(b"sallyport: error: "), done.stderr)

    def test_pipe_waits_for_an_answer_that_comes_after_the_end(self):
        done = self.site.cli("pipe", "digest", stdin=b"abc")
        self.assertEqual(done.stdout, sha256(b"abc").encode())

    def test_pipe_messages(self):
        texts = [b"", b"one", patterned(65503), b"", b"last"]
        framed = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
        pipe = subprocess.Popen([binary("sallyport"), "pipe", "messages", "--messages", "-c", str(self.site.config)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(pipe.kill)
        pipe.stdin.write(framed)
        pipe.stdin.flush()
        self.assertEqual(pipe.stdout.read(len(framed)), framed)
        pipe.stdin.close()
        pipe.wait(10)
        pipe.stdout.close()


if __name__ == "__main__":
    unittest.main()
