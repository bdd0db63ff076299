#!/usr/bin/python3
"""Goal: a full disk under the nonce file. No nonce is issued, handshakes are refused as `nonce_unavailable` with the reason in status,
sessions live on, no file is harmed; with room again and a restart all is well. Needs root (a small tmpfs of the test's own).
"""

import os
import subprocess
import unittest

from harness import SystemTest, ct, wait_until


@unittest.skipUnless(os.geteuid() == 0, "a full disk needs a tmpfs of its own: run as root")
class NonceDisk(SystemTest):
    def setUp(self):
        self.host = site = self.site("disk")
        self.alice = site.peer("alice")
        self.keys = site.dir / "keys"
        self.keys.mkdir(mode=0o700)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(self.keys)], capture_output=True)
        if done.returncode != 0:
            self.skipTest(f"can't mount a tmpfs here: {done.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.keys)], capture_output=True)
        self.port = site.listen("echo", ["alice"], "echo")

    def fill(self):
        with open(self.keys / "ballast", "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    def is_refused(self):
        with self.host.client(self.port, self.alice) as client:
            client.send_hello()
            self.assert_closed_silently(client.sock)
        return True

    def nonce_state(self):
        try:
            return self.host.vault_status()["keys"]["server"]["nonce"]
        except (OSError, KeyError):
            return None

    def restart_vault(self, vault):
        vault.kill()
        vault.wait()
        self.host.processes.remove(vault)
        return self.host.start_vaultd()

    def test_full_before_the_first_start(self):
        site = self.host
        self.fill()
        before = (self.keys / "server.key").read_bytes()
        vault = site.start_vaultd()
        site.start_netd()
        self.assertNotEqual(self.nonce_state(), "ready")
        drops = site.drops()
        self.is_refused()
        self.assert_dropped(site, drops, ["nonce_unavailable"])
        self.assertIn("server.nonces", site.cli("status").stdout.decode() + self.nonce_state())
        self.assertEqual((self.keys / "server.key").read_bytes(), before)
        (self.keys / "ballast").unlink()
        self.restart_vault(vault)
        self.assertEqual(self.nonce_state(), "ready")
        wait_until(self.works, 5, "handshakes with room on the disk")

    def works(self):
        try:
            with self.host.connect(self.port, self.alice, timeout=2) as session:
                session.send(b"x")
                return session.receive(2) == b"x"
        except (OSError, ct.Closed, TimeoutError):
            return False

    def test_sessions_live_while_no_nonce_can_be_made(self):
        site = self.host
        vault = site.start_vaultd()
        site.start_netd()
        session = site.connect(self.port, self.alice)
        self.addCleanup(session.close)
        self.assert_echo(session)
        vault.kill()
        vault.wait()
        site.processes.remove(vault)
        (self.keys / "server.nonces").unlink()
        self.fill()
        vault = site.start_vaultd()
        self.assertNotEqual(self.nonce_state(), "ready")
        wait_until(lambda: site.net_status()["vault"] == "connected", 5, "netd found the new vault")
        drops = site.drops()
        self.is_refused()
        self.assert_dropped(site, drops, ["nonce_unavailable"])
        self.assert_echo(session)
        (self.keys / "ballast").unlink()
        self.restart_vault(vault)
        wait_until(self.works, 5, "handshakes with room on the disk")
        self.assert_echo(session)

    def test_a_file_that_exists_needs_no_room(self):
        site = self.host
        vault = site.start_vaultd()
        site.start_netd()
        self.fill()
        self.restart_vault(vault)
        self.assertEqual(self.nonce_state(), "ready")
        wait_until(self.works, 5, "handshakes on a full disk with the file in place")


if __name__ == "__main__":
    unittest.main()
