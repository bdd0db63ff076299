#!/usr/bin/python3
"""Goal: an operator is told the truth, and what to do: by `check`, `up`, `reload`, `status`, `key new` and `pipe`, also when the file is
wrong, a key isn't loaded, or the user may not. And `socket_group` lets a group in, and nobody else.
Method: the commands as they are typed; other users by a child with another uid, when we are root.
"""

import contextlib
import grp
import json
import os
import pathlib
import signal
import subprocess
import sys
import unittest

import minicapnp
from harness import SystemTest, binary, reachable, wait_until

NOBODY = 65534
as_root = unittest.skipUnless(os.geteuid() == 0, "needs root to become another user")


def as_nobody(*words, stdin=b"", gid=NOBODY, groups=()):
    """`sallyport` as another user runs it."""
    return subprocess.run([reachable(binary("sallyport")), *map(str, words)], input=stdin, capture_output=True, timeout=60, check=False,
                          user=NOBODY, group=gid, extra_groups=list(groups))


def lines(done):
    return done.stderr.decode().splitlines()


class ReloadTellsWhatIsInForce(SystemTest):
    def setUp(self):
        self.host = self.site("operator")
        self.alice = self.host.peer("alice")
        self.port = self.host.listen("echo", ["alice"], "echo")
        self.host.start()

    def entry(self, name):
        status = json.loads(self.host.cli("status", "--json").stdout)
        return next(entry for entry in status["netd"]["entries"] if entry["name"] == name)

    def reload(self):
        self.host.write_config()
        return self.host.cli("reload", check=False)

    def test_a_key_that_is_not_loaded_is_named_until_vaultd_is_restarted(self):
        done = self.reload()
        self.assertEqual((done.returncode, lines(done)), (0, []))
        fresh = self.host.listen("fresh", ["alice"], "echo", key="fresh")
        done = self.reload()
        self.assertEqual(done.returncode, 1)
        self.assertEqual(lines(done), [
            "sallyport: warning: [[listen]] `fresh` is not in force: the key `fresh` is not loaded: restart vaultd",
            "sallyport: error: not all of the configuration is in force",
            "sallyport: hint: the warnings above name what is not"])
        self.assertEqual(self.entry("fresh")["problem"], "key `fresh` is not loaded: restart vaultd")
        self.assertIn("key `fresh` is not loaded: restart vaultd", self.host.cli("status").stdout.decode())
        self.assertEqual(self.entry("echo")["problem"], "")

        vaultd = self.host.pids()["vaultd"]
        os.kill(vaultd, signal.SIGTERM)
        wait_until(lambda: self.entry_is_ready("fresh"), 20, "vaultd is there again, with the key")
        self.assertEqual(self.reload().returncode, 0)
        with self.host.connect(fresh, self.alice, key="fresh") as session:
            self.assert_echo(session)

    def entry_is_ready(self, name):
        done = self.host.cli("status", "--json", check=False)
        if done.returncode != 0:
            return False
        entries = json.loads(done.stdout)["netd"]["entries"]
        return [e["problem"] for e in entries if e["name"] == name] == [""]

    def test_what_netd_takes_up_at_its_start_only_is_named(self):
        self.host.net["workers"] = 1
        done = self.reload()
        self.assertEqual(done.returncode, 1)
        self.assertIn("sallyport: warning: sockets, workers or user of netd are as before: restart netd", lines(done))

    def test_netd_gets_the_text_that_the_vault_got(self):
        """One read for both: a file that changes meanwhile doesn't divide the daemons."""
        vaultd = self.host.pids()["vaultd"]
        self.host.listen("first", ["alice"], "echo")
        self.host.write_config()
        os.kill(vaultd, signal.SIGSTOP)
        try:
            command = subprocess.Popen([binary("sallyport"), "reload", "-c", str(self.host.config)], stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT)
            wait_until(lambda: self.has_socket(command.pid), 20, "the command talks to vaultd: it has read the file")
            self.host.listen("second", ["alice"], "echo")
            self.host.write_config()
        finally:
            os.kill(vaultd, signal.SIGCONT)
        said = command.communicate(timeout=30)[0]
        self.assertEqual(command.returncode, 0, said)
        self.assertEqual({name for _, name in self.host.net_status()["entries"]}, {"echo", "first"})

    @staticmethod
    def has_socket(pid):
        for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if str(link.readlink()).startswith("socket:"):
                    return True
        return False


class AVaultAlone(SystemTest):
    """Without an entry nothing needs netd: that it doesn't run is no error."""

    def test_status_and_reload_do_without_netd(self):
        site = self.site("alone")
        site.key("k")
        site.grant("all", keys=["k"], verbs=["box"], peers=["*"])
        site.start_vaultd()
        done = site.cli("status")
        self.assertIn(b"netd is not running", done.stdout)
        self.assertIn(b", and no entry needs it", done.stdout)
        self.assertEqual(done.stderr, b"")
        site.grants["all"]["verbs"] = ["open"]
        done = site.reload()
        self.assertIn(b"netd: not running, and no entry needs it", done.stdout)
        self.assertEqual(done.stderr, b"")
        with minicapnp.App(site.dir / "run/vault.sock") as app:
            self.assertEqual(app.key("k").box([("alice", b"text")]), ["notPermitted"])
        # With one it is.
        site.peer("alice")
        site.listen("echo", ["alice"], "echo", key="k")
        site.write_config()
        for command in ("status", "reload"):
            done = site.cli(command, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"sallyport: error: netd is not running", done.stderr)
        # And a vault that doesn't run is missed in any case.
        site.stop_daemons()
        done = site.cli("status", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"sallyport: error: vaultd is not running", done.stderr)


class NoVaultRuns(SystemTest):
    """A command to a daemon that isn't there says what is missing, and how to start it."""

    def test_each_command_says_how_to_start_it(self):
        site = self.site("nobody")
        site.peer("alice")
        site.connect_entry("out", "127.0.0.1:1", "alice", listen=None)
        site.write_config()
        for words in (("lock",), ("unlock",), ("panic",), ("hsm", "status"), ("status",), ("pipe", "out")):
            with self.subTest(" ".join(words)):
                done = site.cli(*words, check=False)
                self.assertEqual(done.returncode, 1)
                socket = "net.sock" if words[0] == "pipe" else "vault-admin.sock"
                self.assertIn(f"is not running: there is no {site.dir}/run/{socket}".encode(), done.stderr)
                self.assertIn(b"sallyport: hint: start it with `sallyport up`", done.stderr)


class WrongFilesAreToldWhole(SystemTest):
    def setUp(self):
        self.host = self.site("operator-file")

    def said(self, *words):
        done = self.host.cli(*words, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, b"")
        return lines(done)

    def test_every_error_has_its_line_and_its_hint(self):
        file = self.host.config
        file.write_text("[net]\nworker = 1\n[[listen]]\nname = \"a\"\naddress = \"7001\"\nkey = \"k\"\nallow = []\nservice = \"echo\"\n")
        expected = [f"sallyport: error: {file}:2: unknown key `worker` in [net]",
                    "sallyport: hint: did you mean `workers`?",
                    f"sallyport: error: {file}:5: `address` in [[listen]] `a` has no port: `7001`",
                    "sallyport: hint: write HOST:PORT, e.g. `127.0.0.1:8080` or `[::1]:8080`, or unix:PATH",
                    f"sallyport: error: {file}:7: `allow` in [[listen]] `a` allows nobody",
                    "sallyport: hint: name the peers that may connect: allow = [\"alice\"]"]
        for command in ("check", "up", "reload", "status"):
            self.assertEqual(self.said(command), expected, command)
        for daemon in ("vaultd", "netd"):
            done = subprocess.run([binary(daemon), "--config", str(file)], capture_output=True, timeout=30, check=False)
            self.assertEqual((done.returncode, lines(done)), (1, expected), daemon)

    def test_missing_keys_and_groups_have_hints(self):
        self.host.peer("alice")
        self.host.listen("a", ["alice"], "echo")
        self.host.net["socket_group"] = "no-such-group"
        self.host.write_config()
        (self.host.dir / "keys/server.key").unlink()
        for command in ("check", "up"):
            done = self.host.cli(command, check=False)
            self.assertEqual(done.returncode, 1)
            said = [line for line in lines(done) if "warning" not in line]
            self.assertEqual(said, [
                f"sallyport: error: [[listen]] `a` needs the key `server`, but there is no {self.host.dir}/keys/server.key",
                "sallyport: hint: sallyport key new server",
                "sallyport: error: `socket_group`: there is no group `no-such-group`",
                "sallyport: hint: groupadd --system no-such-group"], command)

    def test_text_that_is_not_toml_and_a_file_that_is_not_there_have_hints(self):
        self.host.config.write_text("[net\n")
        self.assertIn("hint: text stands in", self.said("check")[1])
        self.host.config.unlink()
        self.assertIn("hint: write one, or name another with -c FILE", self.said("check")[1])

    @as_root
    def test_a_file_that_may_not_be_read_has_a_hint(self):
        self.host.write_config()
        self.host.config.chmod(0o600)
        done = as_nobody("check", "-c", self.host.config)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Permission denied", lines(done)[0])
        self.assertIn("hint: run this as a user who may read it", lines(done)[1])

    @as_root
    def test_a_key_that_may_not_be_made_names_the_folder(self):
        keys = self.host.dir / "keys"
        keys.mkdir(mode=0o755)
        done = as_nobody("key", "new", "x", "--keys", keys)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(lines(done)[0], f"sallyport: error: {keys}: can't create a file in this folder: Permission denied")
        self.assertIn(f"hint: run this as the owner of {keys}", lines(done)[1])

    def test_a_wrong_option_is_told_in_the_same_words_by_all(self):
        for program, status in (("sallyport", 2), ("vaultd", 2), ("netd", 2)):
            done = subprocess.run([binary(program), "--nonsense"], capture_output=True, timeout=30, check=False)
            self.assertEqual((done.returncode, done.stdout), (status, b""), program)
            self.assertTrue(lines(done)[0].startswith("sallyport: error: "), done.stderr)
            self.assertIn("--help", lines(done)[1])
            for option in ("-V", "--version"):
                done = subprocess.run([binary(program), option], capture_output=True, timeout=30, check=True)
                self.assertRegex(done.stdout.decode(), rf"^{program} \d+\.\d+")
            for option in ("-h", "--help"):
                done = subprocess.run([binary(program), option], capture_output=True, timeout=30, check=True)
                self.assertIn("--config", done.stdout.decode(), program)

    def test_the_help_of_a_command_names_the_options_that_a_use_of_it_needs(self):
        text = subprocess.run([binary("sallyport"), "key", "import", "--help"], capture_output=True, timeout=30, check=True).stdout.decode()
        for option in ("--kind KIND", "--party A|B", "--unused", "--wrapped"):
            self.assertIn(option, text)


@as_root
class OtherUsersMayBeLetIn(SystemTest):
    GROUP = grp.getgrgid(max(group.gr_gid for group in grp.getgrall() if 0 < group.gr_gid < 1000)).gr_name

    def setUp(self):
        self.host = self.site("operator-group")
        self.gid = grp.getgrnam(self.GROUP).gr_gid

    def start(self, group):
        if group:
            self.host.net["socket_group"] = self.host.vault["socket_group"] = group
        self.host.peer("client", self.host.key("client"))
        port = self.host.listen("echo", ["client"], "echo")
        self.host.peer("server", self.host.publics["server"])
        self.host.connect_entry("loop", ("127.0.0.1", port), "server", listen=False)
        self.host.start()
        self.assertEqual(self.host.cli("check").returncode, 0)

    def pipe(self, gid=NOBODY, groups=()):
        return as_nobody("pipe", "loop", "-c", self.host.config, stdin=b"through", gid=gid, groups=groups)

    def vault_admits(self, socket="vault.sock", gid=NOBODY, groups=()):
        program = ("import sys; sys.path.insert(0, sys.argv[1]); import minicapnp\n"
                   "try:\n    minicapnp.Rpc(sys.argv[2], timeout=20)\nexcept OSError as error:\n    sys.exit(str(type(error)))")
        done = subprocess.run([sys.executable, "-B", "-c", program, str(reachable(minicapnp.__file__).parent),
                               str(self.host.dir / "run" / socket)], capture_output=True, timeout=60, check=False, user=NOBODY, group=gid,
                              extra_groups=list(groups))
        return done.returncode == 0, done.stderr.decode()

    def test_members_by_their_first_or_another_group(self):
        self.start(self.GROUP)
        for gid, groups in ((self.gid, ()), (NOBODY, (self.gid,)), (NOBODY, (NOBODY, self.gid))):
            done = self.pipe(gid, groups)
            self.assertEqual((done.returncode, done.stdout), (0, b"through"), done.stderr)
            self.assertEqual(self.vault_admits("vault.sock", gid, groups), (True, ""))
            for closed in ("vault-net.sock", "vault-admin.sock"):
                self.assertIn("PermissionError", self.vault_admits(closed, gid, groups)[1])

    def test_nobody_else(self):
        self.start(self.GROUP)
        done = self.pipe()
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn("no permission", lines(done)[0])
        self.assertIn(f"the members of `{self.GROUP}` may", lines(done)[1])
        self.assertIn("PermissionError", self.vault_admits()[1])
        # The mode of the file is one door, vaultd's own look at the groups another.
        (self.host.dir / "run/vault.sock").chmod(0o666)
        self.assertRegex(self.vault_admits()[1], "ConnectionReset|BrokenPipe")
        self.assertEqual(self.vault_admits("vault.sock", NOBODY, (self.gid,)), (True, ""))

    def test_nobody_at_all_without_the_setting(self):
        self.start(None)
        done = self.pipe(NOBODY, (self.gid,))
        self.assertEqual(done.returncode, 1)
        self.assertIn("`socket_group` in [net]", lines(done)[1])
        self.assertFalse(self.vault_admits("vault.sock", NOBODY, (self.gid,))[0])
        for name in ("net.sock", "vault.sock"):
            self.assertEqual((self.host.dir / "run" / name).stat().st_mode & 0o777, 0o600)


@as_root
class UnixAddressesOfEntries(SystemTest):
    """docs/operations.md: a plain listener on `unix:PATH` is open to those whom its folder lets pass. The encrypted side is, too."""

    PROGRAM = ("import socket, sys\nsock = socket.socket(socket.AF_UNIX)\nsock.settimeout(30)\n"
               "try:\n    sock.connect(sys.argv[1])\nexcept OSError as error:\n    sys.exit(type(error).__name__)\n"
               "sock.sendall(sys.argv[2].encode())\nsock.shutdown(socket.SHUT_WR)\nprint(sock.makefile().read(), end='')")

    def nobody(self, path, text):
        done = subprocess.run([sys.executable, "-c", self.PROGRAM, str(path), text], capture_output=True, timeout=60, check=False,
                              user=NOBODY, group=NOBODY, extra_groups=[])
        return done.stdout.decode(), done.stderr.decode().strip()

    def test_their_folder_says_who_may_use_them(self):
        host = self.site("operator-unix")
        folder = host.dir / "for-programs"
        folder.mkdir(mode=0o755)
        host.peer("client", host.key("client"))
        wire, plain = folder / "wire.sock", folder / "plain.sock"
        host.listen("echo", ["client"], "echo", address=f"unix:{wire}")
        host.peer("server", host.publics["server"])
        host.connect_entry("loop", f"unix:{wire}", "server", listen=f"unix:{plain}")
        host.net["metrics"] = f"unix:{folder}/metrics.sock"
        host.start()
        self.assertEqual(self.nobody(plain, "of another user"), ("of another user", ""))
        self.assertEqual(self.nobody(wire, "no Hello")[1], "")
        for own in (folder / "metrics.sock", host.dir / "run/net.sock", host.dir / "run/vault.sock"):
            self.assertEqual(self.nobody(own, "")[1], "PermissionError", own)
        folder.chmod(0o700)
        for path in (wire, plain):
            self.assertEqual(self.nobody(path, "")[1], "PermissionError", path)


if __name__ == "__main__":
    unittest.main()
