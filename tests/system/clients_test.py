#!/usr/bin/python3
"""Goal: a program in C++, C or Python does with the vault's keys what docs/api.md says, and survives every vault.
Method: a real, sandboxed vaultd. The examples of the READMEs as they stand there; what is installed, in a DESTDIR, through pkg-config;
each verb and refusal through the Python module, which goes through the C ABI, which goes through the C++ API; a vault that is killed
and restarted; and a fake vault that refuses with every number, lies, hangs and hangs up.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import SANITIZED, SystemTest, bin_root
from fake_vault import FakeVault
import minicapnp

import nacl.public
import nacl.signing

ROOT = pathlib.Path(__file__).resolve().parents[2]
if SANITIZED:
    print("a sanitizer's library can't be loaded into Debian's python3: skipped")
    sys.exit(77)
os.environ["SALLYPORT_LIBRARY"] = str(bin_root() / "clients/cpp/libsallyport.so.0")
sys.path.insert(0, str(ROOT / "clients/python"))
import sallyport  # noqa: E402

TEXT = b"meet me at the sally port"
MAX_TEXT = 48 * 1024


def example(language, client):
    """The first block of that language in a client's README."""
    readme = (ROOT / "clients" / client / "README.md").read_text()
    return re.search(rf"^```{language}\n(.*?)^```$", readme, re.M | re.S)[1]


def vault_site(test, make):
    site = make("clients")
    site.pair = site.peer("alice")
    site.key("backup")
    site.grant("backup", keys=["backup"], verbs=["box", "open", "fresh_nonce"], peers=["*"], max_bytes=MAX_TEXT, domains=["minute-k"])
    site.socket = site.dir / "run/vault.sock"
    site.start_vaultd()
    return site


class Installed(SystemTest):
    """What `meson install` puts down is enough for a program, and the examples work."""

    @classmethod
    def setUpClass(cls):
        cls.site_ = vault_site(cls, cls.class_site)
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-clients-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.root = cls.dir / "root"
        subprocess.run(["/usr/bin/meson", "install", "-C", bin_root(), "--no-rebuild", "--quiet"], check=True, capture_output=True,
                       env={**os.environ, "DESTDIR": str(cls.root)}, timeout=120)
        (pc,) = cls.root.rglob("sallyport.pc")
        cls.lib = pc.parent.parent
        cls.pkg_config = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent), "PKG_CONFIG_SYSROOT_DIR": str(cls.root)}

    def build(self, compiler, name, source):
        path = self.dir / name
        path.write_text(source)
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", "sallyport"], check=True, capture_output=True, text=True,
                               env=self.pkg_config).stdout.split()
        program = path.with_suffix("")
        # What the library is made of is no concern of who links it.
        done = subprocess.run([*compiler, str(path), *flags, "-o", str(program)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return str(program)

    def run_program(self, *command, **more):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "LD_LIBRARY_PATH": str(self.lib), **more})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    C = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror"]
    CPP = ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror"]

    def test_the_example_in_cpp(self):
        program = self.build(self.CPP, "example.cc", example("cpp", "cpp"))
        self.assertEqual(self.run_program(program, str(self.site_.socket)), TEXT.decode() + "\n")

    def test_the_example_in_c(self):
        program = self.build(self.C, "example.c", example("c", "cpp"))
        self.assertEqual(self.run_program(program, str(self.site_.socket)), "a box of 21 bytes\n\n")
        self.assertIn("cantConnect", self.run_program(program, "/nonexistent/vault.sock"))

    def test_the_example_in_python(self):
        script = self.dir / "example.py"
        script.write_text(example("python", "python"))
        (module,) = self.root.rglob("sallyport.py")
        shown = self.run_program("/usr/bin/python3", str(script), str(self.site_.socket), PYTHONPATH=str(module.parent),
                                 SALLYPORT_LIBRARY="libsallyport.so.0")
        self.assertTrue(shown.startswith(TEXT.decode() + "\nbackup x25519 "), shown)

    def test_the_examples_are_short(self):
        for language, client in (("cpp", "cpp"), ("c", "cpp"), ("python", "python"), ("ts", "typescript")):
            lines = [line for line in example(language, client).splitlines() if line.strip()]
            self.assertLessEqual(len(lines), 11, language)

    def test_the_c_abi_bears_what_c_programs_do(self):
        program = self.build(self.C, "client_c.c", (ROOT / "tests/system/client_c.c").read_text())
        self.assertIn("all good", self.run_program(program, str(self.site_.socket)))

    def test_the_cpp_api_with_threads_moves_and_large_batches(self):
        program = self.build([*self.CPP, "-pthread"], "client_cpp.cc", (ROOT / "tests/system/client_cpp.cc").read_text())
        self.assertIn("all good", self.run_program(program, str(self.site_.socket)))

    def test_only_the_interfaces_are_exported(self):
        symbols = subprocess.run(["nm", "-D", "--defined-only", "--demangle", str(self.lib / "libsallyport.so.0")], check=True,
                                 capture_output=True, text=True).stdout.splitlines()
        names = [line.split(" ", 2)[2] for line in symbols]
        strange = [name for name in names if not re.match(r"(sallyport_\w+|(typeinfo |vtable )?(name )?(for )?sallyport::client::\S.*"
                                                          r"|SALLYPORT_0)(@@?SALLYPORT_0)?$", name)]
        self.assertEqual(strange, [])
        header = (ROOT / "clients/cpp/include/sallyport.h").read_text()
        declared = set(re.findall(r"\b(sallyport_\w+)\(", header))
        self.assertEqual(declared, {name.split("@")[0] for name in names if name.startswith("sallyport_")})

    def test_the_man_page_tells_of_every_function_and_code(self):
        (page,) = self.root.rglob("libsallyport.3*")
        text = page.read_text()
        header = (ROOT / "clients/cpp/include/sallyport.h").read_text()
        for name in re.findall(r"\b(sallyport_\w+)\(", header) + re.findall(r"\b(SALLYPORT_\w+) =", header):
            self.assertIn(name, text)


class Verbs(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.site_ = vault_site(cls, cls.class_site)
        cls.alice = nacl.public.PrivateKey(cls.site_.pair.secret)
        cls.ours = nacl.public.PublicKey(cls.site_.publics["backup"])

    def setUp(self):
        self.vault = sallyport.connect(self.site_.socket)
        self.addCleanup(self.vault.close)
        self.key = self.vault.key("backup")
        self.addCleanup(self.key.close)

    def test_a_box_opens_elsewhere_and_one_from_elsewhere_here(self):
        boxed = self.key.box("alice", TEXT)
        self.assertEqual(boxed.nonce[:8], b"SallyBox")
        self.assertEqual(nacl.public.Box(self.alice, self.ours).decrypt(boxed.box, boxed.nonce), TEXT)
        nonce = b"SallyBox" + os.urandom(16)
        box = nacl.public.Box(self.alice, self.ours).encrypt(TEXT, nonce).ciphertext
        self.assertEqual(self.key.open(bytes(self.alice.public_key), nonce, box), (TEXT, boxed.version))

    def test_a_sealed_box_opens(self):
        self.assertEqual(self.key.open_sealed(nacl.public.SealedBox(self.ours).encrypt(TEXT)).text, TEXT)

    def test_an_empty_text_is_a_text(self):
        boxed = self.key.box("alice", b"")
        self.assertEqual(self.key.open("alice", boxed.nonce, boxed.box).text, b"")

    def test_signatures_are_verified(self):
        signer = nacl.signing.SigningKey.generate()
        public, signature = bytes(signer.verify_key), signer.sign(TEXT).signature
        self.vault.verify(public, TEXT, signature)
        outcomes = self.vault.verify_each([(public, TEXT, signature), (public, TEXT + b"!", signature), (public[1:], TEXT, signature)])
        self.assertIs(outcomes[0], True)
        self.assertIsInstance(outcomes[1], sallyport.BadSignature)
        self.assertIsInstance(outcomes[2], sallyport.BadSize)
        with self.assertRaises(sallyport.BadSignature):
            self.vault.verify(public, TEXT, bytes(64))

    def test_fresh_nonces_differ(self):
        nonces = self.key.fresh_nonces("minute-k", 64) + self.key.fresh_nonces("minute-k")
        self.assertEqual(len(set(nonces)), 65)
        self.assertEqual({len(nonce) for nonce in nonces}, {16})

    def test_what_may_be_done_is_told(self):
        (granted,) = self.vault.keys()
        verbs = sallyport.Verb.BOX | sallyport.Verb.OPEN | sallyport.Verb.FRESH_NONCE
        self.assertEqual(granted, ("backup", "x25519", self.site_.publics["backup"], verbs, ("backup",)))
        self.assertEqual(self.key.verbs, verbs)
        self.assertEqual(self.vault.public_key("backup"), self.site_.publics["backup"])
        self.assertEqual(self.vault.public_keys("backup"), (self.site_.publics["backup"], 1, (self.site_.publics["backup"],)))
        self.vault.ping()

    def test_a_key_can_be_had_with_fewer_verbs(self):
        with self.vault.key("backup", sallyport.Verb.OPEN) as key:
            self.assertEqual(key.verbs, sallyport.Verb.OPEN)
            with self.assertRaises(sallyport.NotPermitted):
                key.box("alice", TEXT)

    def test_a_lease_ends_and_is_renewed(self):
        with self.vault.key("backup", lease=0.3) as key:
            self.assertEqual(key.lease, 0.3)
            self.assertEqual(key.renew(60), 60)
            key.box("alice", TEXT)
            key.renew(0.05)
            time.sleep(0.1)
            with self.assertRaises(sallyport.Expired):
                key.box("alice", TEXT)

    def test_refusals_have_their_names(self):
        boxed = self.key.box("alice", TEXT)
        for refusal, call in {
                sallyport.UnknownKey: lambda: self.vault.public_key("nobody"),
                sallyport.NotPermitted: lambda: self.vault.key("nobody"),
                sallyport.PeerNotAllowed: lambda: self.key.box("mallory", TEXT),
                sallyport.BadSize: lambda: self.key.box(b"short", TEXT),
                sallyport.LowOrderKey: lambda: self.key.box(bytes(32), TEXT),
                sallyport.TooLong: lambda: self.key.box("alice", bytes(MAX_TEXT + 1)),
                sallyport.BadNonce: lambda: self.key.open("alice", bytes(24), boxed.box),
                sallyport.BadBox: lambda: self.key.open("alice", boxed.nonce, boxed.box[:-1] + bytes([boxed.box[-1] ^ 1])),
                sallyport.WrongKind: lambda: self.vault.key("backup").sign(TEXT),
                sallyport.BadDomain: lambda: self.key.fresh_nonces("other"),
                sallyport.TooMany: lambda: self.key.fresh_nonces("minute-k", 65)}.items():
            with self.subTest(refusal=refusal.__name__):
                # A verb that isn't granted is told before its kind.
                with self.assertRaises((refusal, sallyport.NotPermitted) if refusal is sallyport.WrongKind else refusal) as caught:
                    call()
                self.assertIsInstance(caught.exception, sallyport.Refused)
                self.assertTrue(str(caught.exception).startswith(caught.exception.name + ": "))

    def test_a_batch_is_judged_item_by_item(self):
        outcomes = self.key.box_each([("alice", TEXT), ("mallory", TEXT), (bytes(32), TEXT), ("alice", b"")])
        self.assertEqual([type(outcome) for outcome in outcomes],
                         [sallyport.Boxed, sallyport.PeerNotAllowed, sallyport.LowOrderKey, sallyport.Boxed])
        self.assertEqual(self.key.box_each([]), [])

    def test_large_batches_are_cut_into_calls(self):
        for count, size in ((64, 100), (1000, 10), (40, MAX_TEXT), (3, 20_000)):
            texts = [os.urandom(size) for _ in range(count)]
            boxes = self.key.box_each([("alice", text) for text in texts])
            opened = self.key.open_each([("alice", boxed.nonce, boxed.box) for boxed in boxes])
            self.assertEqual([each.text for each in opened], texts)

    def test_what_fits_no_message_is_not_sent(self):
        outcomes = self.key.box_each([("alice", bytes(1_000_000)), ("alice", TEXT)])
        self.assertIsInstance(outcomes[0], sallyport.TooLong)
        self.assertIsInstance(outcomes[1], sallyport.Boxed)

    def test_closing_twice_and_use_after_it(self):
        key = self.vault.key("backup")
        key.close()
        key.close()
        with self.assertRaises(sallyport.Closed):
            key.box("alice", TEXT)
        vault = sallyport.connect(self.site_.socket)
        key = vault.key("backup")
        vault.close()
        vault.close()
        for call in (vault.ping, vault.keys, lambda: vault.key("backup"), lambda: key.box("alice", TEXT), lambda: key.box_each([])):
            with self.assertRaises(sallyport.Closed):
                call()
        key.close()

    def test_closed_keys_are_given_back(self):
        for _ in range(1100):  # more than the vault keeps for a connection, live or closed
            self.vault.key("backup").close()
        held = []
        with self.assertRaises(sallyport.TooManyObjects):
            for _ in range(65):
                held.append(self.vault.key("backup"))
        del held[:32]
        self.vault.key("backup").close()

    def test_a_revoked_grant_ends_a_live_key(self):
        granted = self.site_.grants.pop("backup")
        self.site_.write_config()
        self.site_.grants["backup"] = granted
        self.site_.cli("reload", check=False)  # there is no netd to reload
        self.addCleanup(self.site_.cli, "reload", check=False)
        self.addCleanup(self.site_.write_config)
        with self.assertRaises(sallyport.Expired):
            self.key.box("alice", TEXT)

    def test_a_child_after_fork_connects_by_itself(self):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                boxed = self.key.box("alice", TEXT)
                status = 0 if self.key.open("alice", boxed.nonce, boxed.box).text == TEXT else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        self.key.box("alice", TEXT)

    def test_bad_arguments_are_told(self):
        for call in (lambda: self.vault.key("back\0up"), lambda: sallyport.connect(self.site_.socket, timeout=0),
                     lambda: self.vault.key("backup", lease=-1), lambda: self.key.fresh_nonces("minute-k", -1)):
            with self.assertRaises(sallyport.BadArgument):
                call()

    def assert_bad(self, call, *wrong):
        for value in wrong:
            with self.subTest(value=value), self.assertRaises(sallyport.BadArgument):
                call(value)

    def test_no_number_is_cut_to_the_size_of_its_c_type(self):
        boxed = self.key.box("alice", TEXT)
        self.assert_bad(lambda time: sallyport.connect(self.site_.socket, time),
                        -1, 0, 2**32, 2**64, float("nan"), float("inf"), None, "1")
        self.assert_bad(lambda lease: self.vault.key("backup", lease=lease), -1, 2**61, 2**64, float("nan"), None, "1")
        self.assert_bad(self.key.renew, -1, 2**61, 2**64, float("inf"), "1")
        self.assert_bad(lambda verbs: self.vault.key("backup", verbs), -1, 2**32 + 1, 2**64, None, "BOX", 1.0)
        self.assert_bad(lambda count: self.key.fresh_nonces("minute-k", count), -1, 2**32, 2**32 + 1, 2**64, None, 1.0, "1")
        self.assertEqual(self.key.open("alice", boxed.nonce, boxed.box).text, TEXT)  # nothing was asked

    def test_no_text_is_taken_for_bytes_nor_a_number_for_their_count(self):
        boxed, signature = self.key.box("alice", TEXT), bytes(64)
        wrong = ("text", 5, None, [1, 2], 1.5)
        self.assert_bad(lambda data: self.key.box("alice", data), *wrong)
        self.assert_bad(lambda data: self.key.box(data, TEXT), *wrong[1:])
        self.assert_bad(lambda data: self.key.open("alice", data, boxed.box), *wrong)
        self.assert_bad(lambda data: self.key.open("alice", boxed.nonce, data), *wrong)
        self.assert_bad(lambda data: self.key.open(data, boxed.nonce, boxed.box), *wrong[1:])
        self.assert_bad(self.key.open_sealed, *wrong)
        self.assert_bad(self.key.sign, *wrong)
        for place in range(3):
            self.assert_bad(lambda data: self.vault.verify(*[bytes(32), TEXT, signature][:place], data,
                                                           *[bytes(32), TEXT, signature][place + 1:]), *wrong)
        for call in (self.vault.key, self.vault.public_key, self.vault.public_keys, self.key.fresh_nonces):
            self.assert_bad(call, b"backup", 5, None, "back\0up", "\udcff")
        self.assert_bad(sallyport.connect, 5, None, "sock\0et")
        for data in (bytearray(TEXT), memoryview(TEXT), memoryview(TEXT * 2)[::2]):
            self.assertTrue(self.key.box("alice", data).box)


class RotatedKeys(SystemTest):
    def test_all_that_open_are_told_the_active_one_first(self):
        site = self.site("clients")
        first = site.key("backup")
        site.grant("backup", keys=["backup"], verbs=["box"], peers=["*"])
        site.write_config()
        site.cli("key", "rotate", "backup", "--grace", "1h")
        site.start_vaultd()
        with sallyport.connect(site.dir / "run/vault.sock") as vault:
            keys = vault.public_keys("backup")
            self.assertEqual((keys.version, len(keys.opening)), (2, 2))
            self.assertEqual(keys.opening, (keys.active, first))
            self.assertNotEqual(keys.active, first)
            self.assertEqual(vault.public_key("backup"), keys.active)
            with self.assertRaises(sallyport.UnknownKey):
                vault.public_keys("nobody")


class SigningKeys(SystemTest):
    def test_a_key_signs(self):
        site = self.site("clients")
        site.write_config()
        site.cli("key", "new", "notary", "--kind", "ed25519")
        site.grant("notary", keys=["notary"], verbs=["sign"])
        site.start_vaultd()
        with sallyport.connect(site.dir / "run/vault.sock") as vault, vault.key("notary") as key:
            public = vault.public_key("notary")
            signed = key.sign_each([TEXT, b"", bytes(60_000)])
            for message, each in zip([TEXT, b"", bytes(60_000)], signed):
                nacl.signing.VerifyKey(public).verify(message, each.signature)
                vault.verify(public, message, each.signature)
            self.assertIsInstance(key.sign_each([bytes(70_000)])[0], sallyport.TooLong)


class Troubles(SystemTest):
    def test_a_killed_vault_and_its_successor(self):
        site = vault_site(self, self.site)
        vault = sallyport.connect(site.socket)
        key, leased = vault.key("backup"), vault.key("backup", lease=3600)
        boxed = key.box("alice", TEXT)
        site.stop_daemons()
        for call in (vault.ping, lambda: key.box("alice", TEXT)):
            with self.assertRaises(sallyport.CantConnect):
                call()
        site.start_vaultd()
        self.assertEqual(key.open("alice", boxed.nonce, boxed.box).text, TEXT)
        self.assertEqual(leased.open("alice", boxed.nonce, boxed.box).text, TEXT)
        self.assertLess(leased.lease, 3600)  # what was left of it
        key.close()
        vault.close()

    def test_a_vault_that_is_killed_in_a_call(self):
        site = vault_site(self, self.site)
        with sallyport.connect(site.socket) as vault, vault.key("backup") as key:
            vaultd = site.processes[-1]
            errors = []

            def work():
                try:
                    while True:
                        key.box_each([("alice", bytes(1000))] * 640)
                except sallyport.Error as error:
                    errors.append(error)

            thread = threading.Thread(target=work)
            thread.start()
            time.sleep(0.3)
            vaultd.kill()
            thread.join(20)
            self.assertIn(type(errors[0]), (sallyport.Disconnected, sallyport.CantConnect))

    def test_a_locked_key(self):
        site = vault_site(self, self.site)
        with sallyport.connect(site.socket) as vault, vault.key("backup") as key:
            with minicapnp.Rpc(site.dir / "run/vault-admin.sock") as admin:
                admin.call(admin.root, minicapnp.VAULT_ADMIN, 2, minicapnp.Struct(b"", ["backup"]))  # what `sallyport lock` does
            with self.assertRaises(sallyport.Locked):
                key.box("alice", TEXT)

    def test_wrong_sockets(self):
        site = vault_site(self, self.site)
        with self.assertRaisesRegex(sallyport.CantConnect, "/nonexistent/socket.*No such file"):
            sallyport.connect("/nonexistent/socket")
        with self.assertRaisesRegex(sallyport.CantConnect, "107"):
            sallyport.connect("/" + "x" * 200)
        with self.assertRaisesRegex(sallyport.Unsupported, "socket"):
            sallyport.connect(site.dir / "run/vault-admin.sock")

    def fake(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-clients-"))
        self.addCleanup(shutil.rmtree, folder)
        fake = FakeVault(folder / "vault.sock")
        self.addCleanup(fake.close)
        return fake

    def test_every_refusal_has_the_schemas_name(self):
        with sallyport.connect(self.fake().path) as vault:
            for number, name in enumerate(minicapnp.VAULT_REFUSALS):
                with self.assertRaises(sallyport.Refused) as caught:
                    vault.public_key(f"refuse:{number}")
                self.assertEqual(caught.exception.name, name)
                self.assertEqual(type(caught.exception).__name__, name[0].upper() + name[1:])
            with self.assertRaises(sallyport.Refused) as caught:
                vault.public_key("refuse:77")  # of a newer vault
            self.assertEqual((caught.exception.code, caught.exception.name), (77, "unknown"))

    def test_exceptions_of_the_vault(self):
        with sallyport.connect(self.fake().path) as vault:
            for kind, error in enumerate((sallyport.VaultFailed, sallyport.VaultFailed, sallyport.Disconnected, sallyport.Unsupported)):
                with self.assertRaises(error):
                    vault.public_key(f"failed:{kind}")

    def test_a_vault_that_lies(self):
        fake = self.fake()
        with sallyport.connect(fake.path, timeout=2) as vault:
            for name, error in {
                    "hangup": sallyport.Disconnected, "cut": sallyport.Disconnected, "other": sallyport.ProtocolError,
                    "raw:ffffffff00000000": sallyport.ProtocolError,              # segments that wrap around
                    "raw:00000000ffffffff": sallyport.ProtocolError,              # 32 GiB
                    "raw:0000000001000000ffffffffffffffff": sallyport.ProtocolError,
                    "raw:0000000000000000": sallyport.ProtocolError,
                    # A Return to the question with results that point out of the message.
                    "raw:0000000003000000000000000100010003000000000000007fffffff7f000000": sallyport.ProtocolError,
                    "hang": sallyport.TimedOut}.items():
                with self.subTest(name=name):
                    with self.assertRaises(error):
                        vault.public_key(name)
                    vault.ping()  # on a new connection
            self.assertGreater(fake.accepted, 8)

    def test_who_serves_something_else(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-clients-"))
        self.addCleanup(shutil.rmtree, folder)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "web.sock"))
            listener.listen()

            def serve():
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.recv(4096)

            thread = threading.Thread(target=serve)
            thread.start()
            with self.assertRaises(sallyport.ProtocolError):
                sallyport.connect(folder / "web.sock")
            thread.join()


if __name__ == "__main__":
    unittest.main(verbosity=2)
