#!/usr/bin/python3
"""Goal: any process of an hsmd may die or be stopped, and all that run its programs at once: they are replaced, handshakes resume by
themselves, and the PIN is neither lost nor tried again; a worker that floods its keeper is ended for that by name; if those that start
the others are all killed, nothing is left behind, and status and log say that only a restart of vaultd helps.
Method: real processes, killed one by one: hsmd by itself in frames, then behind a vault.
"""

import contextlib
import os
import pathlib
import signal
import sys
import threading
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
    """{"guard": pid, "launcher": pid, "keeper": pid, "worker": pid} of the one hsmd in this session, as far as they live. What is about to
    become another one has its parent's name for a moment; a keeper and a worker have a filter."""
    names = {"token-guard": "guard", "token-launcher": "launcher", "hsmd": "keeper", "hsmd-worker": "worker"}
    return {names[name]: pid for pid, name in processes_of_session(session).items()
            if name in names and (name.startswith("token-") and parent_name(pid) != name or has_filter(pid))}


def whole(session, roles=4):
    return wait_until(lambda: len(by_role(session)) == roles and by_role(session), 20, "hsmd is whole")


def running(session):
    """All that run one of hsmd's two programs, as `kill -9` finds them: whatever comes from the guard. Only root sees of each which program
    it runs."""
    found, guard = [], by_role(session)["guard"]
    for pid in processes_of_session(session):
        above = process_stat(pid)
        while above and above[2] not in (0, guard):
            above = process_stat(above[2])
        if above and above[2] == guard:
            found.append(pid)
    if os.geteuid() == 0:
        programs = sorted(os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in found)
        assert programs == ["hsmd", "hsmd", "hsmd-worker"], programs
    return found


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
            self.assertEqual((after["guard"], after["launcher"]), (before["guard"], before["launcher"]))
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

    def assert_all_ends_without(self, role):
        """With a client that leaves while there is nobody in that role."""
        session = self.hsm.keeper.pid
        for _ in range(4):  # so that the next one waits
            kill(wait_until(lambda: by_role(session).get(role), 20, f"a {role}"))
        self.hsm.close()
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")

    def test_a_client_that_leaves_while_there_is_no_keeper_ends_it_all(self):
        self.assert_all_ends_without("keeper")

    def test_a_launcher_that_dies_is_replaced_and_all_that_it_had_with_it(self):
        # What is in the configuration now, nobody reads.
        (self.hsm.dir / "sallyport.toml").write_text("[token.hsm]\nmodule = 1\n")
        for _ in range(3):
            before, epoch = self.roles(), self.hsm.epoch
            kill(before["launcher"])
            died = self.hsm.wait_died(epoch)
            self.assertEqual((died["epoch"], died["status"]), (epoch, "keeperDied"))
            self.hsm.wait_up(after=epoch)
            after = self.roles()
            self.assertEqual(after["guard"], before["guard"])
            self.assertFalse(set(after.values()) & {before["launcher"], before["keeper"], before["worker"]})
            self.assertFalse(is_alive(before["keeper"]) or is_alive(before["worker"]))
            self.assert_works()
        self.assertEqual(self.hsm.wait_layers()["seccomp"][0], "active")
        for role in ("guard", "launcher", "keeper", "worker"):
            status = pathlib.Path(f"/proc/{self.roles()[role]}/status").read_text()
            self.assertRegex(status, r"(?m)^CapEff:\s+0+$", role)
            self.assertRegex(status, r"(?m)^NoNewPrivs:\s+1$", role)
        self.assertIn("its hsmd was killed by SIGKILL", self.hsm.log())
        self.assertEqual(self.token.state()["tries"], "3")

    def test_all_that_run_its_programs_may_be_killed_or_stopped_at_once(self):
        session = self.hsm.keeper.pid
        for signum in (signal.SIGKILL, signal.SIGSTOP):
            before, epoch = self.roles(), self.hsm.epoch
            found = running(session)
            self.assertEqual(len(found), 3)
            send_each(found, signum)
            self.hsm.wait_up(after=epoch)
            self.assertFalse(any(is_alive(pid) for pid in found))
            self.assertEqual(self.roles()["guard"], before["guard"])
            self.assert_works()
        self.assertIn("its hsmd was stopped", self.hsm.log())

    def test_a_client_that_leaves_while_there_is_no_launcher_ends_it_all(self):
        self.assert_all_ends_without("launcher")

    def test_without_its_guard_all_goes_on_and_ends_with_the_client(self):
        session, before, epoch = self.hsm.keeper.pid, self.roles(), self.hsm.epoch
        kill(before.pop("guard"))
        self.assert_works()
        self.assertEqual((whole(session, 3), self.hsm.epoch), (before, epoch))
        kill(before["keeper"])
        self.hsm.wait_up(after=epoch)
        self.assert_works()
        self.hsm.close()
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")

    def test_without_its_guard_and_its_launcher_nothing_lives_on(self):
        session, before = self.hsm.keeper.pid, self.roles()
        kill(before["guard"])
        kill(before["launcher"])
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")
        wait_until(lambda: not self.hsm.pump(1), 15, "the client sees the end of its socket")

    # -- the PIN

    def killed(self, hsm):
        """All at once; the one that comes up after."""
        epoch = hsm.epoch
        send_each(running(hsm.keeper.pid), signal.SIGKILL)
        return hsm.wait_up(after=epoch)

    def test_a_pin_that_was_given_outlives_them_all(self):
        with Hsmd(self.token, pin="ask") as hsm:
            self.assertEqual(hsm.log_in(self.token.pin), "ok")
            for _ in range(2):
                self.assertEqual(self.killed(hsm).login_status, "ok")
            self.assertEqual(hsm.keys()[0]["publicKey"], self.public)
        self.assertEqual(self.token.state()["tries"], "3")

    def test_a_pin_that_was_wrong_is_not_tried_again(self):
        self.token.set_pin_file("wrong")
        with Hsmd(self.token) as hsm:
            self.assertEqual(hsm.login_status, "pinWrong")
            logins = self.token.count("C_Login")
            self.token.set_pin_file(self.token.pin)  # which nobody reads
            self.assertEqual(self.killed(hsm).login_status, "pinWrong")
            self.assertEqual(self.token.count("C_Login"), logins)
            self.assertEqual(self.token.state()["tries"], "2")
            self.assertEqual(hsm.log_in(self.token.pin), "ok")

    def test_a_pin_that_was_being_tried_is_not_tried_again(self):
        logins = self.token.count("C_Login")
        self.token.faults("C_Login hang")
        with Hsmd(self.token, wait=False) as hsm:
            wait_until(lambda: self.token.count("C_Login") > logins, 20, "it hangs")
            self.token.faults("")
            self.assertEqual(self.killed(hsm).login_status, "notLoggedIn")
            self.assertEqual(self.token.count("C_Login"), logins + 1)

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

    def assert_replaced_under_load(self, signum):
        """All that run hsmd's programs, while handshakes ask for them all the time."""
        vault, before = self.site_.vault_status()["pid"], self.roles()
        found, stop, tried = running(self.site_.up.pid), threading.Event(), []

        def load():
            while not stop.is_set():
                tried.append(self.works())
        threads = [threading.Thread(target=load) for _ in range(3)]
        with self.site_.connect(self.port, self.alice, key="server") as session:
            for thread in threads:
                thread.start()
            try:
                wait_until(lambda: any(tried), 20, "handshakes are under way")
                self.assertEqual(set(found), {before["launcher"], before["keeper"], before["worker"]})
                send_each(found, signum)
                wait_until(lambda: not any(is_alive(pid) for pid in found), 20, "they are dead")
                wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            self.assert_echo(session, b"a session that was there")
        self.assertEqual((self.site_.vault_status()["pid"], self.roles()["guard"]), (vault, before["guard"]))
        self.assertTrue(self.works())
        self.assertEqual(self.token.state()["tries"], "3")

    def test_handshakes_resume_by_themselves_after_all_of_hsmd_was_killed(self):
        for _ in range(2):
            self.assert_replaced_under_load(signal.SIGKILL)
        self.assertIn("its hsmd was killed by SIGKILL: starting it again in 100 ms", self.site_.log())

    def test_handshakes_resume_by_themselves_after_all_of_hsmd_was_stopped(self):
        self.assert_replaced_under_load(signal.SIGSTOP)
        self.assertIn("its hsmd was stopped, and is ended for that", self.site_.log())

    def test_handshakes_resume_by_themselves_after_the_keeper_was_stopped(self):
        vault, keeper = self.site_.vault_status()["pid"], self.roles()["keeper"]
        os.kill(keeper, signal.SIGSTOP)
        wait_until(lambda: not is_alive(keeper), 20, "it is ended")
        wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
        self.assertIn("its keeper was stopped, and is ended for that", self.site_.log())
        self.assertEqual(self.site_.vault_status()["pid"], vault)

    def test_its_guard_stopped_as_well_is_refused_by_name_and_resumes(self):
        vault, before = self.site_.vault_status()["pid"], self.site_.drops()
        stopped = self.roles()
        self.assertEqual(set(stopped), {"guard", "launcher", "keeper", "worker"})
        for role in ("guard", "launcher", "keeper", "worker"):
            os.kill(stopped[role], signal.SIGSTOP)
        self.assertFalse(self.works())
        self.assertTrue(self.works(self.soft_port, "soft"), "another key suffers")
        shown = self.site_.cli("hsm", "status", check=False)
        self.assertEqual(shown.returncode, 1, "a token that answers nothing is shown as up")
        self.assertIn(b"is being ended: a call took too long", shown.stdout + shown.stderr)
        self.assertTrue(set(self.site_.drops_since(before)) & {"hsm_unavailable", "vault_unavailable"})
        os.kill(stopped.pop("guard"), signal.SIGCONT)  # which ends the others as they are
        wait_until(self.works, RESUME_S, "handshakes resume", step=0.1)
        self.assertFalse(any(is_alive(pid) for pid in stopped.values()))
        self.assertEqual(self.site_.vault_status()["pid"], vault)

    def test_the_guards_end_changes_nothing_and_the_launchers_after_it_is_told_with_what_to_do(self):
        before, status = self.roles(), self.site_.vault_status()["pid"]
        kill(before.pop("guard"))
        self.assertTrue(self.works())
        self.assertEqual((whole(self.site_.up.pid, 3), self.site_.vault_status()["pid"]), (before, status))
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

    def test_nothing_outlives_the_vault_or_up(self):
        before = self.roles()
        kill(self.site_.vault_status()["pid"])  # `up` starts it again
        wait_until(lambda: not any(is_alive(pid) for pid in before.values()), 15, "they end with the vault")
        wait_until(self.works, RESUME_S, "handshakes after a restart of vaultd", step=0.1)
        session, before = self.site_.up.pid, self.roles()
        kill(session)
        wait_until(lambda: not processes_of_session(session), 15, "everything ended")
        self.assertFalse(any(is_alive(pid) for pid in before.values()))


class UnlockedByAnOperator(SystemTest):
    def test_the_pin_outlives_all_of_hsmd(self):
        token = tokens.Mock()
        self.addCleanup(token.remove)
        site = self.site("hsm-ask")
        site.token("hsm", token)
        site.token_key("server", "hsm")
        site.token("hsm", token, pin="ask")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo", key="server")
        site.start()

        def works():
            with contextlib.suppress(OSError, ct.Closed, ct.BadPeer, TimeoutError), site.connect(port, alice, timeout=10) as session:
                session.send(b"x")
                return session.receive(10) == b"x"
        self.assertFalse(works())
        site.cli("hsm", "unlock", "hsm", "--pin-file", str(token.pin_file))
        wait_until(works, RESUME_S, "handshakes after `hsm unlock`", step=0.1)
        found = running(site.up.pid)
        send_each(found, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in found), 20, "they are dead")
        wait_until(works, RESUME_S, "handshakes resume", step=0.1)
        self.assertEqual(token.state()["tries"], "3")


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
