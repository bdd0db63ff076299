#!/usr/bin/python3
"""Goal: the audit log of a real, sandboxed vaultd: what is in it, that it survives kill -9, that every kind of tampering is found with
its file and line (by `sallyport audit verify` and by the next start), and what a full disk does with and without `required`.
Method: a vault with programs and a net daemon; its files changed by hand; a small tmpfs as its folder (needs root).
"""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

import minicapnp
from harness import SystemTest, binary, ct, wait_until


class AuditTest(SystemTest):
    AUDIT = {}

    def setUp(self):
        self.host = site = self.site("audit")
        self.folder = site.dir / "audit"
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo")
        self.configure(**self.AUDIT)

    def configure(self, **audit):
        """[audit] and a grant, behind what the harness writes."""
        lines = ["[audit]"] + [f"{key} = {json.dumps(value)}" for key, value in audit.items()]
        lines += ["[[grant]]", 'name = "all"', 'users = ["*"]', 'keys = ["server"]', 'verbs = ["box", "open", "fresh_nonce"]',
                  'peers = ["*"]', 'domains = ["mine"]']
        plain = type(self.host).config_text
        self.host.config_text = lambda: plain(self.host) + "\n" + "\n".join(lines) + "\n"

    def use(self, texts=(b"hello",)):
        with minicapnp.App(self.host.dir / "run/vault.sock") as app:
            return app.key("server").box([("alice", text) for text in texts])

    def refusal(self):
        """Why one box is refused; None if it isn't."""
        try:
            outcome = self.use()[0]
        except minicapnp.VaultRefused as refused:
            return str(refused)
        return outcome if isinstance(outcome, str) else None

    def records(self):
        found = []
        for path in self.folder.glob("*.log"):
            for line in path.read_text().split("\n")[:-1]:  # behind the last newline: half a line, on a full disk
                record = json.loads(line)
                if "verb" in record:
                    found.append(record)
        return sorted(found, key=lambda record: record["seq"])

    def verbs(self):
        return [record["verb"] for record in self.records()]

    def end(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        process.wait()
        self.host.processes.remove(process)

    def verify(self, *words):
        done = self.host.cli("audit", "verify", *words, check=False)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def assert_found(self, *words, options=()):
        status, text = self.verify(*options)
        self.assertEqual(status, 1, text)
        for word in words:
            self.assertIn(word, text)

    def assert_whole(self, *options):
        status, text = self.verify(*options)
        self.assertEqual(status, 0, text)
        return text


class Records(AuditTest):
    def test_uses_steps_actions_start_and_stop(self):
        site = self.host
        vault = site.start_vaultd()
        site.start_netd()
        self.use([b"one", b"three"])
        with site.connect(self.port, self.alice) as session:
            self.assert_echo(session)
        site.reload()
        wait_until(lambda: "verify_vouch" in self.verbs(), 10, "the steps of this second are written")
        self.end(vault)
        records = self.records()
        self.assertEqual(records[0]["verb"], "start")
        self.assertEqual(records[-1]["verb"], "stop")
        boxed = [record for record in records if record["verb"] == "box"]
        self.assertEqual(len(boxed), 1, boxed)
        for key, value in {"socket": "main", "uid": os.geteuid(), "gid": os.getegid(), "pid": os.getpid(), "key": "server", "version": 1,
                           "peer": "alice", "items": 2, "bytes": 8, "outcome": "ok"}.items():
            self.assertEqual(boxed[0][key], value, boxed[0])
        steps = {record["verb"]: record for record in records if record.get("entry") == "echo"}
        self.assertEqual(set(steps), {"seal_cookie", "verify_vouch"})
        self.assertTrue(any(record["verb"] == "reload" and record["socket"] == "admin" for record in records), records)
        self.assertIn("and the vault's own", self.assert_whole())

    def test_refused_uses_are_one_line_a_second(self):
        site = self.host
        site.start_vaultd()
        with minicapnp.App(site.dir / "run/vault.sock") as app:
            key = app.key("server")
            for _ in range(200):
                key.open([("alice", bytes(24), bytes(40))])
        wait_until(lambda: sum(r.get("items", 0) for r in self.records() if r["verb"] == "open") == 200, 10, "all are told")
        lines = [record for record in self.records() if record["verb"] == "open"]
        self.assertLess(len(lines), 20)
        self.assertNotIn("ok", {record["outcome"] for record in lines})

    def test_no_text_no_nonce_no_box_is_in_it(self):
        self.host.start_vaultd()
        text = b"a text that must not be seen"
        outcome = self.use([text])[0]
        files = b"".join(path.read_bytes() for path in self.folder.iterdir())
        self.assertNotIn(text, files)
        for part in outcome:
            if isinstance(part, bytes):
                self.assertNotIn(part[:16], files)

    def test_killed_and_started_again_and_again(self):
        site = self.host
        for _ in range(4):
            vault = site.start_vaultd()
            self.use()
            self.end(vault, signal.SIGKILL)
        site.start_vaultd()
        self.assertEqual(self.verbs().count("start"), 5)
        self.assertEqual(self.verbs().count("box"), 4)
        self.assertIn("up to what the vault knows", self.assert_whole())

    def test_tail_and_export(self):
        site = self.host
        site.start_vaultd()
        self.use()
        tail = site.cli("audit", "tail", "-n", "1").stdout.decode()
        self.assertRegex(tail, r"^\S+Z #2 box ok: key server version 1, peer alice, 1 item, 5 bytes, "
                               r"by uid \d+ gid \d+ \(pid \d+\) on main\n$")
        follow = subprocess.Popen([binary("sallyport"), "audit", "tail", "-f", "-n", "0", "-c", str(site.config)], stdout=subprocess.PIPE)
        self.addCleanup(follow.stdout.close)
        self.addCleanup(follow.wait)
        self.addCleanup(follow.kill)
        time.sleep(0.5)  # not needed for the verdict: what it prints may come from before or after it began
        self.use()
        self.assertIn(b" #3 box ok", follow.stdout.readline())
        whole = site.cli("audit", "export").stdout
        self.assertEqual([json.loads(line).get("verb") for line in whole.splitlines()], [None, "start", "box", "box"])
        part = site.cli("audit", "export", "--since", "3").stdout
        self.assertEqual([json.loads(line).get("seq") for line in part.splitlines()], [3, 3])
        self.assertEqual(site.cli("audit", "export", "--since", "2100-01-01").stdout, b"")
        for name, text in (("whole", whole), ("part", part)):
            (site.dir / name).write_bytes(text)
            self.assert_whole(str(site.dir / name), "--key", str(self.folder / "verify.key"))
        (site.dir / "whole").write_bytes(whole.replace(b'"bytes":5', b'"bytes":6', 1))
        self.assert_found("whole:3: this line was changed", options=[str(site.dir / "whole")])


class Tampering(AuditTest):
    AUDIT = {"files": 3, "file_mib": 1}

    def setUp(self):
        super().setUp()
        vault = self.host.start_vaultd()
        with minicapnp.App(self.host.dir / "run/vault.sock") as app:
            key = app.key("server")
            while not (self.folder / "1.log").stat().st_size:
                for _ in range(100):
                    key.box([(os.urandom(32), b"") for _ in range(64)])
        self.end(vault)
        self.whole = {path: path.read_bytes() for path in self.folder.iterdir()}
        self.head = self.assert_whole().split("head ")[1].strip()

    def restore(self):
        for path, content in self.whole.items():
            path.write_bytes(content)
            path.chmod(0o600)

    def lines(self, name):
        return (self.folder / name).read_bytes().splitlines(keepends=True)

    def put(self, name, lines):
        (self.folder / name).write_bytes(b"".join(lines))

    def assert_start_refused(self, *words):
        before = {path: path.read_bytes() for path in self.folder.iterdir()}
        done = subprocess.run([binary("vaultd"), "-c", str(self.host.config)], capture_output=True, timeout=30, stdin=subprocess.DEVNULL)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, 1, text)
        self.assertIn("sallyport: error: ", text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual({path: path.read_bytes() for path in self.folder.iterdir()}, before, "a file was changed")

    def test_each_change_is_found_by_verify_and_by_the_next_start(self):
        first, second = self.lines("0.log"), self.lines("1.log")
        edited = first[:2] + [first[2].replace(b'"ok"', b'"OK"')] + first[3:]
        cases = {
            "edit": ({"0.log": edited}, ("0.log:3: ", "changed")),
            "deletion": ({"0.log": first[:5] + first[6:]}, ("0.log:6: ", "is missing")),
            "reorder": ({"0.log": first[:5] + [first[6], first[5]] + first[7:]}, ("0.log:6: ",)),
            "twice": ({"0.log": first[:6] + first[5:]}, ("0.log:7: ", "out of order")),
            "foreign line": ({"1.log": second[:1] + [b"Nov 21 sshd: hello\n"] + second[1:]}, ("1.log:2: ", "not a line")),
            "swapped files": ({"0.log": second, "1.log": first}, ("0.log:1: ", "swapped")),
            "end of a file that isn't the last": ({"0.log": first[:-1]}, ("1.log:1: ", "missing before it")),
            "half a line in the middle": ({"0.log": first[:-1] + [first[-1][:30]]}, ("0.log:",)),
            "not text": ({"0.log": [os.urandom(1000)]}, ("0.log:1: ",)),
        }
        for name, (change, found) in cases.items():
            with self.subTest(name):
                self.restore()
                for file, lines in change.items():
                    self.put(file, lines)
                self.assert_found(*found)
                self.assert_start_refused("1.log:1: records 1 to " if name == "not text" else found[0].rstrip())
        self.restore()
        self.assert_whole("--head", self.head)

    def test_the_end_cut_off(self):
        second = self.lines("1.log")
        self.put("1.log", second[:-1])
        self.assert_found("state knows record ", "its end was cut off")
        state = (self.folder / "state").read_bytes()
        (self.folder / "state").unlink()
        self.assert_whole()  # who takes the state away too leaves a shorter log that is whole: that is what a noted head is for
        self.assert_found("its end was cut off", options=["--head", self.head])
        self.restore()
        self.put("1.log", second[:-1])
        self.assertEqual((self.folder / "state").read_bytes(), state)
        self.assert_start_refused("state: ", "its end was cut off")
        (self.folder / "1.log").write_bytes(b"")
        self.assert_found("state knows record ", "its end was cut off")
        self.assert_found("its end was cut off", options=["--head", self.head])
        self.assert_start_refused("its end was cut off")

    def test_a_missing_file(self):
        for name in ("0.log", "1.log", "2.log"):
            self.restore()
            (self.folder / name).unlink()
            self.assert_found(f"{name} is missing")
            self.assert_start_refused(f"{name} is missing")
        self.restore()
        (self.folder / "state").write_bytes(b"")
        self.assert_start_refused("state is missing or empty")
        (self.folder / "state").write_bytes(os.urandom(8192))
        self.assert_found("state is damaged")
        self.assert_start_refused("state: is damaged")

    def test_files_that_others_can_read(self):
        (self.folder / "1.log").chmod(0o644)
        self.assert_start_refused("1.log", "chmod 600")

    def test_a_log_made_anew_by_another_vault(self):
        """Who takes all can begin a log that is whole in itself. The key that was kept elsewhere, and a noted head, tell."""
        kept = self.host.dir / "kept.key"
        shutil.copy(self.folder / "verify.key", kept)
        shutil.rmtree(self.folder)
        vault = self.host.start_vaultd()
        self.use()
        self.end(vault)
        self.assert_whole()
        self.assert_found("was not written by this vault", options=["--key", str(kept)])
        self.assert_found("its end was cut off", options=["--head", self.head])

    def test_half_a_line_at_the_end_is_cut_off_and_told(self):
        path = self.folder / "1.log"
        path.write_bytes(path.read_bytes() + b'{"seq":123')
        self.assertIn("half a line", self.assert_whole())
        self.host.start_vaultd()
        torn = [record for record in self.records() if record["verb"] == "torn"]
        self.assertEqual([record["bytes"] for record in torn], [10])
        self.assert_whole()

    def test_a_second_vaultd_on_the_same_log(self):
        self.host.start_vaultd()
        other = self.host.config_text().replace('"run/vault.sock"', '"run2/vault.sock"').replace('"keys"', '"keys2"')
        shutil.copytree(self.host.dir / "keys", self.host.dir / "keys2", ignore=lambda *_: ["server.nonces"])
        second = self.host.dir / "second.toml"
        second.write_text(other)
        done = subprocess.run([binary("vaultd"), "-c", str(second)], capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"state is in use", done.stderr)


class FullRing(AuditTest):
    AUDIT = {"files": 2, "file_mib": 1, "required": True, "when_full": "refuse"}

    def test_uses_are_refused_until_an_export_is_marked(self):
        site = self.host
        site.start_vaultd()
        with minicapnp.App(site.dir / "run/vault.sock") as app:
            key = app.key("server")
            for _ in range(2000):
                if any(isinstance(o, str) for o in key.box([(os.urandom(32), b"") for _ in range(64)])):
                    break
            else:
                self.fail("two files of 1 MiB never became full")
        self.assertEqual(self.refusal(), "notRecorded")
        self.assertIn("not exported", site.cli("status", check=False).stdout.decode())
        self.assert_whole()
        exported = site.cli("audit", "export", "--mark").stdout
        wait_until(lambda: self.refusal() is None, 10, "uses go on")
        (site.dir / "exported").write_bytes(exported)
        self.assert_whole(str(site.dir / "exported"), "--key", str(self.folder / "verify.key"))
        self.assert_whole()
        self.assertIn("export", self.verbs())


@unittest.skipUnless(os.geteuid() == 0, "a full disk needs a tmpfs of its own: run as root")
class FullDisk(AuditTest):
    def mount(self):
        self.folder.mkdir(mode=0o700)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(self.folder)], capture_output=True)
        if done.returncode != 0:
            self.skipTest(f"can't mount a tmpfs here: {done.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.folder)], capture_output=True)

    def fill(self):
        with open(self.folder / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    def make_room(self):
        (self.folder / "ballast").unlink()

    def status(self):
        return json.loads(self.host.cli("status", "--json", check=False).stdout)["vaultd"]

    def test_without_required_the_vault_goes_on_and_counts_what_is_lost(self):
        self.mount()
        site = self.host
        site.start_vaultd()
        self.use()
        self.fill()
        peers = [(os.urandom(32), b"") for _ in range(64)]
        with minicapnp.App(site.dir / "run/vault.sock") as app:
            key = app.key("server")
            for _ in range(40):
                self.assertFalse(any(isinstance(outcome, str) for outcome in key.box(peers)))
        status = self.status()
        self.assertIn("No space left", status["audit"]["state"])
        self.assertGreater(status["counters"]["audit_lost"], 0)
        self.make_room()
        wait_until(lambda: self.status()["audit"]["state"] == "recording", 10, "records are written again")
        lost = [record for record in self.records() if record["verb"] == "lost"]
        self.assertEqual(sum(record["items"] for record in lost), self.status()["audit"]["lost"])
        self.assert_whole()

    def test_with_required_nothing_is_done_that_is_not_recorded(self):
        self.mount()
        self.configure(required=True)
        site = self.host
        site.start_vaultd()
        site.start_netd()
        session = site.connect(self.port, self.alice)
        self.addCleanup(session.close)
        self.assert_echo(session)  # before it the vouch may not be verified yet
        self.assertIsNone(self.refusal())
        self.fill()
        recorded = self.verbs().count("box")
        while self.refusal() is None:  # a few lines fit the last page; an answer comes after its line, or not at all
            recorded += 1
            self.assertEqual(self.verbs().count("box"), recorded)
        self.assertEqual(self.verbs().count("box"), recorded)
        for _ in range(5):
            self.assertEqual(self.refusal(), "notRecorded")
        with site.client(self.port, self.alice) as client:  # protocol steps too
            client.send_hello()
            self.assert_closed_silently(client.sock)
        self.assert_echo(session)  # what was there goes on
        site.reload()  # actions of operators are never refused
        self.make_room()
        wait_until(lambda: self.refusal() is None, 10, "uses go on")
        self.assertIn("withheld", self.verbs())
        self.assertGreaterEqual(self.verbs().count("box"), recorded + 1)
        with site.connect(self.port, self.alice) as another:
            self.assert_echo(another)
        self.assert_whole()

    def test_a_disk_that_is_full_at_the_first_start(self):
        self.mount()
        self.fill()
        self.host.write_config()
        done = subprocess.run([binary("vaultd"), "-c", str(self.host.config)], capture_output=True, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"audit/", done.stderr)
        self.make_room()
        self.host.start_vaultd()
        self.assert_whole()


class AlwaysDurable(AuditTest):
    AUDIT = {"required": True, "fsync": "always", "handshakes": True}

    def test_an_answer_comes_after_its_record(self):
        site = self.host
        vault = site.start_vaultd()
        site.start_netd()
        for count in range(1, 6):
            self.use()
            self.assertEqual(self.verbs().count("box"), count)
        with site.connect(self.port, self.alice) as session:
            self.assert_echo(session)
        steps = [record for record in self.records() if record["verb"] == "verify_vouch"]
        self.assertEqual([(step["entry"], step["peer"]) for step in steps], [("echo", "alice")])
        self.end(vault, signal.SIGKILL)
        self.assert_whole()


if __name__ == "__main__":
    unittest.main()
