#!/usr/bin/python3
"""Goal: the Python implementation gives the known answers of the original for every packet, and refuses each packet with any
one bit turned over. (If it failed here, what it says about our daemons would be worth nothing.)
"""

import json
import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import curvetun as ct  # noqa: E402
from nacl import bindings  # noqa: E402
from nacl.exceptions import CryptoError  # noqa: E402

VECTORS = pathlib.Path(os.environ.get(
    "SALLYPORT_VECTORS", pathlib.Path(__file__).resolve().parent.parent / "vectors" / "curve_tun.json"))


class KnownAnswers(unittest.TestCase):
    def setUp(self):
        self.vectors = json.loads(VECTORS.read_text())
        keys = {name: bytes.fromhex(value) for name, value in self.vectors["keys"].items()}
        self.server, self.client = ct.KeyPair(keys["Ss"]), ct.KeyPair(keys["Cs"])
        self.ec, self.es = ct.KeyPair(keys["ECs"]), ct.KeyPair(keys["ESs"])
        self.keys = keys

    def hex(self, name):
        return bytes.fromhex(self.vectors[name])

    def test_public_keys(self):
        for pair, name in ((self.server, "S"), (self.client, "C"), (self.ec, "EC"), (self.es, "ES")):
            self.assertEqual(pair.public, self.keys[name])

    def test_hello(self):
        self.assertEqual(ct.make_hello(self.ec, self.server.public), self.hex("hello"))
        self.assertEqual(len(self.hex("hello")), self.vectors["sizes"]["hello"])

    def test_cookie(self):
        nonce = self.hex("server_safe_nonce")
        cookie = nonce + bindings.crypto_secretbox(self.ec.public + self.es.secret, b"minute-k" + nonce,
                                                   self.keys["minute_key"])
        self.assertEqual(cookie, self.hex("K"))
        self.assertEqual(ct.make_cookie_packet(self.server, self.ec.public, self.es.public, cookie, nonce), self.hex("cookie"))

    def test_initiate(self):
        nonce = self.hex("client_safe_nonce")
        vouch = ct.make_vouch(self.client, self.server.public, self.ec.public, nonce)
        self.assertEqual(ct.make_initiate(self.hex("K"), ct.shared_key(self.es.public, self.ec.secret), self.client.public,
                                          nonce, vouch), self.hex("vouch"))

    def test_messages(self):
        shared = ct.shared_key(self.es.public, self.ec.secret)
        for message in self.vectors["messages"]:
            prefix = ct.CLIENT_MESSAGE_PREFIX if message["side"] == "client" else ct.SERVER_MESSAGE_PREFIX
            packet = ct.make_message(bytes.fromhex(message["text"]), shared, prefix, message["counter"])
            self.assertEqual(packet.hex(), message["packet"])
            self.assertEqual(ct.frame(packet).hex(), message["frame"])

    def test_any_flipped_bit_of_a_message_is_refused(self):
        shared = ct.shared_key(self.es.public, self.ec.secret)
        packet = bytes.fromhex(self.vectors["messages"][0]["packet"])
        for offset in range(len(packet)):
            session = ct.Session(None, shared, ct.SERVER_MESSAGE_PREFIX, ct.CLIENT_MESSAGE_PREFIX)
            with self.assertRaises(ct.BadPeer):
                session.open_packet(ct.flip(packet, offset, offset % 8))

    def test_low_order_keys_give_no_shared_key(self):
        for key in ct.LOW_ORDER_KEYS:
            with self.assertRaises(CryptoError):
                ct.shared_key(key, self.ec.secret)

    def test_ownhsalsa20_agrees_with_libsodium(self):
        # beforenm(P, s) = HSalsa20(X25519(s, P), 0)
        raw = bindings.crypto_scalarmult(self.ec.secret, self.es.public)
        self.assertEqual(ct.hsalsa20(raw, bytes(16)), ct.shared_key(self.es.public, self.ec.secret))


if __name__ == "__main__":
    unittest.main()
