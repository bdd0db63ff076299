#!/usr/bin/python3
"""Goal: a configuration, key file or nonce file that is unreadable, cut off, of another version or open to others gives one clear error
that names the file and the remedy, and nothing is overwritten. A second vaultd on the same keys is refused, and the first goes on.
"""

import os
import subprocess
import unittest

from harness import SystemTest, binary, wait_until


class BadFiles(SystemTest):
    def setUp(self):
        self.host = site = self.site("files")
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo")
        site.write_config()
        self.keys = site.dir / "keys"
        self.key = self.keys / "server.key"

    def contents(self):
        return {path.name: (path.read_bytes(), path.stat().st_mode) for path in self.keys.iterdir() if path.is_file()}

    def vaultd(self):
        return subprocess.run([binary("vaultd"), "-c", str(self.host.config)], capture_output=True, timeout=20, stdin=subprocess.DEVNULL)

    def assert_refused(self, *words):
        """vaultd doesn't start, says why in a line that holds all `words`, and leaves the folder as it was."""
        before = self.contents()
        done = self.vaultd()
        text = done.stderr.decode()
        self.assertEqual(done.returncode, 1, text)
        self.assertIn("sallyport: error: ", text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(self.contents(), before, "a file was changed")
        return text

    def test_key_file_cut_off_at_any_length(self):
        whole = self.key.read_bytes()
        for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
            with self.subTest(length):
                self.key.write_bytes(whole[:length])
                self.assert_refused("server.key")

    def test_key_file_with_a_byte_changed(self):
        whole = self.key.read_bytes()
        for at in range(0, len(whole), 23):
            with self.subTest(at):
                self.key.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
                if self.vaultd_starts():
                    self.fail("a changed key file was taken")
                self.assert_refused("server.key")

    def vaultd_starts(self):
        process = subprocess.Popen([binary("vaultd"), "-c", str(self.host.config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(3)
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True

    def test_key_file_of_another_version(self):
        whole = self.key.read_text()
        self.key.write_text(whole.replace("sallyport key 2", "sallyport key 9"))
        self.assert_refused("server.key", "version")

    def test_key_file_that_others_can_read(self):
        for mode in (0o640, 0o604, 0o666):
            with self.subTest(oct(mode)):
                self.key.chmod(mode)
                self.assert_refused("server.key", "chmod 600")

    def test_key_file_missing(self):
        self.key.unlink()
        self.assert_refused("server.key", "sallyport key new server")

    def test_key_file_that_is_a_link_a_folder_or_a_pipe(self):
        remedy = "sallyport: hint: move it away, and put the file itself there"
        self.key.rename(self.keys / "moved")
        self.key.symlink_to(self.keys / "moved")
        self.assert_refused("server.key is a symbolic link, not a file", remedy)
        self.key.unlink()
        self.key.mkdir()
        self.assert_refused("server.key is a folder, not a file", remedy)
        self.key.rmdir()
        os.mkfifo(self.key, 0o600)
        self.assert_refused("server.key is a FIFO, not a file", remedy)

    def test_key_file_that_is_far_too_long(self):
        self.key.write_bytes(self.key.read_bytes() + b"x" * (1 << 20))
        self.assert_refused("server.key is longer than", "sallyport: hint: it is another file")

    def test_nonce_file_that_is_a_folder_or_a_pipe(self):
        """The vault doesn't wait for who writes into a pipe."""
        nonces = self.keys / "server.nonces"
        for what, make in (("a folder", nonces.mkdir), ("a FIFO", lambda: os.mkfifo(nonces, 0o600))):
            with self.subTest(what):
                make()
                self.assert_refused(f"server.nonces is {what}, not a file", "(move it away: the next start makes a new nonce file")
                done = self.host.cli("check", check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"server.nonces is {what}, not a file".encode(), done.stderr)
                self.assertIn(b"sallyport: hint: move it away: the next start", done.stderr)
                (nonces.rmdir if nonces.is_dir() else nonces.unlink)()

    def test_keys_folder_that_others_can_write(self):
        self.keys.chmod(0o777)
        self.assert_refused("keys", "chmod 700")

    def test_nonce_file_damaged(self):
        """The vault may serve without that key, but hands out no nonce, says so, and leaves the file alone."""
        site = self.host
        nonces = self.keys / "server.nonces"
        vault = site.start_vaultd()
        vault.terminate()
        vault.wait()
        site.processes.clear()
        good = nonces.read_bytes()
        for name, data in (("cut off", good[:100]), ("empty", b""), ("zeros", bytes(len(good))),
                           ("both slots damaged", bytes([good[0] ^ 255]) + good[1:4096] + bytes([good[4096] ^ 255]) + good[4097:])):
            with self.subTest(name):
                nonces.write_bytes(data)
                done = None
                process = site.start_vaultd(wait=False)
                wait_until(lambda: process.poll() is not None or site._vault_answers(), 10, "vaultd says what it thinks of it")
                if process.poll() is None:
                    self.assertNotEqual(site.vault_status()["keys"]["server"]["nonce"], "ready")
                    process.terminate()
                    process.wait()
                else:
                    done = process.returncode
                    self.assertEqual(done, 1)
                site.processes.clear()
                self.assertEqual(nonces.read_bytes(), data, "the damaged nonce file was overwritten")
                self.assertIn("server.nonces", site.log())
        nonces.write_bytes(bytes([good[0] ^ 255]) + good[1:])  # one good slot is enough, under a fresh nonce key
        site.start_vaultd()
        self.assertEqual(site.vault_status()["keys"]["server"]["nonce"], "ready")

    def test_nonce_file_that_others_can_write(self):
        site = self.host
        vault = site.start_vaultd()
        vault.terminate()
        vault.wait()
        site.processes.clear()
        (self.keys / "server.nonces").chmod(0o666)
        process = site.start_vaultd(wait=False)
        wait_until(lambda: process.poll() is not None or site._vault_answers(), 10, "vaultd says what it thinks of it")
        if process.poll() is None:
            self.assertNotEqual(site.vault_status()["keys"]["server"]["nonce"], "ready")
        self.assertIn("server.nonces", site.log())

    def test_a_second_vaultd_on_the_same_keys(self):
        site = self.host
        site.start()
        with site.connect(self.port, self.alice) as session:
            self.assert_refused("in use")
            other = site.config.read_text().replace('"run/vault.sock"', '"run2/vault.sock"')
            second = site.dir / "second.toml"
            second.write_text(other)
            done = subprocess.run([binary("vaultd"), "-c", str(second)], capture_output=True, timeout=20)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(b"server.nonces", done.stderr)
            self.assertIn(b"another vaultd", done.stderr)
            self.assert_echo(session)
        with site.connect(self.port, self.alice) as session:
            self.assert_echo(session)

    def test_commands_never_overwrite_a_key(self):
        site = self.host
        before = self.contents()
        for words, stdin in ((("key", "new", "server"), b""), (("key", "import", "server"), b"11" * 32 + b"\n")):
            done = site.cli(*words, stdin=stdin, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"server.key", done.stderr)
            self.assertEqual(self.contents(), before)
        for name in ("../evil", "a/b", ".hidden", "", "x" * 65):
            self.assertNotEqual(site.cli("key", "new", name, check=False).returncode, 0)
        for text in (b"", b"short\n", b"zz" * 32 + b"\n", b"11" * 33 + b"\n"):
            self.assertEqual(site.cli("key", "import", "other", stdin=text, check=False).returncode, 1)
        self.assertEqual(self.contents(), before)


class BadConfigurations(SystemTest):
    CASES = {
        "unknown key": ("[net]\nspeed = 9\n", "speed"),
        "unknown table": ("[network]\n", "network"),
        "wrong type": ("[net]\nworkers = \"two\"\n", "workers"),
        "not toml": ("[net\n", ""),
        "bad address": ("[[connect]]\nname='x'\naddress='nohost'\nprotocol='curve'\nkey='k'\npeer='p'\n", "address"),
        "unknown peer": ("[[connect]]\nname='x'\naddress='h:1'\nprotocol='curve'\nkey='k'\npeer='p'\n", "p"),
        "short peer key": ("[peers]\nbob='AAAA'\n", "bob"),
        "low-order peer key": ("[peers]\nbob='AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\n", "bob"),
        "metrics open to the world": ("[net]\nmetrics='0.0.0.0:9464'\n", "metrics"),
        "nobody allowed": ("[[listen]]\nname='x'\naddress='[::1]:1'\nprotocol='curve'\nkey='k'\nallow=[]\nservice='echo'\n", "allow"),
    }

    def test_each_names_the_file_and_the_line(self):
        site = self.site("configs")
        for name, (text, word) in self.CASES.items():
            site.config.write_text(text)
            for program in (["sallyport", "check"], ["sallyport", "up"], ["vaultd"], ["netd"]):
                with self.subTest(name, program=program):
                    done = subprocess.run([binary(program[0]), *program[1:], "-c", str(site.config)], capture_output=True, timeout=20)
                    text = done.stderr.decode()
                    self.assertEqual(done.returncode, 1, text)
                    self.assertIn("sallyport: error: ", text)
                    self.assertRegex(text, r"sallyport\.toml:\d+: ")
                    self.assertIn(word, text)
                    self.assertEqual(done.stdout, b"")

    def test_missing_and_unreadable(self):
        site = self.site("missing")
        for program in (["sallyport", "check"], ["vaultd"], ["netd"]):
            done = subprocess.run([binary(program[0]), *program[1:], "-c", str(site.dir / "no.toml")], capture_output=True, timeout=20)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"no.toml", done.stderr)

    def test_usage_errors_exit_with_2(self):
        site = self.site("usage")
        for words in (["frobnicate"], ["key"], ["pipe"], ["status", "--jason"], ["up", "extra"]):
            done = subprocess.run([binary("sallyport"), *words], capture_output=True, timeout=20, cwd=site.dir)
            self.assertEqual(done.returncode, 2, words)
            self.assertTrue(done.stderr.startswith(b"sallyport: error: "), done.stderr)


if __name__ == "__main__":
    unittest.main()
