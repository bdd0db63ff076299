#!/usr/bin/python3
"""Goal: our C++ party and the Python one understand each other: both modes, both parties, any size, rotation, ends, faults.
Method: peer_end, which returns what it gets, on a socket; the Python party at the other end of it.
"""

import os
import pathlib
import random
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peerframe as pf  # noqa: E402

PEER_END = os.environ["SALLYPORT_PEER_END"]
PATIENCE = 60.0
MODES_AND_PARTIES = [(mode, party) for mode in ("base", "hard") for party in "AB"]


class End:
    """A Python party whose peer is a peer_end."""

    def __init__(self, mode, own, rotate=None, limit=1 << 20, frame_bytes=4096, block=None, their_block=None, their_party=None,
                 recorded=None, first_n=1):
        self.block = os.urandom(128) if block is None else block
        self.party = pf.Party(own, self.block, mode, rotate=rotate, first_n=first_n)
        theirs = their_party or ("B" if own == "A" else "A")
        rotate = (65536 if mode == "hard" else 0) if rotate is None else rotate
        self.sock, other = socket.socketpair()
        self.sock.settimeout(PATIENCE)
        self.process = subprocess.Popen(
            [PEER_END, mode, theirs, (their_block or self.block).hex(), str(rotate), str(limit), str(frame_bytes),
             str(first_n)],
            stdin=other, stdout=other, stderr=subprocess.PIPE)
        other.close()
        self.frames = []
        if recorded is None:
            self.sock.sendall(self.party.outgoing)
            while self.party.sending is None:
                self.read()
        else:
            self.sock.sendall(recorded)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.sock.close()
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def read(self):
        """False at the end of the wire."""
        data = self.sock.recv(1 << 16)
        self.frames += self.party.feed(data)
        return bool(data)

    def receive(self, count, code):
        """`count` bytes back, all under `code`."""
        got = b""
        while len(got) < count or not self.frames and count == 0:
            while not self.frames:
                assert self.read(), "the wire ended"
            frame_code, payload = self.frames.pop(0)
            assert frame_code == code, (frame_code, code)
            got += payload
            if count == 0:
                return got
        return got

    def last_word(self):
        """How the process ended: status and the reason it gave."""
        self.process.wait(PATIENCE)
        return self.process.returncode, self.process.stderr.read().decode().split()[-1:]


class BothImplementations(unittest.TestCase):
    def test_understand_each_other_in_both_modes_as_both_parties(self):
        dice = random.Random(5)
        for mode, own in MODES_AND_PARTIES:
            with self.subTest(mode=mode, own=own), End(mode, own) as end:
                for size in (0, 1, 7, 8, 9, 23, 24, 40, 1000, 4096, 5000):
                    code = dice.randrange(pf.CODE_CONTROL)
                    payload = dice.randbytes(size)
                    end.sock.sendall(end.party.frame(payload, code))
                    self.assertEqual(end.receive(size, code), payload)

    def test_understand_each_other_however_the_stream_is_cut(self):
        dice = random.Random(6)
        for mode, own in MODES_AND_PARTIES:
            with self.subTest(mode=mode, own=own), End(mode, own) as end:
                sent = [dice.randbytes(dice.randrange(300)) for _ in range(40)]
                stream = b"".join(end.party.frame(text, 1) for text in sent)
                while stream:
                    cut = dice.choice((1, 2, 15, 16, 17, 100))
                    end.sock.sendall(stream[:cut])
                    stream = stream[cut:]
                self.assertEqual(end.receive(sum(map(len, sent)), 1), b"".join(sent))

    def test_take_a_large_frame_and_return_it_in_smaller_ones(self):
        for mode, own in MODES_AND_PARTIES:
            with self.subTest(mode=mode, own=own), End(mode, own) as end:
                payload = os.urandom(60000)
                end.sock.sendall(end.party.frame(payload, 9))
                self.assertEqual(end.receive(len(payload), 9), payload)
                self.assertEqual(end.party.receiving.n, 1 + 15)

    def test_rotate_at_the_same_frames(self):
        for mode, own in MODES_AND_PARTIES:
            with self.subTest(mode=mode, own=own), End(mode, own, rotate=3) as end:
                for number in range(35):
                    end.sock.sendall(end.party.frame(b"%d" % number, number))
                    self.assertEqual(end.receive(len(str(number)), number), b"%d" % number)
                self.assertGreaterEqual(end.party.sending.epoch, 10)
                self.assertGreaterEqual(end.party.receiving.epoch, 10)

    def test_wrap_around_at_32_bits_and_rotate_there(self):
        for mode, own in MODES_AND_PARTIES:
            with self.subTest(mode=mode, own=own), End(mode, own, rotate=3, first_n=(1 << 32) - 4) as end:
                for number in range(10):
                    end.sock.sendall(end.party.frame(b"around", number))
                    self.assertEqual(end.receive(6, number), b"around")
                self.assertEqual(end.party.sending.n, (1 << 32) + 6)
                self.assertGreaterEqual(end.party.receiving.epoch, 3)

    def test_end_authenticated_in_hard_mode(self):
        for own in "AB":
            with self.subTest(own=own), End("hard", own) as end:
                end.sock.sendall(end.party.frame(pf.OPEN_TEXT, pf.CODE_CONTROL) + end.party.frame(b"last", 1) +
                                 end.party.frame(b"", pf.CODE_CONTROL))
                while end.read():
                    pass
                self.assertEqual(end.frames, [(1, b"last"), (pf.CODE_CONTROL, b"")])
                self.assertEqual(end.last_word(), (0, []))

    def test_end_without_saying_so(self):
        for mode, expected in (("base", (0, [])), ("hard", (3, ["truncated"]))):
            with self.subTest(mode=mode), End(mode, "A") as end:
                end.sock.sendall(end.party.frame(b"last", 1))
                self.assertEqual(end.receive(4, 1), b"last")
                end.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(end.last_word(), expected)


class AFault(unittest.TestCase):
    def fault(self, mode, make, **options):
        """What peer_end says when it gets what `make(end)` returns; and it never answers with a byte."""
        with End(mode, "A", **options) as end:
            end.sock.sendall(make(end))
            end.sock.shutdown(socket.SHUT_WR)
            while end.read():
                pass
            self.assertEqual(end.frames, [])
            status, words = end.last_word()
            self.assertEqual(status, 3)
            return words[0]

    def test_is_told_by_its_name(self):
        def flipped(*bits):
            def make(end):
                frame = bytearray(end.party.frame(b"some payload", 1))
                for bit in bits:
                    frame[bit // 8] ^= 1 << bit % 8
                return bytes(frame)
            return make

        def lost(end):
            end.party.frame(b"lost", 1)
            return end.party.frame(b"next", 1)

        def too_large(end):
            return pf.make_frame(end.party.sending, b"", 1, length=0xFFFFFFFF)

        def reserved(end):
            return end.party.frame(b"x", pf.CODE_CONTROL)

        def after_end(end):
            return end.party.frame(b"", pf.CODE_CONTROL) + end.party.frame(b"x", 1)

        cut = (lambda end: end.party.frame(b"some payload", 1)[:-1], "truncated")
        for mode in ("base", "hard"):
            for make, reason in ((flipped(0), "bad_checksum"), (flipped(8 * 20), "bad_tag"), (flipped(8 * 30), "bad_tag"),
                                 (lost, "bad_checksum"), (too_large, "frame_too_large"), cut):
                with self.subTest(mode=mode, reason=reason):
                    self.assertEqual(self.fault(mode, make), reason)
        # Equal bits in SEQUENCE and CHECKSUM; in hard mode the checksum is keyed.
        self.assertEqual(self.fault("base", flipped(8 * 11, 8 * 15)), "bad_counter")
        self.assertEqual(self.fault("hard", flipped(8 * 11, 8 * 15)), "bad_checksum")
        for make, reason in ((reserved, "reserved_code"), (after_end, "after_end")):
            with self.subTest(reason=reason):
                self.assertEqual(self.fault("hard", make), reason)

    def test_of_another_block_is_a_bad_checksum(self):
        for mode in ("base", "hard"):
            self.assertEqual(self.fault(mode, lambda end: end.party.frame(b"x", 1), their_block=os.urandom(128)), "bad_checksum")

    def test_of_a_preamble_ends_before_any_frame(self):
        for recorded, reason in ((b"GET / HTTP/1.1\r\n\r\n", "bad_preamble"), (b"p2pf\x01\x02A\x00" + bytes(32), "bad_preamble"),
                                 (b"p2pf\x01\x01B\x00" + bytes(32), "same_party"), (b"p2pf\x01\x01A", "closed_in_handshake")):
            with self.subTest(recorded=recorded), End("hard", "A", recorded=recorded) as end:
                end.sock.shutdown(socket.SHUT_WR)
                self.assertEqual(end.last_word(), (3, [reason]))

    def test_of_a_recorded_connection_is_a_bad_checksum_in_hard_mode_alone(self):
        for mode in ("base", "hard"):
            with End(mode, "A") as end:
                recorded = end.party.frame(b"pay", 1)
                end.sock.sendall(recorded)
                self.assertEqual(end.receive(3, 1), b"pay")
                block, recorded = end.block, end.party.outgoing + recorded
            with End(mode, "A", block=block, recorded=recorded) as again:
                if mode == "base":
                    self.assertEqual(again.receive(3, 1), b"pay")  # what hard mode is for
                else:
                    self.assertEqual(again.last_word(), (3, ["bad_checksum"]))


if __name__ == "__main__":
    unittest.main()
