#!/usr/bin/python3
"""Goal: real daemons and the Python implementation of the peer protocol (peerframe.py, written from docs/protocol.md §13) understand
each other: both modes, both parties, either of them dialling; and what must not work doesn't.
Method: one Site; the Python party is at the other end of a [[listen]] or of a [[connect]] entry.
"""

import os
import pathlib
import socket
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))
from harness import Crowd, SystemTest, wait_until  # noqa: E402
from peer_sites import END, OPEN, WirePeer, add_block, peer_connect, peer_listen  # noqa: E402
from traffic import Service, acknowledged, patterned, plain, read_all, read_count  # noqa: E402
import minicapnp  # noqa: E402

OTHER = {"A": "B", "B": "A"}


class Dialled:
    """A listening socket for a [[connect]] entry: the Python party listens."""

    def __init__(self, own, block, mode="hard", **options):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.own, self.block, self.mode, self.options = own, block, mode, options

    def accept(self):
        self.listener.settimeout(20)
        sock, _ = self.listener.accept()
        return WirePeer(sock, self.own, self.block, self.mode, opening=False, **self.options)


class Leaver:
    """Sends frames of 4096 bytes until our kernel takes no more, because no program receives them, and goes."""

    def __init__(self, peer):
        self.arrived = 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for number in range(self.arrived, self.arrived + 16):
                peer.send(patterned(4096, number))
            if not acknowledged(peer.sock):
                break
            self.arrived += 16
        peer.close()

    def check(self, test, channel):
        """What is sent to it fails, and takes no frame that had arrived with it."""
        with test.assertRaises(BrokenPipeError) as broken:
            for _ in range(50):
                channel.send([b"anybody?"])
                time.sleep(0.05)
        test.assertEqual(str(broken.exception), "transport_error")
        received, end = [], minicapnp.OPEN
        while end == minicapnp.OPEN:
            more, end, reason = channel.receive()
            received += more
        test.assertGreater(self.arrived * 4096, 1 << 20, "all of it fitted into the channel: nothing was tested")
        test.assertGreaterEqual(len(received), self.arrived)
        test.assertEqual(received, [patterned(4096, number) for number in range(len(received))])
        test.assertEqual((end, reason), (minicapnp.BROKEN, "transport_error"))


class HardMode(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site_ = site = cls.class_site("peers")
        cls.service = Service()
        cls.addClassCleanup(cls.service.close)
        cls.blocks, cls.ports, cls.dialled, cls.plain = {}, {}, {}, {}
        for party in "AB":
            block = cls.blocks[party] = os.urandom(128)
            add_block(site, f"we-are-{party}", block, party)
            cls.ports[party] = peer_listen(site, f"tunnel-{party}", cls.service.where, key=f"we-are-{party}")
            cls.dialled[party] = Dialled(OTHER[party], block)
            cls.addClassCleanup(cls.dialled[party].listener.close)
            cls.plain[party] = peer_connect(site, f"out-{party}", cls.dialled[party].port, key=f"we-are-{party}")
        cls.echo = peer_listen(site, "echo", "echo", key="we-are-B")
        cls.rotating = peer_listen(site, "rotating", "echo", key="we-are-B", rotate_frames=5)
        cls.leaving = Dialled("B", cls.blocks["A"])
        cls.addClassCleanup(cls.leaving.listener.close)
        peer_connect(site, "leaving", cls.leaving.port, key="we-are-A", listen=False, max_frame_bytes=65536)
        cls.small = peer_listen(site, "small", "echo", key="we-are-B", max_frame_bytes=1000)
        cls.unix = peer_listen(site, "unix", "echo", key="we-are-B", address="unix:run/wire.sock")
        site.start()

    def peer(self, port, party="A", **options):
        peer = WirePeer(("127.0.0.1", port), party, self.blocks[OTHER[party]], **options)
        self.addCleanup(peer.close)
        return peer

    def test_a_tunnel_to_our_service_as_either_party(self):
        for ours in "AB":
            with self.subTest(ours=ours):
                peer = self.peer(self.ports[ours], OTHER[ours])
                data = patterned(100_000)
                count = len(self.service.arrivals)
                for at in range(0, len(data), 9_999):
                    peer.send(data[at:at + 9_999], code=at)
                self.assertEqual(peer.receive_bytes(len(data)), data)
                peer.send(b"", END)
                self.assertEqual(peer.receive(), (END, b""))
                self.assertEqual(peer.ended(), "eof")
                self.assertEqual(self.service.ended(count - 1 if count else 0).end, "eof")

    def test_a_tunnel_from_our_plain_side_as_either_party(self):
        for ours in "AB":
            with self.subTest(ours=ours), plain(self.plain[ours]) as sock:
                peer = self.dialled[ours].accept()
                self.addCleanup(peer.close)
                self.assertEqual(peer.receive(), OPEN)
                sock.sendall(b"to python")
                self.assertEqual(peer.receive_bytes(9), b"to python")
                peer.send(b"from python")
                self.assertEqual(read_count(sock, 11), b"from python")
                sock.shutdown(socket.SHUT_WR)
                self.assertEqual(peer.receive(), (END, b""))
                peer.send(b"after your end")
                peer.send(b"", END)
                self.assertEqual(read_all(sock), (b"after your end", "eof"))

    def test_codes_come_back_and_large_frames_do(self):
        peer = self.peer(self.echo)
        for code, size in ((1, 0), (0xFFFFFFFD, 1), (7, 200_000)):
            data = patterned(size)
            peer.send(data, code)
            self.assertEqual(peer.receive(), (code, data))

    def test_no_open_frame_is_needed(self):
        peer = self.peer(self.echo, opening=False)
        peer.send(b"straight on", 5)
        self.assertEqual(peer.receive(), (5, b"straight on"))

    def test_over_a_unix_socket(self):
        peer = WirePeer(self.site_.dir / "run/wire.sock", "A", self.blocks["B"])
        self.addCleanup(peer.close)
        peer.send(b"local")
        self.assertEqual(peer.receive(), (0, b"local"))

    def test_ten_epochs(self):
        peer = self.peer(self.rotating, rotate=5)
        for number in range(60):
            peer.send(b"%d" % number)
            self.assertEqual(peer.receive(), (0, b"%d" % number))

    def test_what_arrived_before_a_failed_send_is_still_received(self):
        with minicapnp.Network(self.site_.dir / "run/net.sock") as network, Crowd() as crowd:
            accepted = []
            crowd.start(lambda: accepted.append(self.leaving.accept()))
            channel = network.connect("leaving")
            wait_until(lambda: accepted, 10, "it is dialled")
            Leaver(accepted[0]).check(self, channel)

    # -- what must not work

    def refused(self, peer, reasons):
        before = self.before
        self.assertIn(peer.ended(), ("eof", "reset"))
        self.assert_dropped(self.site_, before, reasons)

    def setUp(self):
        self.before = self.site_.drops()

    def test_another_block(self):
        peer = WirePeer(("127.0.0.1", self.echo), "A", os.urandom(128))
        self.addCleanup(peer.close)
        self.refused(peer, ["bad_checksum"])

    def test_equal_roles(self):
        peer = WirePeer(("127.0.0.1", self.echo), "B", self.blocks["B"], handshake=False)
        self.addCleanup(peer.close)
        self.refused(peer, ["same_party"])

    def test_a_replayed_session(self):
        peer = self.peer(self.echo)
        again = WirePeer(("127.0.0.1", self.echo), "A", self.blocks["B"], handshake=False)
        self.addCleanup(again.close)
        recorded = peer.party.frame(b"transfer 100")
        peer.sock.sendall(recorded)
        self.assertEqual(peer.receive(), (0, b"transfer 100"))
        again.sock.sendall(recorded)
        self.refused(again, ["bad_checksum"])

    def test_a_length_of_four_gib(self):
        peer = self.peer(self.echo)
        peer.send(b"x")
        peer.receive()
        from peerframe import make_frame
        peer.sock.sendall(make_frame(peer.party.sending, b"", 0, length=0xFFFFFFFF))
        self.refused(peer, ["frame_too_large"])

    def test_a_frame_beyond_the_entrys_limit(self):
        peer = self.peer(self.small)
        peer.send(bytes(1000))
        self.assertEqual(peer.receive(), (0, bytes(1000)))
        peer.send(bytes(1001))
        self.refused(peer, ["frame_too_large"])

    def test_a_truncated_preamble(self):
        with socket.create_connection(("127.0.0.1", self.echo)) as sock:
            sock.sendall(b"p2pf\x01\x01A\x00" + bytes(31))
            sock.shutdown(socket.SHUT_WR)
            self.assert_closed_silently(sock)
        self.assert_dropped(self.site_, self.before, ["closed_in_handshake"])

    def test_reflected_frames(self):
        peer = self.peer(self.echo)
        peer.send(b"mirror")
        data = b""
        while len(data) < 30:
            data += peer.sock.recv(30)
        peer.sock.sendall(data)
        self.refused(peer, ["bad_checksum"])

    def test_dropped_repeated_and_swapped_frames(self):
        for name, order in (("dropped", [1]), ("repeated", [0, 0]), ("swapped", [1, 0])):
            with self.subTest(name):
                self.before = self.site_.drops()
                peer = self.peer(self.echo)
                frames = [peer.party.frame(b"one"), peer.party.frame(b"two")]
                for index in order:
                    peer.sock.sendall(frames[index])
                self.refused(peer, ["bad_checksum"])

    def test_a_flipped_bit_anywhere_in_a_frame(self):
        peer = self.peer(self.echo)
        size = len(peer.party.frame(b"hello"))
        for at in range(size):
            peer = self.peer(self.echo)
            frame = bytearray(peer.party.frame(b"hello"))
            frame[at] ^= 1 << at % 8
            peer.sock.sendall(frame)
            self.assertIn(peer.ended(), ("eof", "reset"))
        drops = self.site_.drops_since(self.before)
        drops.pop("closed_in_handshake", None)  # how the harness found out that the site listens may be counted late
        self.assertEqual(drops, {"bad_checksum": 16, "bad_tag": size - 16})


class BaseMode(SystemTest):
    def test_both_parties_and_either_dialling(self):
        for ours in "AB":
            with self.subTest(ours=ours):
                site = self.site(f"base{ours}")
                blocks = {name: os.urandom(128) for name in ("in", "out")}
                for name, block in blocks.items():
                    add_block(site, name, block, ours)
                port = peer_listen(site, "echo", "echo", key="in", mode="base")
                dialled = Dialled(OTHER[ours], blocks["out"], "base")
                self.addCleanup(dialled.listener.close)
                peer_connect(site, "out", dialled.port, key="out", listen=False, mode="base")
                site.start()
                with WirePeer(("127.0.0.1", port), OTHER[ours], blocks["in"], "base") as peer:
                    for code, size in ((0, 5), (0xFFFFFFFF, 0), (9, 150_000)):
                        data = patterned(size)
                        peer.send(data, code)
                        self.assertEqual(peer.receive(), (code, data))
                # The block has served its one connection.
                before = site.drops()
                with WirePeer(("127.0.0.1", port), OTHER[ours], blocks["in"], "base") as again:
                    again.send(b"again")
                    self.assertIn(again.ended(), ("eof", "reset"))
                self.assert_dropped(site, before, ["block_used"])
                with minicapnp.Network(site.dir / "run/net.sock") as network:
                    channel = network.connect("out")
                    peer = dialled.accept()
                    self.addCleanup(peer.close)
                    channel.send([b"to python"])
                    self.assertEqual(peer.receive(), (0, b"to python"))
                    peer.send(b"from python", 3)
                    self.assertEqual(channel.receive()[0], [b"from python"])

    def test_what_arrived_before_a_failed_send_is_still_received(self):
        site = self.site("base")
        block = os.urandom(128)
        add_block(site, "link", block, "A")
        dialled = Dialled("B", block, "base")
        self.addCleanup(dialled.listener.close)
        peer_connect(site, "leaving", dialled.port, listen=False, mode="base", max_frame_bytes=65536)
        site.start()
        with minicapnp.Network(site.dir / "run/net.sock") as network:
            channel = network.connect("leaving")
            peer = dialled.accept()
            channel.send([b"who dials speaks first"])
            self.assertEqual(peer.receive(), (0, b"who dials speaks first"))
            Leaver(peer).check(self, channel)

    def test_a_stranger_uses_no_block_up(self):
        site = self.site("base")
        block = os.urandom(128)
        add_block(site, "link", block, "B")
        port = peer_listen(site, "echo", "echo", mode="base")
        site.start()
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(os.urandom(200))
                self.assert_closed_silently(sock)
        with WirePeer(("127.0.0.1", port), "A", block, "base") as peer:
            peer.send(b"first good one")
            self.assertEqual(peer.receive(), (0, b"first good one"))

    def test_tampering_ends_it_and_the_vault_killed_ends_it(self):
        for what in ("tampering", "vault"):
            with self.subTest(what):
                site = self.site("base")
                block = os.urandom(128)
                add_block(site, "link", block, "B")
                port = peer_listen(site, "echo", "echo", mode="base")
                site.start()
                with WirePeer(("127.0.0.1", port), "A", block, "base") as peer:
                    peer.send(b"first")
                    self.assertEqual(peer.receive(), (0, b"first"))
                    if what == "tampering":
                        frame = bytearray(peer.party.frame(b"second"))
                        frame[20] ^= 1
                        peer.sock.sendall(frame)
                    else:
                        os.kill(site.vault_status()["pid"], 9)
                        peer.send(b"second")
                    self.assertIn(peer.ended(), ("eof", "reset"))
                wait_until(lambda: site.drops().get("bad_tag" if what == "tampering" else "vault_unavailable"), 10, "counted")


if __name__ == "__main__":
    unittest.main()
