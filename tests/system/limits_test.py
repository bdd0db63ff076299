#!/usr/bin/python3
"""Goal: each configured limit holds, drops under its own name what is too much, and leaves what was there before untouched.
Method: real daemons with very small limits; one client more, one second longer, one handshake faster than allowed.
"""

import contextlib
import os
import select
import socket
import struct
import time
import unittest

import minicapnp
from harness import SystemTest, ct, memory_limit, resident_kib, wait_until
from minicapnp import NETWORK, Struct, call_message
from peer_sites import WirePeer, add_block, peer_listen
from traffic import Service, reset


class Limits(SystemTest):
    def start(self, vault=None, **limits):
        site = self.site("limits", workers=1)
        site.limits.update(limits)
        site.vault.update(vault or {})
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo")
        return site

    def session(self, site):
        session = site.connect(self.port, self.alice)
        self.addCleanup(session.close)
        return session

    def test_one_connection_more_is_closed(self):
        site = self.start(connections=2).start()
        wait_until(lambda: site.counter("connections") == 0, 5, "the start's own connections are gone")
        before = site.drops()
        sessions = [self.session(site), self.session(site)]
        for session in sessions:
            self.assert_echo(session)
        with site.client(self.port, self.alice) as third:
            self.assert_closed_silently(third.sock)
        self.assert_dropped(site, before, ["connection_limit"])
        for session in sessions:
            self.assert_echo(session)
        sessions[0].close()
        wait_until(lambda: site.counter("connections") == 1, 5, "room again")
        self.assert_echo(self.session(site))

    def test_one_connection_more_of_a_source_is_closed(self):
        site = self.start(connections_per_source=1).start()
        wait_until(lambda: site.counter("connections") == 0, 5, "the start's own connections are gone")
        before = site.drops()
        session = self.session(site)
        with site.client(self.port, self.alice) as second:
            self.assert_closed_silently(second.sock)
        self.assert_dropped(site, before, ["source_limit"])
        self.assert_echo(session)
        self.assertRegex(site.cli("status").stdout.decode(), r"\n  connections_per_source +1 +1 +[1-9]\d* source_limit\n")

    def test_a_session_without_traffic_ends_and_a_busy_one_does_not(self):
        site = self.start(idle_timeout_s=1).start()
        before = site.drops()
        idle, busy = self.session(site), self.session(site)
        self.assert_echo(idle)
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            self.assert_echo(busy)
            time.sleep(0.2)
        self.assert_closed_silently(idle.sock)
        self.assertEqual(site.drops_since(before), {"idle_timeout": 1})
        self.assert_echo(busy)

    def test_handshakes_beyond_the_keys_rate_are_refused_and_the_next_second_has_its_own(self):
        site = self.start(vault={"handshakes_per_second": 5}).start()
        before = site.drops()
        refused = 0
        for _ in range(30):
            try:
                session = site.connect(self.port, self.alice)
                session.close()
            except (ct.Closed, ConnectionError, EOFError):
                refused += 1
        self.assertGreater(refused, 0)
        self.assert_dropped(site, before, ["rate_limited"])
        vault = site.vault_status()
        self.assertEqual(vault["limits"]["handshakes_per_second"], 5)
        self.assertGreaterEqual(vault["keys"]["server"]["rate_limited"], site.drops_since(before)["rate_limited"])
        self.assertRegex(site.cli("status").stdout.decode(), r"\n  server +\d+ +5 +[1-9]\d* rate_limited\n")
        time.sleep(2)
        self.assert_echo(self.session(site))

    def test_a_service_that_resets_is_a_local_error_and_the_peer_sees_no_end(self):
        site = self.start()

        def refuse(sock, _arrival):
            sock.recv(1)
            reset(sock)

        service = Service(refuse)
        self.addCleanup(service.close)
        port = site.listen("tunnel", ["alice"], service.where)
        site.start()
        before = site.drops()
        with site.connect(port, self.alice) as session:
            session.send(b"hello")
            self.assert_closed_silently(session.sock)
        self.assert_dropped(site, before, ["local_error"])


@unittest.skipUnless(os.geteuid() == 0, "needs root, to become other users")
class UsersOfTheHost(SystemTest):
    """What is for each of them alone is so although the user namespace of a worker knows none of them."""

    ANNA, BERT = 4001, 4002

    @contextlib.contextmanager
    def being(self, user):
        os.seteuid(user)
        try:
            yield
        finally:
            os.seteuid(0)

    def let_all_in(self, path):
        for folder in (self.site_.dir, path.parent):
            folder.chmod(0o711)
        path.chmod(0o666)

    def connect_as(self, user):
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        with self.being(user):
            sock.connect(str(self.path))
        sock.settimeout(10)
        return sock


class UsersOfAUnixListener(UsersOfTheHost):
    """Each is a source of its own."""

    WRONG = b"not of this block, not at all"

    def setUp(self):
        self.site_ = site = self.site("users", workers=1)
        self.path = site.dir / "run" / "wire.sock"
        self.block = os.urandom(128)
        add_block(site, "link", self.block, "B")
        peer_listen(site, "base", "echo", address=f"unix:{self.path}", mode="base")

    def start(self, **limits):
        self.site_.limits.update(limits)
        self.site_.start()
        self.let_all_in(self.path)
        wait_until(lambda: self.site_.counter("connections") == 0, 5, "the start's own connections are gone")
        self.before = self.site_.drops()

    def assert_served(self, sock):
        peer = WirePeer(sock, "A", self.block, mode="base")
        peer.send(b"hello", 7)
        while not peer.frames:
            peer.read()
        self.assertEqual(peer.frames, [(7, b"hello")])

    def test_wrong_tries_of_one_shut_out_no_other(self):
        self.start()
        for _ in range(1000):
            wrong = self.connect_as(self.ANNA)
            wrong.sendall(self.WRONG)
            self.assert_closed_silently(wrong)
            if "source_limit" in self.site_.drops_since(self.before):
                break
        self.assert_served(self.connect_as(self.BERT))
        self.assertIn(f"entry=base from=unix:uid={self.ANNA}", self.site_.log())

    def test_connections_of_one_are_bounded_and_leave_others_theirs(self):
        self.start(connections_per_source=1)
        anna = self.connect_as(self.ANNA)
        wait_until(lambda: self.site_.counter("half_open") == 1, 5, "anna is there")
        self.assert_closed_silently(self.connect_as(self.ANNA))
        self.assert_dropped(self.site_, self.before, ["source_limit"])
        self.assert_served(self.connect_as(self.BERT))
        anna.close()


class UsersOfTheNetSocket(UsersOfTheHost):
    """Its places and what its clients may hold are shared by users, not by connections."""

    PLACES, HELD_MIB = 256, 20  # netd/channel_service.cc

    def setUp(self):
        self.site_ = site = self.site("programs", workers=1)
        self.path = site.dir / "run" / "net.sock"
        site.peer("alice")
        site.listen("echo", ["alice"], "echo")
        site.listen("chat", ["alice"], "channel")
        site.start()
        self.let_all_in(self.path)

    def program_of(self, user):
        with self.being(user):
            program = minicapnp.Network(self.path)
        self.addCleanup(program.close)
        return program

    def assert_served(self, program):
        with self.assertRaises(minicapnp.Refused):
            program.listen("nobody")

    def test_who_has_all_places_loses_one_to_another_user(self):
        crowd = [self.connect_as(self.ANNA) for _ in range(self.PLACES + 20)]
        self.assertTrue(select.select(crowd, [], [], 10)[0], "hers are refused when all places are taken")
        self.assert_served(self.program_of(self.BERT))
        wait_until(lambda: f"cut off reason=crowded uid={self.ANNA}" in self.site_.log(), 5, "the log says whom it hit")

    def test_who_holds_the_most_loses_it_and_not_who_sends_the_largest_message(self):
        bert = self.program_of(self.BERT)
        for _ in range(self.HELD_MIB + 4):
            self.connect_as(self.ANNA).sendall(struct.pack("<IIQ", 0, (1 << 20) // 8, 0))
        # One that doesn't fit beside the others, for what each connection costs.
        wait_until(lambda: self.site_.counter("rpc_cut_off") == 5, 10, "she holds as much as she may")
        large = call_message(1, ("cap", bert.rpc.root), NETWORK, 1, Struct(b"", ["x" * 1_900_000]))
        bert.rpc.sock.sendall(large[:-8])
        wait_until(lambda: self.site_.counter("rpc_cut_off") > 5, 10, "it is too much together")
        bert.rpc.sock.sendall(large[-8:])
        self.assertIsNotNone(bert.rpc.wait(1))
        self.assert_served(bert)


    def test_objects_that_are_never_released_count_with_what_she_holds(self):
        worker = self.site_.pids()["workers"][0]
        before = resident_kib(worker)
        for _ in range(30):
            anna = self.program_of(self.ANNA)
            with contextlib.suppress(OSError, EOFError):
                for _ in range(1000):
                    anna.listen("chat")
        self.assertGreater(self.site_.counter("rpc_cut_off"), 0)
        self.assertLess(resident_kib(worker) - before, memory_limit((self.HELD_MIB + 10) * 1024))
        self.assert_served(self.program_of(self.BERT))


if __name__ == "__main__":
    unittest.main()
