#!/usr/bin/python3
"""Goal: `sallyport pair` gives two hosts one fresh block, as A here and B there, through a channel or by a sealed file; neither uses it
before both have it; a wrong peer, a cut, changed or repeated file, a crash between the steps and a host without a grant change nothing
that is used; and the block's text is in no memory of netd.
Method: two sites of their own with real daemons, the command line as people use it.
"""

import base64
import os
import pathlib
import re
import subprocess
import unittest

from harness import SystemTest, b64, binary, processes_of_session, wait_until
from process_memory import holds


def fingerprint_of(done):
    return done.stdout.decode().strip().splitlines()[-1]


class Pairing(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.hq, cls.branch = cls.class_site("hq"), cls.class_site("branch")
        hq_key, branch_key = cls.hq.key("hq"), cls.branch.key("branch")
        cls.stranger_key = cls.branch.key("stranger")
        cls.hq.peer("branch", branch_key)
        cls.branch.peer("hq", hq_key)
        cls.port = cls.hq.listen("pairing", ["branch"], "channel", key="hq")
        cls.branch.connect_entry("hq", ("127.0.0.1", cls.port), "hq", key="branch", listen=False)
        cls.hq.grant("pair", keys=["hq"], verbs=["box", "open"], peers=["branch"])
        cls.branch.grant("pair", keys=["branch"], verbs=["box", "open"], peers=["hq"])
        cls.branch.grant("other", keys=["stranger"], verbs=["box", "open"], peers=["hq"])
        cls.hq.start()
        cls.branch.start()

    def listening(self, name, *more):
        waiting = subprocess.Popen([binary("sallyport"), "pair", name, "--listen", "pairing", "--wait", "60s", *more,
                                    "-c", str(self.hq.config)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(lambda: (waiting.poll() is None and waiting.kill(), waiting.communicate()))
        return waiting

    def by_channel(self, name, *more):
        waiting = self.listening(name)
        near = self.branch.cli("pair", name, "--connect", "hq", *more)
        out, err = waiting.communicate(timeout=60)
        self.assertEqual(waiting.returncode, 0, err.decode())
        return near, out.decode().strip(), err.decode()

    def kind(self, site, name):
        for line in site.cli("key", "list").stdout.decode().splitlines():
            words = line.split()
            if words[0] == name:
                return words[1:5]
        return None

    def secret(self, site, name):
        site.cli("key", "allow-export", name)
        return base64.b64decode(site.cli("key", "export", name).stdout)

    # -- through a channel

    def test_a_channel_gives_both_the_same_block_and_other_parties(self):
        near, far, said = self.by_channel("one")
        self.assertEqual(fingerprint_of(near), far)
        self.assertIn("active on both hosts", said)
        self.assertIn("the running vault was started without `one`: restart vaultd", said)
        self.assertEqual(self.kind(self.branch, "one"), ["peer-block", "A", "1", "active"])
        self.assertEqual(self.kind(self.hq, "one"), ["peer-block", "B", "1", "active"])
        blocks = [self.secret(site, "one") for site in (self.hq, self.branch)]
        self.assertEqual(len(blocks[0]), 128)
        self.assertEqual(*blocks)
        self.assert_in_no_netd(blocks[0])

    def assert_in_no_netd(self, block):
        looked = 0
        for site in (self.hq, self.branch):
            for pid in processes_of_session(site.up.pid):
                if "netd" not in pathlib.Path(f"/proc/{pid}/comm").read_text():
                    continue
                looked += 1
                self.assertFalse(holds(pid, (block[:32], block[64:96], base64.b64encode(block)[:64])))
        self.assertGreaterEqual(looked, 4)

    def test_a_vault_that_lacks_the_key_is_told_of_once_in_each_way(self):
        restart = "restart vaultd"
        for _ in ("new", "rotated"):
            near, _, said = self.by_channel("lacking")
            self.assertEqual((near.stderr.decode().count(restart), said.count(restart)), (1, 1))
        for _ in ("new", "rotated"):
            made = self.file("lacking-file")
            taken = self.take("lacking-file", made.stdout)
            self.assertEqual(taken.stderr.decode().count(restart), 1)
            self.assertIn(restart, self.branch.cli("pair", "lacking-file", "--confirm", fingerprint_of(taken)).stderr.decode())

    def test_a_wrong_party_is_a_mistake_of_usage(self):
        done = self.file("never", "--party", "C", check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("`--party` is A or B, not `C`", done.stderr.decode())

    def test_the_same_name_again_is_a_rotation_on_both(self):
        first, _, _ = self.by_channel("again", "--party", "B")
        second, far, _ = self.by_channel("again")
        self.assertNotEqual(fingerprint_of(first), fingerprint_of(second))
        for site, party in ((self.branch, "B"), (self.hq, "A")):
            self.assertEqual(self.kind(site, "again"), ["peer-block", party, "2", "active"])
            self.assertIn("open-only", site.cli("key", "show", "again", "--versions").stdout.decode())
            self.assertEqual(site.cli("key", "show", "again").stdout.decode().strip(), far)

    def test_a_party_that_is_taken_is_refused_and_nothing_changes(self):
        self.by_channel("roles")  # branch is A
        self.branch.cli("key", "new", "roles2", "--kind", "peer-block", "--party", "B")
        self.hq.cli("key", "new", "roles2", "--kind", "peer-block", "--party", "B")
        before = [self.kind(site, "roles2") for site in (self.hq, self.branch)]
        waiting = self.listening("roles2")
        near = self.branch.cli("pair", "roles2", "--connect", "hq", check=False)
        _, err = waiting.communicate(timeout=60)
        self.assertEqual((waiting.returncode, near.returncode), (1, 1))
        self.assertIn("party", err.decode())
        self.assertEqual([self.kind(site, "roles2") for site in (self.hq, self.branch)], before)
        refused = self.branch.cli("pair", "roles", "--connect", "hq", "--party", "B", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("is party A", refused.stderr.decode())

    def test_the_offerer_dies_before_it_confirms(self):
        waiting = self.listening("crash")
        # Its netd takes the offer, and it dies before the answer comes: strace would need ptrace, so it can't write its key.
        keys = self.branch.dir / "keys"
        blocked = keys / "paired-blocks"
        blocked.unlink(missing_ok=True)
        blocked.mkdir()
        try:
            near = self.branch.cli("pair", "crash", "--connect", "hq", check=False)
        finally:
            blocked.rmdir()
        self.assertEqual(near.returncode, 1)
        _, err = waiting.communicate(timeout=60)
        self.assertEqual(waiting.returncode, 1, err.decode())
        self.assertIn("stored and not used", err.decode())
        self.assertIsNone(self.kind(self.branch, "crash"))
        self.assertEqual(self.kind(self.hq, "crash")[3], "pending")
        near, far, _ = self.by_channel("crash")
        self.assertEqual(fingerprint_of(near), far)
        self.assertEqual(self.kind(self.hq, "crash"), ["peer-block", "B", "2", "active"])

    def test_nobody_comes(self):
        done = self.hq.cli("pair", "nobody", "--listen", "pairing", "--wait", "1s", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("nobody came in time", done.stderr.decode())
        self.assertIsNone(self.kind(self.hq, "nobody"))

    # -- by a file

    def file(self, name, *more, site=None, to="hq", key="branch", check=True):
        return (site or self.branch).cli("pair", name, "--to", to, "--key", key, *more, check=check)

    def take(self, name, text, check=True, sender="branch", key="hq"):
        return self.hq.cli("pair", name, "--from", sender, "--key", key, stdin=text, check=check)

    def test_a_file_moves_a_block_and_waits_for_the_confirmation(self):
        made = self.file("file")
        self.assertEqual(self.kind(self.branch, "file"), ["peer-block", "A", "1", "pending"])
        told = re.search(r"fingerprint (\S+),", made.stderr.decode()).group(1)
        taken = self.take("file", made.stdout)
        self.assertEqual(fingerprint_of(taken), told)
        self.assertEqual(self.kind(self.hq, "file"), ["peer-block", "B", "1", "active"])
        self.branch.cli("pair", "file", "--confirm", told)
        self.assertEqual(self.kind(self.branch, "file"), ["peer-block", "A", "1", "active"])
        self.assertEqual(self.secret(self.hq, "file"), self.secret(self.branch, "file"))
        self.assertNotIn(base64.b64encode(self.secret(self.hq, "file"))[:40], made.stdout)
        again = self.branch.cli("pair", "file", "--confirm", told, check=False)
        self.assertEqual(again.returncode, 1)
        self.assertIn("doesn't wait", again.stderr.decode())

    def test_a_file_is_taken_once(self):
        made = self.file("once")
        self.take("once", made.stdout)
        for name in ("once", "once-more"):
            repeated = self.take(name, made.stdout, check=False)
            self.assertEqual(repeated.returncode, 1)
            self.assertIn("taken before", repeated.stderr.decode())
        # Also when the key is gone.
        (self.hq.dir / "keys/once.key").unlink()
        repeated = self.take("once", made.stdout, check=False)
        self.assertIn("taken before", repeated.stderr.decode())
        self.assertIsNone(self.kind(self.hq, "once-more"))

    def test_a_cut_or_changed_file_is_refused(self):
        text = self.file("spoiled").stdout
        lines = text.decode().splitlines(keepends=True)
        box = lines[-1]
        flipped = box[:10] + ("A" if box[10] != "A" else "B") + box[11:]
        spoiled = {"cut": text[:-20], "cut at a line": "".join(lines[:-1]).encode(), "empty": b"", "more": text + b"x\n",
                   "a bit": "".join(lines[:-1] + [flipped]).encode(),
                   "another nonce": text.replace(lines[3].encode(), b"nonce: " + base64.b64encode(b"SallyBox" + bytes(16)) + b"\n")}
        for what, changed in spoiled.items():
            with self.subTest(what):
                refused = self.take("spoiled", changed, check=False)
                self.assertEqual(refused.returncode, 1, what)
                self.assertIsNone(self.kind(self.hq, "spoiled"))
        self.take("spoiled", text)  # the genuine one still is

    def test_a_file_of_another_peer_is_refused(self):
        foreign = self.file("foreign", key="stranger").stdout
        refused = self.take("foreign", foreign, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another key", refused.stderr.decode())
        # And with its first lines forged to look right.
        ours = f"from: {b64(self.branch.publics['branch'])}\n".encode()
        forged = re.sub(rb"from: .*\n", ours, foreign)
        refused = self.take("foreign", forged, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("didn't make this box", refused.stderr.decode())
        self.assertIsNone(self.kind(self.hq, "foreign"))

    def test_a_wrong_fingerprint_confirms_nothing(self):
        self.file("unsure")
        for wrong, status, said in ((b64(bytes(32)), 1, "no block with this fingerprint"), ("abc", 2, "no fingerprint")):
            refused = self.branch.cli("pair", "unsure", "--confirm", wrong, check=False)
            self.assertEqual(refused.returncode, status)
            self.assertIn(said, refused.stderr.decode())
        self.assertEqual(self.kind(self.branch, "unsure")[3], "pending")

    # -- who may

    def test_without_a_grant_the_command_says_which_one(self):
        self.hq.key("ungranted")
        refused = self.hq.cli("pair", "p", "--to", "branch", "--key", "ungranted", check=False)
        self.assertEqual(refused.returncode, 1)
        refused = self.branch.cli("pair", "p", "--to", "nobody", "--key", "branch", check=False)
        self.assertIn("no peer `nobody`", refused.stderr.decode())
        self.assertIsNone(self.kind(self.branch, "p"))

    def test_a_key_of_another_kind_keeps_its_name(self):
        refused = self.branch.cli("pair", "branch", "--connect", "hq", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no peer-block", refused.stderr.decode())

    def test_wrong_words_are_usage(self):
        for words in ((), ("--connect", "hq", "--listen", "pairing"), ("--to", "hq"), ("--connect", "hq", "--key", "branch"),
                      ("--connect", "hq", "--party", "C")):
            self.assertNotEqual(self.branch.cli("pair", "p", *words, check=False).returncode, 0, words)

    # -- key new, import

    def test_a_block_is_made_imported_and_rotated_by_hand(self):
        site = self.branch
        block = bytes((5 * i + 1) & 255 for i in range(128))
        site.cli("key", "import", "hand", "--kind", "peer-block", "--party", "B", stdin=block.hex().encode())
        self.assertEqual(self.secret(site, "hand"), block)
        site.cli("key", "rotate", "hand", "--import", stdin=base64.b64encode(bytes(reversed(block))))
        self.assertEqual(self.secret(site, "hand"), bytes(reversed(block)))
        for stdin in (bytes(32).hex(), block.hex()[:-2], (block[:64] * 2).hex(), "", bytes(128).hex()):
            refused = site.cli("key", "import", "bad", "--kind", "peer-block", "--party", "A", stdin=stdin.encode(), check=False)
            self.assertEqual(refused.returncode, 1, stdin)
        for words in (("--kind", "peer-block"), ("--party", "A"), ("--kind", "peer-block", "--party", "C"), ("--kind", "block")):
            self.assertEqual(site.cli("key", "new", "bad", *words, check=False).returncode, 2, words)
        self.assertIsNone(self.kind(site, "bad"))
        refused = site.cli("key", "export-public", "hand", check=False)
        self.assertEqual(refused.returncode, 1)


if __name__ == "__main__":
    unittest.main()
