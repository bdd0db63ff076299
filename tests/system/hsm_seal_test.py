#!/usr/bin/python3
"""Goal: a token that can't do X25519 opens key files instead: by AES-GCM, by RSA-OAEP with SHA-256 and with SHA-1; several tokens and a
passphrase side by side; a token that isn't there, has another key or a damaged slot costs this key alone, by name; with presence
`always` a token that is pulled locks what it opened.
Method: real daemons, sandbox on; keys are sealed by `sallyport hsm seal`, as an operator does it.
"""

import os
import re
import sys
import unittest

import tokens
from harness import SystemTest, ct, wait_until

PRESENCE_S = 150  # recheck_minutes = 1, and the machine


class SealTest(SystemTest):
    def sealed_site(self, **token_tables):
        """A site whose key `server` is opened by the tokens of these names, and whose key `soft` by nobody's leave."""
        site = self.site("seal")
        for name, (token, more) in token_tables.items():
            site.token(name, token, **more)
        self.alice = site.peer("alice")
        self.port = site.listen("echo", ["alice"], "echo", key="server")
        self.soft_port = site.listen("soft", ["alice"], "echo", key="soft")
        for name in token_tables:
            site.cli("hsm", "seal", "server", "--token", name)
        return site

    def key_file(self, site):
        return site.dir / "keys" / "server.key"

    def works(self, site, port=None, key="server"):
        try:
            with site.connect(port or self.port, self.alice, key=key, timeout=10) as session:
                session.send(b"x")
                return session.receive(10) == b"x"
        except (OSError, ct.Closed, ct.BadPeer, TimeoutError):
            return False

    def assert_serves(self, site):
        site.start()
        self.assertEqual(site.vault_status()["verdict"], "full")
        wait_until(lambda: self.works(site), 30, "handshakes with the sealed key", step=0.1)
        self.assertTrue(self.works(site, self.soft_port, "soft"))

    def assert_serves_without(self, site):
        site.start()
        self.assertTrue(self.works(site, self.soft_port, "soft"), "other keys suffer")
        self.assertFalse(self.works(site))


class Seals:
    token_class = None

    def setUp(self):
        self.token = self.token_class()
        self.addCleanup(self.token.remove)

    def test_a_file_that_the_token_opens(self):
        site = self.sealed_site(hsm=(self.token, {}))
        text = self.key_file(site).read_text()
        self.assertNotIn(" plain ", text)
        self.assertRegex(text, r"(?m)^slot: \d+ token")
        for _ in range(2):
            self.assert_serves(site)
            site.stop_daemons()

    def test_a_damaged_file_is_named_and_another_token_costs_this_key_alone(self):
        site = self.sealed_site(hsm=(self.token, {}))
        path = self.key_file(site)
        text = path.read_text()
        at = text.index("slot: ")
        line = text[at:text.index("\n", at)]
        blob = re.findall(r"[A-Za-z0-9+/]{40,}=*", line)[-1]
        damaged = ("B" if blob[0] != "B" else "C") + blob[1:]
        path.write_text(text.replace(blob, damaged))
        self.assert_serves_without(site)
        wait_until(lambda: "key server stays locked: token hsm " in site.log(), 30, "the log names it")
        self.assertRegex(site.cli("hsm", "status", check=False).stdout.decode(), r"(?m)^ *server .* locked: token hsm ")
        site.stop_daemons()
        path.write_text(text)
        other = self.token_class()
        self.addCleanup(other.remove)
        site.token("hsm", other)  # the same label, and none of the first one's keys
        self.assert_serves_without(site)
        site.stop_daemons()
        site.token("hsm", self.token)
        self.assert_serves(site)

    def test_either_of_two_tokens_opens_it(self):
        second = tokens.Mock()
        self.addCleanup(second.remove)
        site = self.sealed_site(first=(self.token, {}), second=(second, {}))
        self.assertEqual(len(re.findall(r"(?m)^slot: ", self.key_file(site).read_text())), 2)
        self.assert_serves(site)
        site.stop_daemons()
        self.token.take_away()
        self.assert_serves(site)
        site.stop_daemons()
        self.token.put_back()
        second.take_away()
        self.assert_serves(site)


class WithSoftHsm(Seals, SealTest):
    token_class = tokens.SoftHsm


class WithNss(Seals, SealTest):
    token_class = tokens.Nss

    def test_a_database_that_is_moved_away_locks_with_presence_always(self):
        site = self.sealed_site(hsm=(self.token, {"presence": "always", "recheck_minutes": 1}))
        self.assert_serves(site)
        self.token.take_away()
        wait_until(lambda: not self.works(site), PRESENCE_S, "the key is locked", step=1)
        self.assertTrue(self.works(site, self.soft_port, "soft"), "other keys suffer")
        self.token.put_back()
        wait_until(lambda: self.works(site), PRESENCE_S, "the key is opened again", step=1)


class WithMock(Seals, SealTest):
    token_class = tokens.Mock

    def test_by_what_the_token_can(self):
        for faults, cipher in (("", "aes-gcm"), ("token without=CKM_AES_GCM,CKM_AES_KEY_GEN", "rsa-oaep-sha256"),
                               ("token without=CKM_AES_GCM,CKM_AES_KEY_GEN,OAEP-SHA256", "rsa-oaep-sha1")):
            with self.subTest(cipher):
                token = tokens.Mock(faults=faults)
                self.addCleanup(token.remove)
                site = self.sealed_site(hsm=(token, {}))
                self.assertIn(cipher, self.key_file(site).read_text())
                self.assert_serves(site)
                site.stop()

    def test_a_token_without_any_cipher_is_refused_and_the_file_stays_as_it_was(self):
        token = tokens.Mock(faults="token without=CKM_AES_GCM,CKM_AES_KEY_GEN,CKM_RSA_PKCS_OAEP,CKM_RSA_PKCS_KEY_PAIR_GEN")
        self.addCleanup(token.remove)
        site = self.sealed_site()
        site.token("hsm", token)
        site.write_config()
        before = self.key_file(site).read_text()
        done = site.cli("hsm", "seal", "server", "--token", "hsm", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.key_file(site).read_text(), before)

    def test_a_pulled_token_locks_with_presence_always_and_doesnt_with_start(self):
        second = tokens.Mock()
        self.addCleanup(second.remove)
        site = self.sealed_site(hsm=(self.token, {"presence": "always", "recheck_minutes": 1}))
        lasting = site.listen("lasting", ["alice"], "echo", key="lasting")
        site.token("once", second)
        site.write_config()
        site.cli("hsm", "seal", "lasting", "--token", "once")
        self.assert_serves(site)
        for token in (self.token, second):
            token.faults("token removed=1")
        wait_until(lambda: not self.works(site), PRESENCE_S, "the key is locked", step=1)
        self.assertTrue(self.works(site, lasting, "lasting"))


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    os.umask(0o022)
    unittest.main()
