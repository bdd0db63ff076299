#!/usr/bin/python3
"""Goal: our [[connect]] entries work against the original curve_tun as a server: plain TCP clients, message channels and `sallyport pipe`;
every size of message, thousands in both directions at once, a server that speaks first or takes its time, half-close, a hundred at once;
and a server that refuses, is another, never answers, closes without the authenticated end or is killed shows as a reset.

Runs by hand, where the original is at hand: original.py. SALLYPORT_FULL=1 adds minutes of silence, over several minute keys.
"""

import pathlib
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
import original  # noqa: E402
from harness import Crowd, SystemTest, binary, ct, free_port, full_run, minicapnp  # noqa: E402
from original import MIXED, SIZES, THOUSANDS  # noqa: E402
from traffic import patterned, plain, read_all, read_count, reset, sha256  # noqa: E402


class OriginalServer(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.original = original.Original()
        cls.addClassCleanup(cls.original.close)
        cls.listener = cls.original.listen(free_port())
        cls.site = site = cls.class_site("original")
        cls.client = site.key("client")
        site.peer("erlang", cls.original.public)
        site.peer("stranger")
        cls.port = site.connect_entry("plain", cls.listener.address, "erlang")
        site.connect_entry("channel", cls.listener.address, "erlang", listen=False)
        cls.wrong = site.connect_entry("wrong", cls.listener.address, "stranger")
        cls.victim = original.Original()
        cls.addClassCleanup(cls.victim.close)
        cls.victim_listener = cls.victim.listen(free_port())
        cls.victim_port = site.connect_entry("victim", cls.victim_listener.address, "erlang")
        for server in (cls.original, cls.victim):
            server.allow(cls.client)
        site.start()

    def open(self, port=None, listener=None):
        """A plain client, and the original's end of it."""
        session, accepted = (listener or self.listener).start_accept()
        sock = plain(port or self.port)
        self.addCleanup(sock.close)
        accepted.result(20)
        return sock, session

    def open_channel(self, network):
        session, accepted = self.listener.start_accept()
        channel = network.connect("channel")
        accepted.result(20)
        return channel, session

    def network(self):
        network = minicapnp.Network(self.site.dir / "run/net.sock")
        self.addCleanup(network.close)
        return network

    # -- what works

    def test_a_channel_carries_every_size(self):
        channel, session = self.open_channel(self.network())
        texts = [original.message(1, size, size) for size in SIZES]
        channel.send(texts)
        self.assertEqual([session.receive() for _ in texts], texts)
        session.send(*texts)
        self.assertEqual(channel.receive_all(len(texts)), texts)
        with self.assertRaises(minicapnp.Refused):
            channel.send([b"fits", bytes(65504)])
        channel.send([b"and nothing of that call was sent"])
        self.assertEqual(session.receive(), b"and nothing of that call was sent")
        channel.close()
        self.assertEqual(session.ended(), "closed")

    def test_thousands_both_ways_at_once_in_a_channel(self):
        network = self.network()
        channel, session = self.open_channel(network)
        self.assertEqual(*original.thousands_both_ways(network, channel, session))
        session.close()
        self.assertEqual(channel.receive()[0], [])

    def test_every_size_through_a_tunnel(self):
        sock, session = self.open()
        for size in (1, 2, 16, 63, 64, 4096, 65502, 65503, 65504, 131006, 131007, 500_000):
            data = patterned(size, size)
            received = session.bytes(size)
            sock.sendall(data)
            self.assertEqual(received.result(20)[0].lower(), sha256(data), f"size {size}")
        for size in SIZES[1:]:
            text = original.message(1, size, size)
            session.send(text)
            self.assertEqual(read_count(sock, size), text, f"size {size}")

    def test_thousands_both_ways_at_once_through_a_tunnel(self):
        sock, session = self.open()
        data = patterned(24 << 20)
        received, sent = session.bytes(len(data)), session.flood(THOUSANDS, 1, MIXED)
        expected = b"".join(original.messages(THOUSANDS, 1, MIXED))
        with Crowd() as crowd:
            crowd.start(sock.sendall, data)
            self.assertEqual(sha256(read_count(sock, len(expected), 60)), sha256(expected))
        self.assertEqual(crowd.errors, [])
        self.assertEqual(received.result(60)[0].lower(), sha256(data))
        sent.result(10)

    def test_it_speaks_first(self):
        sock, session = self.open()
        session.send(b"220 welcome\r\n")
        self.assertEqual(read_count(sock, 13), b"220 welcome\r\n")
        sock.sendall(b"HELO")
        self.assertEqual(session.receive(), b"HELO")

    def test_half_close_by_our_side(self):
        sock, session = self.open()
        sock.sendall(b"request")
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(session.stream(), (7, sha256(b"request")))
        session.send(b"answer", b"")
        self.assertEqual(read_all(sock), (b"answer", "eof"))
        self.assertEqual(session.ended(), "closed")

    def test_half_close_by_the_original(self):
        sock, session = self.open()
        session.send(b"all I have to say", b"")
        self.assertEqual(read_all(sock), (b"all I have to say", "eof"))
        sock.sendall(b"thanks")
        sock.shutdown(socket.SHUT_WR)
        self.assertEqual(session.stream(), (6, sha256(b"thanks")))
        self.assertEqual(session.ended(), "closed")

    def test_pipe(self):
        session, accepted = self.listener.start_accept()
        data = patterned(3_000_000)
        pipe = subprocess.Popen([binary("sallyport"), "pipe", "channel", "-c", str(self.site.config)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
        self.addCleanup(pipe.kill)
        accepted.result(20)
        with Crowd() as crowd:
            crowd.start(lambda: (pipe.stdin.write(data), pipe.stdin.close()))
            self.assertEqual(session.stream(), (len(data), sha256(data)))
        session.send(b"got it", b"")
        self.assertEqual(pipe.stdout.read(), b"got it")
        self.assertEqual(pipe.wait(10), 0)
        pipe.stdout.close()

    def test_pipe_messages(self):
        session, accepted = self.listener.start_accept()
        texts = [original.message(1, number, size) for number, size in enumerate(SIZES)]
        framed = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
        pipe = subprocess.Popen([binary("sallyport"), "pipe", "channel", "--messages", "-c", str(self.site.config)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(pipe.kill)
        accepted.result(20)
        echoed = session.echo(len(texts))
        pipe.stdin.write(framed)
        pipe.stdin.flush()
        self.assertEqual(pipe.stdout.read(len(framed)), framed)
        echoed.result(10)
        pipe.stdin.close()
        pipe.wait(10)
        pipe.stdout.close()

    def test_a_hundred_at_once(self):
        accepts = [self.listener.start_accept() for _ in range(100)]
        socks = [plain(self.port) for _ in accepts]
        echoes = []
        for session, accepted in accepts:
            accepted.result(30)
            echoes.append(session.echo(1))
        for number, sock in enumerate(socks):
            sock.sendall(b"%03d" % number)
        for number, sock in enumerate(socks):
            self.assertEqual(read_count(sock, 3), b"%03d" % number)
            sock.close()
        for echo in echoes:
            echo.result(10)

    def test_it_takes_its_time(self):
        """Our Hello lies there for three seconds before its program calls accept."""
        sock = plain(self.port)
        self.addCleanup(sock.close)
        sock.sendall(b"patience")
        time.sleep(3)
        session = self.listener.accept()
        self.assertEqual(session.receive(), b"patience")

    def test_it_reads_slowly(self):
        sock, session = self.open()
        data = patterned(24 << 20)
        with Crowd() as crowd:
            crowd.start(sock.sendall, data)
            time.sleep(3)
            self.assertTrue(crowd.threads[0].is_alive(), "24 MiB vanished into the daemon while nobody read")
            self.assertEqual(session.bytes(len(data)).result(60)[0].lower(), sha256(data))
        self.assertEqual(crowd.errors, [])

    def test_much_then_the_end_and_a_close_at_once(self):
        """The authenticated end makes it whole, also for a client that takes its time. It sends nothing."""
        sock, session = self.open()
        sent = session.flood(300, 8, MIXED)
        time.sleep(1.5)
        received = [sock.recv(100_000)]
        with Crowd() as crowd:
            crowd.start(lambda: (sent.result(30), session.send(b""), session.close()))
            time.sleep(0.5)
            data, end = read_all(sock)
        self.assertEqual(crowd.errors, [])
        self.assertEqual((sha256(b"".join(received) + data), end), (sha256(b"".join(original.messages(300, 8, MIXED))), "eof"))

    def test_we_close_behind_much(self):
        """The original reads some seconds later, and gets all: of a program, and of a plain client."""
        channel, session = self.open_channel(self.network())
        texts = original.messages(100, 9, MIXED)
        for at in range(0, len(texts), 20):
            channel.send(texts[at:at + 20])
        channel.close()
        sock, other = self.open()
        sock.sendall(b"".join(texts))
        sock.close()
        time.sleep(4)
        session.drain(100, 9, MIXED).result(30)
        self.assertEqual(session.ended(), "closed")
        self.assertEqual(other.stream(), (len(b"".join(texts)), sha256(b"".join(texts))))

    @unittest.skipUnless(full_run("SALLYPORT_ORIGINAL_IDLE_S", 0, 200), "minutes of silence: SALLYPORT_FULL=1")
    def test_minutes_of_silence(self):
        sock, session = self.open()
        end = time.monotonic() + full_run("SALLYPORT_ORIGINAL_IDLE_S", 0, 200)
        while time.monotonic() < end:
            fresh, other = self.open()
            fresh.sendall(b"fresh")
            self.assertEqual(other.receive(), b"fresh")
            fresh.close()
            time.sleep(5)
        sock.sendall(b"still there")
        self.assertEqual(session.receive(), b"still there")
        session.send(b"yes")
        self.assertEqual(read_count(sock, 3), b"yes")

    # -- what isn't an end, and what must not work

    def test_a_close_without_the_end_is_a_reset(self):
        before = self.site.drops()
        sock, session = self.open()
        session.send(b"half of an answer")
        session.close()
        self.assertEqual(read_all(sock), (b"half of an answer", "reset"))
        self.assert_dropped(self.site, before, ["truncated"])

    def test_a_plain_client_that_dies_is_no_end(self):
        sock, session = self.open()
        sock.sendall(b"half of an order")
        self.assertEqual(session.receive(), b"half of an order")
        reset(sock)
        self.assertEqual(session.ended(), "closed")

    def test_a_close_behind_thousands_of_messages_loses_none(self):
        channel, session = self.open_channel(self.network())
        sent = session.flood(THOUSANDS, 5, [0, 1, 64, 300])
        received = channel.receive_all(100)
        sent.result(30)
        session.close()
        while more := channel.receive()[0]:
            received += more
        self.assertEqual(received, original.messages(THOUSANDS, 5, [0, 1, 64, 300]))

    def test_it_is_killed_in_the_middle(self):
        before = self.site.drops()
        other, session = self.open()
        sock, dying = self.open(self.victim_port, self.victim_listener)
        dying.flood(1_000_000, 6, MIXED)
        data = read_count(sock, 1_000_000)
        self.victim.kill()
        more, end = read_all(sock)
        data += more
        self.assertEqual(end, "reset")
        self.assertTrue(b"".join(original.messages(len(data) // 200, 6, MIXED)).startswith(data), "wrong bytes were delivered")
        self.assert_dropped(self.site, before, ["truncated", "transport_error"])
        other.sendall(b"still there")
        self.assertEqual(session.receive(), b"still there")

    def test_a_server_that_does_not_know_us(self):
        self.original.allow(ct.KeyPair().public)
        self.addCleanup(self.original.allow, self.client)
        _, accepted = self.listener.start_accept()
        before = self.site.drops()
        with plain(self.port) as sock:
            self.assertEqual(read_all(sock), (b"", "reset"))
        with self.assertRaises(original.Failed):
            accepted.result(20)
        self.assert_dropped(self.site, before, ["closed_in_handshake", "truncated", "transport_error"])
        _, accepted = self.listener.start_accept()
        done = self.site.cli("pipe", "channel", stdin=b"x", check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertTrue(done.stderr.startswith(b"sallyport: error: "), done.stderr)
        with self.assertRaises(original.Failed):
            accepted.result(20)

    def test_another_server_than_we_want(self):
        _, accepted = self.listener.start_accept()
        before = self.site.drops()
        with plain(self.wrong) as sock:
            self.assertEqual(read_all(sock), (b"", "reset"))
        with self.assertRaises(original.Failed):
            accepted.result(20)
        self.assert_dropped(self.site, before, ["closed_in_handshake"])

    def test_a_server_that_never_accepts(self):
        listener = self.original.listen(free_port())
        before = self.site.drops()
        self.site.connect_entry("never", listener.address, "erlang", listen=False)
        self.site.reload()
        network = self.network()
        with self.assertRaises(minicapnp.Refused):
            network.connect("never", 20000)
        self.assert_dropped(self.site, before, ["handshake_timeout"])


if __name__ == "__main__":
    original.folder()
    unittest.main()
