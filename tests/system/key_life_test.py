#!/usr/bin/python3
"""Goal: `sallyport key` carries a key through its life on real files: versions, slots, shares, deletion, import, export, backup; what
isn't allowed is refused with the file as it was; no secret is in an argument, in a message, or where it wasn't asked for.
"""

import base64
import os
import pathlib
import pty
import subprocess
import time
import unittest

from harness import SystemTest, binary


class KeyLife(SystemTest):
    def setUp(self):
        self.host = self.site("keys")
        self.host.write_config()
        self.keys = self.host.dir / "keys"

    # -- helpers

    def key(self, *words, **options):
        return self.host.cli("key", *words, **options)

    def out(self, *words, **options):
        return self.key(*words, **options).stdout.decode().strip()

    def file(self, name, text):
        path = self.host.dir / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def bytes(self, name="server"):
        return (self.keys / f"{name}.key").read_bytes()

    def refused(self, *words, says, name="server", **options):
        """The command fails, says why, and leaves the key's file as it was."""
        path = self.keys / f"{name}.key"
        before = path.read_bytes() if path.exists() else None
        done = self.key(*words, check=False, **options)
        text = done.stderr.decode()
        self.assertNotEqual(done.returncode, 0, text)
        self.assertIn(says, text)
        self.assertEqual(path.read_bytes() if path.exists() else None, before)
        return text

    def states(self, name="server"):
        rows = self.out("show", name, "--versions").splitlines()[1:]
        return [row.split()[1] for row in rows]

    def slots(self, name="server"):
        return [row.split()[1] for row in self.out("slot", "list", name).splitlines()[1:]]

    # -- versions

    def test_versions_follow_each_other(self):
        first = self.key("new", "server").stdout
        second = self.out("rotate", "server", "--grace", "1h")
        self.assertEqual(self.states(), ["open-only", "active"])
        self.assertEqual(self.out("show", "server"), second)
        self.assertEqual(self.out("show", "server", "1"), first.decode().strip())
        self.key("retire", "server", "1")
        third = self.out("rotate", "server", "--activate-in", "2s", "--grace", "0s")
        self.assertEqual(self.states(), ["retired", "active", "pending"])
        self.refused("rotate", "server", says="pending already")
        deadline = time.time() + 20
        while self.states()[2] == "pending" and time.time() < deadline:
            time.sleep(0.2)
        self.assertEqual(self.states(), ["retired", "retired", "active"], "the clock alone has carried it out")
        self.assertEqual(self.out("show", "server"), third)
        self.refused("retire", "server", "3", says="is the active one")
        self.refused("retire", "server", "9", says="no version 9")
        self.assertEqual(list(self.keys.iterdir()), [self.keys / "server.key"])

    def test_deletion_has_a_window(self):
        self.key("new", "server")
        self.key("delete", "server", "--window", "1h")
        self.assertEqual(self.states(), ["retired"])
        self.refused("rotate", "server", says="no active version")
        self.key("undelete", "server")
        self.assertEqual(self.states(), ["active"])
        size = len(self.bytes())
        self.key("delete", "server", "--window", "0s")
        self.assertEqual(self.states(), ["destroyed"])
        self.assertLess(len(self.bytes()), size, "the secret has left the file")
        self.refused("undelete", "server", says="deletion window")
        self.refused("new", "server", says="exists already")

    def test_rotation_by_period(self):
        self.key("new", "server")
        self.key("new", "other")
        other = self.bytes("other")
        text = self.host.config.read_text()
        self.host.config.write_text(text + '\n[key.server]\nrotate_every = "60s"\ngrace = "30s"\n')
        self.key("rotate", "--due")
        self.assertEqual(self.states(), ["active"], "not yet")
        self.age("server", 61)
        self.assertIn("version 2", self.key("rotate", "--due").stderr.decode())
        self.assertEqual(self.states(), ["open-only", "active"])
        self.assertEqual(self.key("rotate", "--due").stderr, b"", "and not again")
        self.assertEqual(self.bytes("other"), other, "a key without a period")

    def age(self, name, seconds):
        """Makes a key older, by a file of format 1 (active since ever)."""
        secret = bytes([7] * 32)
        path = self.keys / f"{name}.key"
        path.unlink()
        self.key("import", name, stdin=base64.b64encode(secret))
        public = self.out("show", name)
        path.write_text(f"sallyport key 1\nname: {name}\nkind: x25519\npublic: {public}\ncreated: 2020-01-01T00:00:00Z\nseal: plain\n"
                        f"payload: {base64.b64encode(secret).decode()}\n")

    # -- slots

    def test_a_passphrase_changes_and_the_sealed_keys_stay(self):
        old, new = self.file("old", "old\n"), self.file("new", "new\n")
        self.key("new", "server", "--passphrase-file", old)
        before = self.bytes()
        self.refused("passphrase", "server", "--passphrase-file", new, "--new-passphrase-file", new, says="passphrase is wrong")
        self.key("passphrase", "server", "--passphrase-file", old, "--new-passphrase-file", new)
        after = self.bytes()
        self.assertEqual(after[:after.index(b"slot: ")], before[:before.index(b"slot: ")])
        self.refused("rotate", "server", "--passphrase-file", old, says="passphrase is wrong")
        self.key("rotate", "server", "--passphrase-file", new)
        self.key("passphrase", "server", "--passphrase-file", new, "--remove")
        self.assertEqual(self.slots(), ["plain"])
        self.refused("rotate", "server", "--grace", "x", says="needs a duration")

    def test_a_passphrase_file_that_is_missing_is_told_with_the_remedy(self):
        nowhere = str(self.host.dir / "nowhere")
        said = self.refused("new", "server", "--passphrase-file", nowhere, says=f"{nowhere}: there is no such file")
        self.assertIn("sallyport: hint: write it first", said)

    def test_each_slot_opens_and_a_removed_one_does_not(self):
        passphrase = self.file("passphrase", "p\n")
        credential = self.file("credential", "0123456789abcdef0123456789abcdef")
        self.key("new", "server", "--passphrase-file", passphrase)
        self.key("slot", "add", "server", "credential", "--new-credential", f"cred={credential}", "--passphrase-file", passphrase)
        recovery = self.file("recovery", self.out("slot", "add", "server", "recovery", "--credential", f"cred={credential}").lower() + "\n")
        shares = self.out("slot", "add", "server", "shares", "--split", "2/3", "--recovery", "--passphrase-file", recovery).splitlines()
        self.assertEqual(self.slots(), ["passphrase", "systemd", "recovery", "shares"])
        two = self.file("two", "\n".join(shares[1:]) + "\n")
        self.key("rotate", "server", "--shares", two)
        self.key("retire", "server", "1", "--shares", "-", stdin=("\n".join(shares[:2]) + "\n").encode())
        self.refused("rotate", "server", "--shares", self.file("one", shares[0] + "\n"), says="only 1 of 2")
        self.refused("rotate", "server", "--shares", self.file("same", shares[0] + "\n" + shares[0]), says="given twice")
        typo = shares[0][:-20] + ("0" if shares[0][-20] != "0" else "1") + shares[0][-19:]
        self.refused("rotate", "server", "--shares", self.file("typo", typo), says="mistyped")
        self.key("new", "other", "--passphrase-file", passphrase)
        foreign = self.out("slot", "add", "other", "shares", "--split", "2/2", "--passphrase-file", passphrase).splitlines()
        self.refused("rotate", "server", "--shares", self.file("mixed", shares[0] + "\n" + foreign[0]), says="different sets")
        self.refused("rotate", "server", "--shares", self.file("foreign", "\n".join(foreign)), says="don't open")
        self.key("slot", "remove", "server", "1", "--shares", two)
        self.refused("rotate", "server", "--passphrase-file", passphrase, says="passphrase is wrong")
        for slot in ("2", "4"):
            self.key("slot", "remove", "server", slot, "--recovery", "--passphrase-file", recovery)
        self.refused("slot", "remove", "server", "3", "--recovery", "--passphrase-file", recovery, says="the only one")

    def test_a_credential_of_systemd_needs_nobody(self):
        folder = self.host.dir / "credentials"
        folder.mkdir()
        (folder / "cred").write_bytes(bytes(range(32)))
        (folder / "cred").chmod(0o400)
        self.key("new", "server", "--credential", f"cred={folder / 'cred'}")
        done = subprocess.run([binary("sallyport"), "key", "rotate", "server", "-c", str(self.host.config)], capture_output=True,
                              env={**os.environ, "CREDENTIALS_DIRECTORY": str(folder)}, stdin=subprocess.DEVNULL, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.states(), ["open-only", "active"])

    def test_a_first_seal_renews_the_file_key(self):
        self.key("new", "server")
        line = next(line for line in self.bytes().splitlines() if line.startswith(b"slot: 1 plain key="))
        self.key("passphrase", "server", "--new-passphrase-file", self.file("new", "new\n"))
        changed = self.bytes()
        self.assertNotIn(b"plain", changed)
        mac = changed[changed.index(b"slot: "):]
        (self.keys / "server.key").write_bytes(changed.replace(mac, line + b"\n" + mac[mac.index(b"mac: "):]))
        self.refused("rotate", "server", says="was changed")

    # -- between hosts

    def test_export_is_a_one_way_switch(self):
        secret = base64.b64encode(bytes(range(1, 33)))
        self.key("import", "server", stdin=secret)
        self.refused("export", "server", says="allow-export")
        self.key("allow-export", "server")
        self.assertEqual(self.out("export", "server").encode(), secret)
        (self.keys / "server.key").write_bytes(self.bytes().replace(b"export: yes", b"export: no"))
        self.refused("export", "server", says="was changed")
        self.assertEqual(self.key("--help").stdout.count(b"forbid"), 0, "nothing turns it off")

    def test_a_secret_is_not_shown_on_a_terminal(self):
        self.key("new", "server", "--exportable")
        ours, theirs = pty.openpty()
        try:
            done = subprocess.run([binary("sallyport"), "key", "export", "server", "-c", str(self.host.config)], stdout=theirs,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30)
        finally:
            os.close(ours)
            os.close(theirs)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"isn't shown on a terminal", done.stderr)

    def test_a_wrapped_key_comes_over_once(self):
        there = self.site("there")
        there.write_config()
        to = there.cli("key", "import-key").stdout.decode().strip()
        self.key("new", "signer", "--kind", "ed25519", "--exportable")
        wrapped = self.key("export", "signer", "--to", to).stdout
        there.cli("key", "import", "signer", "--wrapped", stdin=wrapped)
        self.assertEqual(there.cli("key", "show", "signer").stdout, self.key("show", "signer").stdout)
        again = there.cli("key", "import", "second", "--wrapped", stdin=wrapped, check=False)
        self.assertIn(b"there is no import key", again.stderr)
        to = there.cli("key", "import-key").stdout.decode().strip()
        raw = self.key("wrap", to, stdin=base64.b64encode(bytes([9] * 32))).stdout
        there.cli("key", "import", "raw", "--wrapped", stdin=raw)
        self.refused("wrap", base64.b64encode(bytes(32)).decode(), stdin=b"", says="low-order")

    def test_a_backup_comes_back_on_another_host_with_fresh_nonces(self):
        there = self.site("there")
        there.write_config()
        passphrase = self.file("passphrase", "b\n")
        self.key("new", "server")
        self.refused("backup", "server", str(self.host.dir / "out"), "--new-passphrase-file", passphrase, says="allow-backup")
        self.key("allow-backup", "server")
        self.key("rotate", "server")
        backup = self.host.dir / "out"
        self.key("backup", "server", str(backup), "--new-passphrase-file", passphrase)
        self.assertEqual(backup.stat().st_mode & 0o777, 0o600)
        self.assertNotIn(b"ledger", backup.read_bytes())
        self.refused("backup", "server", str(backup), "--new-passphrase-file", passphrase, says="exists already")
        wrong = self.file("wrong", "w\n")
        done = there.cli("key", "restore", str(backup), "--backup-passphrase-file", wrong, check=False)
        self.assertIn(b"passphrase is wrong", done.stderr)
        self.assertFalse((there.dir / "keys" / "server.key").exists())
        there.cli("key", "restore", str(backup), "--backup-passphrase-file", passphrase)
        self.assertEqual(there.cli("key", "show", "server", "--versions").stdout, self.key("show", "server", "--versions").stdout)
        ledger = [line for line in self.bytes().splitlines() if line.startswith(b"ledger: ")]
        self.assertNotIn(ledger[0], (there.dir / "keys" / "server.key").read_bytes())
        (there.dir / "keys" / "stolen.key").write_bytes(backup.read_bytes())
        (there.dir / "keys" / "stolen.key").chmod(0o600)
        done = there.cli("key", "show", "stolen", check=False)
        self.assertIn(b"a backup, not a key file", done.stderr)

    def test_a_recovery_backup(self):
        self.key("new", "server", "--allow-backup")
        backup = self.host.dir / "out"
        words = self.out("backup", "server", str(backup), "--new-recovery")
        (self.keys / "server.key").unlink()
        self.key("restore", str(backup), "--backup-passphrase-file", self.file("words", words + "\n"))
        self.assertEqual(self.states(), ["active"])

    # -- without a vault

    def test_without_a_running_vault_lock_says_so(self):
        self.key("new", "server")
        for words in (["lock"], ["unlock"], ["unlock", "server"], ["panic"]):
            done = self.host.cli(*words, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"the vault is not running", done.stderr)


class RunningVault(SystemTest):
    """What the command line does to a vault that is running, seen by a program that uses the key."""

    def setUp(self):
        self.host = self.site("keys-live")
        self.host.write_config()
        self.first = self.host.cli("key", "new", "server").stdout.decode().strip()
        self.host.grant("all", keys=["server"], verbs=["box", "open"], peers=["*"])
        self.host.start_vaultd()
        self.app = self.host.app()
        self.addCleanup(self.app.close)
        self.box_key = self.app.key("server")

    def version(self):
        """The version that boxes, or the refusal."""
        outcome = self.box_key.box([(bytes(range(1, 33)), b"text")])[0]
        return outcome if isinstance(outcome, str) else outcome[2]

    def state(self):
        return self.host.vault_status()["keys"]["server"]["state"]

    def test_a_rotation_reaches_it(self):
        self.assertEqual(self.version(), 1)
        second = self.host.cli("key", "rotate", "server", "--grace", "1h").stdout.decode().strip()
        self.assertNotEqual(second, self.first)
        self.assertEqual(self.version(), 2)
        self.assertEqual(base64.b64encode(self.app.public_key("server")).decode(), second)

    def test_a_deletion_reaches_it_and_is_told(self):
        self.host.cli("key", "delete", "server")
        self.assertEqual((self.version(), self.state()), ("wrongVersion", "inactive"))
        self.assertRegex(self.host.cli("status").stdout.decode(), r"server +inactive ")
        self.host.cli("key", "undelete", "server")
        self.assertEqual((self.version(), self.state()), (1, "active"))

    def test_lock_unlock_and_panic(self):
        for locking in (["lock", "server"], ["lock"], ["panic"]):
            self.host.cli(*locking)
            self.assertEqual((self.version(), self.state()), ("locked", "locked"), locking)
            self.host.cli("unlock", "server")
            self.assertEqual((self.version(), self.state()), (1, "active"), locking)
        self.assertNotEqual(self.host.cli("lock", "nobody", check=False).returncode, 0)
        self.assertEqual(self.version(), 1)


if __name__ == "__main__":
    unittest.main()
