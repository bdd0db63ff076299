#!/usr/bin/python3
"""Goal: any process of an hsmd may die or be stopped. What is called hsmd is replaced, all of it at once, and handshakes resume by
themselves; a worker that floods its keeper is ended for that by name; if the launcher itself is killed, nothing is left behind, and
status and log say that only a restart of vaultd helps.
Method: real processes, killed one by one: hsmd by itself in frames, then behind a vault.
"""

import contextlib
import os
import pathlib
import signal
import sys
import time
import unittest

import nacl.bindings as sodium

import tokens
from harness import SystemTest, ct, is_alive, process_stat, processes_of_session, wait_until
from hsmd_client import Hsmd

RESUME_S = 40  # back-off included, on a loaded machine


def parent_name(pid):
    stat = process_stat(pid)
    above = stat and process_stat(stat[2])
    return above and above[0]


def has_filter(pid):
    try:
        return "\nSeccomp:\t2\n" in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def by_role(session):
    """{"launcher": pid, "keeper": pid, "worker": pid} of the one hsmd in this session, as far as they live. What is about to become a
    worker has the launcher's name for a moment, but no filter."""
    names = {"token-launcher": "launcher", "hsmd": "keeper", "hsmd-worker": "worker"}
    return {names[name]: pid for pid, name in processes_of_session(session).items()
            if name in names and (name == "token-launcher" and parent_name(pid) != name or has_filter(pid))}


def whole(session):
    return wait_until(lambda: len(by_role(session)) == 3 and by_role(session), 20, "hsmd is whole")


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), 10, "it is dead")


def send_each(pids, signum):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # the first one's end may be theirs
            os.kill(pid, signum)


class Alone(unittest.TestCase):
    def setUp(self):
        self.token = tokens.Mock()
        self.addCleanup(self.token.remove)
        with Hsmd(self.token, operator=True) as maker:
            self.public = maker.ask("generate", kind="x25519", id=b"\x01", label=b"key")["publicKey"]
        self.hsm = Hsmd(self.token)
        self.addCleanup(self.hsm.__exit__)

    def roles(self):
        return whole(self.hsm.keeper.pid)

    def assert_works(self):
        key = next(each for each in self.hsm.keys() if each["publicKey"] == self.public)
        secret = os.urandom(32)
        self.assertEqual(self.hsm.derive(key["index"], sodium.crypto_scalarmult_base(secret)),
                         sodium.crypto_scalarmult(secret, self.public))

    def test_a_keeper_that_dies_is_replaced_and_its_worker_with_it(self):
        logins = self.token.count("C_Login")
        for _ in range(3):
            before, epoch = self.roles(), self.hsm.epoch
            kill(before["keeper"])
            died = self.hsm.wait_died(epoch)
            self.assertEqual((died["epoch"], died["status"]), (epoch, "keeperDied"))
            self.hsm.wait_up(after=epoch)
            after = self.roles()
            self.assertEqual(after["launcher"], before["launcher"])
            self.assertNotEqual(after["keeper"], before["keeper"])
            self.assertFalse(is_alive(before["worker"]))
            self.assert_works()
        self.assertEqual(self.hsm.wait_layers()["seccomp"][0], "active")
        status = pathlib.Path(f"/proc/{self.roles()['keeper']}/status").read_text()
        self.assertRegex(status, r"(?m)^Seccomp:\s+2$", "the new keeper has no filter")
        self.assertRegex(status, r"(?m)^CapEff:\s+0+$")
        self.assertIn("its keeper was killed by SIGKILL", self.hsm.log())
        # By itself, and with the PIN that was right: nobody is asked for it, and no try is spent.
        self.assertGreater(self.token.count("C_Login"), logins)
        self.assertEqual(self.token.state()["tries"], "3")

    def test_a_keeper_that_dies_while_a_module_hangs_leaves_nothing_behind(self):
        before, epoch = self.roles(), self.hsm.epoch
        self.token.faults("C_DeriveKey hang")
        self.hsm.send("derive", key=0, slot=1, peer=sodium.crypto_scalarmult_base(os.urandom(32)))
        wait_until(lambda: self.token.count("C_DeriveKey") > 0, 20, "it hangs")
        self.token.faults("")
        kill(before["keeper"])
        self.hsm.wait_up(after=epoch)
        self.assertFalse(is_alive(before["worker"]))
        self.assert_works()

    def test_a_client_that_leaves_while_there_is_no_keeper_ends_it_all(self):
        session = self.hsm.keeper.pid
        for _ in range(4):  # so that the next one waits
            kill(wait_until(lambda: by_role(session).get("keeper"), 20, "a keeper"))
        self.hsm.close()
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")

    def test_without_its_launcher_nothing_lives_on(self):
        session = self.hsm.keeper.pid
        kill(self.roles()["launcher"])
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")
        wait_until(lambda: not self.hsm.pump(1), 15, "the client sees the end of its socket")

    def test_a_worker_that_floods_its_keeper_is_ended_by_name(self):
        epoch, pid = self.hsm.epoch, self.hsm.pid
        said = len(self.hsm.events)
        self.token.faults("C_DeriveKey times=1 babble=7")  # hsmd/settings.h: BIRTH_FD
        self.hsm.send("derive", key=0, slot=1, peer=sodium.crypto_scalarmult_base(os.urandom(32)))
        self.assertEqual(self.hsm.wait_died(epoch)["status"], "saidTooMuch")
        self.assertFalse(is_alive(pid))
        self.assertLess(len(self.hsm.events) - said, 32)
        self.hsm.wait_up(after=epoch)
        self.assert_works()


class BehindAVault(SystemTest):
    def setUp(self):
        self.token = tokens.Mock()
        self.addCleanup(self.token.remove)
        self.site_ = site = self.site("hsm")
        site.token("hsm", self.token, deadline_ms=1000)
        site.token_key("server", "hsm")
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo", key="server")
        self.soft_port = site.listen("soft", ["alice"], "echo", key="soft")
        site.start().wait_tokens()

    def works(self, port=None, key="server"):
        try:
            with self.site_.connect(port or self.port, self.alice, key=key, timeout=10) as session:
                session.send(b"x")
                return session.receive(10) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def roles(self):
        return whole(self.site_.up.pid)

    def test_handshakes_resume_by_themselves_after_the_keeper_is_killed(self):
        vault = self.site_.vault_status()["pid"]
        with self.site_.connect(self.port, self.alice, key="server") as session:
            for _ in range(3):
                kill(self.roles()["keeper"])
                wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
                self.assert_echo(session, b"a session that was there")
        self.assertEqual(self.site_.vault_status()["pid"], vault)
        self.assertIn("its keeper was killed by SIGKILL", self.site_.log())
        self.assertIn("watches over the module's died", self.site_.log())

    def hsmd(self):
        """All that is called so, as `pkill hsmd` finds it."""
        return [pid for pid, name in processes_of_session(self.site_.up.pid).items() if name.startswith("hsmd")]

    def test_handshakes_resume_by_themselves_after_all_that_is_called_hsmd_was_killed(self):
        vault = self.site_.vault_status()["pid"]
        with self.site_.connect(self.port, self.alice, key="server") as session:
            self.roles()
            killed = self.hsmd()
            self.assertEqual(len(killed), 2)
            send_each(killed, signal.SIGKILL)
            wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
            self.assert_echo(session, b"a session that was there")
        self.assertFalse(set(killed) & set(self.hsmd()))
        self.assertEqual(self.site_.vault_status()["pid"], vault)

    def test_handshakes_resume_by_themselves_after_all_that_is_called_hsmd_was_stopped(self):
        vault = self.site_.vault_status()["pid"]
        with self.site_.connect(self.port, self.alice, key="server") as session:
            self.roles()
            stopped = self.hsmd()
            send_each(stopped, signal.SIGSTOP)
            wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
            self.assert_echo(session, b"a session that was there")
        self.assertFalse(any(is_alive(pid) for pid in stopped))
        self.assertIn("its keeper was stopped, and is ended for that", self.site_.log())
        self.assertEqual(self.site_.vault_status()["pid"], vault)

    def test_its_launcher_stopped_as_well_is_refused_by_name_and_resumes(self):
        vault, before = self.site_.vault_status()["pid"], self.site_.drops()
        stopped = self.roles()
        self.assertEqual(set(stopped), {"launcher", "keeper", "worker"})
        for pid in stopped.values():
            os.kill(pid, signal.SIGSTOP)
        self.assertFalse(self.works())
        self.assertTrue(self.works(self.soft_port, "soft"), "another key suffers")
        shown = self.site_.cli("hsm", "status", check=False)
        self.assertEqual(shown.returncode, 1, "a token that answers nothing is shown as up")
        self.assertIn(b"is being ended: a call took too long", shown.stdout + shown.stderr)
        self.assertTrue(set(self.site_.drops_since(before)) & {"hsm_unavailable", "vault_unavailable"})
        os.kill(stopped["launcher"], signal.SIGCONT)  # which ends the others as they are
        wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
        self.assertFalse(is_alive(stopped["worker"]) or is_alive(stopped["keeper"]))
        self.assertEqual(self.site_.vault_status()["pid"], vault)

    def test_the_launchers_end_is_told_with_what_to_do_and_a_restart_mends_it(self):
        before = self.roles()
        kill(before["launcher"])
        wait_until(lambda: not any(is_alive(pid) for pid in before.values()), 15, "its processes end with it")

        def shown():
            return self.site_.cli("hsm", "status", check=False)
        wait_until(lambda: b"ended" in shown().stdout, 20, "status says ended")
        self.assertEqual(shown().returncode, 1)
        self.assertIn(b"restart vaultd", shown().stdout + shown().stderr)
        self.assertRegex(self.site_.log(), r"token hsm is ended: .*restart vaultd")
        time.sleep(3)
        self.assertFalse(self.works(), "nobody brings it back")
        self.assertTrue(self.works(self.soft_port, "soft"), "another key suffers")
        os.kill(self.site_.vault_status()["pid"], signal.SIGKILL)  # `up` starts it again
        wait_until(self.works, RESUME_S, "handshakes after a restart of vaultd", step=0.1)


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
