#!/usr/bin/python3
"""Goal: vaultd is killed with SIGKILL again and again, under load; every nonce it ever put into a Cookie, decrypted under the test's key,
has a counter of its own, larger than all that were issued before the kill. 100 rounds here, 1,000 with SALLYPORT_FULL=1 (or
SALLYPORT_NONCE_ROUNDS=N). A restored copy of an old nonce file may go back, but then under another nonce key.
"""

import collections
import contextlib
import hashlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import unittest

from harness import Crowd, SystemTest, ct, full_run, minicapnp, wait_until

ROUNDS = full_run("SALLYPORT_NONCE_ROUNDS", quick=100, full=1000)
LOAD_THREADS = 3
SECRET = bytes(range(1, 33))
INSTANCE_AT, SLOT_BYTES = 32, 4096


def instances(path):
    """The instance ids in the two slots of a nonce file."""
    data = path.read_bytes()
    return {data[at + INSTANCE_AT:at + INSTANCE_AT + 16] for at in (0, SLOT_BYTES)}


def nonce_key(secret, prefix, instance):
    return hashlib.blake2b(b"sallyport nonce key 1" + prefix + instance, key=secret, digest_size=32).digest()


def counters(nonces, key):
    """AES-256 backwards, all blocks in one go."""
    done = subprocess.run(["openssl", "enc", "-d", "-aes-256-ecb", "-nopad", "-K", key.hex()], input=b"".join(nonces),
                          capture_output=True, check=True)
    return [int.from_bytes(done.stdout[i:i + 8], "big") for i in range(0, len(done.stdout), 16)]


class NonceKill(SystemTest):
    def setUp(self):
        self.host = site = self.site("nonces", workers=1)
        self.alice = site.peer("alice")
        site.key("server", SECRET)
        site.vault["handshakes_per_second"] = 1_000_000
        self.port = site.listen("echo", ["alice"], "echo")
        self.file = site.dir / "keys" / "server.nonces"
        self.waiting = None  # the client that waits for a cookie

    def cookie_nonce(self):
        with self.host.client(self.port, self.alice, timeout=2) as client:
            self.waiting = client
            client.send_hello()
            client.read_cookie()
            return client.cookie_nonce

    def test_killed_under_load(self):
        site = self.host
        vault = site.start_vaultd()
        site.start_netd()
        # Through the whole daemon pair, and straight at the vault as netd would: the latter is fast enough to be in the middle of things.
        lives, seen = [], set()
        for number in range(ROUNDS):
            life, lock = [], threading.Lock()
            with Crowd() as crowd:
                def straight():
                    rpc = None
                    while not crowd.stop.is_set():
                        try:
                            rpc = rpc or minicapnp.Rpc(site.dir / "run/vault-net.sock", timeout=2)
                            nonces = self.seal(rpc)
                        except (OSError, TimeoutError):
                            rpc = None
                            continue
                        with lock:
                            life.extend(nonces)

                def through():
                    while not crowd.stop.is_set():
                        try:
                            nonce = self.cookie_nonce()
                        except (OSError, ct.Closed, TimeoutError):
                            continue
                        with lock:
                            life.append(nonce)
                crowd.start(straight)
                crowd.start(straight)
                crowd.start(through)
                wait_until(lambda: life, 10, "a nonce")
                time.sleep(random.random() * 0.03)
                vault.kill()
                vault.wait()
                # A Hello without a vault waits for its deadline, 5 s: nobody waits with it.
                crowd.stop.set()
                with contextlib.suppress(OSError, AttributeError):
                    self.waiting.sock.shutdown(socket.SHUT_RDWR)
            site.processes.remove(vault)
            lives.append(life)
            for nonce in life:
                self.assertNotIn(nonce, seen)
                seen.add(nonce)
            vault = site.start_vaultd()
        self.assertEqual(len(instances(self.file)), 1, "the nonce key changed without a reason")
        key = nonce_key(SECRET, b"CurveCPK", instances(self.file).pop())
        last, issued = 0, 0
        for life in lives:
            numbers = counters(life, key)
            self.assertEqual(len(set(numbers)), len(numbers))
            self.assertGreater(min(numbers), last)
            self.assertLess(max(numbers), 1 << 63)
            self.assertLess(max(numbers) - min(numbers), 1 << 20)
            last, issued = max(numbers), issued + len(numbers)
        print(f"# {ROUNDS} kills, {issued} nonces, counters {min(counters(lives[0], key)):#x} .. {last:#x}")

    def seal(self, rpc):
        """A sealCookies call with three Hellos; returns the nonces drawn."""
        hellos = []
        for _ in range(3):
            ephemeral = ct.KeyPair()
            hello = ct.make_hello(ephemeral, self.host.publics["server"])
            hellos.append(minicapnp.Struct(b"", ["echo", ephemeral.public, hello[48:], ct.KeyPair().public, os.urandom(96)]))
        results = rpc.call(rpc.root, minicapnp.VAULT_NET, 0, minicapnp.Struct(b"", [hellos]))
        outcomes = results.content.list(0)
        self.assertEqual([outcome.u16(2) for outcome in outcomes], [1, 1, 1])
        return [outcome.data(0) for outcome in outcomes]

    def test_a_restored_backup_never_repeats(self):
        """The nonce file of yesterday put back: either the counters go on above, or the nonce key is another one."""
        site = self.host
        used = collections.defaultdict(set)
        backup = site.dir / "backup.nonces"
        for number in range(6):
            vault = site.start_vaultd()
            with minicapnp.Rpc(site.dir / "run/vault-net.sock") as rpc:
                nonces = [nonce for _ in range(5) for nonce in self.seal(rpc)]
            found = instances(self.file)
            good = [(instance, numbers) for instance in found
                    for numbers in [counters(nonces, nonce_key(SECRET, b"CurveCPK", instance))] if numbers == sorted(numbers)
                    and numbers[-1] - numbers[0] == len(numbers) - 1]
            self.assertEqual(len(good), 1, "the nonces don't belong to the nonce file")
            instance, numbers = good[0]
            self.assertTrue(used[instance].isdisjoint(numbers), "a counter was used twice under one nonce key")
            used[instance].update(numbers)
            vault.kill()
            vault.wait()
            site.processes.remove(vault)
            time.sleep(1.1)  # the clock's floor counts seconds, and a start takes a second's worth of counters
            if number == 0:
                shutil.copy(self.file, backup)
            elif number % 2:
                self.file.unlink()
                shutil.copy(backup, self.file)
                self.file.chmod(0o600)
        self.assertGreater(len(used), 1)


if __name__ == "__main__":
    unittest.main()
