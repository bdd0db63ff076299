#!/usr/bin/python3
"""Goal: every mode works with every module: keys made in the token and keys brought into it, after a restart as before; 500 random
known answers and those whose first or last byte is zero; signatures; sealing by AES-GCM and by RSA-OAEP; and no secret comes out.
Method: hsmd itself, sandbox on, with SoftHSM, NSS's softoken and our mock behind it, spoken to in frames (hsmd_client.py). What
it answers is held against libsodium.
"""

import os
import signal
import sys
import unittest

import nacl.bindings as sodium

import tokens
from harness import is_alive, process_stat, processes_of_session, wait_until
from hsmd_client import Hsmd, Refused, WorkerGone

ANSWERS = 500
IN_FLIGHT = 16


def public_of(secret):
    return sodium.crypto_scalarmult_base(secret)


class Modes:
    """For each kind of token once."""

    token_class = None

    def setUp(self):
        self.token = self.token_class()
        self.addCleanup(self.token.remove)

    def hsmd(self, **options):
        hsm = Hsmd(self.token, **options)
        self.addCleanup(hsm.__exit__)
        return hsm

    def made(self, hsm, kind, identifier=b"\x01", label=b"server"):
        return hsm.ask("generate", kind=kind, id=identifier, label=label)

    def assert_known_answers(self, hsm, key, peers):
        """Many at once, answered in any order."""
        for begin in range(0, len(peers), IN_FLIGHT):
            part = peers[begin:begin + IN_FLIGHT]
            asked = []
            for ephemeral in part:
                slot = hsm.slot()
                asked.append((hsm.send("derive", key=key["index"], slot=slot, peer=public_of(ephemeral)), slot, ephemeral))
            for identifier, slot, ephemeral in asked:
                hsm.receive(identifier)
                self.assertEqual(hsm.get(slot), sodium.crypto_scalarmult(ephemeral, key["publicKey"]))

    def peers_with_zeros(self, key):
        """Two ephemeral secrets whose results begin and end with a zero byte."""
        found = {}
        while len(found) < 2:
            ephemeral = os.urandom(32)
            shared = sodium.crypto_scalarmult(ephemeral, key["publicKey"])
            if shared[0] == 0:
                found["first"] = ephemeral
            if shared[-1] == 0:
                found["last"] = ephemeral
        return list(found.values())

    # -- derive mode

    def test_a_generated_key_gives_500_known_answers_and_those_with_zeros(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "x25519")
        self.assertEqual((key["kind"], key["spelling"], key["proof"]), ("x25519", self.token.spelling, "ok"))
        self.assertTrue(key["sensitive"])
        self.assertFalse(key["extractable"])
        self.assert_known_answers(hsm, key, [os.urandom(32) for _ in range(ANSWERS)] + self.peers_with_zeros(key))

    def test_a_generated_key_is_there_after_every_restart(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "x25519", b"\xc0\xde")
        hsm.close()
        hsm = self.hsmd()  # as vaultd runs it: nothing can be made in the token any more
        self.assertRaises(Refused, self.made, hsm, "x25519", b"\xff")
        for round_number in range(3):
            again = next(each for each in hsm.keys() if each["id"] == b"\xc0\xde" and each["kind"] == "x25519")
            self.assertEqual((again["publicKey"], again["spelling"], again["proof"]), (key["publicKey"], key["spelling"], "ok"))
            self.assert_known_answers(hsm, again, [os.urandom(32) for _ in range(8)])
            if round_number < 2:
                os.kill(hsm.pid, signal.SIGKILL)
                hsm.wait_up(after=hsm.epoch)

    def test_an_imported_key_is_the_same_key(self):
        hsm = self.hsmd(operator=True)
        secret = os.urandom(32)
        key = hsm.import_key("x25519", secret, b"imported", b"alice")
        self.assertEqual(key["publicKey"], public_of(secret))
        self.assertEqual((key["proof"], key["sensitive"], key["extractable"]), ("ok", True, False))
        self.assert_known_answers(hsm, key, [os.urandom(32) for _ in range(ANSWERS // 10)])
        hsm.close()
        hsm = self.hsmd()
        key = next(each for each in hsm.keys() if each["id"] == b"imported" and each["kind"] == "x25519")
        peer = os.urandom(32)
        self.assertEqual(hsm.derive(key["index"], public_of(peer)), sodium.crypto_scalarmult(secret, public_of(peer)))

    def test_two_keys_of_one_name_are_refused(self):
        hsm = self.hsmd(operator=True)
        self.made(hsm, "x25519", b"\x01", b"server")
        with self.assertRaises(Refused) as refused:
            self.made(hsm, "x25519", b"\x01", b"server")
        self.assertEqual(refused.exception.status, "keyExists")

    def test_points_of_low_order_yield_nothing(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "x25519")
        slot = hsm.slot()
        for peer in (bytes(32), b"\x01" + bytes(31)):
            with self.assertRaises(Refused) as refused:
                hsm.ask("derive", key=key["index"], slot=slot, peer=peer)
            self.assertIn(refused.exception.status, ("badResult", "moduleFailed"))
            self.assertEqual(hsm.get(slot), bytes(32))
        self.assert_known_answers(hsm, key, [os.urandom(32)])  # and it goes on

    def test_what_is_not_there_is_named(self):
        hsm = self.hsmd(operator=True)
        self.made(hsm, "x25519")
        slot = hsm.slot()
        self.assertEqual(hsm.status_of("derive", key=999, slot=slot, peer=public_of(os.urandom(32))), "noKey")
        self.assertEqual(hsm.status_of("derive", key=0, slot=999, peer=public_of(os.urandom(32))), "badRequest")
        self.assertEqual(hsm.status_of("list", index=999), "noKey")
        stale = hsm.send("derive", epoch=hsm.epoch + 1, key=0, slot=slot, peer=public_of(os.urandom(32)))
        with self.assertRaises(Refused) as refused:
            hsm.receive(stale)
        self.assertEqual(refused.exception.status, "staleEpoch")

    # -- signatures

    def test_ed25519_where_the_token_has_it(self):
        hsm = self.hsmd(operator=True)
        if not self.token.can_sign:
            with self.assertRaises(Refused) as refused:
                self.made(hsm, "ed25519")
            self.assertEqual(refused.exception.status, "unsupported")
            return
        key = self.made(hsm, "ed25519", b"\x02", b"signer")
        for message in (b"1", b"a statement", os.urandom(60 * 1024)):  # SoftHSM refuses an empty one
            signature = hsm.sign(key["index"], message)
            self.assertEqual(sodium.crypto_sign_open(signature + message, key["publicKey"]), message)
        seed = os.urandom(32)
        imported = hsm.import_key("ed25519", seed, b"\x03", b"brought")
        public, secret = sodium.crypto_sign_seed_keypair(seed)
        self.assertEqual(imported["publicKey"], public)
        self.assertEqual(hsm.sign(imported["index"], b"text"), sodium.crypto_sign(b"text", secret)[:64])

    # -- seal mode

    def assert_seals(self, hsm, key, algorithm):
        secret, bound = os.urandom(32), os.urandom(32)
        blob = hsm.wrap(key["index"], secret, algorithm, bound)
        self.assertNotIn(secret, blob)
        self.assertEqual(hsm.unwrap(key["index"], blob, algorithm, bound), secret)
        self.assertNotEqual(hsm.wrap(key["index"], secret, algorithm, bound), blob, "no randomness in it")
        for position in (0, len(blob) // 2, len(blob) - 1):
            damaged = bytearray(blob)
            damaged[position] ^= 1
            self.assert_rejected(hsm, key, bytes(damaged), algorithm, bound)
        self.assert_rejected(hsm, key, blob[:-1], algorithm, bound)
        self.assert_rejected(hsm, key, b"", algorithm, bound)
        if algorithm == "aes-gcm":
            self.assert_rejected(hsm, key, blob, algorithm, os.urandom(32))
        self.assertEqual(hsm.unwrap(key["index"], blob, algorithm, bound), secret, "a refusal spoils what comes after")

    def assert_rejected(self, hsm, key, blob, algorithm, bound):
        slot = hsm.slot()
        status = hsm.status_of("unwrap", key=key["index"], slot=slot, algorithm=algorithm, bound=bound, blob=blob)
        self.assertEqual(status, "blobRejected")
        self.assertEqual(hsm.get(slot), bytes(32))

    def test_seals_by_gcm(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "aes", b"\x10", b"kek")
        self.assertTrue(key["gcm"])
        self.assertFalse(key["extractable"])
        self.assert_seals(hsm, key, "aes-gcm")

    def test_seals_by_oaep(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "rsa", b"\x11", b"kek")
        self.assertTrue(key["oaepSha1"])
        self.assertGreaterEqual(key["bits"], 3072)
        self.assert_seals(hsm, key, "rsa-oaep-sha1")
        if self.token.can_oaep256:
            self.assert_seals(hsm, key, "rsa-oaep-sha256")
        else:
            self.assertFalse(key["oaepSha256"])
            slot = hsm.slot()
            hsm.put(slot, os.urandom(32))
            self.assertEqual(hsm.status_of("wrap", key=key["index"], slot=slot, algorithm="rsa-oaep-sha256", bound=bytes(32)),
                             "unsupported")

    def test_a_sealed_key_opens_after_a_restart(self):
        hsm = self.hsmd(operator=True)
        secret = os.urandom(32)
        blobs = {}
        for kind, algorithm in (("aes", "aes-gcm"), ("rsa", "rsa-oaep-sha1")):
            key = self.made(hsm, kind, kind.encode(), kind.encode())
            blobs[algorithm] = (kind.encode(), hsm.wrap(key["index"], secret, algorithm))
        hsm.close()
        hsm = self.hsmd()
        for algorithm, (identifier, blob) in blobs.items():
            key = next(each for each in hsm.keys() if each["id"] == identifier and each["kind"] in ("aes", "rsa"))
            self.assertEqual(hsm.unwrap(key["index"], blob, algorithm), secret)

    # -- random, probing, the sandbox

    def test_random_is_not_the_same_twice(self):
        hsm = self.hsmd()
        seen = set()
        for _ in range(4):
            slot = hsm.slot()
            hsm.ask("random", slot=slot, bytes=64)
            seen.add(hsm.get(slot, 64))
        self.assertEqual(len(seen), 4)
        self.assertEqual(hsm.status_of("random", slot=0, bytes=65), "badRequest")

    def test_the_probe_says_what_works_and_leaves_nothing_behind(self):
        hsm = self.hsmd(operator=True)
        lines = hsm.probe()
        for how in ("generate", "import"):
            self.assertTrue(any(what.startswith(f"x25519 {how}: {self.token.spelling}, ") and trial == "works"
                                for what, (trial, _) in lines.items()), lines)
        gcm = next(trial for what, (trial, _) in lines.items() if "gcm" in what)
        self.assertEqual(gcm, "works", lines)
        self.assertEqual(hsm.keys(), [], "the probe left keys in the token")
        hsm.close()
        self.assertEqual(self.hsmd().keys(), [])

    def test_the_sandbox_holds_and_ordinary_work_is_not_denied(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "x25519")
        hsm.close()
        hsm = self.hsmd()
        hsm.wait_layers()
        print(f"\nsandbox of hsmd with {type(self.token).__name__}:", file=sys.stderr)
        for layer, (state, detail) in hsm.layers.items():
            print(f"  {layer:12} {state:12} {detail}", file=sys.stderr)
        self.assertEqual(hsm.layers["seccomp"][0], "active")
        self.assertNotIn("failed", {state for state, _ in hsm.layers.values()})
        key = next(each for each in hsm.keys() if each["kind"] == "x25519")
        self.assert_known_answers(hsm, key, [os.urandom(32) for _ in range(32)])
        hsm.ask("ping")
        self.assertEqual(hsm.denials[0], 0, f"last: {hsm.denials[1]}")
        if os.geteuid() != 0:
            return  # the kernel shows a process that isn't dumpable to root alone
        with open(f"/proc/{hsm.pid}/status") as opened:
            status = {line.split(":")[0]: line.split(":")[1].split() for line in opened}
        self.assertEqual(status["Uid"], [str(tokens.owner()[0])] * 4)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"], status["CapEff"]), (["1"], ["2"], ["0000000000000000"]))

    def test_all_of_it_ends_with_its_client(self):
        hsm = self.hsmd()
        worker, session = hsm.pid, hsm.keeper.pid
        self.assertNotEqual(process_stat(worker)[2], os.getpid(), "the worker is the keeper's child")
        hsm.close()
        wait_until(lambda: not is_alive(worker) and not processes_of_session(session), 15, "the worker's end")

    # -- the PIN

    def test_a_wrong_pin_is_tried_once_and_the_right_one_still_works(self):
        self.token.set_pin_file("not-the-pin")
        hsm = self.hsmd()
        self.assertEqual(hsm.login_status, "pinWrong")
        self.assertEqual(hsm.ask("hello")["login"], "pinWrong")
        # Whatever happens to the worker, it isn't tried again.
        for _ in range(3):
            os.kill(hsm.pid, signal.SIGKILL)
            hsm.wait_up(after=hsm.epoch)
            self.assertIn(hsm.login_status, ("pinWrong", "pinLowRefused", "notLoggedIn"))
        if isinstance(self.token, tokens.Mock):
            self.assertEqual(self.token.count("C_Login"), 1)
            self.assertEqual(self.token.state()["tries"], "2")
        self.assertEqual(hsm.log_in(self.token.pin), "ok")
        self.assertEqual(hsm.ask("hello")["login"], "ok")
        # The keeper has it now: the next worker needs nobody.
        os.kill(hsm.pid, signal.SIGKILL)
        hsm.wait_up(after=hsm.epoch)
        self.assertEqual(hsm.login_status, "ok")

    def test_without_a_pin_it_waits_for_one(self):
        hsm = self.hsmd(pin="ask", operator=True)
        self.assertEqual(hsm.login_status, "notLoggedIn")
        self.assertEqual(hsm.status_of("generate", kind="x25519", id=b"\x01", label=b""), "notLoggedIn")
        self.assertEqual(hsm.log_in(self.token.pin), "ok")
        key = self.made(hsm, "x25519")
        self.assert_known_answers(hsm, key, [os.urandom(32)])
        hsm.ask("logout")
        hsm.wait_up(after=hsm.epoch)
        self.assertEqual(hsm.login_status, "notLoggedIn", "a PIN that was to be forgotten came back")
        self.assertNotEqual(hsm.status_of("derive", key=key["index"], slot=0, peer=public_of(os.urandom(32))), "ok")

    def test_neither_the_pin_nor_our_environment_reaches_the_module_by_a_side_door(self):
        os.environ["SALLYPORT_TEST_SECRET"] = "of the caller"
        try:
            hsm = self.hsmd()
        finally:
            del os.environ["SALLYPORT_TEST_SECRET"]
        running = processes_of_session(hsm.keeper.pid)
        self.assertIn(hsm.pid, running)
        for pid in running:
            for file in ("cmdline", "environ"):
                with open(f"/proc/{pid}/{file}", "rb") as opened:
                    self.assertNotIn(self.token.pin.encode(), opened.read(), f"{running[pid]}: {file}")
        with open(f"/proc/{hsm.pid}/environ", "rb") as opened:
            names = {entry.split(b"=")[0].decode() for entry in opened.read().split(b"\0") if entry}
        self.assertLessEqual(names, set(self.token.env) | {"HOME", "PATH", "LANG", "LC_ALL", "TZ"})
        self.assertNotIn(self.token.pin, hsm.log())

    # -- the wrong thing

    def test_a_token_that_is_not_there_is_named(self):
        hsm = self.hsmd(uri="pkcs11:token=other", wait=False)
        self.assertEqual(hsm.wait_died(epoch=1)["status"], "noToken")

    def test_a_file_that_is_no_module_is_named(self):
        for path in ("/nonexistent.so", "/etc/passwd", str(tokens.not_a_module())):
            with self.subTest(path):
                hsm = self.hsmd(module=path, profile="custom", wait=False)
                self.assertEqual(hsm.wait_died(epoch=1)["status"], "noModule")


class SoftHsm(Modes, unittest.TestCase):
    token_class = tokens.SoftHsm

    def test_a_token_taken_away_is_named_and_one_put_back_works_again_by_itself(self):
        hsm = self.hsmd(operator=True)
        self.made(hsm, "x25519")
        hsm.close()
        hsm = self.hsmd()
        key = next(each for each in hsm.keys() if each["kind"] == "x25519")
        epoch = hsm.epoch
        self.token.take_away()
        try:
            status = hsm.status_of("derive", key=key["index"], slot=1, peer=public_of(os.urandom(32)))
            self.assertIn(status, ("deviceRemoved", "noToken", "moduleFailed"))
        except WorkerGone:
            pass
        died = hsm.wait_died(epoch=epoch + 1)
        self.assertIn(died["status"], ("noToken", "deviceRemoved", "noModule"))
        self.token.put_back()
        hsm.wait_up(after=epoch, timeout=60)
        self.assertEqual(hsm.login_status, "ok")
        again = next(each for each in hsm.keys() if each["kind"] == "x25519")
        self.assertEqual(again["publicKey"], key["publicKey"])
        self.assert_known_answers(hsm, again, [os.urandom(32) for _ in range(8)])


class Nss(Modes, unittest.TestCase):
    token_class = tokens.Nss

    def test_a_copy_in_the_session_gives_the_same_answers(self):
        hsm = self.hsmd(operator=True)
        self.made(hsm, "x25519")
        hsm.close()
        hsm = self.hsmd(session_copy=True)
        key = next(each for each in hsm.keys() if each["kind"] == "x25519")
        self.assert_known_answers(hsm, key, [os.urandom(32) for _ in range(64)])


    def test_a_database_that_is_moved_away_is_a_token_taken_away(self):
        """Though softoken keeps it open, and would serve on."""
        hsm = self.hsmd(operator=True)
        self.made(hsm, "x25519")
        hsm.close()
        for verb in ("ping", "derive"):
            with self.subTest(verb):
                hsm = self.hsmd()
                key = next(each for each in hsm.keys() if each["kind"] == "x25519")
                epoch = hsm.epoch
                self.token.take_away()
                values = {"key": key["index"], "slot": 1, "peer": public_of(os.urandom(32))} if verb == "derive" else {}
                self.assertEqual(hsm.status_of(verb, **values), "deviceRemoved")
                self.assertEqual(hsm.wait_died(epoch)["status"], "deviceRemoved")
                self.assertIn(hsm.wait_died(epoch + 1)["status"], ("noToken", "noModule"))
                self.token.put_back()
                hsm.wait_up(after=epoch, timeout=60)
                key = next(each for each in hsm.keys() if each["kind"] == "x25519")
                self.assert_known_answers(hsm, key, [os.urandom(32) for _ in range(8)])
                self.assertEqual(hsm.ask("ping") is not None and hsm.denials[0], 0, f"last: {hsm.denials[1]}")
                hsm.close()


class Mock(Modes, unittest.TestCase):
    token_class = tokens.Mock

    def test_breaks_no_rule_of_the_standard(self):
        hsm = self.hsmd(operator=True)
        key = self.made(hsm, "x25519")
        hsm.close()
        hsm = self.hsmd(workers=3)
        key = next(each for each in hsm.keys() if each["kind"] == "x25519")
        self.assert_known_answers(hsm, key, [os.urandom(32) for _ in range(ANSWERS)])
        self.assertEqual({name: n for name, n in self.token.counters().items() if name.startswith("violation:")}, {})


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
