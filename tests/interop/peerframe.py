"""The peer protocol a second time, written from docs/protocol.md §13: Python, AES and HMAC of python3-cryptography, and a SHA-256
of its own, because no library lets one start it from the digest before.

    a = Party("A", block, mode="hard"); a.outgoing (40 bytes in hard mode); a.feed(bytes) -> [(code, payload), ...]
    a.frame(payload, code) -> bytes to send

Faults are BadPeer with the reason's name. Nothing here is made for speed.
"""

import hashlib
import os
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HEADER, TAG, OVERHEAD = 16, 8, 24
CODE_CONTROL = 0xFFFFFFFF  # of hard mode: empty it is the end, with OPEN_TEXT it says nothing but that we hold the block
OPEN_TEXT = b"open"
PREAMBLE = 40


class BadPeer(Exception):
    """What the other side sent breaks the protocol; the text is the reason's name of §4."""


# --- SHA-256 with a start value ------------------------------------------------------------------------------------------

def _roots(count, power):
    """The first 32 fraction bits of the square (2) or cube (3) roots of the first primes, in integers."""
    primes, number = [], 2
    while len(primes) < count:
        if all(number % p for p in primes):
            primes.append(number)
        number += 1
    result = []
    for prime in primes:
        low, high = 0, 1 << 40
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if middle ** power <= prime << (32 * power) else (low, middle)
        result.append(low & 0xFFFFFFFF)
    return result


_K = _roots(64, 3)
INITIAL = struct.pack(">8I", *_roots(8, 2))


def _rotate(value, count):
    return (value >> count | value << (32 - count)) & 0xFFFFFFFF


def _compress(state, block):
    w = list(struct.unpack(">16I", block))
    for i in range(16, 64):
        s0 = _rotate(w[i - 15], 7) ^ _rotate(w[i - 15], 18) ^ w[i - 15] >> 3
        s1 = _rotate(w[i - 2], 17) ^ _rotate(w[i - 2], 19) ^ w[i - 2] >> 10
        w.append((w[i - 16] + s0 + w[i - 7] + s1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        t1 = h + (_rotate(e, 6) ^ _rotate(e, 11) ^ _rotate(e, 25)) + ((e & f) ^ (~e & g)) + _K[i] + w[i]
        t2 = (_rotate(a, 2) ^ _rotate(a, 13) ^ _rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
        a, b, c, d, e, f, g, h = (t1 + t2) & 0xFFFFFFFF, a, b, c, (d + t1) & 0xFFFFFFFF, e, f, g
    return [(x + y) & 0xFFFFFFFF for x, y in zip(state, (a, b, c, d, e, f, g, h))]


def chained_sha256(start, data):
    """SHA-256 of `data` alone, its own padding and length, but with the 32 bytes `start` as the start value."""
    state = list(struct.unpack(">8I", start))
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + struct.pack(">Q", 8 * len(data))
    for at in range(0, len(padded), 64):
        state = _compress(state, padded[at:at + 64])
    return struct.pack(">8I", *state)


# --- keys ----------------------------------------------------------------------------------------------------------------

def hmac(key, data):
    mac = HMAC(key, hashes.SHA256())
    mac.update(data)
    return mac.finalize()


def half_of(block, sender):
    return block[:64] if sender == "A" else block[64:]


class Direction:
    """Counters, keys and chain of what one party sends: the same at both ends."""

    def __init__(self, block, sender, mode, salts=b"", rotate=None, first_n=1):
        assert len(block) == 128 and sender in "AB" and mode in ("base", "hard")
        self.mode, self.sender, self.half = mode, sender, half_of(block, sender)
        self.rotate = (65536 if mode == "hard" else 0) if rotate is None else rotate
        self.n, self.chain, self.blocks, self.epoch = first_n, INITIAL, 0, 0
        self.mac_key = self.header_key = None
        if mode == "hard":
            assert len(salts) == 64
            self.secret = hmac(salts, self.half)
        self.make_keys()

    def make_keys(self):
        if self.mode == "hard":
            info = b"p2pframe/1 keys " + self.sender.encode()
            keys = HKDFExpand(algorithm=hashes.SHA256(), length=112, info=info).derive(self.secret)
            self.key, self.first = keys[:32], keys[32:48]
            self.mac_key, self.header_key = keys[48:80], keys[80:]
        elif self.epoch == 0:
            self.key, self.first = self.half[:32], self.half[32:48]
        else:
            keys = hashlib.sha512(b"p2pframe rotate" + self.half + struct.pack(">I", self.epoch)).digest()
            self.key, self.first = keys[:32], keys[32:48]

    def crypt(self, data, offset=0):
        """The bytes from `offset` of this frame on."""
        counter = (int.from_bytes(self.first, "big") + self.blocks) % (1 << 128)
        stream = Cipher(algorithms.AES(self.key), modes.CTR(counter.to_bytes(16, "big"))).encryptor()
        stream.update(bytes(offset))
        return stream.update(data)

    def checksum(self, fields):
        length, code, sequence = struct.unpack(">3I", fields)
        plain = length ^ code ^ sequence
        if self.mode == "hard":
            plain ^= int.from_bytes(hmac(self.header_key, b"H" + struct.pack(">Q", self.n) + fields)[:4], "big")
        return struct.pack(">I", plain)

    def tag(self, header, payload):
        """Moves the chain on."""
        self.chain = chained_sha256(self.chain, header + payload)
        if self.mode == "hard":
            return hmac(self.mac_key, b"T" + struct.pack(">Q", self.n) + self.chain)[:8]
        return self.chain[:8]

    def next_frame(self, length):
        self.n += 1
        self.blocks += (OVERHEAD + length + 15) // 16
        if self.rotate and (self.n - 1) % self.rotate == 0:
            self.epoch, self.blocks = self.epoch + 1, 0
            if self.mode == "hard":
                self.secret = hmac(self.secret, b"p2pframe/1 next")
            self.make_keys()


def make_frame(direction, payload, code, length=None):
    """`length`: a lie."""
    fields = struct.pack(">3I", len(payload) if length is None else length, code, direction.n & 0xFFFFFFFF)
    header = fields + direction.checksum(fields)
    frame = direction.crypt(header + payload + direction.tag(header, payload))
    direction.next_frame(len(payload))
    return frame


class Party:
    """One end of a connection: bytes in, frames out."""

    def __init__(self, own, block, mode="hard", salt=None, rotate=None, limit=16 << 20, first_n=1):
        self.own, self.other, self.block, self.mode = own, "B" if own == "A" else "A", block, mode
        self.rotate, self.limit, self.first_n, self.buffer, self.dead = rotate, limit, first_n, b"", None
        self.salt = os.urandom(32) if salt is None else salt
        self.sending = self.receiving = None
        self.outgoing = b""
        if mode == "hard":
            self.outgoing = b"p2pf\x01\x01" + own.encode() + b"\x00" + self.salt
        else:
            self.begin(b"")

    def begin(self, salts):
        self.sending = Direction(self.block, self.own, self.mode, salts, self.rotate, self.first_n)
        self.receiving = Direction(self.block, self.other, self.mode, salts, self.rotate, self.first_n)

    def frame(self, payload, code=0):
        return make_frame(self.sending, payload, code)

    def fail(self, reason):
        self.dead = reason
        raise BadPeer(reason)

    def feed(self, data):
        """The frames that are whole now."""
        if self.dead:
            raise BadPeer(self.dead)
        self.buffer += data
        if self.sending is None and not self.take_preamble():
            return []
        frames = []
        while (frame := self.take_frame()) is not None:
            frames.append(frame)
        return frames

    def take_preamble(self):
        expected = b"p2pf\x01\x01" + self.other.encode() + b"\x00"
        if self.buffer[:8] != expected[:len(self.buffer)]:
            same = self.buffer[6:7] == self.own.encode() and self.buffer[:6] == expected[:6]
            self.fail("same_party" if same else "bad_preamble")
        if len(self.buffer) < PREAMBLE:
            return False
        salt, self.buffer = self.buffer[8:PREAMBLE], self.buffer[PREAMBLE:]
        self.begin(self.salt + salt if self.own == "A" else salt + self.salt)
        return True

    def take_frame(self):
        if len(self.buffer) < HEADER:
            return None
        header = self.receiving.crypt(self.buffer[:HEADER])
        length, code, sequence = struct.unpack(">3I", header[:12])
        if self.receiving.checksum(header[:12]) != header[12:]:
            self.fail("bad_checksum")
        if sequence != self.receiving.n & 0xFFFFFFFF:
            self.fail("bad_counter")
        if length > self.limit:
            self.fail("frame_too_large")
        if len(self.buffer) < OVERHEAD + length:
            return None
        plain = self.receiving.crypt(self.buffer[:OVERHEAD + length])
        payload = plain[HEADER:HEADER + length]
        if self.receiving.tag(header, payload) != plain[HEADER + length:]:
            self.fail("bad_tag")
        self.receiving.next_frame(length)
        self.buffer = self.buffer[OVERHEAD + length:]
        return code, payload
