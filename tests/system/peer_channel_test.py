#!/usr/bin/python3
"""Goal: what docs/protocol.md §13.4 promises a program, sentence by sentence, through real daemons: Python over libsallyport's C ABI, which
goes through its C++ class and net.capnp. The other party is peerframe.py, so that frames are cut as a test wants them.
"""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import SANITIZED, SystemTest, bin_root, binary, minicapnp
from peer_sites import END, WirePeer, add_block, peer_connect, peer_listen
from traffic import patterned

ROOT = pathlib.Path(__file__).resolve().parents[2]
if SANITIZED:
    print("a sanitizer's library can't be loaded into Debian's python3: skipped")
    sys.exit(77)
os.environ["SALLYPORT_LIBRARY"] = str(bin_root() / "clients/cpp/libsallyport.so.0")
sys.path.insert(0, str(ROOT / "clients/python"))
import sallyport  # noqa: E402
from sallyport import PeerStatus  # noqa: E402

MAX_FRAME = 2 << 20
MORE_THAN_KERNELS_TAKE = 24 << 20  # between two hosts, whatever their buffers grow to


class Api(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site_ = site = cls.class_site("api")
        cls.blocks = {name: os.urandom(128) for name in ("in", "a", "b")}
        add_block(site, "in", cls.blocks["in"], "B")
        add_block(site, "a", cls.blocks["a"], "A")
        cls.port = peer_listen(site, "chat", "channel", key="in", max_frame_bytes=MAX_FRAME)
        # Both ends in one netd: the same block under two names, one for each party.
        add_block(site, "b", cls.blocks["a"], "B")
        loop = peer_listen(site, "loop", "channel", key="b", max_frame_bytes=MAX_FRAME)
        peer_connect(site, "loop", loop, key="a", listen=False, max_frame_bytes=MAX_FRAME)
        peer_connect(site, "echo", peer_listen(site, "echo", "echo", key="b"), key="a", listen=False)
        site.peer("client", site.key("client"))
        site.listen("curve", ["client"], "channel")
        site.start()
        cls.socket = site.dir / "run/net.sock"

    def accepted(self, timeout=10.0, **options):
        """Our program's channel, and the Python party at its other end."""
        listener = sallyport.listen_peer(self.socket, "chat", timeout)
        peer = WirePeer(("127.0.0.1", self.port), "A", self.blocks["in"])
        self.addCleanup(peer.close)
        channel = listener.accept(10, **options)
        listener.close()
        self.addCleanup(channel.close)
        return channel, peer

    def both(self, timeout=10.0):
        """Two programs' channels through one netd."""
        listener = sallyport.listen_peer(self.socket, "loop")
        ours = sallyport.connect_peer(self.socket, "loop", timeout)
        theirs = listener.accept(10)
        listener.close()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, theirs

    # -- send

    def test_send_takes_any_size_and_divides_it_into_frames(self):
        channel, peer = self.accepted()
        data = patterned(300_000)
        channel.send(data, 9)
        got, frames = b"", 0
        while len(got) < len(data):
            code, payload = peer.receive()
            self.assertEqual(code, 9)
            got, frames = got + payload, frames + 1
        self.assertEqual(got, data)
        self.assertGreater(frames, 1)

    def test_nothing_at_all_is_one_empty_frame(self):
        channel, peer = self.accepted()
        channel.send(b"", 5)
        self.assertEqual(peer.receive(), (5, b""))

    def test_code_is_the_callers_but_for_the_reserved_one(self):
        channel, peer = self.accepted()
        for code in (0, 1, 0xFFFFFFFE):
            channel.send(b"x", code)
            self.assertEqual(peer.receive(), (code, b"x"))
        for text in (b"x", b"", b"open"):
            with self.assertRaises(sallyport.NetReservedCode):
                channel.send(text, 0xFFFFFFFF)

    def test_two_that_write_large_frames_at_once_dont_block_each_other(self):
        ours, theirs = self.both()
        data = patterned(MAX_FRAME)
        threads = [threading.Thread(target=end.send, args=(data,), daemon=True) for end in (ours, theirs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            self.assertFalse(thread.is_alive(), "each waits for the other")
        for end in (ours, theirs):
            self.assertEqual(end.receive(len(data), 30), (data, 0, PeerStatus.COMPLETE, 0, ""))

    def test_no_number_is_cut_to_the_size_of_its_c_type(self):
        channel, peer = self.accepted()
        nan = float("nan")
        for call, wrong in ((lambda code: channel.send(b"x", code), (-1, 2**32, 2**32 + 7, 2**64, None, "1", 1.0)),
                            (channel.send, ("text", 5, None)),
                            (lambda size: channel.receive(size, 1), (-1, 2**63, 2**64, None, "1", 1.0)),
                            (lambda time: channel.receive(1, time), (-1, 2**32, 2**64, nan, "1")),
                            (lambda time: sallyport.connect_peer(self.socket, "loop", time), (-1, 0, 2**32, nan, None, "1")),
                            (lambda time: sallyport.connect_peer(self.socket, "loop", send_timeout=time), (-1, 2**32, nan, "1")),
                            (lambda name: sallyport.connect_peer(self.socket, name), (b"loop", 5, None, "lo\0op")),
                            (lambda path: sallyport.connect_peer(path, "loop"), (5, None)),
                            (lambda time: sallyport.listen_peer(self.socket, "loop", time), (-1, 0, 2**32, nan, None)),
                            (lambda name: sallyport.listen_peer(self.socket, name), (b"loop", 5, None)),
                            (sallyport.listen_peer(self.socket, "loop").accept, (-1, 2**32, nan, "1"))):
            for value in wrong:
                with self.subTest(value=value), self.assertRaises(sallyport.BadArgument):
                    call(value)
        channel.send(b"the first", 1)
        self.assertEqual(peer.receive(), (1, b"the first"))

    def test_a_send_waits_for_a_peer_that_pauses_longer_than_netd_may_take_for_an_answer(self):
        ours, theirs = self.both(timeout=1)
        data, failures = patterned(MORE_THAN_KERNELS_TAKE), []

        def send_all():
            try:
                ours.send(data, 3)
                ours.finish()
            except sallyport.Error as error:
                failures.append(error)

        sender = threading.Thread(target=send_all, daemon=True)
        sender.start()
        sender.join(3)
        self.assertEqual(failures, [])
        self.assertTrue(sender.is_alive(), "the kernel took it all: this test needs more")
        got = theirs.receive(len(data), 60)
        self.assertEqual((got.code, got.status), (3, PeerStatus.COMPLETE))
        self.assertTrue(got.data == data)
        self.assertEqual(theirs.receive(1, 30).status, PeerStatus.ENDED)
        sender.join(30)
        self.assertEqual(failures, [])

    def test_a_limit_counts_from_the_last_progress(self):
        channel, peer = self.accepted(send_timeout=3)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        done = threading.Event()

        def read_slowly():
            while peer.sock.recv(1 << 20) and not done.wait(0.3):
                pass

        reader = threading.Thread(target=read_slowly, daemon=True)
        reader.start()
        started = time.monotonic()
        channel.send(bytes(MORE_THAN_KERNELS_TAKE))
        self.assertGreater(time.monotonic() - started, 3, "no longer than the limit: this test needs more")
        done.set()
        reader.join(30)

    def test_a_send_that_is_given_up_breaks_the_channel_for_both_at_once(self):
        channel, peer = self.accepted(send_timeout=1)
        peer.send(b"not received yet")
        with self.assertRaisesRegex(sallyport.TimedOut, "the peer doesn't read"):
            channel.send(bytes(MORE_THAN_KERNELS_TAKE))
        peer.ended()  # before our program does anything more
        for _ in range(2):
            self.assertEqual(channel.receive(100, 30), (b"", 0, PeerStatus.BROKEN, 0, "send_given_up"))
            for call in (lambda: channel.send(b"more"), channel.finish):
                with self.assertRaisesRegex(sallyport.Broken, "the channel is broken .send_given_up"):
                    call()
        channel.close()

    def test_a_receive_that_netd_never_answers_breaks_the_channel(self):
        channel, _ = self.accepted(timeout=1)
        workers = self.site_.pids()["workers"]
        try:
            for worker in workers:
                os.kill(worker, signal.SIGSTOP)
            with self.assertRaisesRegex(sallyport.TimedOut, "netd didn't answer"):
                channel.receive(1, 0.1)
        finally:
            for worker in workers:
                os.kill(worker, signal.SIGCONT)
        self.assertEqual(channel.receive(1, 30).reason, "receive_given_up")
        with self.assertRaisesRegex(sallyport.Broken, "receive_given_up"):
            channel.send(b"more")

    # -- receive

    def test_receive_fills_a_large_buffer_from_several_frames(self):
        channel, peer = self.accepted()
        for at in range(10):
            peer.send(bytes([at]) * 1000, 4)
        got = channel.receive(10_000, 30)
        self.assertEqual((got.status, got.code), (PeerStatus.COMPLETE, 4))
        self.assertEqual(got.data, b"".join(bytes([at]) * 1000 for at in range(10)))

    def test_receive_fills_a_buffer_larger_than_any_message_of_the_rpc(self):
        ours, theirs = self.both()
        data = patterned(5 << 20, seed=3)
        sender = threading.Thread(target=ours.send, args=(data,), daemon=True)
        sender.start()
        got = theirs.receive(len(data), 60)
        sender.join(30)
        self.assertEqual(got.status, PeerStatus.COMPLETE)
        self.assertEqual(got.data, data)

    def test_a_request_that_ends_inside_a_frame_gets_whole_frames_and_the_rest_is_kept(self):
        channel, peer = self.accepted()
        peer.send(b"a" * 100)
        peer.send(b"b" * 100)
        got = channel.receive(150, 30)
        self.assertEqual((got.data, got.status), (b"a" * 100, PeerStatus.COMPLETE))
        self.assertEqual(channel.receive(100, 30).data, b"b" * 100)

    def test_the_next_header_alone_tells_that_a_frame_doesnt_fit(self):
        channel, peer = self.accepted()
        peer.send(b"a" * 100)
        peer.sock.sendall(peer.party.frame(b"b" * 100)[:16])
        started = time.monotonic()
        got = channel.receive(150, 30)
        self.assertEqual((got.data, got.status), (b"a" * 100, PeerStatus.COMPLETE))
        self.assertLess(time.monotonic() - started, 25)

    def test_a_call_gathers_frames_of_one_code_only(self):
        channel, peer = self.accepted()
        peer.send(b"one", 1)
        peer.send(b"uno", 1)
        peer.send(b"two", 2)
        self.assertEqual(channel.receive(100, 30)[:3], (b"oneuno", 1, PeerStatus.COMPLETE))
        self.assertEqual(channel.receive(3, 30)[:3], (b"two", 2, PeerStatus.COMPLETE))

    def test_a_first_frame_that_is_too_big_is_told_with_its_size_and_kept(self):
        channel, peer = self.accepted()
        peer.send(b"x" * 1000, 6)
        got = channel.receive(999, 30)
        self.assertEqual((got.data, got.status, got.needed, got.code), (b"", PeerStatus.TOO_BIG, 1000, 6))
        self.assertEqual(channel.receive(1000, 30).data, b"x" * 1000)

    def test_a_slow_peer_is_told_with_the_good_bytes_and_half_a_frame_is_kept(self):
        channel, peer = self.accepted()
        frame = peer.party.frame(b"first")
        second = peer.party.frame(b"second")
        peer.sock.sendall(frame + second[:20])
        got = channel.receive(11, 1)
        self.assertEqual((got.data, got.status), (b"first", PeerStatus.SLOW_PEER))
        peer.sock.sendall(second[20:])
        self.assertEqual(channel.receive(6, 30)[:3], (b"second", 0, PeerStatus.COMPLETE))

    def test_a_fault_is_told_with_the_good_bytes_and_again_by_every_further_call(self):
        channel, peer = self.accepted()
        good, bad = peer.party.frame(b"good"), bytearray(peer.party.frame(b"evil"))
        bad[17] ^= 1
        peer.sock.sendall(good + bad)
        got = channel.receive(8, 30)
        self.assertEqual((got.data, got.status, got.reason), (b"good", PeerStatus.BROKEN, "bad_tag"))
        for _ in range(2):
            again = channel.receive(8, 30)
            self.assertEqual((again.data, again.status, again.reason), (b"", PeerStatus.BROKEN, "bad_tag"))
        with self.assertRaises(sallyport.Broken):
            channel.send(b"too late")

    def test_an_authenticated_end_is_told_with_the_good_bytes_and_we_may_still_send(self):
        channel, peer = self.accepted()
        peer.send(b"last words")
        peer.send(b"", END)
        got = channel.receive(100, 30)
        self.assertEqual((got.data, got.status), (b"last words", PeerStatus.ENDED))
        self.assertEqual(channel.receive(100, 30).status, PeerStatus.ENDED)
        channel.send(b"and mine")
        channel.finish()
        self.assertEqual(peer.receive(), (0, b"and mine"))
        self.assertEqual(peer.receive(), (END, b""))
        with self.assertRaises(sallyport.NetClosed):
            channel.send(b"after the end")

    def test_a_wire_that_ends_without_the_end_is_truncated(self):
        channel, peer = self.accepted()
        peer.send(b"half")
        peer.close()
        got = channel.receive(100, 30)
        self.assertEqual((got.data, got.status, got.reason), (b"half", PeerStatus.BROKEN, "truncated"))

    def test_close_ends_and_a_channel_that_is_dropped_has_no_end(self):
        channel, peer = self.accepted()
        channel.close()
        self.assertEqual(peer.receive(), (END, b""))
        channel, peer = self.accepted()
        channel.send(b"and then I crash")
        channel.abandon()
        self.assertEqual(peer.receive(), (0, b"and then I crash"))
        with self.assertRaises((EOFError, ConnectionResetError)):
            peer.receive()

    def test_frames_of_the_largest_size_and_no_larger(self):
        channel, peer = self.accepted()
        from peerframe import make_frame
        data = bytes(300_000)
        peer.send(data)
        self.assertEqual(channel.receive(len(data), 60).data, data)
        peer.sock.sendall(make_frame(peer.party.sending, b"", 0, length=MAX_FRAME + 1))
        got = channel.receive(1, 30)
        self.assertEqual((got.status, got.reason), (PeerStatus.BROKEN, "frame_too_large"))

    def test_a_channel_is_used_by_one_thread_at_a_time(self):
        channel, _ = self.accepted()
        waiting = threading.Thread(target=channel.receive, args=(1, 5), daemon=True)
        waiting.start()
        time.sleep(0.5)
        with self.assertRaises(sallyport.BadArgument):
            channel.receive(1, 1)
        waiting.join(20)

    # -- the examples of the READMEs, as they stand there

    @staticmethod
    def example(language, client, word):
        readme = (ROOT / "clients" / client / "README.md").read_text()
        (found,) = (text for text in re.findall(rf"^```{language}\n(.*?)^```$", readme, re.M | re.S) if word in text)
        return found

    def test_the_examples_of_the_readmes(self):
        library = bin_root() / "clients/cpp"
        with tempfile.TemporaryDirectory(prefix="sallyport-readme-") as folder:
            folder = pathlib.Path(folder)
            commands = []
            for name, language, word, compiler in (("example.cc", "cpp", "PeerChannel", ["g++", "-std=c++20"]),
                                                   ("example.c", "c", "sallyport_peer", ["gcc", "-std=c11"])):
                (folder / name).write_text(self.example(language, "cpp", word))
                program = folder / f"{language}-example"
                done = subprocess.run([*compiler, "-Wall", "-Werror", "-I", ROOT / "clients/cpp/include", folder / name, "-L", library,
                                       "-lsallyport", "-o", program], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                commands.append([program])
            (folder / "example.py").write_text(self.example("python", "python", "connect_peer"))
            commands.append(["/usr/bin/python3", folder / "example.py"])
            for command, expected in zip(commands, ("how are you 7 ended", "hello 7 ended", "how are you 7 ENDED")):
                done = subprocess.run([*command, self.socket, "echo"], capture_output=True, text=True, timeout=30, env={
                    **os.environ, "LD_LIBRARY_PATH": str(library), "PYTHONPATH": str(ROOT / "clients/python")})
                self.assertEqual(done.stdout.strip(), expected, done.stderr)

    # -- programs and `sallyport pipe --messages`

    def pipe(self, *messages):
        """The command with what its input holds, which has ended."""
        command = subprocess.Popen([binary("sallyport"), "pipe", "loop", "--messages", "-c", str(self.site_.config)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)
        command.stdin.write(b"".join(len(message).to_bytes(4, "big") + message for message in messages))
        command.stdin.close()
        command.stdin = None
        return command

    def assert_told(self, command, status, out, said=b""):
        self.assertEqual((command.stdout.read(), command.wait(30)), (out, status))
        self.assertIn(said, command.stderr.read())

    def test_a_program_answers_a_pipe_upon_its_end(self):
        listener = sallyport.listen_peer(self.socket, "loop")
        command = self.pipe(b"whole ", b"question")
        with listener.accept(10) as channel:
            self.assertEqual(channel.receive(100, 10)[:3], (b"whole question", 0, PeerStatus.ENDED))
            channel.send(b"answer")
        self.assert_told(command, 0, b"\0\0\0\6answer")

    def test_a_program_of_messages_answers_a_pipe_upon_its_end(self):
        with minicapnp.Network(self.socket) as network:
            listener = network.listen("loop")
            command = self.pipe(b"question", b"")
            channel = listener.accept(10000)[0]
            self.assertEqual(channel.receive_all(2), [b"question", b""])
            self.assertEqual(channel.receive()[:2], ([], minicapnp.ENDED))
            channel.send([b"answer"])
            channel.finish()
            self.assert_told(command, 0, b"\0\0\0\6answer")

    def test_a_program_that_goes_without_an_end_is_an_error_for_a_pipe(self):
        listener = sallyport.listen_peer(self.socket, "loop")
        command = self.pipe(b"question")
        with self.assertRaises(ZeroDivisionError), listener.accept(10) as channel:
            channel.send(b"answer")
            raise ZeroDivisionError
        self.assert_told(command, 1, b"\0\0\0\6answer", b"the channel is broken: truncated")

    # -- refusals

    def test_refusals_have_their_names(self):
        with self.assertRaises(sallyport.NetUnknownName):
            sallyport.connect_peer(self.socket, "nobody")
        listener = sallyport.listen_peer(self.socket, "curve")
        with self.assertRaises(sallyport.NetWrongProtocol):
            listener.accept(1)
        listener = sallyport.listen_peer(self.socket, "chat")
        with self.assertRaises(sallyport.NetTimedOut):
            listener.accept(0.2)
        with self.assertRaises(sallyport.CantConnect):
            sallyport.connect_peer(self.site_.dir / "nowhere", "loop")

    def test_a_connect_gives_up_when_its_time_is_over(self):
        site = self.site("silent")
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        add_block(site, "a", os.urandom(128), "A")
        peer_connect(site, "silent", silent.getsockname()[1], key="a", listen=False)
        site.limits["handshake_timeout_ms"] = 30_000
        site.start()
        with self.assertRaises(sallyport.TimedOut):
            sallyport.connect_peer(site.dir / "run/net.sock", "silent", timeout=0.3)


if __name__ == "__main__":
    unittest.main()
