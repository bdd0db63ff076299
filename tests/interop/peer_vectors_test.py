#!/usr/bin/python3
"""Goal: the Python implementation of the peer protocol gives the known answers, and refuses any flipped bit in hard mode. (If it
failed here, what it says about our daemons would be worth nothing.)
"""

import hashlib
import json
import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peerframe as pf  # noqa: E402

VECTORS = json.loads(pathlib.Path(os.environ.get(
    "SALLYPORT_PEER_VECTORS", pathlib.Path(__file__).resolve().parent.parent / "vectors" / "peer_frame.json")).read_text())
BLOCK, SALTS = bytes.fromhex(VECTORS["block"]), bytes.fromhex(VECTORS["salts"])


def direction_of(vector):
    return pf.Direction(BLOCK, vector["side"], vector["mode"], SALTS, vector["rotate_frames"], vector["first_n"])


def party_that_reads(vector):
    own = "B" if vector["side"] == "A" else "A"
    party = pf.Party(own, BLOCK, vector["mode"], SALTS[32:] if own == "B" else SALTS[:32], vector["rotate_frames"])
    if vector["mode"] == "hard":
        theirs = SALTS[:32] if own == "B" else SALTS[32:]
        party.feed(b"p2pf\x01\x01" + vector["side"].encode() + b"\x00" + theirs)
    party.receiving.n = vector["first_n"]
    return party


class KnownAnswers(unittest.TestCase):
    def test_own_sha256_is_sha256(self):
        for data in (b"", b"abc", bytes(55), bytes(56), bytes(64), bytes(1000)):
            self.assertEqual(pf.chained_sha256(pf.INITIAL, data), hashlib.sha256(data).digest())

    def test_chained_hashes(self):
        digest = pf.INITIAL
        for vector in VECTORS["sha256_chain"]:
            digest = pf.chained_sha256(digest, bytes.fromhex(vector["data_hex"]))
            self.assertEqual(digest.hex(), vector["digest"])

    def test_keys(self):
        for vector in VECTORS["directions"]:
            direction = direction_of(vector)
            self.assertEqual(direction.key.hex(), vector["epoch0"]["key"])
            self.assertEqual(direction.first.hex(), vector["epoch0"]["iv"])
            if vector["mode"] == "hard":
                self.assertEqual(direction.mac_key.hex(), vector["epoch0"]["mac_key"])
                self.assertEqual(direction.header_key.hex(), vector["epoch0"]["header_key"])

    def test_frames_sealed(self):
        for vector in VECTORS["directions"]:
            direction = direction_of(vector)
            for frame in vector["frames"]:
                self.assertEqual((direction.n, direction.epoch), (frame["n"], frame["epoch"]))
                sealed = pf.make_frame(direction, bytes.fromhex(frame["payload"]), frame["code"])
                self.assertEqual(sealed.hex(), frame["frame"])
                self.assertEqual(direction.chain.hex(), frame["chain"])

    def test_frames_opened(self):
        for vector in VECTORS["directions"]:
            party = party_that_reads(vector)
            for frame in vector["frames"]:
                self.assertEqual(party.feed(bytes.fromhex(frame["frame"])), [(frame["code"], bytes.fromhex(frame["payload"]))])

    def test_any_flipped_bit_is_refused(self):
        for vector in VECTORS["directions"]:
            frame = bytes.fromhex(vector["frames"][0]["frame"])
            for bit in range(8 * len(frame)):
                changed = bytearray(frame)
                changed[bit // 8] ^= 1 << bit % 8
                with self.assertRaises(pf.BadPeer) as caught:
                    party_that_reads(vector).feed(bytes(changed))
                self.assertEqual(str(caught.exception), "bad_checksum" if bit < 128 else "bad_tag")

    def test_two_parties_and_a_reflection(self):
        a, b = pf.Party("A", BLOCK), pf.Party("B", BLOCK)
        a.feed(b.outgoing)
        b.feed(a.outgoing)
        self.assertEqual(b.feed(a.frame(b"to b", 1)), [(1, b"to b")])
        self.assertEqual(a.feed(b.frame(b"to a", 2)), [(2, b"to a")])
        with self.assertRaisesRegex(pf.BadPeer, "same_party"):
            pf.Party("A", BLOCK).feed(a.outgoing)
        with self.assertRaisesRegex(pf.BadPeer, "bad_preamble"):
            pf.Party("A", BLOCK).feed(b"GET")


if __name__ == "__main__":
    unittest.main()
