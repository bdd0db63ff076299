#!/usr/bin/python3
"""Goal: vaultd killed with SIGKILL under load: sessions go on without a pause, no worker dies, and new handshakes work again within a
second after the restart (`sallyport up` restarts it). While there is no vault, a handshake is refused under a named reason.
"""

import os
import signal
import time
import unittest

from harness import Crowd, SystemTest, ct, wait_until

LOAD_THREADS = 4
RESUME_S = 1.0
SLACK_S = 4.0  # for the machine: detection, exec, key files, a Python client


class VaultKilled(SystemTest):
    def works(self, site, port, alice):
        try:
            with site.connect(port, alice, timeout=2) as session:
                session.send(b"x")
                return session.receive(2) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def test_under_load(self):
        site = self.site("vault")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        session = site.connect(port, alice)
        self.addCleanup(session.close)
        self.assert_echo(session)
        workers = site.pids()["workers"]
        done = []
        for round_number in range(5):
            with Crowd() as crowd:
                def load():
                    while not crowd.stop.is_set():
                        done.append(self.works(site, port, alice))
                for _ in range(LOAD_THREADS):
                    crowd.start(load)
                time.sleep(0.3)
                victim = site.vault_status()["pid"]
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                self.assert_echo(session, b"while there is no vault")

                def restarted():
                    try:
                        return site.vault_status()["pid"] != victim
                    except (OSError, TimeoutError):
                        return False
                wait_until(restarted, 10, "vaultd is restarted")
                serves = time.monotonic()
                wait_until(lambda: self.works(site, port, alice), RESUME_S + SLACK_S, "handshakes after the vault's restart")
                resumed = time.monotonic()
                print(f"# round {round_number}: vault back after {(serves - killed) * 1000:.0f} ms, "
                      f"handshakes {(resumed - serves) * 1000:.0f} ms later")
                self.assert_echo(session, b"after the restart")
            self.assertEqual(crowd.errors, [])
        self.assertGreater(sum(done), 20)
        self.assertEqual(site.pids()["workers"], workers, "a worker died with the vault")

    def test_without_a_vault_handshakes_are_refused_by_name(self):
        site = self.site("novault")
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        vault = site.start_vaultd()
        site.start_netd()
        session = site.connect(port, alice)
        self.addCleanup(session.close)
        self.assert_echo(session)  # a client that has sent its Initiate isn't yet in
        vault.kill()
        vault.wait()
        site.processes.remove(vault)
        wait_until(lambda: site.net_status()["vault"] != "connected", 5, "status tells that the vault is gone")
        before = site.drops()
        with site.client(port, alice) as client:
            client.send_hello()
            self.assert_closed_silently(client.sock, 10)
        self.assert_dropped(site, before, ["vault_unavailable"])
        self.assert_echo(session)
        site.start_vaultd()
        wait_until(lambda: self.works(site, port, alice), RESUME_S + SLACK_S, "handshakes with the new vault")
        self.assert_echo(session)


if __name__ == "__main__":
    unittest.main()
