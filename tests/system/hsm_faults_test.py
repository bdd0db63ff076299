#!/usr/bin/python3
"""Goal: whatever a PKCS#11 module does, hsmd answers with a named refusal or restarts it, loses no key, spends no try of the PIN, and
works again by itself when the module does.
Method: our mock module with its faults changed while it runs, behind a real hsmd with the sandbox on.

lint: size: a short test for each fault, and one fixture under all of them
"""

import os
import pathlib
import signal
import struct
import time
import unittest

import nacl.bindings as sodium

import tokens
from harness import SANITIZED, is_alive, processes_of_session, wait_until
from hsmd_client import REQUEST_BYTES, STATUSES, Hsmd, Refused, WorkerGone

# What the standard lets C_DeriveKey answer, and what real modules do.
DERIVE_ERRORS = ["CKR_HOST_MEMORY", "CKR_GENERAL_ERROR", "CKR_FUNCTION_FAILED", "CKR_ARGUMENTS_BAD", "CKR_ATTRIBUTE_READ_ONLY",
                 "CKR_ATTRIBUTE_TYPE_INVALID", "CKR_ATTRIBUTE_VALUE_INVALID", "CKR_CRYPTOKI_NOT_INITIALIZED",
                 "CKR_DEVICE_MEMORY", "CKR_DOMAIN_PARAMS_INVALID", "CKR_FUNCTION_CANCELED", "CKR_KEY_HANDLE_INVALID",
                 "CKR_KEY_SIZE_RANGE", "CKR_KEY_TYPE_INCONSISTENT", "CKR_MECHANISM_INVALID", "CKR_MECHANISM_PARAM_INVALID",
                 "CKR_OBJECT_HANDLE_INVALID", "CKR_OPERATION_ACTIVE", "CKR_PIN_EXPIRED", "CKR_SESSION_CLOSED", "CKR_SESSION_COUNT",
                 "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_READ_ONLY", "CKR_TEMPLATE_INCOMPLETE", "CKR_TEMPLATE_INCONSISTENT",
                 "CKR_TOKEN_WRITE_PROTECTED", "CKR_USER_NOT_LOGGED_IN", "CKR_FUNCTION_REJECTED", "0x80000001", "0x1234"]
GONE_ERRORS = ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_TOKEN_NOT_PRESENT", "CKR_TOKEN_NOT_RECOGNIZED"]
# A new login and newly found keys mend these, so one of them is not even noticed.
MENDED_ERRORS = ["CKR_OBJECT_HANDLE_INVALID", "CKR_SESSION_HANDLE_INVALID", "CKR_SESSION_CLOSED", "CKR_USER_NOT_LOGGED_IN"]
START_FUNCTIONS = ["C_GetFunctionList", "C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_Login",
                   "C_FindObjectsInit", "C_FindObjects"]
FORBIDDEN = ["socket-inet", "socket-unix", "connect-inet", "open-passwd", "open-self-mem", "create-tmp", "fork", "exec",
             "ptrace-parent", "kill-parent", "code-in-memory", "io-uring", "bpf", "unshare-user"]
# What a profile lets a taken-over module do after all: those for cards and for the network need sockets.
ALLOWED = {"softhsm": set(), "nss": set(), "custom": set(), "pcscd": {"socket-unix"},
           "network": {"socket-unix", "socket-inet", "connect-inet", "open-passwd"}}  # and what resolving a name reads


def peer():
    return sodium.crypto_scalarmult_base(os.urandom(32))


class Faults(unittest.TestCase):
    def setUp(self):
        self.token = tokens.Mock()
        self.addCleanup(self.token.remove)

    def hsmd(self, **options):
        hsm = Hsmd(self.token, **options)
        self.addCleanup(hsm.__exit__)
        return hsm

    def with_key(self, kind="x25519", **options):
        """An hsmd as vaultd runs it, and a key in its token."""
        with Hsmd(self.token, operator=True) as maker:
            made = maker.ask("generate", kind=kind, id=b"\x01", label=b"key")
        hsm = self.hsmd(**options)
        self.key = next(each for each in hsm.keys() if each["id"] == b"\x01" and each["kind"] == kind)
        self.assertEqual(self.key["publicKey"], made["publicKey"])
        return hsm

    def answer(self, hsm, secret=None):
        """"ok", a refusal's status, or "gone"."""
        secret = secret or os.urandom(32)
        try:
            shared = hsm.derive(self.key["index"], sodium.crypto_scalarmult_base(secret))
        except Refused as refused:
            self.assertIn(refused.status, STATUSES)
            return refused.status
        except WorkerGone:
            return "gone"
        self.assertEqual(shared, sodium.crypto_scalarmult(secret, self.key["publicKey"]), "a wrong result got through")
        return "ok"

    def assert_works(self, hsm):
        self.assertEqual(self.answer(hsm), "ok")

    def assert_pin_untouched(self):
        self.assertEqual(self.token.state()["tries"], "3")

    # -- errors by name

    def test_every_error_of_a_derive_is_a_refusal_and_passes(self):
        hsm = self.with_key()
        for error in DERIVE_ERRORS:
            with self.subTest(error):
                self.token.faults(f"C_DeriveKey return={error}")
                epoch = hsm.epoch
                self.assertNotIn(self.answer(hsm), ("ok", "gone"))
                self.token.faults("")
                self.assert_works(hsm)
                self.assertEqual(hsm.epoch, epoch, "a refusal is no reason for a new process")
        self.assert_pin_untouched()

    def test_a_lost_session_login_or_handle_is_mended_unseen(self):
        hsm = self.with_key()
        for error in MENDED_ERRORS:
            with self.subTest(error):
                self.token.faults(f"C_DeriveKey times=1 return={error}")
                self.assert_works(hsm)
        self.token.faults("C_DeriveKey after=3 times=1 lose-sessions")
        for _ in range(8):
            self.assert_works(hsm)
        self.assertGreaterEqual(hsm.ask("ping")["recoveries"], 2)
        self.assert_pin_untouched()

    def test_a_session_that_is_always_lost_is_a_refusal_and_not_a_loop(self):
        hsm = self.with_key()
        before = self.token.count("C_DeriveKey")
        self.token.faults("C_DeriveKey lose-sessions")
        self.assertNotIn(self.answer(hsm), ("ok", "gone"))
        self.assertLess(self.token.count("C_DeriveKey") - before, 20)
        self.token.faults("")
        wait_until(lambda: self.answer(hsm) == "ok", 30, "it works again")
        self.assert_pin_untouched()

    def test_a_removed_device_is_named_and_comes_back_by_itself(self):
        for error in GONE_ERRORS:
            with self.subTest(error):
                token, self.token = self.token, tokens.Mock()
                self.addCleanup(token.remove)
                hsm = self.with_key()
                epoch = hsm.epoch
                self.token.faults(f"C_DeriveKey times=2 return={error}")
                self.assertIn(self.answer(hsm), ("deviceRemoved", "gone"))
                self.assertEqual(hsm.wait_died(epoch)["status"], "deviceRemoved")
                hsm.wait_up(after=epoch)
                self.assert_works(hsm)

    def test_a_token_pulled_under_load_refuses_until_it_is_back(self):
        hsm = self.with_key()
        asked = [hsm.send("derive", key=self.key["index"], slot=slot, peer=peer()) for slot in range(32)]
        epoch = hsm.epoch
        self.token.faults("token removed=1")
        for identifier in asked:
            try:
                hsm.receive(identifier)
            except Refused as refused:
                self.assertIn(refused.status, ("deviceRemoved", "moduleFailed"))
            except WorkerGone:
                break
        self.answer(hsm)
        self.assertIn(hsm.wait_died(epoch)["status"], ("deviceRemoved", "noToken"))
        self.assertEqual(hsm.wait_died(epoch + 1)["status"], "noToken", "the next one doesn't find it")
        self.token.faults("")
        hsm.wait_up(after=epoch + 1, timeout=60)
        self.assert_works(hsm)
        self.assert_pin_untouched()

    def test_an_error_at_any_point_of_the_start_is_named_and_passes(self):
        self.with_key().close()
        for function in START_FUNCTIONS:
            with self.subTest(function):
                self.token.faults(f"{function} return=CKR_GENERAL_ERROR")
                hsm = self.hsmd(wait=False)
                hsm.wait(lambda: hsm.events, 20, f"{function}: an event")
                name, event = hsm.events[0]
                self.assertIn(name, ("died", "up"))
                self.assertNotEqual(event["status" if name == "died" else "login"], "ok")
                self.token.faults("")
                hsm.wait(lambda: hsm.alive or hsm.events, 1, "")
                hsm.wait_up(timeout=40)
                if hsm.login_status != "ok":  # the PIN isn't tried again by itself, whatever the token had to say to it
                    self.assertEqual(hsm.log_in(self.token.pin), "ok")
                self.key = next(each for each in hsm.keys() if each["id"] == b"\x01" and each["kind"] == "x25519")
                self.assert_works(hsm)
                hsm.close()
        self.assert_pin_untouched()

    # -- wrong results

    def test_a_wrong_result_at_the_start_proves_no_key(self):
        self.with_key().close()
        for fault in ("wrong", "zero"):
            with self.subTest(fault):
                self.token.faults(f"C_DeriveKey {fault}")
                with Hsmd(self.token) as hsm:
                    key = next(each for each in hsm.keys() if each["id"] == b"\x01" and each["kind"] in ("x25519", "other"))
                    self.assertEqual(key["proof"], "badResult")
                    status = hsm.status_of("derive", key=key["index"], slot=3, peer=peer())
                    self.assertIn(status, ("badResult", "unsupported"))
                    self.assertEqual(hsm.get(3), bytes(32))

    def test_an_all_zero_result_never_comes_out(self):
        hsm = self.with_key()
        self.token.faults("C_DeriveKey zero")
        self.assertEqual(hsm.status_of("derive", key=self.key["index"], slot=5, peer=peer()), "badResult")
        self.assertEqual(hsm.get(5), bytes(32))
        self.token.faults("")
        self.assert_works(hsm)

    def test_a_stripped_zero_byte_is_a_bad_result_and_never_another_secret(self):
        hsm = self.with_key()
        for end, position in (("first", 0), ("last", -1)):
            with self.subTest(end):
                self.token.faults(f"C_DeriveKey strip={end}")
                short, whole = (self.secret_whose(lambda result: (result[position] == 0) == zero) for zero in (True, False))
                self.assertEqual(hsm.status_of("derive", key=self.key["index"], slot=7,
                                               peer=sodium.crypto_scalarmult_base(short)), "badResult")
                self.assertEqual(hsm.get(7), bytes(32))
                self.assertEqual(self.answer(hsm, whole), "ok")

    def secret_whose(self, result_fits):
        """Of a peer."""
        while True:
            secret = os.urandom(32)
            if result_fits(sodium.crypto_scalarmult(secret, self.key["publicKey"])):
                return secret

    def test_lengths_beyond_the_buffer_are_refusals(self):
        for kind, algorithm, faults in (("x25519", None, ["C_GetAttributeValue length=33", "C_GetAttributeValue length=100000000",
                                                          "C_GetAttributeValue length=0xffffffffffffffff"]),
                                        ("aes", "aes-gcm", ["C_Decrypt length=33", "C_Decrypt length=0xffffffffffff"]),
                                        ("rsa", "rsa-oaep-sha1", ["C_Decrypt length=4096"])):
            token, self.token = self.token, tokens.Mock()
            self.addCleanup(token.remove)
            hsm = self.with_key(kind)
            blob = hsm.wrap(self.key["index"], bytes(range(32)), algorithm) if algorithm else None
            for fault in faults:
                with self.subTest(fault):
                    self.token.faults(fault)
                    epoch = hsm.epoch
                    if algorithm:
                        status = hsm.status_of("unwrap", key=self.key["index"], slot=1, algorithm=algorithm, bound=bytes(32), blob=blob)
                    else:
                        status = hsm.status_of("derive", key=self.key["index"], slot=1, peer=peer())
                    self.assertIn(status, ("badResult", "moduleFailed", "blobRejected"))
                    self.assertEqual(hsm.get(1, 64), bytes(64))
                    self.token.faults("")
                    self.assertEqual(hsm.ask("ping") is not None and hsm.epoch, epoch, "no crash")
            if algorithm:
                self.assertEqual(hsm.unwrap(self.key["index"], blob, algorithm), bytes(range(32)))

    def test_a_signature_or_blob_longer_than_its_buffer_is_a_refusal(self):
        hsm = self.with_key("ed25519")
        self.token.faults("C_Sign length=65")
        self.assertIn(hsm.status_of("sign", key=self.key["index"], messageBytes=10), ("badResult", "moduleFailed"))
        self.token.faults("C_Sign length=63")
        self.assertIn(hsm.status_of("sign", key=self.key["index"], messageBytes=10), ("badResult", "moduleFailed"))
        self.token.faults("")
        self.assertEqual(len(hsm.sign(self.key["index"], b"text")), 64)

    def test_counts_beyond_their_lists_at_the_start_are_survived(self):
        self.with_key().close()
        for fault in ("C_GetSlotList length=100000000", "C_FindObjects length=100000000", "C_GetAttributeValue length=100000000",
                      "C_GetMechanismList length=100000000"):
            with self.subTest(fault):
                self.token.faults(fault)
                hsm = self.hsmd(wait=False)
                hsm.wait(lambda: hsm.events, 20, "an event")
                if hsm.events[0][0] == "died":
                    self.assertFalse(os.WIFSIGNALED(hsm.events[0][1]["waitStatus"]), "it crashed")
                    self.assertNotEqual(hsm.events[0][1]["status"], "ok")
                else:
                    self.assertIsNotNone(hsm.keys())
                hsm.close()

    def test_random_that_is_no_random_is_passed_on_and_mixed_by_the_vault(self):
        hsm = self.hsmd()
        self.token.faults("C_GenerateRandom return=CKR_RANDOM_NO_RNG")
        self.assertIn(hsm.status_of("random", slot=0, bytes=32), ("moduleFailed", "unsupported"))
        self.token.faults("C_GenerateRandom zero")
        self.assertIn(hsm.status_of("random", slot=0, bytes=32), ("ok", "badResult"))

    def test_an_operation_that_sticks_does_not_spoil_the_next(self):
        hsm = self.with_key("aes")
        blob = hsm.wrap(self.key["index"], bytes(range(32)), "aes-gcm")
        self.token.faults("token sticky_operations=1")
        for _ in range(3):
            status = hsm.status_of("unwrap", key=self.key["index"], slot=1, algorithm="aes-gcm", bound=b"\1" * 32, blob=blob)
            self.assertEqual(status, "blobRejected")
            self.assertEqual(hsm.unwrap(self.key["index"], blob, "aes-gcm"), bytes(range(32)))

    # -- sessions and time

    def test_sixteen_sessions_are_enough_and_too_few_is_named(self):
        self.token.faults("token max_sessions=16")
        hsm = self.with_key(workers=16, max_sessions=64)
        asked = [(hsm.send("derive", key=self.key["index"], slot=slot, peer=peer())) for slot in range(48)]
        for identifier in asked:
            hsm.receive(identifier)
        hsm.close()
        self.token.faults("C_OpenSession return=CKR_SESSION_COUNT")
        hsm = self.hsmd(wait=False)
        self.assertEqual(hsm.wait_died(epoch=1)["status"], "sessionLimit")
        self.token.faults("")
        hsm.wait_up(timeout=60)
        self.assert_works(hsm)

    def test_sessions_that_run_out_later_are_a_refusal(self):
        hsm = self.with_key()
        self.token.faults("C_DeriveKey times=2 lose-sessions", "C_OpenSession return=CKR_SESSION_COUNT")
        self.assertIn(self.answer(hsm), ("sessionLimit", "moduleFailed", "gone"))
        self.token.faults("")
        wait_until(lambda: self.answer(hsm) == "ok", 30, "it works again")
        self.assert_pin_untouched()

    def test_a_slow_token_answers_late_and_others_at_once(self):
        hsm = self.with_key()
        self.token.faults("C_DeriveKey latency=700")
        began = time.monotonic()
        asked = hsm.send("derive", key=self.key["index"], slot=1, peer=peer())
        hsm.ask("hello")
        self.assertNotIn(asked, hsm.replies, "said hello behind a slow derive")
        hsm.receive(asked)
        self.assertGreaterEqual(time.monotonic() - began, 0.7)

    def test_a_hang_ends_with_the_kill_that_the_vault_sends(self):
        hsm = self.with_key()
        epoch = hsm.epoch
        before = self.token.count("C_DeriveKey")
        self.token.faults("C_DeriveKey times=1 hang")
        identifier = hsm.send("derive", key=self.key["index"], slot=1, peer=peer())
        wait_until(lambda: self.token.count("C_DeriveKey") > before, 20, "it hangs")
        hsm.kill("deadline")
        self.assertRaises(WorkerGone, hsm.receive, identifier)
        died = hsm.wait_died(epoch)
        self.assertTrue(os.WIFSIGNALED(died["waitStatus"]))
        self.assertEqual(os.WTERMSIG(died["waitStatus"]), signal.SIGKILL)
        hsm.wait_up(after=epoch)
        self.assert_works(hsm)

    # -- the end of the process

    def test_a_crash_is_told_and_followed_by_a_new_worker(self):
        hsm = self.with_key()
        for fault, how in (("segfault", signal.SIGSEGV), ("abort", signal.SIGABRT), ("exit=7", None)):
            with self.subTest(fault):
                epoch = hsm.epoch
                self.token.faults(f"C_DeriveKey times=1 {fault}")
                self.assertEqual(self.answer(hsm), "gone")
                died = hsm.wait_died(epoch)
                if not SANITIZED and how:
                    self.assertEqual(os.WTERMSIG(died["waitStatus"]), how)
                hsm.wait_up(after=epoch)
                self.assert_works(hsm)
        self.assert_pin_untouched()

    def test_kill_9_with_many_derives_under_way_loses_none_in_silence(self):
        hsm = self.with_key()
        self.token.faults("C_DeriveKey latency=20")
        epoch = hsm.epoch
        asked = [hsm.send("derive", key=self.key["index"], slot=slot, peer=peer()) for slot in range(16)]
        hsm.receive(asked[0])
        os.kill(hsm.pid, signal.SIGKILL)
        gone = 0
        for identifier in asked[1:]:
            try:
                hsm.receive(identifier)
            except WorkerGone:
                gone += 1
        self.assertGreater(gone, 0)
        hsm.wait_up(after=epoch)
        # What the next worker found in the socket was meant for the one before: it answers so, and touches no token.
        self.token.faults("")
        self.assert_works(hsm)
        for identifier in asked[1:]:
            if identifier in hsm.replies:
                self.assertEqual(hsm.replies[identifier][0], "staleEpoch")

    def test_a_module_that_dies_at_its_start_is_tried_ever_more_rarely(self):
        self.with_key().close()
        for where in ("dlopen", "C_Initialize"):
            with self.subTest(where):
                self.token.faults(f"{where} segfault")
                hsm = self.hsmd(wait=False)
                hsm.wait(lambda: len([1 for name, _ in hsm.events if name == "died"]) >= 3, 40, "three deaths")
                delays = [event["restartInMs"] for name, event in hsm.events if name == "died"]
                self.assertEqual(delays, sorted(delays))
                self.assertGreater(delays[2], delays[0])
                self.token.faults("")
                hsm.wait_up(timeout=60)
                self.assert_works(hsm)
                hsm.close()
        self.assert_pin_untouched()

    def test_a_module_that_dies_in_its_login_is_not_given_the_pin_again(self):
        self.with_key().close()
        logins = self.token.count("C_Login")
        self.token.faults("C_Login segfault")
        hsm = self.hsmd()
        self.assertNotEqual(hsm.login_status, "ok")
        self.assertLessEqual(self.token.count("C_Login"), logins + 1)
        self.token.faults("")
        self.assertEqual(hsm.log_in(self.token.pin), "ok")
        self.assert_works(hsm)
        self.assert_pin_untouched()

    def test_a_list_of_functions_that_is_none_is_no_module(self):
        for fault in ("C_GetFunctionList null", "C_GetFunctionList holes", "C_GetFunctionList return=CKR_HOST_MEMORY"):
            with self.subTest(fault):
                self.token.faults(fault)
                hsm = self.hsmd(wait=False)
                died = hsm.wait_died(epoch=1)
                self.assertEqual(died["status"], "noModule")
                self.assertFalse(os.WIFSIGNALED(died["waitStatus"]))
                hsm.close()

    # -- threads, children, and what isn't allowed

    def test_threads_of_the_module_are_locked_in_too(self):
        self.with_key().close()
        self.token.faults("C_Initialize threads=2")
        hsm = self.hsmd()
        self.assert_works(hsm)
        self.assertGreaterEqual(hsm.ask("ping")["threads"], 3)
        for task in pathlib.Path(f"/proc/{hsm.pid}/task").iterdir():
            status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            self.assertEqual((status["Seccomp"].strip(), status["NoNewPrivs"].strip()), ("2", "1"), f"thread {task.name} is free")

    def test_a_child_of_the_module_ends_with_its_worker_and_keeps_nothing_up(self):
        self.with_key().close()
        self.token.faults("C_Initialize fork")
        hsm = self.hsmd()
        self.assert_works(hsm)
        session, epoch = hsm.keeper.pid, hsm.epoch
        os.kill(hsm.pid, signal.SIGKILL)
        hsm.wait_up(after=epoch)
        self.assert_works(hsm)
        hsm.close()
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")

    def test_syslog_on_an_error_is_denied_counted_and_harmless(self):
        hsm = self.with_key(profile="softhsm")
        self.token.faults("C_DeriveKey times=1 syslog return=CKR_GENERAL_ERROR")
        self.assertEqual(self.answer(hsm), "moduleFailed")
        self.assert_works(hsm)
        hsm.ask("ping")
        hsm.wait(lambda: hsm.denials[0] > 0, 20, "the denial is told")
        self.assertIn(hsm.denials[1], ("socket", "connect", "sendto", "sendmsg"))

    def test_a_module_taken_over_reaches_nothing(self):
        for profile, allowed in ALLOWED.items():
            with self.subTest(profile):
                token, self.token = self.token, tokens.Mock()
                self.addCleanup(token.remove)
                hsm = self.with_key(profile=profile)
                self.token.faults("C_DeriveKey times=1 " + " ".join(f"syscall={name}" for name in FORBIDDEN))
                self.assert_works(hsm)
                counted = {name.split(":")[1]: name.split(":")[2] for name in self.token.counters() if name.startswith("syscall:")}
                print(f"\nprofile {profile}:", *(f"  {name}: {how}" for name, how in sorted(counted.items())), sep="\n")
                self.assertEqual(set(counted), set(FORBIDDEN))
                self.assertEqual({name for name, how in counted.items() if how == "ok"}, allowed)
                self.assertTrue(is_alive(hsm.pid))
                self.assert_works(hsm)
                hsm.wait(lambda: hsm.denials[0] > 0, 20, "the denials are told")

    def test_memory_that_grows_is_seen(self):
        hsm = self.with_key()
        before = hsm.ask("ping")["rssKiB"]
        self.token.faults("C_DeriveKey times=1 leak=8192")
        self.assert_works(hsm)
        self.assertGreaterEqual(hsm.ask("ping")["rssKiB"], before + 8192)

    # -- the PIN's last tries

    def set_tries(self, tries):
        path = self.token.home / "token"
        path.write_text("".join(f"tries {tries}\n" if line.startswith("tries ") else line + "\n"
                                for line in path.read_text().splitlines()))

    def test_few_tries_left_are_an_operators_and_the_last_one_his_force(self):
        self.with_key().close()
        logins = self.token.count("C_Login")
        for tries, status, without_force in ((2, "pinLowRefused", "ok"), (1, "pinFinalTryRefused", "pinFinalTryRefused"),
                                             (0, "pinLocked", "pinLocked")):
            with self.subTest(tries=tries):
                self.set_tries(tries)
                with Hsmd(self.token) as hsm:
                    self.assertEqual(hsm.login_status, status)
                    self.assertEqual(self.token.count("C_Login"), logins, "a try was spent without an operator")
                    self.assertEqual(hsm.log_in(self.token.pin), without_force)
                    if status == "pinFinalTryRefused":
                        self.assertEqual(self.token.count("C_Login"), logins)
                        self.assertEqual(hsm.log_in(self.token.pin, force=True), "ok")
                    if status == "pinLocked":
                        self.assertEqual(hsm.log_in(self.token.pin, force=True), "pinLocked")
                logins = self.token.count("C_Login")

    def test_an_operators_wrong_pin_costs_one_try(self):
        self.with_key().close()
        with Hsmd(self.token, pin="ask") as hsm:
            self.assertEqual(hsm.log_in("wrong"), "pinWrong")
            self.assertEqual(self.token.state()["tries"], "2")
            self.assertEqual(hsm.log_in(self.token.pin), "ok")
        self.assert_pin_untouched()

    # -- frames that are none

    def test_unreadable_frames_are_refused_and_change_nothing(self):
        hsm = self.with_key()
        good = b"SPHQ" + struct.pack(">IQB", hsm.epoch, 77, 9)
        for frame in (b"x", bytes(REQUEST_BYTES), b"SPHQ" + os.urandom(REQUEST_BYTES - 4), good, good.ljust(REQUEST_BYTES, b"\1"),
                      good.ljust(REQUEST_BYTES + 1, b"\0"), os.urandom(REQUEST_BYTES)):
            hsm.calls.send(frame)
        for _ in range(3):
            wait_until(lambda: self.answer(hsm) == "ok", 30, "it works")

    def test_unreadable_control_frames_are_ignored(self):
        hsm = self.with_key()
        for frame in (b"x", bytes(256), os.urandom(256), os.urandom(4096)):
            hsm.control.send(frame)
        self.assert_works(hsm)
        wait_until(lambda: hsm.log().count("unreadable control frame") == 4, 15, "the log tells")


if __name__ == "__main__":
    unittest.main()
