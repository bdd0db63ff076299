#!/usr/bin/python3
"""Goal: a real, locked-down vaultd gives the keys of a hard-mode connection once, and serves one connection for each block in base
mode: across kill -9, restarts, other names for the same block, restored backups, copied, damaged or missing claims; and it keeps the block
to itself.
Method: minicapnp speaks netd's RPC to it, and peerframe.py, an independent implementation, is the other party.
"""

import hmac
import json
import os
import shutil
import signal
import struct
import time
import unittest

from harness import SANITIZED, SystemTest, is_alive, wait_until
from minicapnp import Rpc, Struct, VAULT_NET, VAULT_REFUSALS, VaultRefused
from process_memory import NotPermitted, Secret, Snapshot

import peerframe  # of tests/interop; the harness has made it known

PEER_SESSION = 0xEBCF77A2BE8FED6E
BLOCK = bytes((5 * i + 1) & 255 for i in range(128))


def granted(outcome):
    if outcome.u16(2) == 0:
        raise VaultRefused(VAULT_REFUSALS[outcome.u16(0)])
    return outcome


def entry(name, listen):
    return Struct(struct.pack("<Q", 1 if listen else 0), [name])


class Net:
    """What netd is to the vault."""

    def __init__(self, site):
        self.rpc = Rpc(site.dir / "run/vault-net.sock")

    def call(self, method, params):
        return self.rpc.call(self.rpc.root, VAULT_NET, method, params)

    def salt(self, name, listen=True):
        """(party, salt)"""
        outcome = granted(self.call(4, Struct(b"", [[entry(name, listen)]])).content.list(0)[0])
        return "AB"[outcome.u16(0)], outcome.data(0)

    def keys(self, name, own, peer, listen=True):
        """(send, receive)"""
        request = Struct(b"", [entry(name, listen), own, peer])
        outcome = granted(self.call(5, Struct(b"", [[request]])).content.list(0)[0])
        return outcome.data(0), outcome.data(1)

    def session(self, name, listen=True):
        results = self.call(6, Struct(b"", [entry(name, listen)]))
        outcome = granted(results.content.pointer(0))
        return Session(self.rpc, results.cap(outcome.pointer(0)), "AB"[outcome.u16(0)])

    def close(self):
        self.rpc.close()


class Session:
    def __init__(self, rpc, cap, party):
        self.rpc, self.cap, self.party = rpc, cap, party

    def seal(self, *frames):
        """(code, payload) each"""
        plain = b"".join(struct.pack(">II", len(payload), code) + bytes(8) + payload + bytes(8) for code, payload in frames)
        return granted(self.rpc.call(self.cap, PEER_SESSION, 0, Struct(b"", [plain])).content.pointer(0)).data(0)

    def open(self, frames):
        """(plain, sanctified, fault)"""
        outcome = granted(self.rpc.call(self.cap, PEER_SESSION, 1, Struct(b"", [frames])).content.pointer(0))
        return outcome.data(0), outcome.u32(4), outcome.text(1)

    def close(self):
        self.rpc.call(self.cap, PEER_SESSION, 2)


class PeerVault(SystemTest):
    def setUp(self):
        self.host = site = self.site_of_blocks()
        self.vault = site.start_vaultd()

    def site_of_blocks(self):
        site = self.site("peers")
        for name, party in (("hard", "B"), ("base", "B"), ("base2", "A")):
            site.write_config()
            unused = ["--unused"] if name != "hard" else []
            # base and base2 are one block under two names.
            site.cli("key", "import", name, "--kind", "peer-block", "--party", party, *unused, stdin=BLOCK.hex().encode())
            site.publics[name] = BLOCK
            site.cli("key", "allow-backup", name)
        for name in ("hard", "base", "base2"):
            site.listen(name, [], "echo", key=name)
            del site.listens[name]["allow"]
            site.listens[name]["protocol"] = "peer"
            if name != "hard":
                site.listens[name]["mode"] = "base"
        return site

    def net(self):
        net = Net(self.host)
        self.addCleanup(net.close)
        return net

    def refused(self, work, *arguments):
        with self.assertRaises(VaultRefused) as caught:
            work(*arguments)
        return str(caught.exception)

    def restart(self, how=signal.SIGKILL):
        self.vault.send_signal(how)
        self.vault.wait(30)
        self.vault = self.host.start_vaultd()

    def use(self, name="base"):
        """Uses the block up, as party B."""
        session = self.net().session(name)
        other = peerframe.Party("A", BLOCK, mode="base")
        plain, sanctified, fault = session.open(other.frame(b"hello", 7))
        self.assertEqual((plain[16:-8], sanctified, fault), (b"hello", len(plain), ""))
        return session, other

    # -- hard mode

    def test_keys_are_those_of_the_document_and_come_once(self):
        net = self.net()
        party, salt = net.salt("hard")
        self.assertEqual((party, len(salt)), ("B", 32))
        theirs = os.urandom(32)
        sent, received = net.keys("hard", salt, theirs)
        self.assertEqual(sent, hmac.digest(theirs + salt, BLOCK[64:], "sha256"))
        self.assertEqual(received, hmac.digest(theirs + salt, BLOCK[:64], "sha256"))
        self.assertEqual(self.refused(net.keys, "hard", salt, theirs), "expired")
        self.assertEqual(self.refused(net.keys, "hard", os.urandom(32), theirs), "expired")
        self.assertNotEqual(net.salt("hard")[1], net.salt("hard")[1])

    def test_a_salt_doesnt_outlive_the_vault(self):
        _, salt = self.net().salt("hard")
        self.restart()
        self.assertEqual(self.refused(self.net().keys, "hard", salt, bytes(32)), "expired")

    def test_entries_are_told_apart(self):
        net = self.net()
        self.assertEqual(self.refused(net.salt, "base"), "wrongProtocol")
        self.assertEqual(self.refused(net.session, "hard"), "wrongProtocol")
        self.assertEqual(self.refused(net.salt, "hard", False), "wrongProtocol")
        self.assertEqual(self.refused(net.salt, "nowhere"), "unknownEntry")

    def test_a_locked_block_serves_nobody(self):
        net = self.net()
        session, other = self.use()
        _, salt = net.salt("hard")
        self.host.cli("lock")
        self.assertEqual(self.refused(net.salt, "hard"), "locked")
        self.assertEqual(self.refused(net.keys, "hard", salt, bytes(32)), "locked")
        self.assertEqual(self.refused(session.open, other.frame(b"x", 1)), "expired")
        self.host.cli("unlock")
        self.assertEqual(net.salt("hard")[0], "B")

    # -- base mode

    def test_frames_are_those_of_another_implementation(self):
        session, other = self.use()
        self.assertEqual(session.party, "B")
        texts = [b"", b"x", os.urandom(1000), b"a" * 20000, os.urandom(17)]
        sealed = session.seal(*((i, text) for i, text in enumerate(texts)))
        self.assertEqual(other.feed(sealed), list(enumerate(texts)))
        stream = b"".join(other.frame(text, 3) for text in texts)
        plain, sanctified = b"", 0
        for at in range(0, len(stream), 777):
            more, covered, fault = session.open(stream[at:at + 777])
            self.assertEqual(fault, "")
            sanctified = len(plain) + covered if covered else sanctified
            plain += more
        self.assertEqual((len(plain), sanctified), (len(stream), len(stream)))
        at = 0
        for text in texts:
            self.assertEqual(plain[at + 16:at + 16 + len(text)], text)
            at += 24 + len(text)

    def test_one_block_one_connection_for_ever(self):
        session, _ = self.use()
        self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")
        self.assertEqual(self.refused(self.net().session, "base2"), "blockUsed", "the same block by another name")
        session.close()
        self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")
        for how in (signal.SIGKILL, signal.SIGTERM):
            self.restart(how)
            self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")

    def test_killed_right_after_the_first_answer_the_claim_holds(self):
        session = self.net().session("base")
        session.seal((1, b"the first byte that went out"))
        self.restart(signal.SIGKILL)
        self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")

    def test_strangers_use_nothing_up(self):
        for _ in range(40):  # more than may live
            _, sanctified, fault = self.net().session("base").open(os.urandom(100))
            self.assertEqual((sanctified, fault), (0, "bad_checksum"))
        self.restart()
        self.use()

    def test_without_its_claims_a_block_counts_as_used(self):
        self.vault.kill()
        self.vault.wait(30)
        (self.host.dir / "keys/block-claims").unlink()
        self.vault = self.host.start_vaultd()
        self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")
        self.assertEqual(self.net().salt("hard")[0], "B", "hard mode goes on")

    def test_copied_and_damaged_claims_are_not_believed(self):
        claims = self.host.dir / "keys/block-claims"
        for spoil in ("copy", "damage", "cut"):
            with self.subTest(spoil):
                self.vault.kill()
                self.vault.wait(30)
                claims.unlink(missing_ok=True)
                fresh = self.site_of_blocks()
                # One that is good for its own folder.
                shutil.copy(fresh.dir / "keys/block-claims", claims)
                if spoil != "copy":
                    content = claims.read_bytes()
                    claims.write_bytes(content[:100] + b"x" + content[101:] if spoil == "damage" else content[:1000])
                claims.chmod(0o600)
                self.vault = self.host.start_vaultd()
                self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")
                self.assertIn("every block counts as used", self.host.log())
                self.assertEqual(self.net().salt("hard")[0], "B")

    def test_an_older_copy_put_back_in_place_is_not_believed(self):
        claims = self.host.dir / "keys/block-claims"
        older = claims.read_bytes()
        self.use()
        for put_back in (False, True):
            with self.subTest(put_back=put_back):
                self.vault.kill()
                self.vault.wait(30)
                time.sleep(0.2)
                if put_back:
                    claims.write_bytes(older)  # into the same inode, as cp does
                self.vault = self.host.start_vaultd()
                self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")
                self.assertEqual("put back: every block counts as used" in self.host.log(), put_back)

    def test_a_restored_block_is_not_for_base_mode(self):
        passphrase = self.host.dir / "pass"
        passphrase.write_text("for the drawer\n")
        passphrase.chmod(0o600)
        self.host.cli("key", "backup", "base", str(self.host.dir / "base.backup"), "--new-passphrase-file", str(passphrase))
        self.vault.kill()
        self.vault.wait(30)
        (self.host.dir / "keys/base.key").unlink()
        self.host.cli("key", "restore", str(self.host.dir / "base.backup"), "--backup-passphrase-file", str(passphrase))
        self.vault = self.host.start_vaultd()
        self.assertEqual(self.refused(self.net().session, "base"), "blockUsed")

    def test_two_vaults_dont_share_the_claims(self):
        second = self.site_of_blocks()
        second.vault["keys"] = str(self.host.dir / "keys")
        process = second.start_vaultd(wait=False)
        self.assertNotEqual(process.wait(30), 0)
        self.assertIn("in use", second.log())

    def test_what_an_operator_sees(self):
        self.use()
        status = self.host.cli("status", check=False)
        text, said = status.stdout.decode(), status.stderr.decode()
        self.assertRegex(text, r"base\s+active\s+plain file\s+party B, base mode: used")
        self.assertRegex(text, r"hard\s+active\s+plain file\s+party B, base mode: used")
        for told in (said, self.host.cli("check", check=False).stderr.decode()):
            self.assertIn('mode = "base" is forgeable', told)
        # And an entry that can serve nobody any more isn't ready.
        self.host.start_netd()
        used = "the block of `base` is used, and in base mode one serves one connection: pair anew, or import one with --unused"
        wait_until(lambda: self.host.net_status()["vault"] == "connected", 10, "netd has its vault")
        entries = {each["name"]: each["problem"] for each in json.loads(self.host.cli("status", "--json").stdout)["netd"]["entries"]}
        self.assertEqual(entries["base"], used)
        self.assertEqual(entries["hard"], "")
        self.assertRegex(self.host.cli("status").stdout.decode(), r"\bbase .*" + used)

    @unittest.skipIf(SANITIZED, "its frames are larger than what is wiped of the stack")
    def test_no_memory_dump_holds_a_block(self):
        net = self.net()
        session, other = self.use()
        for i in range(50):
            _, salt = net.salt("hard")
            secrets = net.keys("hard", salt, os.urandom(32))
            session.seal((i, os.urandom(100)))
            session.open(other.frame(os.urandom(100), i))
        wanted = [Secret("S of the last connection", each) for each in secrets]
        wanted += [Secret(f"block from {at}", BLOCK[at:at + 16]) for at in range(0, 128, 16)]
        try:
            with Snapshot(self.vault.pid) as snapshot:
                found = snapshot.find(wanted)
        except NotPermitted as error:
            self.skipTest(f"nobody may look into processes here: {error}")
        self.assertEqual(found, [])
        session.seal((1, b"and it goes on"))

    def test_garbage_ends_no_vault(self):
        net = self.net()
        session = net.session("base")
        for params in (None, Struct(b"", [b"x" * 61441]), Struct(b"", [None]), Struct(b"\xff" * 8, [])):
            for method in (0, 1, 2, 3, 99):
                try:
                    self.net().rpc.call(self.net().rpc.root, VAULT_NET, method, params)
                except Exception:  # noqa: BLE001 - any answer will do
                    pass
                try:
                    session.rpc.call(session.cap, PEER_SESSION, method, params)
                except Exception:  # noqa: BLE001
                    session = self.net().session("base") if method != 2 else session
        self.assertTrue(is_alive(self.vault.pid))
        self.assertEqual(self.net().salt("hard")[0], "B")


if __name__ == "__main__":
    unittest.main()
