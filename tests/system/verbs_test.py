#!/usr/bin/python3
"""Goal: `sallyport box|open|sign|verify` keep their promises with a real, locked-down vaultd: what they write others read from
docs/protocol.md alone, and the other way round; no byte of a file that was cut off, extended, reordered, spliced or changed comes out
behind the place of the change, and no output file appears that isn't whole; memory doesn't grow with the file.
Method: tests/interop/boxfile.py (PyNaCl, hashlib) is the other side, with keys of its own as peers and imported into the vault.
"""

import base64
import hashlib
import os
import pathlib
import pty
import resource
import subprocess
import threading
import unittest

import nacl.exceptions
import nacl.public
import nacl.signing
from harness import SystemTest, b64, binary, full_run, memory_limit

import boxfile  # in tests/interop, where harness looks

BIG_MIB = full_run("SALLYPORT_BIG_MIB", 200, 2000)
CLI_KIB = 48 * 1024  # resident at most, whatever the file's size


class Verbs(SystemTest):
    def setUp(self):
        self.host = site = self.site("verbs")
        self.secret = os.urandom(32)
        self.public = site.key("k", secret=self.secret)
        self.alice, self.bob = nacl.public.PrivateKey.generate(), nacl.public.PrivateKey.generate()
        site.peer("alice", bytes(self.alice.public_key))
        site.peer("bob", bytes(self.bob.public_key))
        site.grant("all", keys=["k"], verbs=["box", "open"], peers=["*"])
        self.dir = site.dir / "data"
        self.dir.mkdir()

    def start(self):
        self.host.start_vaultd()
        self.assertEqual(self.host.vault_status()["verdict"], "full")

    def cli(self, *words, stdin=b""):
        """(status, output, its lines on standard error)"""
        done = self.host.cli(*words, stdin=stdin, check=False)
        return done.returncode, done.stdout, done.stderr.decode().splitlines()

    def done(self, *words, stdin=b""):
        status, out, said = self.cli(*words, stdin=stdin)
        self.assertEqual(status, 0, said)
        return out

    def refused(self, message, *words, stdin=b"", status=1):
        """The one error line; nothing on standard output but what `message` allows."""
        got, out, said = self.cli(*words, stdin=stdin)
        self.assertEqual(got, status, said)
        errors = [line for line in said if line.startswith("sallyport: error: ")]
        self.assertEqual(len(errors), 1, said)
        self.assertRegex(errors[0], message)
        return out

    def path(self, name, data=None):
        path = self.dir / name
        if data is not None:
            path.write_bytes(data)
        return str(path)

    # -- boxed files

    def test_others_open_what_was_boxed_and_the_other_way_round(self):
        self.start()
        for size in (0, 1, 65535, 65536, 65537, 3 * 65536, 200_000):
            text = os.urandom(size)
            for names, keys in ((["alice"], [self.alice]), (["bob", "alice"], [self.alice, self.bob])):
                to = [word for name in names for word in ("--to", name)]
                boxed = self.done("box", "k", *to, stdin=text)
                for key in keys:
                    self.assertEqual(boxfile.read(key, boxed), (self.public, 1, text))
                ours = boxfile.write(self.alice, 7, [self.bob.public_key, nacl.public.PublicKey(self.public)][2 - len(names):], text)
                self.assertEqual(self.done("open", "k", "--from", "alice", stdin=ours), text)

    def test_files_and_pipes_and_modes(self):
        self.start()
        text = os.urandom(100_000)
        plain, boxed, opened = self.path("plain", text), self.path("file.box"), self.path("opened")
        key = b64(self.public)
        self.assertEqual(self.done("box", "k", "--to", key, "-o", boxed, plain), b"")
        self.assertEqual(self.done("open", "k", "-o", opened, boxed), b"")
        self.assertEqual(pathlib.Path(opened).read_bytes(), text)
        self.assertEqual(os.stat(opened).st_mode & 0o777, 0o600)
        self.assertEqual(self.done("open", "k", "-o", "-", stdin=pathlib.Path(boxed).read_bytes()), text)
        # In place, through a symbolic link, and to what is no regular file.
        self.done("box", "k", "--to", "alice", "-o", plain, plain)
        self.assertEqual(boxfile.read(self.alice, pathlib.Path(plain).read_bytes())[2], text)
        os.symlink("file.box", self.path("link"))
        self.done("open", "k", "-o", self.path("link"), boxed)
        self.assertTrue(os.path.islink(self.path("link")))
        self.assertEqual(pathlib.Path(boxed).read_bytes(), text)
        self.done("box", "k", "--to", "alice", "-o", "/dev/null", boxed)
        self.assertTrue(pathlib.Path("/dev/null").is_char_device())
        self.assertEqual(sorted(os.listdir(self.dir)), ["file.box", "link", "opened", "plain"])

    def test_as_text(self):
        self.start()
        for size in (0, 1, 65536, 200_000):
            text = os.urandom(size)
            armored = self.done("box", "k", "--to", "alice", "--to", b64(self.public), "--armor", stdin=text)
            first, *body, last = armored.decode("ascii").splitlines()
            self.assertEqual((first, last), ("-----BEGIN SALLYPORT BOX-----", "-----END SALLYPORT BOX-----"))
            self.assertEqual({len(line) for line in body[:-1]} - {64}, set())
            self.assertEqual(boxfile.read(self.alice, base64.b64decode("".join(body)))[2], text)
            self.assertEqual(self.done("open", "k", "-o", "-", stdin=armored), text)
            self.assertEqual(self.done("open", "k", "-o", "-", stdin=armored.replace(b"\n", b"\r\n")), text)
        # Whole or not at all: to a file as without armor, and to a pipe as far as it is genuine.
        path = self.path("file.asc")
        self.done("box", "k", "--to", b64(self.public), "-a", "-o", path, self.path("plain", text))
        self.done("open", "k", "-o", self.path("opened"), path)
        self.assertEqual(pathlib.Path(self.path("opened")).read_bytes(), text)
        lines = armored.splitlines(keepends=True)
        for broken, message in ((b"".join(lines[:-1]), "END line is missing"), (b"".join(lines[:9]), "is cut off"),
                                (armored + b"more\n", "goes on behind its END line"),
                                (b"".join(lines[:5] + [b"?" + lines[5][1:]] + lines[6:]), "a line is not as"),
                                (b"-----BEGIN AGE ENCRYPTED FILE-----\n" + b"".join(lines[1:]), "its first line is another one"),
                                (b"\n" + armored, "is not a boxed file"),
                                (b"".join(lines[:900] + lines[901:]), "was changed|cut off")):
            before = sorted(os.listdir(self.dir))
            self.refused(message, "open", "k", "-o", self.path("never"), stdin=broken)
            self.assertEqual(sorted(os.listdir(self.dir)), before)
            self.assertTrue(text.startswith(self.refused(message, "open", "k", "-o", "-", stdin=broken)))

    def test_what_was_changed_does_not_come_out(self):
        self.start()
        text = os.urandom(4 * 65536 + 1000)
        for others in ([], [self.bob.public_key]):
            recipients = [nacl.public.PublicKey(self.public), *others]
            good = boxfile.write(self.alice, 1, recipients, text)
            other = boxfile.write(self.alice, 1, recipients, os.urandom(len(text)))
            head = 53 + 176 * len(recipients) + 56
            size = 65536 + 17 + (16 * len(recipients) if others else 0)
            blocks = [good[at:at + size] for at in range(head, len(good), size)]
            foreign = [other[at:at + size] for at in range(head, len(other), size)]

            def build(*parts, top=good[:head]):
                return top + b"".join(parts)

            cut = "is cut off"
            cases = [(build(*blocks[:3]), 2, cut), (build(*blocks[:4], blocks[4][:500]), 4, cut),
                     (build(*blocks[:2], blocks[2][:9]), 2, cut),
                     (build(), 0, cut), (good[:head - 1], 0, cut), (good[:20], 0, cut), (b"", 0, "is not a boxed file"),
                     (good + b"\0", 4, "near its end|goes on behind"), (build(*blocks, *blocks), 4, "was changed|goes on behind"),
                     (build(*blocks[1:]), 0, "was changed"), (build(blocks[0], *blocks[2:]), 1, "was changed"),
                     (build(blocks[0], blocks[0], *blocks[1:]), 1, "was changed"),
                     (build(blocks[0], blocks[2], blocks[1], *blocks[3:]), 1, "was changed"),
                     (build(*blocks[:2], foreign[2], *blocks[3:]), 2, "was changed"),
                     (build(*blocks[:4], foreign[4]), 4, "is cut off, or was changed"),
                     (build(*blocks, top=other[:head]), 0, "was changed")]
            for at in (0, 16, 25, 52, 60, 90, 100, head - 57, head - 40, head - 10, head + 5, head + 65536 + 3,
                       len(good) - 20 * len(recipients)):
                changed = bytearray(good)
                changed[at] ^= 1 << at % 8
                cases.append((bytes(changed), max(0, (at - head) // size), "."))
            for case, whole, message in cases:
                self.assertEqual(self.refused(message, "open", "k", "--from", "alice", stdin=case), text[:whole * 65536], message)
            target = self.path("target", b"as before")
            self.refused(cut, "open", "k", "-o", target, self.path("cut", good[:-1]))
            self.assertEqual(pathlib.Path(target).read_bytes(), b"as before")
            self.refused(cut, "open", "k", "-o", self.path("new"), self.path("cut"))
            self.assertEqual(sorted(os.listdir(self.dir)), ["cut", "target"])
        # Blocks that no honest sender makes, by one who knows the keys: each file has one spelling.
        for blocks in ([b"x" * 65536, b""], [b""] * 2):
            strange = boxfile.write(self.alice, 1, [nacl.public.PublicKey(self.public)], b"", blocks)
            self.refused("was changed", "open", "k", stdin=strange)

    def test_recipients_can_not_fool_each_other(self):
        """Bob has opened a file that is boxed to both, so he knows its content key, and writes another text behind its head."""
        self.start()
        ours = nacl.public.PublicKey(self.public)
        good = boxfile.write(self.alice, 1, [ours, self.bob.public_key], b"pay nobody")
        self.assertEqual(self.done("open", "k", stdin=good), b"pay nobody")
        own = good[53 + 64 + 144:53 + 64 + 288]
        boxed = nacl.public.Box(self.bob, self.alice.public_key).decrypt(own[16:], b"SallyBox" + own[:16])
        head, mac, stream = good[:53 + 352], good[405:437], good[437:461]
        self.assertEqual(boxfile.keyed(boxed[48:80], b"sallyport-box-hd", head), mac)
        state = boxfile.sodium.crypto_secretstream_xchacha20poly1305_state()
        key = boxfile.keyed(boxed[48:80], b"sallyport-box-st", mac)
        stream = boxfile.sodium.crypto_secretstream_xchacha20poly1305_init_push(state, key)
        sealed = boxfile.sodium.crypto_secretstream_xchacha20poly1305_push(state, b"pay bob", tag=3)
        tag = boxfile.block_tag(boxed[80:112], stream, 0, True, sealed)
        forged = head + mac + stream + sealed + tag + tag
        self.assertEqual(boxfile.read(self.bob, forged)[2], b"pay bob", "for himself he can write what he likes")
        self.assertEqual(self.refused("changed near its end", "open", "k", "--from", "alice", stdin=forged), b"")
        # Nor can he make it a file for one, which has no tags.
        alone = good[:52] + b"\1" + good[53:85] + good[117:117 + 144] + mac + stream + sealed
        self.assertEqual(self.refused("was changed", "open", "k", "--from", "alice", stdin=alone), b"")

    def test_who_made_it_and_for_whom(self):
        self.start()
        ours = [nacl.public.PublicKey(self.public)]
        stranger = nacl.public.PrivateKey.generate()
        key = base64.b64encode(bytes(stranger.public_key)).decode()
        theirs = boxfile.write(stranger, 1, ours, b"x")
        self.refused(f"stranger: {key}".replace("+", r"\+"), "open", "k", stdin=theirs)
        self.assertEqual(self.done("open", "k", "--from", key, stdin=theirs), b"x")
        self.refused("says that .* made it, not `alice`", "open", "k", "--from", "alice", stdin=theirs)
        # Signed over to another name: the box is of the stranger's key.
        lie = theirs[:20] + bytes(self.alice.public_key) + theirs[52:]
        self.refused("doesn't open", "open", "k", "--from", "alice", stdin=lie)
        status, out, said = self.cli("open", "k", stdin=boxfile.write(self.alice, 1, ours, b"x"))
        self.assertEqual((status, out, said), (0, b"x", ["sallyport: made by `alice`"]))
        status, out, said = self.cli("open", "k", stdin=self.done("box", "k", "--to", b64(self.public), stdin=b"to myself"))
        self.assertEqual((status, out, said), (0, b"to myself", ["sallyport: made by the key `k` itself"]))
        self.refused("not boxed to the key `k`", "open", "k", stdin=boxfile.write(self.alice, 1, [self.bob.public_key], b"x"))

    def test_old_versions_open_what_was_boxed_to_them(self):
        self.start()
        before = boxfile.write(self.alice, 1, [nacl.public.PublicKey(self.public), self.bob.public_key], b"before")
        self.host.cli("key", "rotate", "k")
        now = base64.b64decode(self.host.cli("key", "show", "k").stdout)
        self.assertNotEqual(now, self.public)
        self.assertEqual(self.done("open", "k", stdin=before), b"before")
        boxed = self.done("box", "k", "--to", "alice", stdin=b"after")
        self.assertEqual(boxfile.read(self.alice, boxed), (now, 2, b"after"))
        self.assertEqual(self.done("open", "k", stdin=boxfile.write(self.alice, 1, [nacl.public.PublicKey(now)], b"x")), b"x")

    def test_refusals_are_one_clear_line(self):
        self.host.grants.clear()
        self.host.grant("narrow", keys=["k"], verbs=["box"], peers=["alice"], max_bytes=111)
        self.host.grant("other", keys=["k"], verbs=["open"], peers=["alice"])
        self.host.write_config()
        self.refused("the vault is not running", "box", "k", "--to", "alice")
        self.start()
        self.refused("allows shorter texts only", "box", "k", "--to", "alice")
        self.refused("no .*grant.* with this peer", "box", "k", "--to", "bob")
        self.refused("no .*grant.* gives you `box`", "box", "nothing", "--to", "alice")
        self.refused("neither a name in .peers. nor a public key", "box", "k", "--to", "carol")
        self.refused("named twice", "box", "k", "--to", "alice", "--to", b64(bytes(self.alice.public_key)))
        self.refused("no .*vault_socket.* `x`", "box", "k", "--to", "alice", "--socket", "x")
        self.refused("can't be read: No such file", "box", "k", "--to", "alice", self.path("nothing"))
        self.refused("is a folder", "open", "k", str(self.dir))
        self.refused("is not a boxed file", "open", "k", stdin=b"sallypord")
        self.refused("of another format", "open", "k", stdin=b"sallyport box 2\n" + bytes(100))
        self.refused("to whom", "box", "k", status=2)
        self.refused("needs more words", "open", status=2)
        self.refused("no `?.*grant", "sign", "k")
        self.assertEqual(os.listdir(self.dir), [])

    def test_a_terminal_gets_text_alone(self):
        self.start()
        ours = [nacl.public.PublicKey(self.public)]

        def on_terminal(*words, stdin=b""):
            leader, follower = pty.openpty()
            done = subprocess.run([binary("sallyport"), *words, "-c", str(self.host.config)], input=stdin, stdout=follower,
                                  stderr=subprocess.PIPE, timeout=60)
            os.close(follower)
            shown = b""
            try:
                while piece := os.read(leader, 65536):
                    shown += piece
            except OSError:  # EIO: nobody has the other end any more
                pass
            os.close(leader)
            return done.returncode, shown, done.stderr.decode()

        self.assertEqual(on_terminal("open", "k", stdin=boxfile.write(self.alice, 1, ours, "h\u00e9llo".encode()))[:2],
                         (0, "h\u00e9llo".encode()))
        for bad in (b"\x1b[2Jgone", "\u009b2Jgone".encode(), b"\xff\xfe"):
            status, shown, said = on_terminal("open", "k", stdin=boxfile.write(self.alice, 1, ours, bad))
            self.assertEqual((status, shown), (1, b""))
            self.assertIn("not for a terminal", said)
        status, shown, said = on_terminal("box", "k", "--to", "alice", stdin=b"x")
        self.assertEqual((status, shown), (2, b""))
        self.assertIn("not for a terminal", said)
        status, shown, said = on_terminal("box", "k", "--to", "alice", "--armor", stdin=b"x")
        self.assertEqual(status, 0, said)
        self.assertTrue(shown.startswith(b"-----BEGIN SALLYPORT BOX-----"))

    def test_big_files_pass_through_little_memory(self):
        """BIG_MIB of a pattern through `box` and `open` in a pipe; both ends' resident memory stays bounded."""
        self.start()
        block = os.urandom(1 << 20)
        config = str(self.host.config)
        box = subprocess.Popen([binary("sallyport"), "box", "k", "--to", b64(self.public), "-c", config], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
        opener = subprocess.Popen([binary("sallyport"), "open", "k", "-c", config], stdin=box.stdout, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL)
        box.stdout.close()
        sent = hashlib.sha256()

        def feed():
            for number in range(BIG_MIB):
                piece = number.to_bytes(8, "big") + block[8:]
                sent.update(piece)
                box.stdin.write(piece)
            box.stdin.close()

        feeder = threading.Thread(target=feed)
        feeder.start()
        got = hashlib.sha256()
        while piece := opener.stdout.read(1 << 20):
            got.update(piece)
        feeder.join()
        opener.stdout.close()
        for process in (box, opener):
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            self.assertLess(usage.ru_maxrss, memory_limit(CLI_KIB))
        self.assertEqual(got.digest(), sent.digest())

    def test_a_full_disk_is_told_and_leaves_nothing(self):
        self.start()
        limit = 100_000

        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            os.setpgid(0, 0)

        plain, target = self.path("plain", os.urandom(limit + 1)), self.path("target")
        done = subprocess.run(["/bin/sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", binary("sallyport"), "box", "k", "--to", "alice",
                               "-o", target, "-c", str(self.host.config), plain], capture_output=True, timeout=60, preexec_fn=small_files)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), "error: .*target: can't be written: File too large")
        self.assertEqual(os.listdir(self.dir), ["plain"])
        with open("/dev/full", "wb") as nowhere:
            full = subprocess.run([binary("sallyport"), "box", "k", "--to", "alice", "-c", str(self.host.config), plain],
                                  stdout=nowhere, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(full.returncode, 1)
        self.assertRegex(full.stderr.decode(), "error: standard output: can't be written: No space")

    # -- signatures

    def test_signatures_of_files_of_any_size(self):
        self.host.write_config()
        self.host.cli("key", "new", "sig", "--kind", "ed25519")
        public = base64.b64decode(self.host.cli("key", "show", "sig").stdout)
        signer = nacl.signing.SigningKey.generate()
        self.host.signers = {"release": b64(public), "other": b64(bytes(signer.verify_key))}
        self.host.grant("sign", keys=["sig"], verbs=["sign"], max_bytes=86)
        self.start()
        for size in (0, 1, 61_440, 61_441, 3_000_000):
            data = os.urandom(size)
            text = self.done("sign", "sig", stdin=data)
            boxfile.verify(public, text, data)
            with self.assertRaises(nacl.exceptions.BadSignatureError):
                boxfile.verify(public, text, data + b"\0")
            signature = self.path("signature", text)
            self.done("verify", "--from", "release", signature, stdin=data)
            self.refused("is not what `release` signed", "verify", "--from", "release", signature, stdin=data + b"\0")
            self.refused("is by another key", "verify", "--from", "other", signature, stdin=data)
            theirs = self.path("theirs", boxfile.sign(signer, data))
            self.done("verify", "--from", "other", theirs, stdin=data)
        # Without a vault, and without a configuration.
        self.host.stop_daemons()
        data = self.path("data", data)
        alone = [binary("sallyport"), "verify", "--key", b64(public), signature, data]
        done = subprocess.run(alone, cwd="/", capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, b""), done.stderr)
        self.assertIn("genuine", done.stderr.decode())
        for number, wrong in enumerate((text[:-1], text + b"\n", text.replace(b"1\n", b"2\n", 1), text.replace(b"key: ", b"key:  "),
                                        b"", text * 2)):
            self.refused("not a signature that", "verify", "--from", "release", self.path(f"wrong-{number}", wrong), data)
        self.refused("no signer `releas`", "verify", "--from", "releas", signature, data)
        self.refused("whose signature", "verify", signature, data, status=2)
        self.refused("can't both be", "verify", "--from", "release", "-", status=2)
        self.refused("not an Ed25519 public key", "verify", "--key", b64(bytes([1] + [0] * 31)), signature, data)
        changed = bytearray(text)
        at = text.index(b"signature: ") + 11
        changed[at] = ord("A") if changed[at] != ord("A") else ord("B")
        self.refused("is not what", "verify", "--from", "release", self.path("changed", bytes(changed)), data)


if __name__ == "__main__":
    unittest.main()
