#!/usr/bin/python3
"""Goal: a start as a root that lacks some of root's rights serves, tells users apart, and says which layers it goes without; a start that
can't be locked down ends with what to do, and isn't tried again and again.
Method: `sallyport up` through setpriv and unshare, as containers do it. Needs root, to give rights up.
"""

import os
import pathlib
import socket
import subprocess
import unittest

import minicapnp
from harness import SystemTest, wait_until
from users import AS_NOBODY, NOBODY, SETPRIV, StartedBy, as_user, run_copies_of_the_programs

USER = 4321
# What Docker leaves to root; its filter isn't played here: many hosts run containers without one.
DOCKER = "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,audit_write,setfcap"


def bounded(capabilities):
    return (SETPRIV, "--inh-caps=-all", f"--bounding-set={capabilities}")


WITHOUT_NAMESPACES = bounded("-sys_admin,-sys_chroot")
IN_DOCKER = bounded("-all," + ",".join("+" + name for name in DOCKER.split(",")))
POWERLESS = bounded("-all")
ROOT_OF_A_NAMESPACE = (*AS_NOBODY, "/usr/bin/unshare", "-r")
WITHOUT_A_MAP = (*AS_NOBODY, "/usr/bin/unshare", "--user")


# Not in a chroot, nor where the kernel's settings forbid them.
with_user_namespaces = unittest.skipUnless(os.geteuid() == 0 and subprocess.run([*WITHOUT_A_MAP, "/bin/true"], capture_output=True,
                                                                                check=False).returncode == 0,
                                           "this user may make no user namespace here")


def uid_of(pid):
    return int(pathlib.Path(f"/proc/{pid}/status").read_text().split("\nUid:\t")[1].split()[0])


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class LesserRoot(SystemTest):
    @classmethod
    def setUpClass(cls):
        run_copies_of_the_programs(cls)

    def lesser_site(self, name, start):
        site = StartedBy(name, start)
        self._sites.append(site)
        self.addCleanup(site.stop)
        return site

    def serving(self, name, start, **top):
        """A site that has been started so, after a session through it."""
        site = self.lesser_site(name, start)
        site.top.update(top)
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.vault_sockets["side"] = {"name": "side", "path": "run/side.sock", "mode": "0666"}
        site.grant("user", socket="side", users=[USER], keys=["server"], verbs=["box"], peers=["*"])
        site.grant("root", users=[0], keys=["server"], verbs=["open"], peers=["*"])
        site.start()
        with site.connect(port, alice) as session:
            self.assert_echo(session)
        for layers in (site.vault_status()["sandbox"], *(w["sandbox"] for w in site.net_status()["workers"])):
            self.assertNotIn("failed", layers.values())
            self.assertEqual(layers["seccomp"], "active")
        return site

    def granted(self, site, uid, name, verb):
        def ask():
            with minicapnp.App(site.dir / "run" / name) as app:
                return app.key("server", [verb]).verbs
        return as_user(uid, [], ask)

    def assert_grants_mean_the_hosts_users(self, site):
        self.assertEqual(self.granted(site, USER, "side.sock", "box"), "['box']")
        self.assertEqual(self.granted(site, USER + 1, "side.sock", "box"), "notPermitted")
        self.assertEqual(self.granted(site, NOBODY, "side.sock", "box"), "notPermitted")
        self.assertEqual(self.granted(site, 0, "vault.sock", "open"), "['open']")

    def test_root_that_may_make_no_namespaces(self):
        for start in (WITHOUT_NAMESPACES, IN_DOCKER):
            with self.subTest(start=start):
                site = self.serving("rooted", start)
                vault = site.vault_status()
                self.assertEqual((vault["sandbox"]["user"], vault["sandbox"]["namespaces"]), ("active", "unavailable"))
                self.assertNotEqual(uid_of(vault["pid"]), 0)
                self.assertNotEqual(uid_of(vault["pid"]), uid_of(site.pids()["monitor"]))
                self.assert_grants_mean_the_hosts_users(site)
                site.stop()

    def test_root_without_a_single_right(self):
        site = self.serving("powerless", POWERLESS)
        vault = site.vault_status()
        self.assertEqual((vault["verdict"], vault["sandbox"]["user"]), ("degraded", "unavailable"))
        self.assertIn("uid 0, as started: without CAP_SETUID it can't become", site.cli("status").stdout.decode())
        self.assert_grants_mean_the_hosts_users(site)

    @with_user_namespaces
    def test_root_of_a_user_namespace_with_nobody_else(self):
        site = self.serving("namespace", ROOT_OF_A_NAMESPACE)
        self.assertEqual(site.vault_status()["sandbox"]["user"], "active")
        self.assertEqual({uid_of(pid) for pid in (site.vault_status()["pid"], site.pids()["monitor"])}, {NOBODY})
        self.assertIn(f"uid 0 of a user namespace, {NOBODY} outside", site.cli("status", "--json").stdout.decode())

    def refused_start(self, name, start, config=None):
        """The log of an `up` that gives up by itself."""
        site = self.lesser_site(name, start)
        site.peer("alice")
        site.listen("echo", ["alice"], "echo")
        for section, value in (config or {}).items():
            getattr(site, section).update(value)
        self.assertEqual(site.start(wait=False).up.wait(20), 1)
        return site, site.log()

    @with_user_namespaces
    def test_a_namespace_without_a_map_is_refused_with_the_remedy(self):
        _, log = self.refused_start("mapless", WITHOUT_A_MAP)
        self.assertIn("this user namespace has no map for the user who started it", log)
        self.assertIn("hint: start it with a map", log)

    def test_a_daemons_user_who_is_root_is_refused_and_check_warns(self):
        for section, daemon in (("vault", "vaultd"), ("net", "netd")):
            for requirement in ("full", "available"):
                with self.subTest(section=section, requirement=requirement):
                    site, log = self.refused_start("rootly", (), {section: {"user": "root", "require_sandbox": requirement}})
                    self.assertEqual(log.count("the sandbox can't be put up: user: root is root"), 1)
                    self.assertIn("hint: `user` in [vault], [net] and [token] is for another user than root", log)
                    self.assertIn(f"{daemon} exited with status 1 before it served", log)
                    self.assertIn(f'[{section}] user = "root" is root', site.cli("check").stderr.decode())

    def test_a_client_who_is_refused_for_his_user_is_in_the_log(self):
        site = self.serving("refusing", ())
        admin = site.dir / "run/vault-admin.sock"
        admin.chmod(0o666)

        def turned_away():
            for _ in range(50):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(admin))
                    if sock.recv(1):
                        return "served"
            return "turned away"
        self.assertEqual(as_user(USER, [], turned_away), "turned away")
        wait_until(lambda: f"client refused socket=admin uid={USER} pid=" in site.log(), 5, "the refusal is in the log")
        self.assertLess(site.log().count("client refused"), 10, "rationed")


if __name__ == "__main__":
    unittest.main()
