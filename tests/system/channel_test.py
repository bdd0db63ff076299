#!/usr/bin/python3
"""Goal: message channels between local programs over our own daemons: messages of 0 to 65,503 bytes arrive whole, in order, and all of
them before an end is told; time-outs lose nothing; a listener is shared fairly; objects are closed with their connection; `sallyport
pipe` carries a stream and framed messages.
"""

import os
import socket
import subprocess
import threading
import time
import unittest

from harness import SystemTest, binary, memory_limit, minicapnp, resident_kib, wait_until
from minicapnp import BROKEN, ENDED, OPEN, Refused
from peer_sites import WirePeer, add_block, peer_connect
from traffic import Mitm, patterned, sha256

SIZES = [0, 1, 15, 16, 17, 255, 256, 4096, 16384, 65000, 65502, 65503]


class Channels(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site = site = cls.class_site("channels")
        site.peer("client", site.key("client"))
        cls.alice = site.peer("alice")
        cls.port = site.listen("chat", ["client", "alice"], "channel")
        cls.echo = site.listen("echo", ["client"], "echo")
        site.peer("server", site.publics["server"])
        site.connect_entry("chat", ("127.0.0.1", cls.port), "server", listen=False)
        site.connect_entry("echo", ("127.0.0.1", cls.echo), "server", listen=False)
        cls.wire = Mitm(("127.0.0.1", cls.port))
        cls.addClassCleanup(cls.wire.close)
        site.connect_entry("stalls", ("127.0.0.1", cls.wire.port), "server", listen=False)
        site.limits["accept_timeout_ms"] = 1000
        site.start()

    def network(self):
        network = minicapnp.Network(self.site.dir / "run/net.sock")
        self.addCleanup(network.close)
        return network

    def pair(self):
        """A channel's two ends, each on an RPC connection of its own."""
        listener = self.network().listen("chat")
        near = self.network().connect("chat")
        far, peer, key, _ = listener.accept()
        self.assertEqual((peer, key), ("client", self.site.publics["client"]))
        return near, far

    def test_every_size_both_ways_in_order(self):
        near, far = self.pair()
        texts = [patterned(size, size) for size in SIZES]
        for source, sink in ((near, far), (far, near)):
            source.send(texts)
            self.assertEqual(sink.receive_all(len(texts)), texts)

    def test_ten_thousand_small_messages_in_batches(self):
        near, far = self.pair()
        texts = [b"%d" % i for i in range(10_000)]
        for at in range(0, len(texts), 500):
            near.send(texts[at:at + 500])
            self.assertEqual(far.receive_all(500), texts[at:at + 500])

    def test_a_message_too_big_and_nothing_of_that_call(self):
        near, far = self.pair()
        with self.assertRaises(Refused) as refused:
            near.send([b"one", bytes(65504), b"three"])
        self.assertEqual(str(refused.exception), "tooBig")
        near.send([b"two"])
        self.assertEqual(far.receive_all(1), [b"two"])

    def test_messages_before_the_end_are_delivered_first(self):
        near, far = self.pair()
        near.send([b"%d" % i for i in range(100)])
        near.close()
        messages = []
        while True:
            more, end, _ = far.receive(7)
            messages += more
            if not more:
                break
        self.assertEqual(messages, [b"%d" % i for i in range(100)])
        self.assertIn(end, (ENDED, BROKEN))

    def test_an_end_is_told_again_and_sending_after_it_fails(self):
        near, far = self.pair()
        near.close()
        for _ in range(3):
            self.assertNotEqual(far.receive()[1], OPEN)
        with self.assertRaises((BrokenPipeError, Refused)):
            for _ in range(20):
                far.send([b"anybody?"])
                time.sleep(0.05)

    def test_a_timeout_loses_nothing(self):
        near, far = self.pair()
        for i in range(20):
            self.assertEqual(far.receive(timeout_ms=20), ([], OPEN, ""))
            near.send([b"%d" % i])
            self.assertEqual(far.receive_all(1), [b"%d" % i])

    def test_a_connection_that_ends_closes_its_channels(self):
        near, far = self.pair()
        before = self.site.counter("channels")
        near.rpc.close()
        self.assertNotEqual(far.receive()[1], OPEN)
        wait_until(lambda: self.site.counter("channels") < before, 5, "the channel is gone from the count")

    def test_a_slow_receiver_delays_the_senders_answer(self):
        near, far = self.pair()
        before = sum(resident_kib(worker) for worker in self.site.pids()["workers"])
        batch = [bytes(65503)] * 30
        question, sent = near.start_send(batch), 0
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                near.sent(near.rpc.wait(question, timeout=0.5))
            except TimeoutError:
                break
            sent += 1
            question = near.start_send(batch)
        else:
            self.fail(f"{sent} batches of 2 MB were taken though nobody receives")
        grown = sum(resident_kib(worker) for worker in self.site.pids()["workers"]) - before
        self.assertLess(grown, memory_limit(32 * 1024))
        count = 0
        while count < 30 * (sent + 1):
            count += len(far.receive(20)[0])
        near.sent(near.rpc.wait(question, timeout=10))
        self.assertEqual(far.receive(timeout_ms=100)[:2], ([], OPEN))

    def test_accept_refusals(self):
        network = self.network()
        for name, reason in (("nosuch", "unknownName"), ("echo", "notAChannel")):
            with self.assertRaises(Refused) as refused:
                network.listen(name)
            self.assertEqual(str(refused.exception), reason)
        listener = network.listen("chat")
        start = time.monotonic()
        with self.assertRaises(Refused) as refused:
            listener.accept(200)
        self.assertEqual(str(refused.exception), "timedOut")
        self.assertLess(time.monotonic() - start, 3)
        listener.close()

    def test_without_an_acceptor_the_channel_ends_under_a_name(self):
        before = self.site.drops()
        with self.site.connect(self.port, self.alice) as session:
            session.send(b"anybody?")
            self.assert_closed_silently(session.sock, 5)
        self.assert_dropped(self.site, before, ["no_acceptor"])

    def test_listeners_share(self):
        listeners = [self.network().listen("chat") for _ in range(3)]
        found, lock = [], threading.Lock()

        def accept(listener, number):
            try:
                while True:
                    channel = listener.accept(1500)[0]
                    with lock:
                        found.append(number)
                    channel.receive_all(1)
            except Refused:
                pass
        threads = [threading.Thread(target=accept, args=(listener, number)) for number, listener in enumerate(listeners)]
        for thread in threads:
            thread.start()
        network = self.network()
        channels = [network.connect("chat") for _ in range(30)]
        for channel in channels:
            channel.send([b"x"])
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 30)

    def test_a_session_on_a_worker_finds_the_listener_of_another(self):
        """Programs talk to one worker, sessions land on any: all of twenty must be accepted."""
        listener = self.network().listen("chat")
        sessions = [self.site.connect(self.port, self.alice) for _ in range(20)]
        for number, session in enumerate(sessions):
            self.addCleanup(session.close)
            session.send(b"%d" % number)
        seen = []
        for _ in sessions:
            channel = listener.accept(5000)[0]
            seen += channel.receive_all(1)
        self.assertEqual(sorted(seen, key=int), [b"%d" % i for i in range(20)])

    def test_pipe_messages(self):
        texts = [patterned(size, size) for size in SIZES]
        framed = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
        done = self.site.cli("pipe", "echo", "--messages", "--wait", "1", stdin=framed)
        self.assertEqual(sha256(done.stdout), sha256(framed))

    def test_pipe_refuses_a_frame_that_is_too_long_or_cut_off(self):
        for framed in ((65504).to_bytes(4, "big") + bytes(65504), b"\0\0\0\5abc", b"\xff\xff\xff\xff", b"\0\0"):
            done = self.site.cli("pipe", "echo", "--messages", "--wait", "1", stdin=framed, check=False)
            self.assertEqual(done.returncode, 1, framed[:8])
            self.assertTrue(done.stderr.startswith(b"sallyport: error:"), done.stderr)

    def test_pipe_fails_when_a_message_stops_half_way(self):
        listener = self.network().listen("chat")
        stalls, stopped = threading.Event(), []

        def attack(way, offset, data):
            if way == "up" or not stalls.is_set():
                return data
            stopped.append(offset + 100)
            return data[:max(stopped[0] - offset, 0)]
        self.wire.attack = attack
        pipe = subprocess.Popen([binary("sallyport"), "pipe", "stalls", "--messages", "--wait", "1", "-c", str(self.site.config)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(pipe.communicate)
        self.addCleanup(pipe.kill)
        channel = listener.accept()[0]
        channel.send([b"one"])
        self.assertEqual(pipe.stdout.read(7), b"\0\0\0\3one")
        stalls.set()
        channel.send([patterned(1000)])
        pipe.stdin.close()
        pipe.stdin = None
        self.assertEqual(pipe.wait(30), 1)
        self.assertEqual(pipe.stdout.read(), b"")
        self.assertIn(b"error: `stalls`: nothing came for 1 s, and a message is under way", pipe.stderr.read())

    def test_pipe_takes_no_wait_without_messages(self):
        done = self.site.cli("pipe", "echo", "--wait", "3", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"--wait belongs to --messages", done.stderr)

    def test_pipe_fails_when_there_is_no_standard_output_for_what_comes(self):
        done = subprocess.run(f"exec {binary('sallyport')} pipe echo -c {self.site.config} >&-", shell=True,
                              input=b"comes back", stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(b"error: ", done.stderr)

    def test_pipe_stream_to_a_listening_program(self):
        listener = self.network().listen("chat")
        data = patterned(1_000_000)
        pipe = subprocess.Popen([binary("sallyport"), "pipe", "chat", "-c", str(self.site.config)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE)
        self.addCleanup(pipe.kill)
        channel = listener.accept()[0]
        writer = threading.Thread(target=lambda: (pipe.stdin.write(data), pipe.stdin.close()))
        writer.start()
        received = b""
        while True:
            messages, end, _ = channel.receive()
            self.assertEqual(end, OPEN)
            if b"" in messages:
                received += b"".join(messages)
                break
            received += b"".join(messages)
        writer.join()
        self.assertEqual(sha256(received), sha256(data))
        channel.send([b"got it"])
        channel.finish()
        self.assertEqual(pipe.stdout.read(), b"got it")
        self.assertEqual(pipe.wait(10), 0)
        pipe.stdout.close()

    def test_pipe_tells_when_the_stream_was_cut_off(self):
        listener = self.network().listen("chat")
        pipe = subprocess.Popen([binary("sallyport"), "pipe", "chat", "-c", str(self.site.config)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(pipe.kill)
        channel = listener.accept()[0]
        channel.send([b"half of an answer"])
        self.assertEqual(os.read(pipe.stdout.fileno(), 100), b"half of an answer")
        channel.close()  # without the empty message
        self.assertEqual(pipe.wait(10), 1)
        self.assertIn(b"sallyport: error:", pipe.stderr.read())
        for stream in (pipe.stdin, pipe.stdout, pipe.stderr):
            stream.close()


class Patience(SystemTest):
    def test_a_connect_gives_up_when_its_own_time_is_over(self):
        """And a channel that comes about later is nobody's, and is closed."""
        site, block = self.site("patience"), os.urandom(128)
        add_block(site, "link", block, "A")
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        server.settimeout(30)
        peer_connect(site, "slow", server.getsockname()[1], listen=False)
        site.limits["handshake_timeout_ms"] = 60_000
        site.start()
        with minicapnp.Network(site.dir / "run/net.sock") as network:
            with self.assertRaises(Refused) as refused:
                network.connect("slow", 200)
            self.assertEqual(str(refused.exception), "timedOut")
            peer = WirePeer(server.accept()[0], "B", block, opening=False)
            self.addCleanup(peer.close)
            peer.ended()
            peer.close()
            wait_until(lambda: site.counter("connections") == 0, 10, "netd holds no connection any more")

    def test_a_pipe_without_our_vault_is_not_blamed_on_the_other_side(self):
        far, site = self.site("far"), self.site("without-vault")
        far.peer("near", site.key("client"))
        port = far.listen("in", ["near"], "echo")
        far.start()
        site.limits["handshake_timeout_ms"] = 500
        site.peer("far", far.publics["server"])
        site.connect_entry("out", ("127.0.0.1", port), "far", listen=False)
        vaultd = site.start_vaultd()
        site.start_netd()
        vaultd.kill()
        vaultd.wait()
        wait_until(lambda: site.net_status()["vault"] != "connected", 30, "netd has noticed it")
        done = site.cli("pipe", "out", check=False)
        self.assertEqual(done.returncode, 1)
        error, hint = done.stderr.decode().splitlines()
        self.assertIn("`out`: no channel in time, and netd has no connection to vaultd (", error)
        self.assertIn("start vaultd on this host", hint)


if __name__ == "__main__":
    unittest.main()
