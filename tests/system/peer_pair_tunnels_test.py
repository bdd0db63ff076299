#!/usr/bin/python3
"""Goal: two hosts' real daemons carry TCP over the peer protocol: content both ways, half-close, an authenticated end; what is cut or
changed on the way is a reset and never a clean end; a killed worker ends its own sessions alone, a killed vault none; a flood of
half-open connections doesn't keep a good one out; memory stays bounded; and no netd process ever has the block in its memory.
Method: two Sites, one of them dialling through a man in the middle.
"""

import os
import random
import signal
import socket
import threading
import subprocess
import time
import unittest

from harness import SystemTest, binary, is_alive, memory_limit, processes_of_session, resident_kib, wait_until
from peer_sites import WirePeer, add_block, peer_connect, peer_listen
from process_memory import holds
from traffic import Mitm, Service, patterned, plain, read_all, read_count, sha256

SIZE = 300_000
FLOOD = 2_000
AT = 100_000
SMALL_FRAMES = (64, 1000, 32_000)  # less than the frames of a stream are otherwise


class Tunnels(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.a, cls.b = cls.class_site("a"), cls.class_site("b")
        cls.block = os.urandom(128)
        add_block(cls.a, "link", cls.block, "A")
        add_block(cls.b, "link", cls.block, "B")
        cls.services = {"echo": Service(), "swallow": Service(Service.swallow), "source": Service(cls.source)}
        cls.mitms, cls.ports, cls.wires = {}, {}, {}
        for name, service in cls.services.items():
            cls.addClassCleanup(service.close)
            cls.wires[name] = peer_listen(cls.b, name, service.where)
            cls.mitms[name] = Mitm(("127.0.0.1", cls.wires[name]))
            cls.addClassCleanup(cls.mitms[name].close)
            cls.ports[name] = peer_connect(cls.a, name, cls.mitms[name].port)
        for size in SMALL_FRAMES:
            wire = peer_listen(cls.b, f"small{size}", cls.services["echo"].where, max_frame_bytes=size)
            cls.ports[size] = peer_connect(cls.a, f"small{size}", wire, max_frame_bytes=size)
        cls.b.limits["half_open"] = 200
        cls.data = patterned(SIZE)
        cls.a.start()
        cls.b.start()

    @staticmethod
    def source(sock, arrival):
        sock.sendall(Tunnels.data)
        arrival.end = read_all(sock)[1]

    def tearDown(self):
        for mitm in self.mitms.values():
            mitm.attack = lambda direction, offset, data: data

    def assert_echoes(self, port, data):
        with plain(port) as sock:
            sock.settimeout(60)
            got = bytearray()
            sent = 0
            sock.setblocking(False)
            deadline = time.monotonic() + 60
            while len(got) < len(data) and time.monotonic() < deadline:
                try:
                    if sent < len(data):
                        sent += sock.send(data[sent:sent + 65536])
                        if sent == len(data):
                            sock.shutdown(socket.SHUT_WR)
                except BlockingIOError:
                    pass
                try:
                    piece = sock.recv(262144)
                    if not piece:
                        break
                    got += piece
                except BlockingIOError:
                    time.sleep(0.001)
            self.assertEqual(sha256(got), sha256(data))
            self.assertEqual(read_all(sock, 10), (b"", "eof"))

    def test_content_and_half_close(self):
        self.assert_echoes(self.ports["echo"], patterned(4 << 20, seed=7))

    def test_frames_no_longer_than_the_entry_allows(self):
        for size in SMALL_FRAMES:
            with self.subTest(size=size):
                self.assert_echoes(self.ports[size], patterned(SIZE, seed=size))

    def test_what_is_done_to_the_wire_is_a_reset(self):
        attacks = {
            "fin": lambda data, i: "fin",
            "rst": lambda data, i: "rst",
            "bit flipped": lambda data, i: data[:i] + bytes([data[i] ^ 1]) + data[i + 1:],
            "cut out": lambda data, i: data[:i] + data[i + 100:],
            "doubled": lambda data, i: data + data,
        }
        for way, service in (("up", "swallow"), ("down", "source")):
            for name, change in attacks.items():
                with self.subTest(name, way=way):
                    state = {"done": False}

                    def attack(direction, offset, data, change=change, state=state, way=way):
                        if direction == way and not state["done"] and offset + len(data) > AT:
                            state["done"] = True
                            return change(data, max(0, AT - offset))
                        return data
                    self.mitms[service].attack = attack
                    count = len(self.services[service].arrivals)
                    with plain(self.ports[service]) as sock:
                        data = b""
                        try:
                            if way == "up":
                                sock.sendall(self.data)
                        except OSError:
                            pass
                        data, end = read_all(sock, 20)
                        self.assertEqual(end, "reset", "the client's program")
                    if way == "down":
                        self.assertTrue(self.data.startswith(data), "wrong bytes were delivered")
                    else:
                        arrival = self.services[service].ended(count, 20)
                        self.assertEqual(arrival.end, "reset", "the service")
                        self.assertTrue(self.data.startswith(bytes(arrival.data)), "wrong bytes were delivered")
                        self.assertLess(len(arrival.data), SIZE)

    def test_a_fin_that_is_injected_behind_the_last_byte(self):
        # All that was said has arrived, and still: without the authenticated end it is no end.
        arrived = threading.Event()
        self.mitms["swallow"].attack = lambda way, offset, data: "fin" if way == "up" and arrived.is_set() else data
        count = len(self.services["swallow"].arrivals)
        with plain(self.ports["swallow"]) as sock:
            sock.sendall(b"all there is")
            arrival = self.services["swallow"].arrival(count)
            wait_until(lambda: bytes(arrival.data) == b"all there is", 10, "it arrives")
            arrived.set()
            sock.shutdown(socket.SHUT_WR)
            self.assertEqual(self.services["swallow"].ended(count).end, "reset")

    def test_a_vault_that_is_killed_takes_no_session_with_it(self):
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"before")
            self.assertEqual(read_count(sock, 6), b"before")
            for site in (self.a, self.b):
                os.kill(site.vault_status()["pid"], signal.SIGKILL)
            for number in range(200):
                sock.sendall(b"%06d" % number)
                self.assertEqual(read_count(sock, 6), b"%06d" % number)
        for site in (self.a, self.b):
            wait_until(lambda s=site: s.net_status()["vault"] == "connected", 20, "the vault is back")
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"after")
            self.assertEqual(read_count(sock, 5), b"after")

    def test_a_worker_that_is_killed_takes_its_own_sessions_alone(self):
        socks = [plain(self.ports["echo"]) for _ in range(16)]
        for sock in socks:
            self.addCleanup(sock.close)
            sock.sendall(b"hello")
            self.assertEqual(read_count(sock, 5), b"hello")
        victim, other = sorted(self.b.net_status()["workers"], key=lambda worker: -worker["counters"]["tunnels"])
        os.kill(victim["pid"], signal.SIGKILL)
        alive = 0
        for sock in socks:
            try:
                sock.sendall(b"again")
                self.assertEqual(read_count(sock, 5, 10), b"again")
                alive += 1
            except (ConnectionResetError, BrokenPipeError, EOFError) as error:
                self.assertNotIsInstance(error, EOFError, "a clean end")
        self.assertGreaterEqual(alive, other["counters"]["tunnels"])
        self.assertLess(alive, len(socks))

        def serves():
            try:
                with plain(self.ports["echo"]) as sock:
                    sock.sendall(b"anew")
                    return read_count(sock, 4, 2) == b"anew"
            except (OSError, EOFError):
                return False
        wait_until(serves, 20, "a new worker serves")

    def test_a_flood_of_half_open_connections(self):
        socks = []
        self.addCleanup(lambda: [sock.close() for sock in socks])
        for number in range(FLOOD):
            sock = socket.create_connection(("127.0.0.1", self.wires["echo"]), 10)
            socks.append(sock)
            if number % 2:
                sock.sendall(b"p2pf\x01\x01A\x00" + random.randbytes(32))
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"let me through")
            self.assertEqual(read_count(sock, 14), b"let me through")
        status = self.b.net_status()
        self.assertLessEqual(status["counters"]["half_open"], 201)
        self.assertGreater(status["drops"]["half_open_limit"], 1000)
        for worker in status["workers"]:
            self.assertLess(resident_kib(worker["pid"]), memory_limit(60_000))

    def test_slow_and_unfinished_frames_take_no_more_memory_than_came(self):
        before = {worker["pid"]: resident_kib(worker["pid"]) for worker in self.b.net_status()["workers"]}
        peers = []
        for _ in range(40):
            peer = WirePeer(("127.0.0.1", self.wires["echo"]), "A", self.block)
            self.addCleanup(peer.close)
            from peerframe import make_frame
            # The header promises 16 MiB, and 20 kB of them come, bit by bit.
            frame = make_frame(peer.party.sending, bytes(20_000), 0, length=16 << 20)
            peer.sock.sendall(frame[:16])
            peers.append((peer, frame[16:20_000]))
        for at in range(0, 20_000, 1000):
            for peer, body in peers:
                peer.sock.sendall(body[at:at + 1000])
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"others go on")
            self.assertEqual(read_count(sock, 12), b"others go on")
        for pid, kib in before.items():
            self.assertLess(resident_kib(pid) - kib, memory_limit(40_000), "40 peers that promised 16 MiB each")

    def test_the_block_is_in_no_memory_of_netd(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"a session")
            self.assertEqual(read_count(sock, 9), b"a session")
            # Halves of 32 bytes, so that a copy of a part is found too.
            patterns = [self.block[at:at + 32] for at in range(0, 128, 32)]
            looked_at = 0
            for site in (self.a, self.b):
                for pid, name in processes_of_session(site.up.pid).items():
                    if name.startswith("netd"):
                        self.assertFalse(holds(pid, patterns), f"{name} has the block")
                        looked_at += 1
            self.assertGreaterEqual(looked_at, 6)
        # A search that can't find is no proof: a process that does hold it.
        planted = subprocess.Popen(["/usr/bin/python3", "-c", "import sys, time; kept = bytes.fromhex(sys.stdin.readline()); "
                                    "print('ready', flush=True); time.sleep(60)"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(planted.wait)
        self.addCleanup(planted.kill)
        planted.stdin.write(self.block.hex().encode() + b"\n")
        planted.stdin.flush()
        planted.stdout.readline()
        self.assertTrue(holds(planted.pid, patterns))

    def test_z_a_rotation_and_a_reload_end_sessions(self):
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"old block")
            self.assertEqual(read_count(sock, 9), b"old block")
            fresh = os.urandom(128).hex().encode() + b"\n"
            for site in (self.a, self.b):
                site.cli("key", "rotate", "link", "--import", "--unused", stdin=fresh)
            site_before = self.b.drops()
            for site in (self.a, self.b):
                site.reload()
            self.assertEqual(read_all(sock, 10)[1], "reset")
            wait_until(lambda: self.a.drops().get("peer_revoked", 0) + self.b.drops_since(site_before).get("peer_revoked", 0), 10,
                       "counted")
        with plain(self.ports["echo"]) as sock:
            sock.sendall(b"new block")
            self.assertEqual(read_count(sock, 9), b"new block")

    # -- over other carriers

    def test_pipe_carries_a_stream_both_ways(self):
        done = subprocess.run([binary("sallyport"), "pipe", "--protocol", "peer", "echo", "-c", str(self.a.config)],
                              input=self.data, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, self.data)

    def test_the_wire_through_a_pipe(self):
        # As over ssh: `sallyport pipe --wire` at the far end, and a peer of our own here.
        ours, theirs = socket.socketpair()
        process = subprocess.Popen([binary("sallyport"), "pipe", "--wire", "echo", "-c", str(self.b.config)], stdin=theirs, stdout=theirs,
                                   stderr=subprocess.PIPE)
        theirs.close()
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        with WirePeer(ours, "A", self.block) as peer:
            peer.send(b"through a pipe")
            self.assertEqual(peer.receive_bytes(14), b"through a pipe")
            self.assertTrue(is_alive(process.pid))


if __name__ == "__main__":
    unittest.main()
