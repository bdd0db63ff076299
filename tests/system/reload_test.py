#!/usr/bin/python3
"""Goal: a changed configuration is taken up without a restart. A new peer comes in, a revoked one's sessions end, entries come and go,
all others notice nothing; by `sallyport reload` and by SIGHUP to `sallyport up`. A configuration that is wrong changes nothing.
"""

import os
import re
import signal
import unittest

from harness import SystemTest, b64, ct, is_alive, minicapnp, wait_until
from traffic import Service, plain, read_all, read_count


class Reload(SystemTest):
    def setUp(self):
        self.net = site = self.site("reload")
        self.alice, self.bob = site.peer("alice"), ct.KeyPair()
        self.service = Service()
        self.addCleanup(self.service.close)
        self.echo = site.listen("echo", ["alice"], "echo")
        self.tunnel = site.listen("tunnel", ["alice"], self.service.where)
        self.local = site.dir / "run/local.sock"
        site.listen("local", ["alice"], "echo", address=f"unix:{self.local}")
        site.start()
        self.session = self.open(self.echo, self.alice)
        self.assert_echo(self.session)
        self.daemons = site.pids()

    def open(self, port, pair):
        session = self.net.connect(port, pair)
        self.addCleanup(session.close)
        return session

    def is_refused(self, port, pair):
        with self.net.client(port, pair) as client:
            session = client.handshake()
            try:
                session.send(b"x")
                session.receive(5)
                return False
            except (ct.Closed, OSError):
                return True

    def allow(self, *names):
        for entry in ("echo", "tunnel"):
            self.net.listens[entry]["allow"] = list(names)

    def assert_nothing_else_happened(self):
        self.assert_echo(self.session)
        self.assertEqual(self.net.pids(), self.daemons, "a daemon was restarted")

    def test_a_new_peer_is_let_in(self):
        self.assertTrue(self.is_refused(self.echo, self.bob))
        self.net.peer("bob", self.bob.public)
        self.allow("alice", "bob")
        self.net.reload()
        self.assert_echo(self.open(self.echo, self.bob))
        self.assert_nothing_else_happened()

    def test_a_revoked_peer_is_put_out_and_others_stay(self):
        self.net.peer("bob", self.bob.public)
        self.allow("alice", "bob")
        self.net.reload()
        bobs = [self.open(self.echo, self.bob), self.open(self.tunnel, self.bob), self.open(self.tunnel, self.bob)]
        for session in bobs:
            self.assert_echo(session)
        before = self.net.drops()
        del self.net.peers["bob"]
        self.allow("alice")
        self.net.reload()
        for session in bobs:
            self.assert_closed_silently(session.sock)
        self.assert_dropped(self.net, before, ["peer_revoked"])
        self.assertEqual(self.net.drops_since(before).get("peer_revoked"), 3)
        wait_until(lambda: [a.end for a in self.service.arrivals] == ["reset", "reset"], 5, "the services see a reset")
        self.assertTrue(self.is_refused(self.echo, self.bob))
        self.assert_nothing_else_happened()

    def test_a_peer_that_only_one_entry_takes_away_keeps_the_other(self):
        self.net.peer("bob", self.bob.public)
        self.allow("alice", "bob")
        self.net.reload()
        gone, kept = self.open(self.tunnel, self.bob), self.open(self.echo, self.bob)
        self.assert_echo(gone)
        self.assert_echo(kept)
        self.net.listens["tunnel"]["allow"] = ["alice"]
        self.net.reload()
        self.assert_closed_silently(gone.sock)
        self.assert_echo(kept)
        self.assert_nothing_else_happened()

    def test_a_peer_whose_key_was_replaced_is_put_out(self):
        self.net.peer("bob", self.bob.public)
        self.allow("alice", "bob")
        self.net.reload()
        old = self.open(self.echo, self.bob)
        self.assert_echo(old)
        new = ct.KeyPair()
        self.net.peers["bob"] = b64(new.public)
        self.net.reload()
        self.assert_closed_silently(old.sock)
        self.assertTrue(self.is_refused(self.echo, self.bob))
        self.assert_echo(self.open(self.echo, new))
        self.assert_nothing_else_happened()

    def test_entries_come_and_go(self):
        late = self.net.listen("late", ["alice"], "echo")
        self.net.reload()
        session = self.open(late, self.alice)
        self.assert_echo(session)
        del self.net.listens["late"]
        self.net.reload()
        self.assert_closed_silently(session.sock)
        wait_until(lambda: not self.net._accepts(f"127.0.0.1:{late}"), 5, "the port is closed")
        self.assert_nothing_else_happened()

    def test_an_address_goes_to_another_entry(self):
        # New names, with what listens already: nobody could bind it a second time.
        for old, new in (("echo", "renamed"), ("local", "renamed-local")):
            self.net.listens[new] = {**self.net.listens.pop(old), "name": new}
        self.net.reload()
        self.assert_closed_silently(self.session.sock)  # its entry is gone
        self.assert_echo(self.open(self.echo, self.alice))
        with self.net.connect(None, self.alice, sock=plain(self.local)) as session:
            self.assert_echo(session)
        # Two swap, again and again.
        echo, tunnel = self.net.listens["renamed"], self.net.listens["tunnel"]
        for _ in range(5):
            echo["address"], tunnel["address"] = tunnel["address"], echo["address"]
            self.net.reload()
            arrived = len(self.service.arrivals)
            for entry, expected in ((echo, arrived), (tunnel, arrived + 1)):
                with self.net.connect(int(entry["address"].rsplit(":", 1)[1]), self.alice) as session:
                    self.assert_echo(session)
                self.assertEqual(len(self.service.arrivals), expected)
        self.assertEqual(self.net.pids(), self.daemons, "a daemon was restarted")

    def test_a_service_goes_from_a_channel_to_another_one_and_back(self):
        """A channel is for one worker alone, other services are for all: the address stays, whoever serves it."""
        network = minicapnp.Network(self.net.dir / "run/net.sock")
        self.addCleanup(network.close)
        for entry in ("echo", "local"):
            for service in ("channel", self.service.where, "channel", "echo"):
                with self.subTest(entry, service=service):
                    self.net.listens[entry]["service"] = service
                    self.net.reload()
                    listener = network.listen(entry) if service == "channel" else None
                    for i in range(20):  # the kernel deals them to all sockets of the address
                        local = {"sock": plain(self.local)} if entry == "local" else {}
                        with self.net.connect(self.echo, self.alice, **local) as session:
                            if listener is None:
                                self.assert_echo(session)
                                continue
                            channel = listener.accept()[0]
                            session.send(b"%d" % i)
                            self.assertEqual(channel.receive_all(1), [b"%d" % i])
        self.assertEqual(self.net.pids(), self.daemons, "a daemon was restarted")

    def test_by_sighup(self):
        self.net.peer("bob", self.bob.public)
        self.allow("alice", "bob")
        self.net.write_config()
        os.kill(self.net.up.pid, signal.SIGHUP)
        wait_until(lambda: not self.is_refused(self.echo, self.bob), 5, "bob comes in after SIGHUP")
        self.assert_nothing_else_happened()

    def test_by_the_peer_commands(self):
        bob = self.open(self.echo, self.alice)
        self.net.cli("peer", "add", "carol", b64(ct.KeyPair().public))
        self.assertIn("carol", self.net.cli("peer", "list").stdout.decode())
        self.net.cli("reload")
        refused = self.net.cli("peer", "remove", "alice", check=False)
        self.assertEqual(refused.returncode, 1, "a peer that entries use was removed")
        self.net.cli("peer", "remove", "carol")
        self.net.cli("reload")
        self.assert_echo(bob)
        self.assert_nothing_else_happened()

    def test_a_wrong_configuration_changes_nothing(self):
        good = self.net.config.read_text()
        for name, text in (("no toml", "[[["), ("unknown key", good.replace("[net]", "[net]\nspeed = 9")),
                           ("unknown peer", good.replace('["alice"]', '["nobody"]')), ("empty allow", good.replace('["alice"]', "[]")),
                           ("binary", "\0\1\2"), ("huge", "#" * 3_000_000)):
            with self.subTest(name):
                self.net.config.write_text(text)
                done = self.net.cli("reload", check=False)
                self.assertEqual(done.returncode, 1)
                self.assertTrue(done.stderr.decode().splitlines()[-1].startswith("sallyport: "), done.stderr)
                self.assertIn("sallyport.toml", done.stderr.decode())
                os.kill(self.net.up.pid, signal.SIGHUP)
                os.kill(self.daemons["monitor"], signal.SIGHUP)
                self.assert_echo(self.open(self.echo, self.alice))
                self.assert_nothing_else_happened()
        self.net.config.unlink()
        self.assertEqual(self.net.cli("reload", check=False).returncode, 1)
        os.kill(self.net.up.pid, signal.SIGHUP)
        self.assert_nothing_else_happened()
        self.assertTrue(is_alive(self.net.up.pid))

    def test_a_configuration_of_a_whole_mebibyte(self):
        """The most that a configuration may have; its call to the vault is longer still."""
        self.net.peer("bob", self.bob.public)
        self.allow("alice", "bob")
        text = self.net.config_text()
        for size, taken in ((1 << 20, True), ((1 << 20) + 1, False)):
            self.net.config.write_text(text + "#" * (size - len(text)))
            done = self.net.cli("reload", check=False)
            self.assertEqual(done.returncode == 0, taken, done.stderr)
        self.assert_echo(self.open(self.echo, self.bob))
        self.assert_nothing_else_happened()

    def test_a_hundred_reloads_with_traffic(self):
        for i in range(100):
            self.net.peers["extra"] = b64(ct.KeyPair().public)
            self.net.reload()
            if i % 10 == 0:
                self.assert_echo(self.open(self.echo, self.alice))
            self.assert_echo(self.session)
        self.assert_nothing_else_happened()


@unittest.skipIf(os.geteuid() != 0, "what only root may bind")
class ReloadOfListenersThatOnlyAStartBinds(SystemTest):
    """Netd has given up root: such a reload changes nothing in netd, and says what to do."""

    def setUp(self):
        self.host = site = self.site("binds")
        self.alice = site.peer("alice")
        self.echo = site.listen("echo", ["alice"], "echo")
        self.open = site.dir / "open"
        self.open.mkdir()
        self.open.chmod(0o777)
        site.listen("local", ["alice"], "echo", address=f"unix:{self.open}/local.sock")
        site.start()
        self.session = site.connect(self.echo, self.alice)
        self.addCleanup(self.session.close)

    def assert_refused(self, problem, advice):
        done = self.host.cli("reload", check=False)
        self.assertEqual(done.returncode, 1)
        error, hint = done.stderr.decode().splitlines()[-2:]
        self.assertRegex(error, rf"^sallyport: error: netd refused: .*sallyport\.toml:\d+: can't listen on {re.escape(problem)}$")
        self.assertTrue(hint.startswith("sallyport: hint: " + advice), hint)
        self.assertIn("`systemctl restart sallyport-netd`, or `sallyport up` anew", hint)
        self.assertTrue(hint.endswith("; until then the vault has the new configuration and netd the old one"), hint)
        self.assert_echo(self.session)
        with self.host.connect(self.echo, self.alice) as session:
            self.assert_echo(session)

    def test_a_port_below_1024(self):
        port = next(port for port in range(1023, 600, -1) if not self.host._accepts(f"127.0.0.1:{port}"))
        self.host.listen("early", ["alice"], "echo", address=f"unix:{self.open}/early.sock")
        late = self.host.listen("late", ["alice"], "echo")
        self.host.listens["low"] = {**self.host.listens["echo"], "name": "low", "address": f"127.0.0.1:{port}"}
        self.host.write_config()
        self.assert_refused(f"127.0.0.1:{port}: Permission denied", "what netd may bind was settled at its start: ")
        # Wholly as it was.
        self.assertFalse(self.host._accepts(f"127.0.0.1:{late}"))
        self.assertEqual([path.name for path in self.open.iterdir()], ["local.sock"])
        self.session.close()
        self.host.stop_daemons()
        self.host.start()
        with self.host.connect(port, self.alice) as session:
            self.assert_echo(session)

    def test_the_same_port_at_another_address(self):
        self.host.listens["echo"]["address"] = f"0.0.0.0:{self.echo}"
        self.host.write_config()
        self.assert_refused(f"0.0.0.0:{self.echo}: Address already in use",
                            "netd itself listens there for [[listen]] `echo` until it is restarted: ")

    def test_a_socket_in_a_folder_of_root(self):
        closed = self.host.dir / "closed"
        closed.mkdir(mode=0o755)
        self.host.listen("closed", ["alice"], "echo", address=f"unix:{closed}/x.sock")
        self.host.write_config()
        self.assert_refused(f"unix:{closed}/x.sock: Permission denied", "what netd may bind was settled at its start: ")


class ReloadOfConnects(SystemTest):
    def test_a_new_connect_entry_and_a_removed_one(self):
        site = self.site("connects")
        client = site.key("client")
        pair = ct.KeyPair()
        site.peer("server", pair.public)

        def serve(session):
            while text := session.receive(60):
                session.send(text)
        server = ct.Server(pair, {client}, serve)
        self.addCleanup(server.close)
        first = site.connect_entry("first", server.address, "server")
        site.start()
        kept = plain(first)
        self.addCleanup(kept.close)
        second = site.connect_entry("second", server.address, "server")
        site.reload()
        wait_until(lambda: site._accepts(f"127.0.0.1:{second}"), 5, "the new plain side listens")
        gone = plain(second)
        self.addCleanup(gone.close)
        for sock in (kept, gone):
            sock.sendall(b"ping")
            self.assertEqual(read_count(sock, 4), b"ping")
        del site.connects["second"]
        site.reload()
        self.assertEqual(read_all(gone, 5), (b"", "reset"))
        kept.sendall(b"pong")
        self.assertEqual(read_count(kept, 4), b"pong")

    def test_an_address_goes_from_the_plain_side_to_the_encrypted_one_and_back(self):
        site = self.site("sides")
        alice = site.peer("alice")
        echo = site.listen("echo", ["alice"], "echo")
        plain_port = site.connect_entry("own", ("127.0.0.1", echo), "itself", key="server")
        site.peer("itself", site.publics["server"])
        site.listens["echo"]["allow"].append("itself")
        other = site.listen("other", ["alice"], "echo")
        site.start()
        for _ in range(3):
            sock = plain(plain_port)
            self.addCleanup(sock.close)
            sock.sendall(b"ping")
            self.assertEqual(read_count(sock, 4), b"ping")
            with site.connect(other, alice) as session:
                self.assert_echo(session)
            plain_port, other = other, plain_port
            site.connects["own"]["listen"], site.listens["other"]["address"] = f"127.0.0.1:{plain_port}", f"127.0.0.1:{other}"
            site.reload()


if __name__ == "__main__":
    unittest.main()
