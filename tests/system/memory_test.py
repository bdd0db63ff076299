#!/usr/bin/python3
"""Goal: root, who writes down the whole memory of a running vaultd and its registers as gcore would, finds no secret in it: no long-term
key, passphrase, file key, nonce key, shared key, expanded Ed25519 key, nor what follows from them; neither do the log, the audit files,
RPC replies and refusals hold one. With the arena's fallback (locked memory) root finds keys there and nowhere else, and after `panic`
nothing at all.
Method: known keys; a real, sandboxed vaultd is used in every way that it offers (a net daemon's handshakes, programs, operators, garbage),
and every secret that it then knows or knew is computed here, with PyNaCl. That the search can fail is shown on a process with a planted key.
"""

import base64
import ctypes
import ctypes.util
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import unittest
from unittest import mock

import minicapnp
import nacl.bindings as nb
import nacl.public
from harness import HERE, SystemTest, binary, ct, wait_until
from minicapnp import VAULT_ADMIN, VAULT_APP, Struct, bootstrap_message, call_message
from process_memory import NotPermitted, Secret, Snapshot

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
ARENA_BYTES = {256 * 1024, 4096}
TEXT = base64.b64encode(os.urandom(60))  # of a caller: gone when it is answered

sodium = ctypes.CDLL(ctypes.util.find_library("sodium"))


def hsalsa20(key, nonce):
    out = ctypes.create_string_buffer(32)
    sodium.crypto_core_hsalsa20(out, nonce[:16], key, None)
    return out.raw


def first_block(key, nonce):
    out = ctypes.create_string_buffer(32)
    sodium.crypto_stream_xsalsa20(out, ctypes.c_ulonglong(32), nonce, key)
    return out.raw


def clamped(scalar):
    return bytes([scalar[0] & 248]) + scalar[1:31] + bytes([(scalar[31] & 127) | 64])


def derived(key, person):
    return hashlib.blake2b(key=key, person=person, digest_size=32).digest()


class Recorded(socket.socket):
    """Every byte that this process is told."""
    received = bytearray()

    def recv(self, *arguments):
        data = super().recv(*arguments)
        Recorded.received += data
        return data


class PlantedKey(unittest.TestCase):
    """The search finds what is there."""

    def found(self, plant, secret):
        program = f"import sys\n{plant}\nprint('ready', flush=True)\nsys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self.assertEqual(process.stdout.readline(), b"ready\n")
            try:
                with Snapshot(process.pid) as snapshot:
                    return [where for _, where in snapshot.find([Secret("planted", secret)])]
            except NotPermitted as error:
                self.skipTest(f"nobody may look into processes here: {error}")
            finally:
                process.stdin.close()

    def test_whole_in_pieces_and_as_text(self):
        secret = os.urandom(32)
        hidden = [byte ^ 0x5a for byte in secret]  # else the program's own text is what is found
        make = f"key = bytearray(b ^ 0x5a for b in {hidden})"
        for how in ("", "import base64; text = base64.b64encode(key); del key", "text = key.hex(); del key",
                    "piece = b'x' * 3 + bytes(key[8:16]) + b'x' * 77; del key"):
            where = self.found(f"{make}\n{how}", secret)
            self.assertTrue(any("/proc/PID/mem" in place for place in where), how)
            self.assertTrue(any("process_vm_readv" in place for place in where), how)
        self.assertEqual(self.found(make, os.urandom(32)), [])


class VaultMemory(SystemTest):
    LAUNCHER = []

    def setUp(self):
        Recorded.received.clear()
        patch = mock.patch.object(socket, "socket", Recorded)
        patch.start()
        self.addCleanup(patch.stop)
        self.host = site = self.site("memory")
        self.secrets = []
        self.passphrase = base64.b64encode(os.urandom(24))
        self.know("passphrase", self.passphrase, text=True)
        file = site.dir / "passphrase"
        file.write_bytes(self.passphrase + b"\n")
        file.chmod(0o600)
        site.vault["passphrase_file"] = str(file)
        self.raw = {name: os.urandom(32) for name in ("server", "client", "sealed", "sig")}
        for name in ("server", "client"):
            site.key(name, self.raw[name])
        for name, more in (("sealed", ()), ("sig", ("--kind", "ed25519"))):
            site.cli("key", "import", name, *more, "--passphrase-file", str(file), stdin=base64.b64encode(self.raw[name]))
            site.publics[name] = base64.b64decode(site.cli("key", "show", name).stdout)
        self.alice = site.peer("alice")
        for name in ("server", "client"):
            site.peer(name, site.publics[name])
        self.port = site.listen("echo", ["alice", "client"], "echo")
        self.plain = site.connect_entry("out", ("127.0.0.1", self.port), "server")
        site.grant("all", keys=["server", "sealed", "sig"], verbs=["box", "open", "sign", "fresh_nonce"], peers=["*"], domains=["mine"])
        site.vault["metrics"] = "unix:run/vault-metrics.sock"
        plain = type(site).config_text
        audit = {"required": True, "handshakes": True}
        site.config_text = lambda: plain(site) + "\n[audit]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in audit.items())
        for name in ("server", "client", "sealed"):
            self.know(f"secret of {name}", self.raw[name])
            self.know(f"secret of {name}, clamped", clamped(self.raw[name]))
        self.know_signing(self.raw["sig"])
        self.know_file_keys()

    def know(self, name, value, **options):
        self.secrets.append(Secret(name, value, **options))

    # -- what the vault knows or knew

    def know_signing(self, seed):
        self.know("seed of sig", seed)
        expanded = hashlib.sha512(seed).digest()
        self.know("expanded secret of sig", expanded)
        self.know("scalar of sig", clamped(expanded[:32]))
        self.prefix = expanded[32:]

    def know_signature(self, message):
        nonce = hashlib.sha512(self.prefix + message).digest()
        self.know("nonce of a signature", nonce)
        self.know("nonce of a signature, reduced", (int.from_bytes(nonce, "little") % GROUP_ORDER).to_bytes(32, "little"))

    def know_file_keys(self):
        for name in self.raw:
            text = (self.host.dir / f"keys/{name}.key").read_text()
            plain = re.search(r" plain key=(\S+)", text)
            if plain:
                key = base64.b64decode(plain[1])
            else:
                slot = re.search(r"^slot: \d+ (.*) wrapped=(\S+)$", text, re.M)
                terms = dict(re.findall(r"(\w+)=(\S+)", slot[1]))
                wrapping = nb.crypto_pwhash_alg(32, self.passphrase, base64.b64decode(terms["salt"]), int(terms["opslimit"]),
                                                int(terms["memlimit"]), nb.crypto_pwhash_ALG_ARGON2ID13)
                self.know(f"wrapping key of {name}", wrapping)
                bound = f"sallyport slot\n{name}\n{slot[1]}".encode()
                key = nb.crypto_aead_xchacha20poly1305_ietf_decrypt(base64.b64decode(slot[2]), bound, bytes(24), wrapping)
            self.know(f"file key of {name}", key)
            for person in (b"sallyport-seal-2", b"sallyport-mac--2"):
                self.know(f"{person.decode()} key of {name}", derived(key, person))

    def know_nonce_keys(self):
        """After the start: an instance id may have been made then."""
        for name in self.raw:
            slots = (self.host.dir / f"keys/{name}.nonces").read_bytes()
            for at in (0, 4096):
                if slots[at:at + 8] != b"SPNONCE1":
                    continue
                for domain in (b"CurveCPK", b"CurveCPV", b"SallyBox", b"mine\0\0\0\0"):
                    message = b"sallyport nonce key 1" + domain + slots[at + 32:at + 48]
                    self.know(f"nonce key of {name} for {domain}", hashlib.blake2b(message, key=self.raw[name], digest_size=32).digest())

    def know_shared(self, name, public, nonces=()):
        product = nb.crypto_scalarmult(self.raw[name], public)
        shared = nb.crypto_box_beforenm(public, self.raw[name])
        self.know(f"X25519 of {name}", product)
        self.know(f"shared key of {name}", shared)
        for nonce in nonces:
            self.know(f"key of one box of {name}", hsalsa20(shared, nonce))
            self.know(f"authentication key of one box of {name}", first_block(shared, nonce))

    def audit_keys(self):
        """The mac keys: of the first records (that of record 1 is in verify.key alone), and of the last and the next ones."""
        text = (self.host.dir / "audit/verify.key").read_text()
        key = base64.b64decode(re.search(r"^key: (\S+)$", text, re.M)[1])
        keys = []
        lines = [line for path in (self.host.dir / "audit").glob("*.log") for line in path.read_text().splitlines()]
        last = max(json.loads(line).get("seq", 0) for line in lines)
        for _ in range(last + 10):
            keys.append(Secret("audit mac key", key))
            key = hashlib.blake2b(b"sallyport audit next key 1", key=key, digest_size=32).digest()
        return keys[:3] + keys[-15:]

    # -- using it

    def start(self):
        site = self.host
        site.write_config()
        process = site._spawn(*self.LAUNCHER, binary("vaultd"), "-c", str(site.config))
        wait_until(lambda: process.poll() is not None or site._vault_answers(), 30, "vaultd serves")
        site.start_netd()
        status = site.vault_status()
        self.assertNotEqual(status["verdict"], "insufficient")
        self.pid = status["pid"]
        self.know_nonce_keys()

    def use(self):
        for _ in range(2):  # again from the cache
            with self.host.connect(self.port, self.alice) as session:
                self.assert_echo(session)
            self.know_shared("server", self.alice.public)
            with socket.create_connection(("127.0.0.1", self.plain), 10) as plain:
                plain.sendall(b"through both")
                self.assertEqual(plain.recv(100), b"through both")
        self.know_shared("server", self.host.publics["client"])
        self.know_shared("client", self.host.publics["server"])
        with self.host.app() as app:
            self.assertTrue(app.ping())
            for name in ("server", "sealed"):
                self.use_boxes(name, app.key(name))
            messages = [b"message", b"", os.urandom(3000)]
            self.assertEqual([version for _, version in app.key("sig").sign(messages)], [1, 1, 1])
            for message in messages:
                self.know_signature(message)
        self.be_wrong()
        self.operate()

    def use_boxes(self, name, key):
        friend, nobody, public = nacl.public.PrivateKey.generate(), nacl.public.PrivateKey.generate(), self.host.publics[name]
        box = nacl.public.Box(friend, nacl.public.PublicKey(public))
        nonce = b"SallyBox" + os.urandom(16)
        sealed = box.encrypt(TEXT, nonce).ciphertext
        self.assertEqual(key.open([(bytes(friend.public_key), nonce, sealed)]), [(TEXT, 1)])
        [(made, _, _)] = key.box([(bytes(friend.public_key), TEXT)])
        self.know_shared(name, bytes(friend.public_key), [nonce, made])
        key.box([("alice", TEXT)] * 3)
        self.know_shared(name, self.alice.public)
        ephemeral = bytes(nobody.public_key)
        from_nobody = hashlib.blake2b(ephemeral + public, digest_size=24).digest()
        anonymous = ephemeral + nacl.public.Box(nobody, nacl.public.PublicKey(public)).encrypt(TEXT, from_nobody).ciphertext
        self.assertEqual(key.open_sealed([anonymous, anonymous[:-1]]), [(TEXT, 1), "badBox"])
        self.know_shared(name, ephemeral, [from_nobody])
        forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
        self.assertEqual(key.open([(bytes(friend.public_key), nonce, forged), ("alice", nonce, sealed), (bytes(32), nonce, sealed),
                                   (bytes(friend.public_key), b"CurveCPK" + bytes(16), sealed), ("nobody", nonce, sealed)]),
                         ["badBox", "badBox", "lowOrderKey", "badNonce", "peerNotAllowed"])
        self.assertEqual(len(key.fresh_nonces("mine", 64)), 64)

    def be_wrong(self):
        """Refused calls, calls that throw, and messages that are none."""
        site = self.host
        with site.app() as app:
            for name in ("client", "nothing"):
                with self.assertRaises(minicapnp.VaultRefused):
                    app.key(name)
        with minicapnp.Rpc(site.dir / "run/vault.sock") as rpc, self.assertRaises(minicapnp.RpcError):
            rpc.call(rpc.root, VAULT_APP, 99)
        wrong = ct.KeyPair()
        with self.assertRaises((ct.Closed, OSError)), site.connect(self.port, wrong, timeout=3) as session:
            self.assert_echo(session)
        self.know_shared("server", wrong.public)
        good = bootstrap_message(0) + call_message(1, ("answer", 0), VAULT_APP, 0, Struct(b"", ["server"]))
        for data in (b"\xff" * 64, os.urandom(500), good[:40], good[:-9] + b"\xff" * 9, struct.pack("<II", 0, 1 << 20), good):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(2)
                sock.connect(str(site.dir / "run/vault.sock"))
                sock.sendall(data)
                try:
                    sock.recv(65536)
                except OSError:
                    pass

    def operate(self):
        site = self.host
        site.vault_status()
        site.metrics("vault-metrics.sock")
        with minicapnp.Rpc(site.dir / "run/vault-admin.sock") as rpc:
            for name in ("server", "sealed"):
                rpc.call(rpc.root, VAULT_ADMIN, 2, Struct(b"", [name]))
                text = (site.dir / f"keys/{name}.key").read_text()
                key = next(s.value for s in self.secrets if s.name == f"file key of {name}")
                for given in (bytes(32), key):
                    done = rpc.call(rpc.root, VAULT_ADMIN, 3, Struct(b"", [text, given])).content.pointer(0)
                    self.assertEqual(done.u16(2), int(given == key))
            done = rpc.call(rpc.root, VAULT_ADMIN, 1, Struct(b"", [site.config.read_text()])).content.pointer(0)
            self.assertEqual(done.u16(2), 1)
        with site.app() as app:
            self.assertEqual(len(app.key("sealed").box([("alice", TEXT)])[0]), 3)

    def panic(self):
        with minicapnp.Rpc(self.host.dir / "run/vault-admin.sock") as rpc:
            rpc.call(rpc.root, VAULT_ADMIN, 4)
        with self.host.app() as app:
            self.assertEqual(app.key("sealed").box([("alice", b"x")]), ["locked"])

    # -- looking

    def look(self, when):
        """What root finds: [(secret, place)]; and the mappings that it can't read."""
        time.sleep(1.3)  # the audit log's turn: what it keeps between two of them is no secret, its key is
        self.assertTrue(self.host._vault_answers())
        try:
            with Snapshot(self.pid) as snapshot:
                found = snapshot.find([*self.secrets, *self.audit_keys(), Secret("a caller's text", TEXT, text=True)])
        except NotPermitted as error:
            self.skipTest(f"nobody may look into processes here: {error}")
        unreadable = [str(mapping) for _, mapping in snapshot.unreadable if mapping.mode != "---p" and not mapping.name.startswith("[vvar")]
        print(f"# {when}: {snapshot.size >> 10} KiB in {len(snapshot.mappings)} mappings and {len(snapshot.registers)} bytes of registers "
              f"searched for {len(self.secrets)} secrets; unreadable: {sorted(set(unreadable))}")
        self.assertGreater(snapshot.size, 4 << 20)
        self.assertTrue(any(mapping.name == "[stack]" for mapping in snapshot.mappings))
        self.snapshot = snapshot
        return found, unreadable

    def tell(self, found):
        return "\n".join(f"{name}: {where}" for name, where in found)

    def assert_nothing_told(self):
        """Neither files, nor the log, nor an answer hold a secret."""
        told = {"log": self.host.log().encode(), "RPC replies": bytes(Recorded.received)}
        told |= {f"audit/{path.name}": path.read_bytes() for path in (self.host.dir / "audit").iterdir()}
        self.assertGreater(len(told["RPC replies"]), 10_000)
        self.assertTrue(any(b'"verb":"open"' in data for data in told.values()))
        for where, data in told.items():
            for secret in self.secrets:
                self.assertFalse(secret.within(data), f"{secret.name} is in {where}")
        for where in ("log", *(name for name in told if name.endswith(".log"))):
            self.assertNotIn(TEXT[:20], told[where])
            for key in self.audit_keys():
                self.assertFalse(key.within(told[where]), f"a mac key is in {where}")


class SecretMemory(VaultMemory):
    """The arena is memfd_secret, which root can't read."""

    def test_no_secret_is_found(self):
        self.start()
        if "memory=memfd_secret" not in self.host.log():
            self.skipTest("this kernel has no memfd_secret: keys lie in locked memory, which root can read (docs/threat-model.md)")
        for when, step in (("after the start", lambda: None), ("after every use", self.use), ("after panic", self.panic)):
            step()
            found, unreadable = self.look(when)
            self.assertFalse(found, f"{when}:\n{self.tell(found)}")
            arena = [mapping for mapping in unreadable if "secretmem" in mapping]
            self.assertEqual(len(arena), 4, f"an arena was read, or isn't there: of keys, of the audit log; each way: {unreadable}")
        self.assert_nothing_told()


class LockedMemory(VaultMemory):
    """A kernel without memfd_secret: what is found tells that the search works on vaultd too, and that keys are in the arena alone."""

    LAUNCHER = [sys.executable, str(HERE / "without_memfd_secret.py")]

    def test_secrets_are_found_in_the_arena_alone(self):
        self.start()
        self.assertIn("memory=locked memory", self.host.log())
        self.use()
        found, _ = self.look("locked memory, after every use")
        expected = {"secret of server", "secret of client", "secret of sealed", "seed of sig", "shared key of server",
                    "shared key of client", "audit mac key"}
        self.assertFalse(expected - {name for name, _ in found}, "the search doesn't find what is there")
        places = {where.split(": ", 1)[1].split(" | ")[0] for _, where in found if where != "registers"}
        mappings = self.snapshot.mappings
        arenas = [i for i, mapping in enumerate(mappings) if str(mapping) in places]
        self.assertEqual(len(arenas), 2, "that of the keys and that of the audit log\n" + self.tell(found))
        self.assertEqual({mappings[i].end - mappings[i].start for i in arenas}, ARENA_BYTES, self.tell(found))
        for i in arenas:
            self.assertEqual((mappings[i].mode, mappings[i].name), ("rw-p", ""), self.tell(found))
            self.assertEqual({mappings[i - 1].mode, mappings[i + 1].mode}, {"---p"}, "its guard pages")
        self.panic()
        found, _ = self.look("locked memory, after panic")
        found = [(name, where) for name, where in found if name != "audit mac key"]  # the log goes on
        self.assertEqual(found, [], self.tell(found))


if __name__ == "__main__":
    unittest.main()
