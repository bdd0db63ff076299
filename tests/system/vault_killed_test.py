#!/usr/bin/python3
"""Goal: vaultd killed with SIGKILL under load: sessions go on without a pause, no worker dies, and new handshakes work again within a
second after the restart (`sallyport up` restarts it). While there is no vault, a handshake is refused under a named reason. The peer
protocol's base mode, whose frames the vault seals, is the exception: its connections end with it.
"""

import os
import signal
import socket
import subprocess
import time
import unittest

from harness import Crowd, SystemTest, binary, ct, wait_until
from peer_sites import WirePeer, add_block, peer_connect, peer_listen
from traffic import Service, plain, read_count

LOAD_THREADS = 4
RESUME_S = 1.0
SLACK_S = 4.0  # for the machine: detection, exec, key files, a Python client


class VaultKilled(SystemTest):
    def works(self, site, port, alice):
        try:
            with site.connect(port, alice, timeout=2) as session:
                session.send(b"x")
                return session.receive(2) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def test_under_load(self):
        site = self.site("vault")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        session = site.connect(port, alice)
        self.addCleanup(session.close)
        self.assert_echo(session)
        workers = site.pids()["workers"]
        done = []
        for round_number in range(5):
            with Crowd() as crowd:
                def load():
                    while not crowd.stop.is_set():
                        done.append(self.works(site, port, alice))
                for _ in range(LOAD_THREADS):
                    crowd.start(load)
                time.sleep(0.3)
                victim = site.vault_status()["pid"]
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                self.assert_echo(session, b"while there is no vault")

                def restarted():
                    try:
                        return site.vault_status()["pid"] != victim
                    except (OSError, TimeoutError):
                        return False
                wait_until(restarted, 10, "vaultd is restarted")
                serves = time.monotonic()
                wait_until(lambda: self.works(site, port, alice), RESUME_S + SLACK_S, "handshakes after the vault's restart")
                resumed = time.monotonic()
                print(f"# round {round_number}: vault back after {(serves - killed) * 1000:.0f} ms, "
                      f"handshakes {(resumed - serves) * 1000:.0f} ms later")
                self.assert_echo(session, b"after the restart")
            self.assertEqual(crowd.errors, [])
        self.assertGreater(sum(done), 20)
        self.assertEqual(site.pids()["workers"], workers, "a worker died with the vault")

    def test_without_a_vault_handshakes_are_refused_by_name(self):
        site = self.site("novault")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        vault = site.start_vaultd()
        site.start_netd()
        session = site.connect(port, alice)
        self.addCleanup(session.close)
        self.assert_echo(session)  # a client that has sent its Initiate isn't yet in
        vault.kill()
        vault.wait()
        site.processes.remove(vault)
        wait_until(lambda: site.net_status()["vault"] != "connected", 5, "status tells that the vault is gone")
        self.assertEqual(set(site.net_status()["entries"].values()), {"no vault to ask"}, "no entry is ready")
        before = site.drops()
        with site.client(port, alice) as client:
            client.send_hello()
            self.assert_closed_silently(client.sock, 10)
        self.assert_dropped(site, before, ["vault_unavailable"])
        self.assert_echo(session)
        site.start_vaultd()
        wait_until(lambda: self.works(site, port, alice), RESUME_S + SLACK_S, "handshakes with the new vault")
        self.assertEqual(set(site.net_status()["entries"].values()), {""})
        self.assert_echo(session)


class PeerVaultKilled(SystemTest):
    """The same for the peer protocol's hard mode, through tunnels between two sites: both ends ask their own vault for each connection, and
    the dialling end has salts that it drew ahead of the vault that is killed."""

    def setUp(self):
        super().setUp()
        block = os.urandom(128)
        self.a, self.b = self.site("a"), self.site("b")
        add_block(self.a, "link", block, "A")
        add_block(self.b, "link", block, "B")
        service = Service()
        self.addCleanup(service.close)
        self.port = peer_connect(self.a, "echo", peer_listen(self.b, "echo", service.where))
        for site in (self.a, self.b):
            site.limits["handshake_timeout_ms"] = 2000
            site.start()

    def echo(self, sock, text):
        sock.sendall(text)
        self.assertEqual(read_count(sock, len(text)), text)

    def works(self):
        try:
            with plain(self.port) as sock:
                sock.sendall(b"x")
                return read_count(sock, 1, 2) == b"x"
        except (OSError, EOFError):
            return False

    @staticmethod
    def restarted(site, victim):
        try:
            return site.vault_status()["pid"] != victim
        except (OSError, TimeoutError):
            return False

    def test_under_load(self):
        session = plain(self.port)
        self.addCleanup(session.close)
        self.echo(session, b"before")
        workers = [site.pids()["workers"] for site in (self.a, self.b)]
        for number in range(6):
            # Each end's vault in turn, then both at once.
            sites = [(self.a,), (self.b,), (self.a, self.b)][number % 3]
            done = []
            with Crowd() as crowd:
                def load():
                    while not crowd.stop.is_set():
                        done.append(self.works())
                for _ in range(LOAD_THREADS):
                    crowd.start(load)
                wait_until(lambda: sum(done) > 20, 20, "connections come about")
                victims = [site.vault_status()["pid"] for site in sites]
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                for count in range(50):
                    self.echo(session, b"without a vault %d" % count)
                for site, victim in zip(sites, victims):
                    wait_until(lambda s=site, v=victim: self.restarted(s, v), 10, "vaultd is restarted")
                serves = time.monotonic()
                wait_until(self.works, RESUME_S + SLACK_S, "connections after the vault's restart")
                resumed = time.monotonic()
                print(f"# round {number}: vaults back after {(serves - killed) * 1000:.0f} ms, "
                      f"connections {(resumed - serves) * 1000:.0f} ms later")
                # No salt of the vault before is left: whoever comes now is served, each of them.
                self.assertTrue(all(self.works() for _ in range(40)), "a connection was refused after the restart")
            self.assertEqual(crowd.errors, [])
            self.echo(session, b"and on")
        self.assertEqual([site.pids()["workers"] for site in (self.a, self.b)], workers, "no worker died")

    def test_a_vault_that_hangs_is_named_and_waited_for(self):
        self.assertTrue(self.works())
        session = plain(self.port)
        self.addCleanup(session.close)
        self.echo(session, b"before")
        for site in (self.a, self.b):
            before, victim = site.drops(), site.vault_status()["pid"]
            os.kill(victim, signal.SIGSTOP)
            try:
                self.assertFalse(self.works(), "nobody gets in without a vault")
                self.echo(session, b"a session doesn't need it")
                wait_until(lambda: site.drops_since(before).get("vault_unavailable"), 10, "counted by its name")
            finally:
                os.kill(victim, signal.SIGCONT)
            wait_until(self.works, 10, "it goes on")
            self.assertEqual(site.vault_status()["pid"], victim)


class BaseModeWithoutItsKey(SystemTest):
    """A connection in base mode on which nothing is sent ends with its key or the vault, and no other connection does."""

    def setUp(self):
        super().setUp()
        self.site_ = site = self.site("base")
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(30)
        self.addCleanup(listener.close)
        self.listener = listener
        self.blocks = {}
        for name in ("first", "second"):
            self.blocks[name] = os.urandom(128)
            add_block(site, f"once-{name}", self.blocks[name], "A")
            peer_connect(site, name, listener.getsockname()[1], key=f"once-{name}", listen=False, mode="base")
        hard = os.urandom(128)
        add_block(site, "hard", hard, "B")
        port = peer_listen(site, "hard", "echo", key="hard")
        alice = site.peer("alice")
        curve = site.listen("curve", ["alice"], "echo")
        site.start()
        self.hard = WirePeer(("127.0.0.1", port), "A", hard)
        self.curve = site.connect(curve, alice)
        self.addCleanup(self.hard.close)
        self.addCleanup(self.curve.close)

    def idle(self, name):
        """A program that has received all that its peer sent, and waits for more."""
        program = subprocess.Popen([binary("sallyport"), "pipe", name, "-c", str(self.site_.config)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        peer = WirePeer(self.listener.accept()[0], "B", self.blocks[name], mode="base")
        self.addCleanup(peer.close)
        peer.send(b"sanctified")
        self.assertEqual(os.read(program.stdout.fileno(), 100), b"sanctified")
        return program, peer

    def assert_ends(self, idle, reason, act):
        program, peer = idle
        before = self.site_.drops()
        act()
        self.assertEqual(program.wait(30), 1)
        self.assertIn(f"the channel is broken: {reason}", program.stderr.read().decode())
        peer.ended()
        self.assert_dropped(self.site_, before, [reason])
        self.assert_echo(self.curve)
        self.hard.send(b"still here", 7)
        self.assertEqual(self.hard.receive(), (7, b"still here"))

    def test_a_lock_ends_those_of_its_key_and_panic_all(self):
        first, second = self.idle("first"), self.idle("second")
        self.assert_ends(first, "vault_refused", lambda: self.site_.cli("lock", "once-first"))
        program, peer = second
        peer.send(b"and more")
        self.assertEqual(os.read(program.stdout.fileno(), 100), b"and more")
        self.assert_ends(second, "vault_refused", lambda: self.site_.cli("panic"))

    def test_the_vaults_death_ends_it(self):
        idle = self.idle("first")
        self.assert_ends(idle, "vault_unavailable", lambda: os.kill(self.site_.vault_status()["pid"], signal.SIGKILL))


if __name__ == "__main__":
    unittest.main()
