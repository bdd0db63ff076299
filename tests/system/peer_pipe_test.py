#!/usr/bin/python3
"""Goal: `sallyport pipe` over the peer protocol loses nothing in silence, and nothing that a peer sends stops it.
Method: real daemons; the peer is peerframe.py behind a listening socket, so that it sees frames and ends as they are.
"""

import os
import signal
import socket
import struct
import subprocess
import threading
import unittest

from harness import SystemTest, binary, process_stat, wait_until
from peer_sites import END, OPEN, WirePeer, add_block, peer_connect, peer_listen
from traffic import patterned

LARGEST = (2 << 20) - 4096  # that goes through [net] socket
SMALL = 1000
MORE_PATIENCE = "is the other side up? A longer --wait has more patience"


def framed(message):
    return len(message).to_bytes(4, "big") + message


def join(one, other):
    """Makes two connections one wire, until both directions have ended."""
    def copy(source, sink):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    for way in ((one, other), (other, one)):
        threading.Thread(target=copy, args=way, daemon=True).start()


class Pipe(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site_ = site = cls.class_site("pipe")
        cls.block = os.urandom(128)
        add_block(site, "link", cls.block, "A")
        cls.listener = socket.create_server(("127.0.0.1", 0))
        cls.listener.settimeout(30)
        cls.addClassCleanup(cls.listener.close)
        port = cls.listener.getsockname()[1]
        peer_connect(site, "any", port, listen=False)
        peer_connect(site, "small", port, listen=False, max_frame_bytes=SMALL)
        add_block(site, "once", cls.block, "A")
        peer_connect(site, "base", port, key="once", listen=False, mode="base")
        cls.base_blocks = {name: os.urandom(128) for name in ("head", "half")}  # each serves one connection
        for name, block in cls.base_blocks.items():
            add_block(site, name, block, "A")
            peer_connect(site, name, port, key=name, listen=False, mode="base")
        add_block(site, "back", cls.block, "B")
        peer_connect(site, "other", port, key="back", listen=False)
        echo = peer_listen(site, "echo", "echo", key="back")
        peer_connect(site, "echo", echo, listen=False)
        add_block(site, "stranger", os.urandom(128), "A")
        peer_connect(site, "other-block", echo, key="stranger", listen=False)
        peer_connect(site, "no-service", peer_listen(site, "down", f"unix:{site.dir}/nothing", key="back"), listen=False)
        site.start()

    def pipe(self, *words):
        """The command with open standard input, and the peer that it leads to."""
        command, sock = self.start(*words)
        base = self.base_blocks.get(words[0])
        peer = WirePeer(sock, "B", base or self.block, "base" if base else "hard", opening=False)
        self.addCleanup(peer.close)
        if not base:
            self.assertEqual(peer.receive(), OPEN)
        return command, peer

    @staticmethod
    def end_input(command, *messages):
        command.stdin.write(b"".join(map(framed, messages)))
        command.stdin.close()
        command.stdin = None

    def assert_no_end(self, peer):
        with self.assertRaises((EOFError, ConnectionResetError)):
            code, _ = peer.receive()
            self.assertNotEqual(code, END)

    def assert_failed(self, command, *words, hints=()):
        """It ends while its standard input is open."""
        self.assertEqual(command.wait(30), 1)
        line, *more = command.stderr.read().decode().splitlines()
        self.assertTrue(line.startswith("sallyport: error: "), line)
        self.assertEqual(more, [f"sallyport: hint: {hint}" for hint in hints])
        for word in words:
            self.assertIn(word, line)

    def test_a_message_that_is_too_long_for_the_entry_is_an_error_at_once_and_no_end(self):
        command, peer = self.pipe("small", "--messages")
        command.stdin.write(framed(b"first") + framed(bytes(SMALL)) + framed(bytes(SMALL + 1)) + framed(b"never"))
        command.stdin.flush()
        self.assert_failed(command, "1001 bytes", "1000")
        self.assertEqual(peer.receive(), (0, b"first"))
        self.assertEqual(peer.receive(), (0, bytes(SMALL)))
        self.assert_no_end(peer)

    def test_a_message_that_only_netd_refuses_is_an_error_at_once_and_no_end(self):
        # The command reads another file than netd did: as after an edit without a reload.
        edited = self.site_.dir / "edited.toml"
        edited.write_text(self.site_.config.read_text().replace(f"max_frame_bytes = {SMALL}", "max_frame_bytes = 9000"))
        command = subprocess.Popen([binary("sallyport"), "pipe", "small", "--messages", "-c", str(edited)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)
        peer = WirePeer(self.listener.accept()[0], "B", self.block, opening=False)
        self.addCleanup(peer.close)
        self.assertEqual(peer.receive(), OPEN)
        command.stdin.write(framed(bytes(5000)))
        command.stdin.flush()
        self.assert_failed(command, "max_frame_bytes", "9000")
        self.assert_no_end(peer)

    def start(self, *words):
        """The command, and the connection that it made."""
        command = subprocess.Popen([binary("sallyport"), "pipe", *words, "-c", str(self.site_.config)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(command.communicate)
        self.addCleanup(command.kill)
        return command, self.listener.accept()[0]

    def test_flags_that_contradict_wire_are_refused(self):
        for flags, status, words in ((("--messages",), 2, "--wire carries the bytes as they are"),
                                     (("--messages", "--wait", "3"), 2, "--wire carries the bytes as they are"),
                                     (("--protocol", "curve"), 1, "[[listen]] `echo` speaks the peer protocol"),
                                     (("--protocol", "peer"), 0, "")):
            done = self.site_.cli("pipe", "--wire", "echo", *flags, check=False)
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertIn(words, done.stderr.decode())

    def test_a_refused_handshake_has_the_hint_of_its_protocol(self):
        command, peer = self.start("any")
        peer.close()
        self.assertEqual(command.wait(30), 1)
        said = command.stderr.read().decode()
        self.assertIn("closed during the handshake", said)
        self.assertIn("sallyport key show link", said)
        self.assertNotIn("allow", said)

    def test_a_side_that_isnt_what_the_entry_says_is_told_by_what_it_did(self):
        http = b"HTTP/1.0 400 Bad Request\r\n\r\n"
        for answer, words, hint in ((lambda ours: http, "bad_preamble: a preamble of another protocol", "`address`"),
                                    (lambda ours: ours, "same_party: a peer that claims our own half", "`sallyport key show link`")):
            command, peer = self.start("any")
            self.addCleanup(peer.close)
            peer.sendall(answer(peer.recv(40, socket.MSG_WAITALL)))
            self.assertEqual(command.wait(30), 1)
            said = command.stderr.read().decode()
            self.assertIn("the handshake failed: " + words, said)
            self.assertIn(hint, said)
            self.assertNotIn("closed", said)

    def test_a_side_that_closed_before_it_said_anything_may_have_another_block_or_no_service(self):
        for name in ("other-block", "no-service"):
            for mode in ((), ("--messages",)):
                done = self.site_.cli("pipe", name, *mode, stdin=framed(b"anything"), check=False)
                self.assertEqual(done.returncode, 1)
                said = done.stderr.decode()
                self.assertIn("the channel is broken", said)
                self.assertIn("hint: the other side closed before it said anything: perhaps it has another block", said)
        command, peer = self.pipe("any")
        peer.send(b"it said something")
        self.assertEqual(command.stdout.read(17), b"it said something")
        peer.close()
        self.assert_failed(command, "the channel is broken",
                           hints=["the last data may be missing on either side: send it anew; netd's log, here and there, tells more"])

    def test_a_block_that_was_used_is_told_as_that(self):
        command, peer = self.start("base")
        command.stdin.write(b"a frame of it")
        command.stdin.flush()
        self.assertTrue(peer.recv(100))
        peer.close()
        self.assertEqual(command.wait(30), 1)
        command, peer = self.start("base")
        self.addCleanup(peer.close)
        self.assertEqual(command.wait(30), 1)
        said = command.stderr.read().decode()
        self.assertIn("the vault gave no keys of the block `once`", said)
        self.assertIn("a block serves one connection", said)
        self.assertNotIn("vouch", said)

    def test_a_stream_is_cut_to_the_entrys_frames(self):
        command, peer = self.pipe("small")
        data = patterned(5000)
        command.stdin.write(data)
        command.stdin.close()
        self.assertEqual(peer.receive_bytes(len(data)), data)
        self.assertEqual(peer.receive(), (END, b""))
        peer.send(b"", END)
        self.assertEqual(command.wait(30), 0)
        command.stdin = None

    def test_a_message_that_is_cut_off_is_no_end_for_the_peer(self):
        command, peer = self.pipe("any", "--messages")
        command.stdin.write(framed(b"whole") + framed(b"half")[:6])
        command.stdin.close()
        command.stdin = None
        self.assert_failed(command, "inside a message")
        self.assertEqual(peer.receive(), (0, b"whole"))
        self.assert_no_end(peer)

    def test_messages_are_as_long_as_frames_both_ways(self):
        command, peer = self.pipe("any", "--messages")
        messages = [patterned(size, size) for size in (65503, 65504, 130_000, 0)]
        for message in messages:
            peer.send(message)
            self.assertTrue(command.stdout.read(4 + len(message)) == framed(message), len(message))
        for message in messages:
            command.stdin.write(framed(message))
            command.stdin.flush()
            self.assertTrue(peer.receive() == (0, message), len(message))
        self.end_input(command)
        self.assertEqual(peer.receive(), (END, b""))
        peer.send(b"", END)
        self.assertEqual(command.wait(30), 0)

    def test_the_end_of_the_input_is_told_at_once_and_the_peers_end_waited_for(self):
        command, peer = self.pipe("any", "--messages")
        self.end_input(command, b"all")
        self.assertEqual(peer.receive(), (0, b"all"))
        self.assertEqual(peer.receive(), (END, b""))
        answer = framed(b"an answer to the end")
        peer.send(answer[4:])
        self.assertEqual(command.stdout.read(len(answer)), answer)
        self.assertIsNone(command.poll(), "the peer hasn't ended")
        peer.send(b"", END)
        self.assertEqual(command.wait(30), 0)
        self.assertEqual((command.stdout.read(), command.stderr.read()), (b"", b""))

    def test_the_peers_end_is_not_the_inputs(self):
        command, peer = self.pipe("any", "--messages")
        peer.send(b"all of mine")
        peer.send(b"", END)
        self.assertEqual(command.stdout.read(), framed(b"all of mine"))  # and the end of it
        self.end_input(command, b"late", b"")
        self.assertEqual([peer.receive() for _ in range(3)], [(0, b"late"), (0, b""), (END, b"")])
        self.assertEqual(command.wait(30), 0)

    def test_a_peer_that_doesnt_end_is_an_error_when_the_wait_is_over(self):
        command, peer = self.pipe("any", "--messages", "--wait", "1")
        peer.send(b"one")
        self.end_input(command)
        self.assert_failed(command, "`any`: the peer hasn't ended its direction: nothing came for 1 s", hints=[MORE_PATIENCE])
        self.assertEqual(command.stdout.read(), framed(b"one"))

    def test_a_message_that_stops_half_way_is_an_error_and_no_end(self):
        for name, arrived in (("any", 500), ("any", 5), ("half", 500), ("head", 5)):
            with self.subTest(name, arrived=arrived):
                command, peer = self.pipe(name, "--messages", "--wait", "1")
                peer.send(b"one")
                self.assertEqual(command.stdout.read(7), framed(b"one"))
                peer.sock.sendall(peer.party.frame(patterned(1000))[:arrived])
                self.end_input(command, b"all")
                self.assertEqual(peer.receive(), (0, b"all"))
                self.assert_failed(command, "nothing came for 1 s, and a message is under way", hints=[MORE_PATIENCE])
                self.assertEqual(command.stdout.read(), b"")

    def test_two_commands_end_each_other_whoever_is_first(self):
        first, one = self.start("any", "--messages")
        second, other = self.start("other", "--messages")
        self.addCleanup(one.close)
        self.addCleanup(other.close)
        join(one, other)
        self.end_input(first, b"question", b"")
        self.assertEqual(second.stdout.read(), framed(b"question") + framed(b""))
        answers = [patterned(size, size) for size in (0, 100_000, 1)]
        self.end_input(second, *answers)
        self.assertTrue(first.stdout.read() == b"".join(map(framed, answers)))
        for command in (first, second):
            self.assertEqual((command.wait(30), command.stderr.read()), (0, b""))

    def test_the_longest_message_comes_back_and_one_more_byte_is_refused(self):
        messages = b"".join(framed(patterned(size, size)) for size in (LARGEST, 1, LARGEST, LARGEST, 0))
        done = self.site_.cli("pipe", "echo", "--messages", stdin=messages)
        self.assertTrue(done.stdout == messages)
        done = self.site_.cli("pipe", "echo", "--messages", stdin=framed(bytes(LARGEST + 1)), check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(LARGEST).encode(), done.stderr)

    def test_a_frame_longer_than_the_interface_takes_is_told_with_that_limit(self):
        command, peer = self.pipe("any", "--messages")
        peer.sock.sendall(peer.party.frame(bytes(LARGEST + 1)))
        self.assert_failed(command, f"frame_too_large: a frame longer than the {LARGEST} bytes that --messages takes at most",
                           hints=["the last data may be missing on either side: send it anew; netd's log, here and there, tells more"])

    def test_a_frame_that_the_entry_doesnt_take_is_an_error_after_what_came_before(self):
        command, peer = self.pipe("small", "--messages")
        peer.send(b"before")
        peer.sock.sendall(peer.party.frame(bytes(SMALL + 1))[:16])
        self.assertEqual(command.stdout.read(), framed(b"before"))
        self.assert_failed(command, "frame_too_large: a frame longer than the entry's limit",
                           hints=["the last data may be missing on either side: send it anew; netd's log, here and there, tells more"])


class Wire(SystemTest):
    """`sallyport pipe --wire` alone, in front of a peer of our own where netd would listen."""

    def setUp(self):
        super().setUp()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.listener.settimeout(30)
        site = self.site("wire")
        peer_listen(site, "echo", "echo", address=f"127.0.0.1:{self.listener.getsockname()[1]}")
        site.write_config()
        self.command = subprocess.Popen([binary("sallyport"), "pipe", "--wire", "echo", "-c", str(site.config)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.command.communicate)
        self.addCleanup(self.command.kill)
        self.peer = self.listener.accept()[0]
        self.addCleanup(self.peer.close)

    def reset(self):
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def assert_told(self, what):
        self.assertEqual(self.command.wait(30), 1)
        self.assertEqual(self.command.stderr.read().decode(), f"sallyport: error: `echo`: {what}\n")
        self.assertEqual(self.command.stdout.read(), b"")

    def test_a_reset_is_told_as_that_also_when_the_input_ends_with_it(self):
        # Both at once for the command: it is stopped meanwhile.
        self.command.send_signal(signal.SIGSTOP)
        wait_until(lambda: process_stat(self.command.pid)[1] == "T", 30, "the command is stopped")
        self.command.stdin.close()
        self.command.stdin = None
        self.reset()
        self.command.send_signal(signal.SIGCONT)
        self.assert_told("reading failed: Connection reset by peer")

    def test_a_reset_is_told_as_that_while_the_input_is_open(self):
        self.reset()
        self.assert_told("reading failed: Connection reset by peer")

    def test_each_side_sees_the_others_end(self):
        self.command.stdin.write(b"up")
        self.command.stdin.close()
        self.command.stdin = None
        self.peer.settimeout(30)
        with self.peer.makefile("rb") as wire:
            self.assertEqual(wire.read(), b"up")
        self.peer.sendall(b"down")
        self.peer.shutdown(socket.SHUT_WR)
        self.assertEqual(self.command.stdout.read(), b"down")
        self.assertEqual(self.command.wait(30), 0)


if __name__ == "__main__":
    unittest.main()
