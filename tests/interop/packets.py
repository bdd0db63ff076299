"""The primitives and packets of curve_tun 1.0, for curvetun.py: pure functions, every field of every packet can be replaced."""

import os
import struct

from nacl import bindings
from nacl.exceptions import CryptoError

HELLO_MAGIC = bytes.fromhex("6c09afb28aa9fafc")
COOKIE_MAGIC = bytes.fromhex("1c45dcb941c0e3f6")
INITIATE_MAGIC = bytes.fromhex("6c09afb28aa9fafd")
MESSAGE_MAGIC = bytes.fromhex("6d1b39cbf65a11b4")

HELLO_PREFIX = b"CurveCP-client-H"
INITIATE_PREFIX = b"CurveCP-client-I"
CLIENT_MESSAGE_PREFIX = b"CurveCP-client-M"
SERVER_MESSAGE_PREFIX = b"CurveCP-server-M"
COOKIE_PREFIX = b"CurveCPK"
VOUCH_PREFIX = b"CurveCPV"
MINUTE_PREFIX = b"minute-k"

MAX_MESSAGE = 65503
FIRST_MESSAGE_COUNTER = 2

# Public keys that give every secret key the same, all-zero shared secret (little-endian numbers modulo 2^255-19).
_P = 2**255 - 19
LOW_ORDER_KEYS = [
    number.to_bytes(32, "little")
    for number in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _P - 1,
        _P,
        _P + 1,
    )
]


# --- primitives --------------------------------------------------------------------------------------------------------


class KeyPair:
    def __init__(self, secret=None):
        self.secret = os.urandom(32) if secret is None else secret
        self.public = bindings.crypto_scalarmult_base(self.secret)


def be64(number):
    return struct.pack(">Q", number)


def hsalsa20(key, block):
    """For boxes under an all-zero shared secret, which libsodium rightly refuses to make."""
    c = b"expand 32-byte k"
    words = struct.unpack("<16I", c[0:4] + key[:16] + c[4:8] + block + c[8:12] + key[16:] + c[12:16])
    x = list(words)

    def quarter(a, b, cc, d):
        def add_rotate(target, p, q, bits):
            v = (x[p] + x[q]) & 0xFFFFFFFF
            x[target] ^= ((v << bits) | (v >> (32 - bits))) & 0xFFFFFFFF

        add_rotate(b, a, d, 7)
        add_rotate(cc, b, a, 9)
        add_rotate(d, cc, b, 13)
        add_rotate(a, d, cc, 18)

    for _ in range(10):
        for column in ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)):
            quarter(*column)
        for row in ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)):
            quarter(*row)
    return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def is_low_order(public):
    masked = public[:31] + bytes([public[31] & 0x7F])
    return masked in LOW_ORDER_KEYS


def shared_key(public, secret, allow_low_order=False):
    """crypto_box_beforenm. Raises CryptoError for a low-order key unless the caller wants to misbehave."""
    if allow_low_order and is_low_order(public):
        return hsalsa20(bytes(32), bytes(16))
    try:
        return bindings.crypto_box_beforenm(public, secret)
    except Exception as error:
        raise CryptoError("no shared key") from error


def seal(text, nonce, shared):
    return bindings.crypto_box_afternm(text, nonce, shared)


def unseal(box, nonce, shared):
    return bindings.crypto_box_open_afternm(box, nonce, shared)


# --- packets: every field has a default and every default can be replaced -------------------------------------------------


def make_hello(ephemeral, server_public, magic=HELLO_MAGIC, public=None, counter=0, nonce_counter=None, zeros=bytes(64),
               prefix=HELLO_PREFIX, box=None, shared=None):
    if box is None:
        if shared is None:
            shared = shared_key(server_public, ephemeral.secret)
        box = seal(zeros, prefix + be64(counter if nonce_counter is None else nonce_counter), shared)
    return magic + (ephemeral.public if public is None else public) + be64(counter) + box


def make_vouch(long_term, server_public, ephemeral_public, nonce, prefix=VOUCH_PREFIX):
    return seal(ephemeral_public, prefix + nonce, shared_key(server_public, long_term.secret))


def make_initiate(cookie, ephemeral_shared, client_public, vouch_nonce, vouch, magic=INITIATE_MAGIC, counter=1,
                  nonce_counter=None, prefix=INITIATE_PREFIX, content=None, box=None):
    if box is None:
        if content is None:
            content = client_public + vouch_nonce + vouch
        box = seal(content, prefix + be64(counter if nonce_counter is None else nonce_counter), ephemeral_shared)
    return magic + cookie + be64(counter) + box


def make_message(text, shared, prefix, counter, magic=MESSAGE_MAGIC, nonce_counter=None):
    return magic + be64(counter) + seal(text, prefix + be64(counter if nonce_counter is None else nonce_counter), shared)


def make_cookie_packet(server, client_ephemeral_public, es_public, cookie, nonce, magic=COOKIE_MAGIC, prefix=COOKIE_PREFIX,
                       content=None, shared=None):
    if shared is None:
        shared = shared_key(client_ephemeral_public, server.secret)
    if content is None:
        content = es_public + cookie
    return magic + nonce + seal(content, prefix + nonce, shared)


def frame(packet):
    return struct.pack(">H", len(packet)) + packet


def flip(packet, offset, bit=0):
    """The packet with one bit turned over; a negative offset counts from the end."""
    changed = bytearray(packet)
    changed[offset] ^= 1 << bit
    return bytes(changed)
