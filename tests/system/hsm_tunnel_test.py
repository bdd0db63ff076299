#!/usr/bin/python3
"""Goal: a server whose key lives in a token serves tunnels as any other: whole sessions both ways, the same bytes on the wire, the same
policy; when the token is away its handshakes are refused under a name, other keys go on, sessions live, and all resumes by itself.
Method: real daemons with the sandbox on, and SoftHSM, NSS's softoken and our mock as the token. The other side is our own curve_tun in
Python. hsmd is killed, stopped and robbed of its token in the middle of derives, under load.
"""

import os
import signal
import sys
import time
import unittest

import nacl.public

import tokens
from harness import Crowd, SystemTest, b64, ct, is_alive, processes_of_session, wait_until
from minicapnp import VaultRefused
from traffic import Service, patterned, plain, read_count

LOAD_THREADS = 4
RESUME_S = 40  # back-off included, on a loaded machine
UNAVAILABLE = ["hsm_unavailable", "vault_unavailable"]


def hsmd_processes(site, worker=False):
    """The pids of all that is called hsmd of a running site, keeper and worker; or of its worker alone."""
    return {pid for pid, name in processes_of_session(site.up.pid).items() if name == "hsmd-worker" or not worker and name == "hsmd"}


class HsmTest(SystemTest):
    def token_site(self, token, secret=None, **more):
        """A site whose key `server` lives in the token `hsm`, and whose key `soft` doesn't."""
        site = self.site("hsm")
        site.token("hsm", token, **more)
        site.token_key("server", "hsm", secret)
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo", key="server")
        self.soft_port = site.listen("soft", ["alice"], "echo", key="soft")
        return site

    def works(self, site, port=None, key="server", timeout=10):
        try:
            with site.connect(port or self.port, self.alice, key=key, timeout=timeout) as session:
                session.send(b"x")
                return session.receive(timeout) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def worker(self, site):
        return wait_until(lambda: next(iter(hsmd_processes(site, worker=True)), None), 20, "hsmd's worker is there")

    def assert_resumes(self, site, what):
        wait_until(lambda: self.works(site), RESUME_S, f"handshakes {what}", step=0.1)


class Tunnels:
    """For each kind of token once."""

    token_class = None

    def setUp(self):
        self.token = self.token_class()
        self.addCleanup(self.token.remove)

    def test_sessions_with_the_servers_key_in_the_token(self):
        site = self.token_site(self.token)
        with Service() as service:
            tunnel = site.listen("tunnel", ["alice"], f"tcp:127.0.0.1:{service.port}")
            site.start().wait_tokens()
            self.assertEqual(site.vault_status()["verdict"], "full")
            for _ in range(20):
                self.assertTrue(self.works(site))
            with site.connect(tunnel, self.alice) as session:
                data = patterned(300_000)
                for at in range(0, len(data), 50_000):
                    session.send(data[at:at + 50_000])
                self.assertEqual(session.receive_bytes(len(data)), data)
        self.assertTrue(self.works(site, self.soft_port, "soft"))
        stranger = ct.KeyPair()
        before = site.drops()
        with site.client(self.port, stranger) as client:
            client.handshake()
            self.assert_closed_silently(client.sock)
        self.assert_dropped(site, before, ["peer_not_allowed"])

    def test_both_ends_keys_in_tokens(self):
        site = self.token_site(self.token)
        other = self.site("client")
        other.token("card", self.token_class())
        site.peers["bob"] = b64(other.token_key("client", "card"))
        site.listens["echo"]["allow"] = ["alice", "bob"]
        other.peer("server", site.publics["server"])
        local = other.connect_entry("out", f"127.0.0.1:{self.port}", "server", key="client")
        site.start().wait_tokens()
        other.start().wait_tokens()
        with plain(("127.0.0.1", local)) as sock:
            data = patterned(100_000)
            sock.sendall(data)
            self.assertEqual(read_count(sock, len(data)), data)

    def test_the_same_bytes_open_with_a_software_key_and_with_the_key_in_the_token(self):
        secret = os.urandom(32)
        hard, soft = self.token_site(self.token, secret), self.site("soft")
        self.assertEqual(hard.publics["server"], soft.key("server", secret))
        soft.peers.update(hard.peers)
        soft_port = soft.listen("echo", ["alice"], "echo", key="server")
        for site in (hard, soft):
            site.grant("all", keys=["server"], verbs=["box", "open"], peers=["*"])
            site.start().wait_tokens()
        ephemeral = ct.KeyPair()
        hellos = set()
        for site, port in ((hard, self.port), (soft, soft_port)):
            with site.client(port, self.alice, ephemeral=ephemeral) as client:
                with client.handshake() as session:
                    self.assert_echo(session)
                hellos.add(client.record[0])
        self.assertEqual(len(hellos), 1, "two hellos that were to be one")
        # What the one boxes for itself, the other opens; and NaCl opens both.
        friend = nacl.public.PrivateKey.generate()
        box = nacl.public.Box(friend, nacl.public.PublicKey(hard.publics["server"]))
        nonce = b"SallyBox" + os.urandom(16)
        with hard.app() as first, soft.app() as second:
            keys = [app.key("server") for app in (first, second)]
            incoming = box.encrypt(b"one box for both", nonce).ciphertext
            for key in keys:
                self.assertEqual(key.open([(bytes(friend.public_key), nonce, incoming)]), [(b"one box for both", 1)])
                [(made_with, made, _)] = key.box([(bytes(friend.public_key), b"from either")])
                self.assertEqual(box.decrypt(made, made_with), b"from either")
            sealed = nacl.public.SealedBox(nacl.public.PublicKey(hard.publics["server"])).encrypt(b"from nobody")
            self.assertEqual([key.open_sealed([sealed]) for key in keys], [[(b"from nobody", 1)]] * 2)
            forged = bytes([incoming[0] ^ 1]) + incoming[1:]
            self.assertEqual([key.open([(bytes(friend.public_key), nonce, forged)]) for key in keys], [["badBox"]] * 2)
            self.assertEqual([key.open([(bytes(32), nonce, incoming)]) for key in keys], [["lowOrderKey"]] * 2)

    def test_the_key_is_there_after_a_restart_of_everything(self):
        site = self.token_site(self.token)
        for _ in range(2):
            site.start().wait_tokens()
            self.assertTrue(self.works(site))
            pids = hsmd_processes(site)
            self.assertGreaterEqual(len(pids), 2)
            site.stop_daemons()
            wait_until(lambda: not any(is_alive(pid) for pid in pids), 15, "no hsmd outlives its vault")

    def test_a_vault_killed_takes_its_hsmd_along_and_comes_back_with_another(self):
        site = self.token_site(self.token)
        site.start().wait_tokens()
        session = site.connect(self.port, self.alice)
        self.addCleanup(session.close)
        self.assert_echo(session)
        before = hsmd_processes(site)
        os.kill(site.vault_status()["pid"], signal.SIGKILL)
        self.assert_resumes(site, "after the vault's restart")
        self.assert_echo(session)
        wait_until(lambda: not any(is_alive(pid) for pid in before), 15, "no hsmd outlives its vault")

    def test_a_wrong_pin_locks_this_key_alone_and_an_operator_mends_it(self):
        site = self.token_site(self.token)
        self.token.set_pin_file("not-the-pin")
        site.start()
        before = site.drops()
        with site.client(self.port, self.alice) as client:
            client.send_hello()
            self.assert_closed_silently(client.sock, 15)
        self.assert_dropped(site, before, UNAVAILABLE)
        self.assertTrue(self.works(site, self.soft_port, "soft"))
        shown = site.cli("hsm", "status", check=False).stdout.decode()
        self.assertIn("PIN", shown)
        if isinstance(self.token, tokens.Mock):
            logins = self.token.count("C_Login")
            os.kill(self.worker(site), signal.SIGKILL)
            time.sleep(3)
            self.assertEqual(self.token.count("C_Login"), logins, "a wrong PIN was tried again")
        pin = site.dir / "pin"
        pin.write_text(self.token.pin + "\n")
        pin.chmod(0o600)
        site.cli("hsm", "unlock", "hsm", "--pin-file", str(pin))
        self.assert_resumes(site, "after `hsm unlock`")


class Killed(Tunnels):
    """As Tunnels, and what happens to hsmd under load."""

    def under_load(self, site, harm, heal):
        """harm(worker's pid) while handshakes run; then heal(); the session that was there lives all through."""
        session = site.connect(self.port, self.alice)
        self.addCleanup(session.close)
        self.assert_echo(session)
        vault, before = site.vault_status()["pid"], site.drops()
        done = []
        with Crowd() as crowd:
            def load():
                while not crowd.stop.is_set():
                    done.append(self.works(site))
            for _ in range(LOAD_THREADS):
                crowd.start(load)
            wait_until(lambda: sum(done) > 5, 30, "handshakes under load")
            harm(self.worker(site))
            self.assert_echo(session, b"while hsmd is away")
            wait_until(lambda: not all(done) or any(name in UNAVAILABLE for name in site.drops_since(before)), 30,
                       "a handshake is refused")
            self.assertTrue(self.works(site, self.soft_port, "soft"), "a software key suffers with the token's")
            heal()
            marker = len(done)
            wait_until(lambda: any(done[marker:]), RESUME_S, "handshakes under load again")
        self.assertEqual(crowd.errors, [])
        self.assertTrue(set(site.drops_since(before)) & set(UNAVAILABLE), f"refused without a name: {site.drops_since(before)}")
        self.assert_echo(session, b"after all of it")
        self.assert_resumes(site, "at the end")
        self.assertEqual(site.vault_status()["pid"], vault, "the vault died with it")

    def test_kill_9_under_load(self):
        site = self.token_site(self.token)
        site.start().wait_tokens()
        for _ in range(3):
            self.under_load(site, lambda pid: os.kill(pid, signal.SIGKILL), lambda: None)

    def test_stopped_under_load(self):
        site = self.token_site(self.token, deadline_ms=1000)
        site.start().wait_tokens()
        stopped = []

        def stop(pid):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        self.under_load(site, stop, lambda: None)
        wait_until(lambda: not is_alive(stopped[0]), 20, "the vault has the stopped worker killed")


class WithSoftHsm(Killed, HsmTest):
    token_class = tokens.SoftHsm

    def test_the_token_taken_away_under_load_and_put_back(self):
        site = self.token_site(self.token)
        site.start().wait_tokens()
        self.under_load(site, lambda _: self.token.take_away(), self.token.put_back)

    def test_a_vault_starts_without_its_token_and_finds_it_later(self):
        site = self.token_site(self.token)
        self.token.take_away()
        site.start()
        self.assertTrue(self.works(site, self.soft_port, "soft"))
        self.assertFalse(self.works(site, timeout=3))
        self.token.put_back()
        self.assert_resumes(site, "with the token put back")


class WithNss(Killed, HsmTest):
    token_class = tokens.Nss

    def test_kill_9_under_load_with_copies_in_the_session(self):
        site = self.token_site(self.token, session_copy=True)
        site.start().wait_tokens()
        self.under_load(site, lambda pid: os.kill(pid, signal.SIGKILL), lambda: None)


class WithMock(Killed, HsmTest):
    token_class = tokens.Mock

    def test_a_module_that_crashes_hangs_or_lies_costs_refusals_and_nothing_else(self):
        site = self.token_site(self.token, deadline_ms=500)
        site.start().wait_tokens()
        for fault in ("C_DeriveKey segfault", "C_DeriveKey hang", "C_DeriveKey zero", "C_DeriveKey wrong", "C_DeriveKey latency=2000",
                      "C_DeriveKey return=CKR_DEVICE_ERROR", "C_DeriveKey lose-sessions\nC_OpenSession return=CKR_SESSION_COUNT",
                      "C_GetAttributeValue length=100000", "token removed=1"):
            with self.subTest(fault):
                self.assert_resumes(site, f"before {fault}")
                before = site.drops()
                vault = site.vault_status()["pid"]
                self.token.faults(fault)
                self.assertFalse(self.works(site, timeout=5), "a handshake with a broken token")
                self.assertTrue(self.works(site, self.soft_port, "soft"))
                self.token.faults("")
                self.assert_resumes(site, f"after {fault}")
                self.assertEqual(site.vault_status()["pid"], vault)
                if "wrong" not in fault:
                    self.assertTrue(set(site.drops_since(before)) & set(UNAVAILABLE), site.drops_since(before))
        self.assertEqual(self.token.state()["tries"], "3")

    def test_a_token_that_cannot_work_costs_its_own_keys_alone_and_says_why(self):
        site = self.token_site(self.token)
        good = site.tokens["hsm"]
        other = tokens.Mock()  # the same label, and none of the keys
        self.addCleanup(other.remove)
        for change, words in (({"module": "/nowhere/lib.so"}, "can't be loaded"),
                              ({"module": str(tokens.not_a_module())}, "can't be loaded"),
                              ({"uri": "pkcs11:token=another"}, "no token matches"),
                              ({"env": other.env}, "no such key"),
                              ({"pin": f"file:{self.token.dir}/none"}, "waits for its PIN")):
            with self.subTest(words=words, **{name: str(value) for name, value in change.items()}):
                site.tokens["hsm"] = {**good, **change}
                site.start()
                before = site.drops()
                self.assertFalse(self.works(site, timeout=5))
                self.assertTrue(set(site.drops_since(before)) & set(UNAVAILABLE), site.drops_since(before))
                self.assertTrue(self.works(site, self.soft_port, "soft"), "another key suffers")
                shown = site.cli("hsm", "status", check=False)
                self.assertIn(words, (shown.stdout + shown.stderr).decode() + site.log())
                site.stop_daemons()
        site.tokens["hsm"] = good
        site.start()
        self.assert_resumes(site, "with all of it right again")
        self.assertEqual(self.token.state()["tries"], "3")

    def test_the_last_try_of_the_pin_is_an_operators_and_wants_force(self):
        site = self.token_site(self.token)
        path = self.token.home / "token"
        path.write_text(path.read_text().replace("\ntries 3\n", "\ntries 1\n"))
        pin = site.dir / "pin"
        pin.write_text(self.token.pin + "\n")
        pin.chmod(0o600)
        logins = self.token.count("C_Login")
        site.start()
        self.assertFalse(self.works(site, timeout=5))
        refused = site.cli("hsm", "unlock", "hsm", "--pin-file", str(pin), check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn(b"one PIN try is left", refused.stderr)
        self.assertEqual(self.token.count("C_Login"), logins, "the last try was spent")
        site.cli("hsm", "unlock", "hsm", "--pin-file", str(pin), "--force")
        self.assert_resumes(site, "after `hsm unlock --force`")

    def test_a_program_is_refused_by_name_while_the_token_is_away(self):
        site = self.token_site(self.token)
        site.grant("all", keys=["server", "soft"], verbs=["box"], peers=["*"])
        site.start().wait_tokens()
        friend = bytes(nacl.public.PrivateKey.generate().public_key)
        with site.app() as app:
            key, soft = app.key("server"), app.key("soft")
            self.assertEqual(len(key.box([(friend, b"text")])[0]), 3)
            self.token.faults("token removed=1")

            def refused():
                try:
                    return key.box([(friend, b"text")]) == ["hsmUnavailable"]
                except VaultRefused as refusal:
                    return str(refusal) == "hsmUnavailable"
            wait_until(refused, 20, "boxes are refused as hsmUnavailable")
            self.assertEqual(len(soft.box([(friend, b"text")])[0]), 3)
            self.token.faults("")
            wait_until(lambda: len(key.box([(friend, b"text")])[0]) == 3, RESUME_S, "boxes again")

    def test_the_probe_tells_an_operator_which_mode_to_use(self):
        for faults, mode in (("", "derive"), ("token without=CKM_ECDH1_DERIVE,CKM_EC_MONTGOMERY_KEY_PAIR_GEN", "seal"),
                             ("token without=CKM_ECDH1_DERIVE,CKM_AES_GCM,CKM_RSA_PKCS_OAEP", "none")):
            with self.subTest(mode):
                token = tokens.Mock(faults=faults)
                self.addCleanup(token.remove)
                site = self.site("probe")
                site.token("hsm", token)
                site.write_config()
                lines = site.cli("hsm", "probe", "hsm").stdout.decode().splitlines()
                self.assertRegex(lines[-1], rf"^mode +{mode}:")

    def test_memory_that_grows_ends_in_a_new_worker(self):
        site = self.token_site(self.token, memory_mib=64)
        site.start().wait_tokens()
        worker = self.worker(site)
        self.assertTrue(self.works(site))
        self.token.faults("C_DeriveKey leak=4096")

        def restarted():
            self.works(site)
            return worker not in hsmd_processes(site, worker=True)
        wait_until(restarted, 60, "a worker beyond its memory is replaced", step=0.1)
        self.token.faults("")
        self.assert_resumes(site, "with the new worker")


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
