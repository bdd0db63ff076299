#!/usr/bin/python3
"""Goal: whatever state a token is in, keys that don't need it are served, and the operator is told what is so: by `hsm status`, its exit
status and its hint, and by a log in which nothing that was planned is called a fault.
Method: real daemons with the sandbox on, our mock as the token: it hangs, is away, is another token of the same label, waits for its PIN.
"""

import json
import os
import signal
import sys
import unittest

import tokens
from harness import SystemTest, ct, processes_of_session, wait_until

RESUME_S = 60  # a module that hangs is ended after 15 s, and the machine


class StatesTest(SystemTest):
    def setUp(self):
        self.token = tokens.Mock()
        self.addCleanup(self.token.remove)

    def make(self, **more):
        """A site whose key `server` lives in the token, whose key `sealed` the token opens, and whose key `soft` is its own."""
        site = self.site("states")
        site.token("hsm", self.token, **more)
        self.alice = site.peer("alice")
        site.token_key("server", "hsm")
        self.ports = {key: site.listen(key, ["alice"], "echo", key=key) for key in ("server", "sealed", "soft")}
        site.cli("hsm", "seal", "sealed", "--token", "hsm")
        return site

    def works(self, site, key="server"):
        try:
            with site.connect(self.ports[key], self.alice, key=key, timeout=10) as session:
                session.send(b"x")
                return session.receive(10) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def assert_resumes(self, site, what):
        for key in ("server", "sealed"):
            wait_until(lambda key=key: self.works(site, key), RESUME_S, f"handshakes with `{key}` {what}", step=0.1)

    def assert_refused_by_name(self, site):
        for key in ("server", "sealed"):
            before = site.drops()
            self.assertFalse(self.works(site, key), f"`{key}` without its token")
            self.assertEqual(set(site.drops_since(before)), {"hsm_unavailable"}, key)
        self.assertTrue(self.works(site, "soft"), "another key suffers")

    def status(self, site):
        """(exit status, standard output, standard error) of `hsm status`, which has to be one error and one hint if it is bad."""
        done = site.cli("hsm", "status", check=False)
        lines = done.stderr.decode().splitlines()
        if done.returncode:
            self.assertEqual([line.split(": ")[1] for line in lines], ["error", "hint"], lines)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def line_of(self, shown, key):
        return next(line for line in shown.splitlines() if line.split()[:1] == [key])

    def warnings(self, site):
        """What vaultd and hsmd have warned of, the soft key's open file left out."""
        return [line for line in site.log().splitlines() if ": warning: " in line and "soft.key" not in line]

    def pin_file(self, site):
        path = site.dir / "operators-pin"
        path.write_text(self.token.pin + "\n")
        path.chmod(0o600)
        return str(path)

    def test_a_module_that_hangs_keeps_nobody_elses_key_waiting(self):
        site = self.make()
        self.token.faults("C_Initialize hang")
        site.start()
        self.assertTrue(self.works(site, "soft"))
        code, shown, said = self.status(site)
        # The first process of the module hasn't been given up yet: nothing has waited for it.
        self.assertEqual(self.line_of(shown, "hsm").split()[1], "starting")
        self.assertEqual(code, 1)
        self.assertIn("token hsm is starting", said)
        self.assertIn("sallyport: hint: wait", said)
        self.assertRegex(self.line_of(shown, "sealed"), "locked: token hsm is starting")
        self.assert_refused_by_name(site)
        self.token.faults("")
        self.assert_resumes(site, "when the module comes back")
        self.assertEqual(self.status(site)[0], 0)

    def test_a_token_that_is_away_at_the_start_is_told_with_all_its_keys(self):
        site = self.make()
        self.token.faults("token removed=1")
        site.start()
        code, shown, said = self.status(site)
        self.assertEqual(code, 1)
        self.assertIn("token hsm is down: ", said)
        self.assertIn("plug it in", said)
        self.assertRegex(self.line_of(shown, "server"), "token hsm is down: ")
        self.assertRegex(self.line_of(shown, "sealed"), "locked: token hsm is down: ")
        self.assertRegex(site.cli("status").stdout.decode(), "key `sealed` is locked: token hsm is down: ")
        self.assert_refused_by_name(site)
        self.token.faults("")
        self.assert_resumes(site, "when the token is there")
        code, shown, _ = self.status(site)
        self.assertEqual(code, 0)
        self.assertEqual(self.line_of(shown, "sealed").split()[-1], "open")
        self.assertEqual(self.line_of(shown, "server").split()[-1], "proved")

    def test_another_token_of_the_same_name_is_told_by_the_keys_that_it_hasnt(self):
        site = self.make()
        other = tokens.Mock()
        self.addCleanup(other.remove)
        site.token("hsm", other)
        site.start()
        wait_until(lambda: "token hsm is up" in site.log(), 30, "the token is up")
        self.assert_refused_by_name(site)
        code, shown, said = self.status(site)
        self.assertEqual(code, 1)
        self.assertRegex(said, "key (server|sealed) can't be used: ")
        self.assertIn("it has no such key", self.line_of(shown, "server"))
        self.assertIn("doesn't unwrap", self.line_of(shown, "sealed"))
        for key in json.loads(site.cli("status", "--json").stdout)["vaultd"]["tokens"][0]["keys"]:
            self.assertTrue(key["problem"] and key["hint"], key)
        warnings = "\n".join(self.warnings(site))
        self.assertEqual(warnings.count("key server can't be used: token hsm: it has no such key"), 1, warnings)
        self.assertIn("sallyport key rotate server", warnings)
        self.assertEqual(warnings.count("key sealed stays locked: token hsm doesn't unwrap"), 1, warnings)
        self.assertNotIn("token hsm is down", site.log())
        self.assertNotIn("started again", site.log())

    def test_a_new_version_is_found_without_a_false_alarm(self):
        site = self.make()
        site.start()
        self.assert_resumes(site, "at the start")
        before = self.warnings(site)
        site.cli("key", "rotate", "server")
        wait_until(lambda: "started again to find a key that is new" in site.log(), 30, "it says why the process ends")
        self.assert_resumes(site, "with the new version beside the old one")
        self.assertEqual(self.warnings(site), before)
        self.assertEqual(self.status(site)[0], 0)

    def test_a_pin_of_an_operators_is_no_fault_either(self):
        site = self.make()
        site.token("hsm", self.token, pin="ask")
        site.start()
        wait_until(lambda: "token hsm has no PIN: " in site.log(), 30, "it says that it waits for its PIN")
        code, _, said = self.status(site)
        self.assertEqual(code, 1)
        self.assertIn("token hsm has no PIN: ", said)
        self.assertIn("hint: `sallyport hsm unlock hsm`", said)
        before = self.warnings(site)
        site.cli("hsm", "unlock", "hsm", "--pin-file", self.pin_file(site))
        self.assert_resumes(site, "after `hsm unlock`")
        self.assertEqual(self.warnings(site), before)

    def test_an_unlock_doesnt_wait_for_the_next_try_and_an_absence_is_no_crash(self):
        site = self.make()
        self.token.faults("token removed=1")
        site.start()
        wait_until(lambda: "restart_ms=25600" in site.log(), 90, "it is looked for ever more rarely")
        self.token.faults("")
        site.cli("hsm", "unlock", "hsm", "--pin-file", self.pin_file(site))
        self.assertEqual(self.status(site)[0], 0)
        self.assertNotIn("restart_ms=30000", site.log(), "it was one more try later")
        worker = next(pid for pid, name in processes_of_session(site.up.pid).items() if name == "hsmd-worker")
        marker = len(site.log())
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: "restart_ms=" in site.log()[marker:], 30, "its end is told")
        self.assertIn("restart_ms=100\n", site.log()[marker:])
        self.assert_resumes(site, "after a crash")


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
