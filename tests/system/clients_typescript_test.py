#!/usr/bin/python3
"""Goal: the TypeScript package does with the vault's keys what docs/api.md says, and survives what capnp-es by itself doesn't.
Method: a copy of the package, `npm ci` by its lock file, and its own build, which generates the schema's code; the README's example and
client_typescript.ts, compiled by the package's strict compiler, against a real, sandboxed vaultd and a fake one that lies. A box made by
Python opens in TypeScript, and the other way round. Channels of the peer protocol: both ends in node through a real netd, and a party on
the wire that breaks its frames. Where the registry can't be reached: skipped.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

from harness import SANITIZED, SystemTest, bin_root
from fake_vault import FakeVault
from peer_sites import WirePeer, add_block, peer_connect, peer_listen

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "clients/typescript"
# npm's own word for what went wrong; anything else is a failure of ours.
UNREACHABLE = re.compile(r"\bcode (ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|E50[0-9]|"
                         r"SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_GET_ISSUER_CERT_LOCALLY)\b")


def npm(folder, *words):
    return subprocess.run(["npm", "--no-audit", "--no-fund", "--no-update-notifier", *words], cwd=folder, capture_output=True, text=True,
                          timeout=240)


def build():
    """A temporary tree with the built package and a program's folder beside it, or exit 77."""
    if not shutil.which("npm") or not shutil.which("node"):
        print("npm is not installed: skipped")
        sys.exit(77)
    root = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-clients-ts-"))
    unittest.addModuleCleanup(shutil.rmtree, root)
    shutil.copytree(ROOT / PACKAGE, root / PACKAGE, ignore=shutil.ignore_patterns("node_modules", "dist", "schema"))
    shutil.copytree(ROOT / "proto", root / "proto")
    done = npm(root / PACKAGE, "ci", "--prefer-offline", "--ignore-scripts")
    if done.returncode != 0:
        if UNREACHABLE.search(done.stderr):
            print(f"the npm registry can't be reached: skipped\n{done.stderr[-500:]}")
            shutil.rmtree(root)
            sys.exit(77)
        raise AssertionError(f"npm ci: {done.stdout}{done.stderr}")
    done = npm(root / PACKAGE, "run", "build")
    if done.returncode != 0:
        raise AssertionError(f"npm run build: {done.stdout}{done.stderr}")
    program = root / "program"
    (program / "node_modules/@sallyport").mkdir(parents=True)
    (program / "node_modules/@sallyport/client").symlink_to(root / PACKAGE)
    (program / "node_modules/@types").symlink_to(root / PACKAGE / "node_modules/@types")
    (program / "package.json").write_text('{"type": "module"}')
    return root


def setUpModule():
    global TREE
    TREE = build()


class TypeScript(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.program = TREE / "program"
        site = cls.site_ = cls.class_site("clients")
        site.peer("alice")
        site.key("backup")
        site.grant("backup", keys=["backup"], verbs=["box", "open", "fresh_nonce"], peers=["*"], max_bytes=48 * 1024,
                   domains=["minute-k"])
        site.cli("key", "new", "notary", "--kind", "ed25519")
        site.grant("notary", keys=["notary"], verbs=["sign"], max_bytes=48 * 1024)
        site.start_vaultd()
        cls.socket = str(site.dir / "run/vault.sock")

    def compile(self, name, source):
        (self.program / name).write_text(source)
        done = subprocess.run([TREE / PACKAGE / "node_modules/.bin/tsc", "--strict", "--target", "ES2022", "--module", "NodeNext",
                               "--skipLibCheck", "--types", "node", "--noUncheckedIndexedAccess", name], cwd=self.program,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        return name.replace(".ts", ".js")

    def node(self, *arguments, stdin=""):
        done = subprocess.run(["node", "--unhandled-rejections=strict", *arguments], cwd=self.program, capture_output=True, text=True,
                              input=stdin, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_the_example(self):
        source = re.search(r"^```ts\n(.*?)^```$", (ROOT / PACKAGE / "README.md").read_text(), re.M | re.S)[1]
        self.assertEqual(self.node(self.compile("example.ts", source), self.socket), "meet me at the sally port\n")

    def test_each_verb_and_refusal(self):
        program = self.compile("verbs.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        self.assertIn("all good", self.node(program, "verbs", self.socket))

    def channels(self):
        """A site whose netd is both ends: one block under two names, one for each party."""
        site, block = self.site("channels"), os.urandom(128)
        add_block(site, "a", block, "A")
        add_block(site, "b", block, "B")
        peer_connect(site, "loop", peer_listen(site, "loop", "channel", key="b"), key="a", listen=False)
        peer_connect(site, "echo", peer_listen(site, "echo", "echo", key="b"), key="a", listen=False)
        port = peer_listen(site, "chat", "channel", key="b")
        site.peer("client", site.key("client"))
        site.listen("curve", ["client"], "channel")
        site.start()
        return site, block, port

    def test_channels_do_what_the_document_says(self):
        site, _, _ = self.channels()
        program = self.compile("peer.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        self.assertIn("all good", self.node(program, "peer", str(site.dir / "run/net.sock"), str(site.dir / "run/vault.sock")))
        source = re.findall(r"^```ts\n(.*?)^```$", (ROOT / PACKAGE / "README.md").read_text(), re.M | re.S)[1]
        self.assertEqual(self.node(self.compile("channel.ts", source), str(site.dir / "run/net.sock"), "echo"), "how are you 7 ended\n")

    def test_a_fault_on_the_wire_comes_with_the_good_bytes(self):
        site, block, port = self.channels()
        program = self.compile("fault.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        process = subprocess.Popen(["node", program, "fault", str(site.dir / "run/net.sock")], cwd=self.program, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "listening\n")
        with WirePeer(("127.0.0.1", port), "A", block) as peer:
            first, second, third = (peer.party.frame(text) for text in (b"good", b"whole", b"evil"))
            peer.sock.sendall(first + second[:18])
            self.assertEqual(process.stdout.readline(), "slow\n")
            third = bytearray(third)
            third[17] ^= 1
            peer.sock.sendall(second[18:] + third)
            output, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, output), (0, "all good\n"))

    def test_a_connect_gives_up_when_its_time_is_over(self):
        site = self.site("silent")
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        add_block(site, "a", os.urandom(128), "A")
        peer_connect(site, "silent", silent.getsockname()[1], key="a", listen=False)
        site.limits["handshake_timeout_ms"] = 30_000
        site.start()
        program = self.compile("silent.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        self.assertIn("all good", self.node(program, "silent", str(site.dir / "run/net.sock")))

    def test_a_vault_that_lies(self):
        program = self.compile("lies.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        with tempfile.TemporaryDirectory(prefix="sallyport-clients-") as folder, FakeVault(pathlib.Path(folder) / "vault.sock") as fake:
            self.assertIn("all good", self.node(program, "lies", fake.path))

    def test_a_wrong_socket_is_told(self):
        program = self.compile("wrong.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        self.assertIn("all good", self.node(program, "wrong", str(self.site_.dir / "run/vault-admin.sock")))

    def test_a_killed_vault_and_its_successor(self):
        site = self.site("clients")
        site.peer("alice")
        site.key("backup")
        site.grant("backup", keys=["backup"], verbs=["box", "open"], peers=["*"])
        site.start_vaultd()
        program = self.compile("restart.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        process = subprocess.Popen(["node", program, "restart", str(site.dir / "run/vault.sock")], cwd=self.program, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), "boxed\n")
        site.processes[-1].kill()
        site.processes[-1].wait()
        process.stdin.write("killed\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "down\n")
        site.start_vaultd()
        output, _ = process.communicate("restarted\n", timeout=60)
        self.assertEqual((process.returncode, output), (0, "all good\n"))

    @unittest.skipIf(SANITIZED, "Debian's python3 can't load a sanitizer's library")
    def test_boxes_cross_the_languages(self):
        program = self.compile("cross.ts", (ROOT / "tests/system/client_typescript.ts").read_text())
        python = ("import os, sys, base64; sys.path.insert(0, sys.argv[1]); import sallyport\n"
                  "key = sallyport.connect(sys.argv[2]).key('backup')\n"
                  "text = lambda data: base64.b64encode(data).decode()\n"
                  "if len(sys.argv) == 3:\n"
                  "    boxed = key.box('alice', b'from Python'); print(text(boxed.nonce), text(boxed.box))\n"
                  "else:\n"
                  "    print(key.open('alice', *map(base64.b64decode, sys.argv[3:5])).text.decode())\n")

        def run_python(*arguments):
            return subprocess.run(["/usr/bin/python3", "-c", python, ROOT / "clients/python", self.socket, *arguments], check=True,
                                  capture_output=True, text=True,
                                  env={**os.environ, "SALLYPORT_LIBRARY": str(bin_root() / "clients/cpp/libsallyport.so.0")}).stdout

        self.assertEqual(self.node(program, "open", self.socket, *run_python().split()), "from Python\n")
        self.assertEqual(run_python(*self.node(program, "box", self.socket).split()), "from TypeScript\n")

    def test_what_is_published_is_what_is_used(self):
        done = npm(TREE / PACKAGE, "pack", "--dry-run", "--json", "--ignore-scripts")
        self.assertIn("dist/index.js", done.stdout)
        self.assertNotIn("node_modules", done.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
