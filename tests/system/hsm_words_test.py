#!/usr/bin/python3
"""Goal: every refusal of `sallyport hsm` says what it is about, by the function and its CKR_*, and ends with a next step: a module that
can't be loaded, doesn't initialise, hangs, crashes, computes wrong or lacks X25519; a PIN's file that can't be used; a token that has its
PIN already.
Method: the real command with our mock's faults and with SoftHSM behind it, without a terminal.
"""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import time
import unittest

import tokens
from harness import SystemTest, binary, processes_of_session, wait_until

COMMAND_S = 110  # a hang is told after a step's 15 s, on a loaded machine


class WordsTest(SystemTest):
    def site_of(self, token, **more):
        site = self.site("words")
        self.addCleanup(token.remove)
        site.token("hsm", token, **more)
        site.write_config()
        return site

    def mock(self, *faults, **more):
        """A site with such a mock behind `hsm`."""
        token = tokens.Mock()
        token.faults(*faults)
        site = self.site_of(token, **more)
        site.mock = token
        return site

    def hsm(self, site, *words, stdin=b""):
        return subprocess.run([binary("sallyport"), "hsm", *words, "-c", str(site.config)], input=stdin, capture_output=True,
                              timeout=COMMAND_S, start_new_session=True)

    def assert_fails(self, done, *parts):
        """With one line of error and one of what to do."""
        text = done.stderr.decode()
        self.assertEqual(done.returncode, 1, text)
        last = text.splitlines()[-2:]  # above them may be lines of hsmd's log
        self.assertRegex(last[0], r"^sallyport: error: ")
        self.assertRegex(last[1], r"^sallyport: hint: .")
        said = "\n".join(last)
        for part in parts:
            self.assertIn(part, said)
        return said

    def assert_refused(self, site, *parts, words=("probe", "hsm"), stdin=b""):
        return self.assert_fails(self.hsm(site, *words, stdin=stdin), *parts)


class Modules(WordsTest):
    """What can't be loaded, or doesn't initialise."""

    def test_what_can_not_be_loaded_is_told_in_the_loaders_words(self):
        site = self.mock()
        good = site.tokens["hsm"]
        text = site.dir / "text.so"
        text.write_text("no library\n" * 100)
        pipe = site.dir / "pipe.so"
        os.mkfifo(pipe)
        for module, words in ((text, "invalid ELF header"), ("/nonexistent.so", "cannot open shared object file"),
                              (pipe, "is no regular file"), ("/tmp", "is no regular file"),
                              (tokens.not_a_module(), "it has no C_GetFunctionList")):
            with self.subTest(module):
                site.tokens["hsm"] = {**good, "module": str(module)}
                site.write_config()
                for verb in (("probe", "hsm"), ("init-key", "key", "--token", "hsm")):
                    said = self.assert_refused(site, words, "`module` in [token.hsm]", words=verb)
                    self.assertNotIn("C_Initialize", said)

    def test_what_does_not_initialise_is_told_by_its_ckr(self):
        for error in ("CKR_GENERAL_ERROR", "CKR_HOST_MEMORY", "0x80000007"):
            name = error.replace("0x", "CKR 0x")
            self.assert_refused(self.mock(f"C_Initialize return={error}"), f"C_Initialize answered {name}", "`env`")

    def test_a_softhsm_without_its_configuration_or_tokens(self):
        token = tokens.SoftHsm()
        site = self.site_of(token, env={"SOFTHSM2_CONF": "/nonexistent"})
        self.assert_refused(site, "C_Initialize answered CKR_GENERAL_ERROR", "`env`")
        site.token("hsm", token)
        site.write_config()
        token.take_away()
        self.assert_refused(site, "C_Initialize answered CKR_GENERAL_ERROR", "hsmd's `user`")

    def test_a_running_vault_tells_the_same(self):
        site = self.mock("C_Initialize return=CKR_GENERAL_ERROR")
        alice = site.peer("alice")
        port = site.listen("soft", ["alice"], "echo", key="soft")
        site.start()
        with site.connect(port, alice, key="soft") as session:
            self.assert_echo(session)
        self.assert_refused(site, "C_Initialize answered CKR_GENERAL_ERROR", words=("status",))
        self.assertIn("C_Initialize answered CKR_GENERAL_ERROR", site.log())

    def test_a_token_that_can_not_be_read_is_told_by_its_ckr(self):
        self.assert_refused(self.mock("C_GetTokenInfo return=CKR_TOKEN_NOT_PRESENT"), "no token matches the URI",
                            "C_GetTokenInfo answered CKR_TOKEN_NOT_PRESENT", "`uri` in [token.hsm]")

    def test_a_crash_names_its_signal_and_call(self):
        self.assert_refused(self.mock("C_GetFunctionList segfault"), "killed by SIGSEGV in C_GetFunctionList")
        self.assert_refused(self.mock("C_Initialize exit=0"), "exited with status 0 in C_Initialize")


class Hangs(WordsTest):
    """A module that doesn't come back isn't one that crashed."""

    def together(self, *cases):
        """[(site, words)] at the same time: each waits its 15 s."""
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            return list(pool.map(lambda case: self.hsm(case[0], *case[1]), cases))

    def test_at_the_start_it_is_told_by_its_call_after_the_first(self):
        probe, init = ("probe", "hsm"), ("init-key", "key", "--token", "hsm")
        calls = ("C_Initialize", "C_GetSlotList", "C_OpenSession", "C_Login")
        done = self.together(*((self.mock(f"{call} hang"), words) for call in calls for words in (probe, init)))
        for at, finished in enumerate(done):
            call = calls[at // 2]
            said = self.assert_fails(finished, "the module doesn't come back", f"no end of {call} after 15 s", "deadline_ms")
            self.assertNotIn("crash", said)

    def test_in_the_login_that_an_operator_asked_for(self):
        site = self.mock("C_Login hang", pin="ask")
        pin = site.dir / "pin"
        pin.write_text(site.mock.pin)
        pin.chmod(0o600)
        self.assert_refused(site, "the module doesn't come back: no answer within 15 s to C_Login",
                            words=("probe", "hsm", "--pin-file", str(pin)))
        self.assertEqual(site.mock.count("C_Login"), 1)

    def test_in_a_trial_the_others_go_on(self):
        derives, makes = self.mock("C_DeriveKey hang"), self.mock("C_GenerateKeyPair hang")
        brings = self.mock("C_DeriveKey hang")
        done = self.together((derives, ("probe", "hsm")), (brings, ("init-key", "key", "--token", "hsm")),
                             (makes, ("init-key", "key", "--token", "hsm")))
        probed = done[0].stdout.decode()
        self.assertEqual(done[0].returncode, 0, done[0].stderr.decode())
        self.assertIn("the module doesn't come back from a trial: x25519 generate: montgomery, raw, in C_DeriveKey, ended after 15 s",
                      done[0].stderr.decode())
        self.assertRegex(probed, r"(?m)^x25519 generate: montgomery, raw +timed out +C_DeriveKey ")
        self.assertEqual(probed.count("timed out"), 1, "each spelling was waited for")
        self.assertRegex(probed, r"(?m)^mode   seal")
        self.assert_fails(done[1], "the module doesn't come back in C_DeriveKey (x25519 generate: montgomery, raw)")
        self.assert_fails(done[2], "the module doesn't come back in C_GenerateKeyPair (x25519 generate: montgomery, raw)")

    def test_keys_that_are_there_are_not_each_waited_for(self):
        site = self.mock()
        for name in ("one", "two", "three"):
            site.cli("hsm", "init-key", name, "--token", "hsm")
        site.mock.faults("C_DeriveKey hang")
        done = self.hsm(site, "init-key", "four", "--token", "hsm")
        self.assert_fails(done, "the module doesn't come back in C_DeriveKey")
        self.assertEqual(done.stderr.count(b"doesn't come back from a trial"), 1)

    def test_a_running_vault_says_so_too(self):
        site = self.mock("C_Initialize hang")
        site.peer("alice")
        site.listen("soft", ["alice"], "echo", key="soft")
        site.start(wait=False)
        wait_until(lambda: b"no end of C_Initialize after 15 s" in self.hsm(site, "status").stderr, 90, "status tells of the hang", step=1)
        self.assert_refused(site, "the module doesn't come back", words=("status",))


class Keys(WordsTest):
    """A token that makes no key, or takes none."""

    def assert_no_key(self, faults, *parts, verb="init-key"):
        site = self.mock(*faults)
        said = self.assert_refused(site, *parts, words=(verb, "key", "--token", "hsm"), stdin=b"11" * 32)
        self.assertFalse((site.dir / "keys" / "key.key").exists())
        self.assertNotIn("object", (site.mock.home / "token").read_text(), "it has left something in the token")
        return said

    def test_without_x25519_the_missing_mechanism_and_seal_are_named(self):
        without = "token without=CKM_ECDH1_DERIVE,CKM_EC_MONTGOMERY_KEY_PAIR_GEN"
        self.assert_no_key([without], "it makes no X25519 key", "C_GenerateKeyPair answered CKR_MECHANISM_INVALID",
                           "CKM_EC_MONTGOMERY_KEY_PAIR_GEN", "`sallyport hsm seal NAME --token hsm`")
        self.assert_no_key([without], "it takes no X25519 key", "answered CKR_", "`sallyport hsm seal NAME --token hsm`", verb="import")
        self.assert_no_key(["token without=CKM_ECDH1_DERIVE"], "C_DeriveKey answered CKR_MECHANISM_INVALID", "CKM_ECDH1_DERIVE")

    def test_wrong_and_zero_results_are_no_missing_mechanism(self):
        for fault in ("wrong", "zero"):
            said = self.assert_no_key([f"C_DeriveKey {fault}"], "gave a wrong result with a new key (x25519 generate: montgomery, raw)",
                                      "don't use this module for derives")
            self.assertNotIn("can't do it", said)

    def test_an_error_at_generating_is_told_by_its_ckr(self):
        for error in ("CKR_DEVICE_MEMORY", "CKR_GENERAL_ERROR"):
            self.assert_no_key([f"C_GenerateKeyPair return={error}"], f"C_GenerateKeyPair answered {error}")
        self.assert_no_key(["C_CreateObject return=CKR_DEVICE_MEMORY"], "C_CreateObject answered CKR_DEVICE_MEMORY", verb="import")

    def test_an_error_at_generating_the_key_that_is_to_stay(self):
        # The trials before it have worked.
        site = self.mock()
        before = site.mock.count("C_GenerateKeyPair")
        self.assertEqual(self.hsm(site, "probe", "hsm").returncode, 0)
        trials = site.mock.count("C_GenerateKeyPair") - before
        for fault, words in (("return=CKR_DEVICE_MEMORY", "the module reported an error: CKR_DEVICE_MEMORY"),
                             ("segfault", "it was killed by SIGSEGV in C_GenerateKeyPair")):
            site.mock.faults(f"C_GenerateKeyPair after={trials} times=1 {fault}  # {time.time_ns()}")
            self.assert_refused(site, words, words=("init-key", "key", "--token", "hsm"))

    def test_a_crash_at_generating_is_told(self):
        self.assert_no_key(["C_GenerateKeyPair segfault"], "the module crashes in C_GenerateKeyPair")

    def test_a_token_that_can_not_seal_says_why_for_each_cipher(self):
        site = self.mock("token without=CKM_AES_GCM,CKM_AES_KEY_GEN,CKM_RSA_PKCS_OAEP,CKM_RSA_PKCS_KEY_PAIR_GEN")
        site.key("server")
        self.assert_refused(site, "AES-GCM: CKR_MECHANISM_INVALID, RSA-OAEP: CKR_MECHANISM_INVALID",
                            words=("seal", "server", "--token", "hsm"))

    def test_the_probes_table_has_names(self):
        site = self.mock("token without=CKM_EDDSA,CKM_EC_EDWARDS_KEY_PAIR_GEN")
        done = self.hsm(site, "probe", "hsm")
        self.assertRegex(done.stdout.decode(), r"(?m)^ed25519 generate: oid +refused +C_GenerateKeyPair: CKR_MECHANISM_INVALID ")


class Pins(WordsTest):
    def spoilt(self, token):
        """Each way to spoil its PIN's file: (how, what is said of it)."""
        path, pin = token.pin_file, token.pin
        path.chmod(0o644)
        yield "mode", "others may read it, or it may be run: chmod 0400 it"
        path.chmod(0o400)
        if os.geteuid() == 0:
            os.chown(path, 4711, 4711)
            yield "owner", "it belongs neither to root nor to the token's user: chown it to root"
            os.chown(path, 0, 0)
        token.set_pin_file("")
        yield "empty", "it is empty"
        token.set_pin_file("1" * 65)
        yield "long", "it is longer than 64 bytes"
        path.unlink()
        yield "missing", "No such file or directory"
        real = token.dir / "real"
        real.write_text(pin)
        real.chmod(0o400)
        path.symlink_to(real)
        yield "link", "it is a symbolic link"
        path.unlink()
        os.mkfifo(path, 0o400)
        yield "pipe", "it is no regular file"

    def test_why_a_file_is_not_taken_is_told_by_every_command(self):
        site = self.mock()
        site.cli("hsm", "init-key", "server", "--token", "hsm")
        logins = site.mock.count("C_Login")
        for how, words in self.spoilt(site.mock):
            with self.subTest(how):
                parts = (f"the token waits for its PIN: {site.mock.pin_file}: {words}", "there is no terminal", "--pin-file FILE")
                self.assert_refused(site, *parts)
                site.start()
                self.assert_refused(site, "has no PIN: the token waits for its PIN", words, "`sallyport hsm unlock hsm`",
                                    words=("status",))
                site.stop_daemons()
        self.assertEqual(site.mock.count("C_Login"), logins)

    def test_what_a_login_answered_is_told(self):
        for error in ("CKR_GENERAL_ERROR", "CKR_DEVICE_MEMORY"):
            self.assert_refused(self.mock(f"C_Login return={error}"), f"C_Login answered {error}", "there is no terminal",
                                "--pin-file FILE")
        self.assert_refused(self.mock("C_Login return=CKR_PIN_EXPIRED"), "the token refused the PIN", "C_Login answered CKR_PIN_EXPIRED")
        self.assert_refused(self.mock("C_Login return=CKR_PIN_LOCKED"), "the token has locked its PIN", "security officer")
        site = self.mock("C_Login return=CKR_GENERAL_ERROR", pin="ask")
        pin = site.dir / "pin"
        pin.write_text(site.mock.pin)
        pin.chmod(0o600)
        self.assert_refused(site, "the module reported an error: CKR_GENERAL_ERROR", words=("probe", "hsm", "--pin-file", str(pin)))

    def test_the_configurations_descriptor_that_is_not_there(self):
        self.assert_refused(self.mock(pin="fd:9"), "descriptor 9: Bad file descriptor", "there is no terminal")

    def test_a_secret_and_a_pin_can_not_both_come_from_standard_input(self):
        site = self.mock(pin="ask")
        self.assert_refused(site, "standard input", words=("import", "key", "--token", "hsm", "--pin-fd", "0"), stdin=b"11" * 32)


class Unlock(WordsTest):
    def started(self, **more):
        site = self.mock(**more)
        site.cli("hsm", "init-key", "server", "--token", "hsm", *(["--pin-file", self.pin(site)] if more else []))
        site.start()
        return site

    def pin(self, site, text=None):
        path = site.dir / "given-pin"
        path.write_text(text or site.mock.pin)
        path.chmod(0o600)
        return str(path)

    def test_a_token_that_is_up_says_that_no_pin_was_tried(self):
        site = self.started()
        wait_until(lambda: self.hsm(site, "status").returncode == 0, 30, "the token is up")
        logins = site.mock.count("C_Login")
        done = self.hsm(site, "unlock", "hsm", "--pin-file", self.pin(site, "wrong"))
        self.assertEqual((done.returncode, done.stderr), (0, b"sallyport: token hsm is unlocked already; no PIN was tried\n"))
        self.assertEqual((site.mock.count("C_Login"), site.mock.state()["tries"]), (logins, "3"))

    def test_one_that_waits_takes_it_and_refuses_a_wrong_one_by_name(self):
        site = self.started(pin="ask")
        self.assert_refused(site, "the token refused the PIN", words=("unlock", "hsm", "--pin-file", self.pin(site, "wrong")))
        done = self.hsm(site, "unlock", "hsm", "--pin-file", self.pin(site))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"has its PIN", done.stderr)

    def test_one_whose_hsmd_has_ended_is_not_called_removed(self):
        site = self.started()
        for pid, name in processes_of_session(site.up.pid).items():
            if name.startswith("token-"):  # what starts hsmd
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        wait_until(lambda: b" ended " in self.hsm(site, "status").stdout, 30, "it has ended")
        said = self.assert_refused(site, "its hsmd has ended", "restart vaultd", words=("unlock", "hsm", "--pin-file", self.pin(site)))
        self.assertNotIn("removed", said)

    def test_a_token_that_the_vault_does_not_have(self):
        site = self.started()
        self.assert_refused(site, "not started with a token `other`", words=("unlock", "other", "--pin-file", self.pin(site)))
        site.stop_daemons()
        for words in (("status",), ("unlock", "hsm", "--pin-file", self.pin(site))):
            self.assert_refused(site, "the vault ", words=words)


class Seal(WordsTest):
    def test_a_second_slot_of_the_same_token_is_refused_by_name(self):
        site = self.mock()
        site.key("server")
        site.cli("hsm", "seal", "server", "--token", "hsm")
        path = site.dir / "keys" / "server.key"
        before = path.read_text()
        self.assert_refused(site, "`server` is sealed by token hsm already, in slot 1", "sallyport key slot remove server 1",
                            words=("seal", "server", "--token", "hsm"))
        self.assertEqual(path.read_text(), before)
        # What the hint says works, with another way in.
        site.cli("key", "slot", "add", "server", "recovery")
        site.cli("key", "slot", "remove", "server", "1", "--token", "hsm")
        self.assertNotIn(" token ", path.read_text())


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
