#!/usr/bin/python3
"""Goal: programs have a real, locked-down vaultd box, open, sign and draw nonces with the keys that they are granted, as NaCl elsewhere
understands it, and nothing else: each dimension of policy refuses, other users are told apart, a reload takes effect on live capabilities,
lock and panic hold, forged boxes open the breaker, the numbers are told, and no key is found in what the vault says.
Method: PyNaCl (libsodium by another way) is the other side; minicapnp speaks the RPC, so no code of ours is on both ends.
"""

import base64
import os
import struct
import unittest

import nacl.public
import nacl.signing
from harness import SystemTest, ct, minicapnp, wait_until
from minicapnp import VAULT_ADMIN, VAULT_APP, VAULT_KEY, Struct, VaultRefused, call_message
from users import as_user

EVERYTHING = ["box", "open", "fresh_nonce"]
USER, GROUP = 61001, 61002


class Friend:
    """The other side: a NaCl key pair of our own."""

    def __init__(self, vault_public):
        self.secret = nacl.public.PrivateKey.generate()
        self.public = bytes(self.secret.public_key)
        self.vault = nacl.public.PublicKey(vault_public)

    def open(self, nonce, box):
        return nacl.public.Box(self.secret, self.vault).decrypt(box, nonce)

    def box(self, text, prefix=b"SallyBox"):
        nonce = prefix + os.urandom(16)
        return self.public, nonce, nacl.public.Box(self.secret, self.vault).encrypt(text, nonce).ciphertext


class VaultApp(SystemTest):
    def setUp(self):
        self.host = site = self.site("vault-app")
        self.public = site.key("k")
        self.alice = site.peer("alice")
        site.vault["metrics"] = "unix:run/vault-metrics.sock"
        site.vault_sockets["side"] = {"name": "side", "path": "run/side.sock", "mode": "0666"}
        site.grant("all", keys=["k"], verbs=EVERYTHING, peers=["*"], domains=["minute-k"])
        self.friend = Friend(self.public)

    def start(self):
        self.host.start_vaultd()
        self.assertEqual(self.host.vault_status()["verdict"], "full")
        return self.app()

    def app(self, name="vault.sock"):
        app = self.host.app(name)
        self.addCleanup(app.close)
        return app

    def refused(self, name, call, *arguments):
        with self.assertRaises(VaultRefused) as refused:
            call(*arguments)
        self.assertEqual(str(refused.exception), name)

    def admin(self, method, params=None):
        with minicapnp.Rpc(self.host.dir / "run/vault-admin.sock") as rpc:
            return rpc.call(rpc.root, VAULT_ADMIN, method, params).content

    def lock(self, name):
        self.assertEqual(self.admin(2, Struct(b"", [name])).pointer(0).u16(2), 1)

    def unlock(self, name):
        text = (self.host.dir / f"keys/{name}.key").read_text()
        key = base64.b64decode(text.partition(" plain key=")[2].split()[0]) if " plain key=" in text else bytes(32)
        return self.admin(3, Struct(b"", [text, key])).pointer(0)

    # -- the verbs

    def test_boxes_go_both_ways_with_nacl(self):
        app = self.start()
        self.assertTrue(app.ping())
        self.assertEqual(app.public_key("k"), self.public)
        key = app.key("k")
        self.assertEqual(key.verbs, ["box", "open", "freshNonce"])
        for text in (b"", b"hello", os.urandom(60_000)):
            [(nonce, box, version)] = key.box([(self.friend.public, text)])
            self.assertEqual((nonce[:8], len(nonce), version), (b"SallyBox", 24, 1))
            self.assertEqual(self.friend.open(nonce, box), text)
            self.assertEqual(key.open([self.friend.box(text)]), [(text, 1)])
        sealed = nacl.public.SealedBox(nacl.public.PublicKey(self.public)).encrypt(b"from nobody")
        self.assertEqual(key.open_sealed([sealed, sealed[:-1]]), [(b"from nobody", 1), "badBox"])
        [(nonce, box, _)] = key.box([("alice", b"to a peer by its name")])
        secret = nacl.public.PrivateKey(self.alice.secret)
        self.assertEqual(nacl.public.Box(secret, nacl.public.PublicKey(self.public)).decrypt(box, nonce), b"to a peer by its name")

    def test_signatures_verify_with_nacl(self):
        self.host.write_config()
        self.host.cli("key", "new", "sig", "--kind", "ed25519")
        self.host.grants["all"]["keys"] = ["k", "sig"]
        self.host.grants["all"]["verbs"] = [*EVERYTHING, "sign"]
        app = self.start()
        public = nacl.signing.VerifyKey(app.public_key("sig"))
        messages = [b"", b"message", os.urandom(30_000)]
        for message, (signature, version) in zip(messages, app.key("sig").sign(messages), strict=True):
            self.assertEqual(public.verify(message, signature), message)
            self.assertEqual(version, 1)
        self.assertEqual(app.key("sig").box([("alice", b"x")]), ["wrongKind"])
        self.assertEqual(app.key("k").sign([b"x"]), ["wrongKind"])
        self.assertEqual(len(set(app.key("sig").fresh_nonces("minute-k", 64))), 64)

    def test_signatures_of_anybody_are_verified(self):
        app = self.start()
        signer = nacl.signing.SigningKey.generate()
        signature = signer.sign(b"message").signature
        public = bytes(signer.verify_key)
        self.assertEqual(app.verify([(public, b"message", signature), (public, b"massage", signature), (bytes(32), b"", signature),
                                     (public, b"", b"")]), [True, "badSignature", "lowOrderKey", "badSize"])

    def test_nonces_are_fresh_across_restarts_and_domains(self):
        self.host.grants["all"]["domains"] = ["minute-k", "other"]
        seen = set()
        for _ in range(3):
            app = self.start()
            key = app.key("k")
            for domain in ("minute-k", "other"):
                for _ in range(20):
                    seen.update(key.fresh_nonces(domain, 64))
            for _ in range(20):
                seen.update(nonce[8:] for nonce, _, _ in key.box([(self.friend.public, b"x")] * 64))
            self.refused("badDomain", key.fresh_nonces, "CurveCPK", 1)
            self.refused("badDomain", key.fresh_nonces, "SallyBox", 1)
            self.refused("tooMany", key.fresh_nonces, "minute-k", 65)
            app.close()
            self.host.stop_daemons()
        self.assertEqual(len(seen), 3 * 60 * 64)

    def test_each_item_is_judged_by_itself(self):
        key = self.start().key("k")
        good, foreign, forged = self.friend.box(b"good"), self.friend.box(b"x", b"CurveCPV"), self.friend.box(b"forged")
        forged = (*forged[:2], forged[2][:-1] + bytes([forged[2][-1] ^ 1]))
        self.assertEqual(key.open([good, foreign, forged, ("bob", *good[1:]), (bytes(32), *good[1:]), (b"short", *good[1:]),
                                   (good[0], good[1][:16], good[2]), (*good[:2], good[2][:15]), good]),
                         [(b"good", 1), "badNonce", "badBox", "peerNotAllowed", "lowOrderKey", "badSize", "badNonce", "badSize",
                          (b"good", 1)])
        self.assertEqual(key.box([("alice", b"x")] * 65), ["tooMany"])
        boxed = key.box([("alice", bytes(950))] * 64)
        self.assertEqual(len(boxed), 64)
        self.assertEqual({o for o in boxed if isinstance(o, str)}, {"tooLong"})
        self.assertEqual(key.sign([b"x"]), ["notPermitted"])

    def test_calls_are_pipelined_on_a_key_that_has_not_come_yet(self):
        rpc = self.start().rpc
        asked = rpc.start(rpc.root, VAULT_APP, 2, Struct(bytes(8), ["k", None]))
        item = Struct(struct.pack("<H", 1), ["alice", b"early"])
        rpc.sock.sendall(call_message(100, ("answer", asked, 0, 0), VAULT_KEY, 0, Struct(b"", [[item]])))
        boxed = rpc.wait(100).content.list(0)[0]
        self.assertEqual((boxed.u16(2), len(boxed.data(1))), (1, len(b"early") + 16))

    # -- policy

    def test_each_dimension_of_a_grant(self):
        self.host.grants.clear()
        self.host.key("other")
        self.host.grant("narrow", keys=["k"], verbs=["box"], peers=["alice"], max_bytes=10, per_second=5, lease_s=1000)
        self.host.grant("side", socket="side", keys=["other"], verbs=["open"], peers=["*"])
        app = self.start()
        self.assertEqual([(k["name"], k["verbs"], k["grants"]) for k in app.keys()], [("k", ["box"], ["narrow"])])
        self.refused("notPermitted", app.key, "other")
        self.refused("notPermitted", app.key, "k", ["open"])
        self.refused("notPermitted", app.key, "nothing")
        key = app.key("k", lease_ms=5_000_000)
        self.assertEqual(key.lease_ms, 1_000_000)
        self.assertEqual(key.box([(self.friend.public, b"x"), ("alice", bytes(11))]), ["peerNotAllowed", "tooLong"])
        outcomes = key.box([("alice", b"x")] * 64)
        self.assertEqual([isinstance(o, tuple) for o in outcomes[:5]], [True] * 5)
        self.assertEqual(outcomes[-1], "rateLimited")
        side = self.app("side.sock")
        self.assertEqual(side.key("other").verbs, ["open"])
        self.refused("notPermitted", side.key, "k")

    def test_users_and_groups_are_told_apart(self):
        if os.geteuid() != 0:
            self.skipTest("other users can only be tried as root")
        self.host.grants.clear()
        side = self.host.dir / "run/side.sock"
        self.host.grant("user", socket="side", users=[USER], keys=["k"], verbs=["box"], peers=["*"])
        self.host.grant("group", socket="side", groups=[GROUP], keys=["k"], verbs=["open"], peers=["*"])
        self.start()

        def box():
            with minicapnp.App(side) as app:
                return app.key("k", ["box"]).verbs

        def opener():
            with minicapnp.App(side) as app:
                return app.key("k", ["open"]).verbs

        def public():
            with minicapnp.App(side) as app:
                return app.public_key("k") == self.public

        self.assertEqual(as_user(USER, [], box), "['box']")
        self.assertEqual(as_user(USER, [], opener), "notPermitted")
        self.assertEqual(as_user(USER + 5, [GROUP], opener), "['open']")
        self.assertEqual(as_user(USER + 5, [9, GROUP, 10], opener), "['open']")
        self.assertEqual(as_user(GROUP, [], opener), "['open']", "the group of its own")
        self.assertEqual(as_user(USER + 5, [9], opener), "notPermitted")
        self.assertEqual(as_user(USER + 5, list(range(100, 400)) + [GROUP], opener), "['open']", "many groups")
        self.assertEqual(as_user(USER + 5, [], public), "True", "anybody may ask for a public key")
        self.assertEqual(as_user(USER, [], lambda: minicapnp.App(self.host.dir / "run/vault.sock")), "PermissionError")

    def test_a_reload_takes_and_gives_on_live_capabilities(self):
        app = self.start()
        key = app.key("k")
        saved = self.host.grants.pop("all")
        self.host.grant("nonces", keys=["k"], verbs=["fresh_nonce"], domains=["minute-k"])
        self.host.write_config()
        done = self.admin(1, Struct(b"", [self.host.config.read_text()])).pointer(0)
        self.assertEqual(done.u16(2), 1)
        self.assertEqual(key.box([("alice", b"x")]), ["expired"])
        self.assertEqual(len(key.fresh_nonces("minute-k", 3)), 3)
        self.host.grants["all"] = {**saved, "users": ["nobody-of-this-name"]}
        self.host.write_config()
        refused = self.admin(1, Struct(b"", [self.host.config.read_text()])).pointer(0)
        self.assertEqual((refused.u16(2), refused.u16(0)), (0, minicapnp.VAULT_REFUSALS.index("badConfig")))
        self.assertIn("nobody-of-this-name", refused.text(0))
        self.host.grants["all"] = saved
        self.host.write_config()
        self.assertEqual(self.admin(1, Struct(b"", [self.host.config.read_text()])).pointer(0).u16(2), 1)
        self.assertEqual(len(key.box([("alice", b"x")])[0]), 3)

    def test_policy_check_says_what_the_vault_would(self):
        self.host.grants.clear()
        self.host.peer("alice")
        self.host.peer("bob")
        self.host.grant("narrow", users=[USER], keys=["k"], verbs=["box"], peers=["alice"], max_bytes=10, per_second=5)
        self.host.grant("nonces", socket="side", groups=[GROUP], keys=["k"], verbs=["fresh_nonce"], domains=["minute-k"])
        self.host.write_config()

        def said(*words, user=USER):
            done = self.host.cli("policy", "check", *words, "--user", str(user), check=False)
            return done.returncode, done.stdout.decode().strip() or done.stderr.decode()
        self.assertEqual(said("box", "k", "alice"), (0, "yes: [[grant]] narrow, at most 10 bytes, 5 a second"))
        for words, user, reason in ((("box", "k", "bob"), USER, "not with this peer"), (("box", "k", "any"), USER, "not with this peer"),
                                    (("box", "k", "alice"), USER + 7, "no grant"), (("open", "k", "alice"), USER, "no grant"),
                                    (("box", "other", "alice"), USER, "no grant"),
                                    (("box", "k", "alice", "--bytes", "11"), USER, "not for 11 bytes"),
                                    (("box", "k", "alice", "--socket", "side"), USER, "no grant"),
                                    (("fresh_nonce", "k", "minute-k", "--socket", "side"), USER, "no grant")):
            status, text = said(*words, user=user)
            self.assertEqual(status, 1, words)
            self.assertRegex(text, "^no: .*" + reason)
        nonce = ("fresh_nonce", "k", "minute-k", "--socket", "side", "--group", str(GROUP))
        self.assertEqual(said(*nonce)[0], 0)
        self.assertIn("not in the domain", said(*("other" if word == "minute-k" else word for word in nonce))[1])
        for words in (("sign", "k", "alice"), ("box", "k"), ("scalarmult", "k", "alice"), ("box", "k", "alice", "--bytes", "x")):
            self.assertEqual(said(*words)[0], 2, words)

    def test_a_grant_for_nobody_known_stops_the_start(self):
        self.host.grants["all"]["users"] = ["nobody-of-this-name"]
        process = self.host.start_vaultd(wait=False)
        self.assertEqual(process.wait(20), 1)
        self.assertRegex(self.host.log(), r"sallyport.toml:\d+: .*nobody-of-this-name")

    # -- states

    def test_leases_and_closed_capabilities(self):
        app = self.start()
        short = app.key("k", lease_ms=1)
        wait_until(lambda: short.box([("alice", b"x")]) == ["expired"], 10, "the lease ends")
        self.refused("expired", short.renew)
        key = app.key("k")
        key.close()
        self.assertEqual(key.box([("alice", b"x")]), ["expired"])
        held = [app.key("k") for _ in range(62)]
        self.refused("tooManyObjects", lambda: [app.key("k") for _ in range(5)])
        held[0].close()
        app.key("k")

    def test_lock_unlock_and_panic(self):
        self.host.key("other")
        self.host.grants["all"]["keys"] = ["k", "other"]
        app = self.start()
        key, other = app.key("k"), app.key("other")
        self.lock("k")
        self.assertEqual(key.box([("alice", b"x")]), ["locked"])
        self.assertEqual(key.open([self.friend.box(b"x")]), ["locked"])
        self.refused("locked", key.fresh_nonces, "minute-k", 1)
        self.assertEqual(app.public_key("k"), self.public, "it isn't secret")
        self.assertEqual(len(other.box([("alice", b"x")])[0]), 3)
        self.assertEqual({n: k["state"] for n, k in self.host.vault_status()["keys"].items()}, {"k": "locked", "other": "active"})
        self.assertEqual(self.unlock("k").u16(2), 1)
        self.assertEqual(key.open([self.friend.box(b"again")]), [(b"again", 1)])
        self.admin(4)
        for each in (key, other):
            self.assertEqual(each.box([("alice", b"x")]), ["locked"])
        self.assertTrue(app.ping())
        self.assertEqual(self.unlock("other").u16(2), 1)
        self.assertEqual(len(other.box([("alice", b"x")])[0]), 3)
        self.assertEqual(key.box([("alice", b"x")]), ["locked"])
        self.lock("")
        self.assertEqual(other.box([("alice", b"x")]), ["locked"])
        refused = self.admin(2, Struct(b"", ["nothing"])).pointer(0)
        self.assertEqual((refused.u16(2), minicapnp.VAULT_REFUSALS[refused.u16(0)]), (0, "unknownKey"))
        for text, file_key in (("", bytes(32)), ("sallyport key 1\n", bytes(32)), ("x", bytes(31))):
            self.assertEqual(self.admin(3, Struct(b"", [text, file_key])).pointer(0).u16(2), 0)
        self.assertIn("PANIC", self.host.log())

    def test_tunnels_are_refused_while_locked_and_come_back(self):
        site = self.host
        port = site.listen("echo", allow=["alice"], service="echo", key="k")
        site.start()
        with site.connect(port, self.alice, key="k") as session:
            self.assert_echo(session)  # the vault has verified the vouch
            self.lock("k")
            self.assert_echo(session)  # an established session needs no key
            with self.assertRaises(ct.Closed):
                with site.connect(port, self.alice, key="k", timeout=3) as refused:
                    self.assert_echo(refused)
            self.assertEqual(self.unlock("k").u16(2), 1)
            with site.connect(port, self.alice, key="k") as again:
                self.assert_echo(again)

    def test_forged_boxes_open_the_breaker(self):
        self.host.vault.update({"breaker_failures": 10, "breaker_pause_s": 3600})
        app = self.start()
        key = app.key("k")
        public, nonce, box = self.friend.box(b"x")
        forged = (public, nonce, box[:-1] + bytes([box[-1] ^ 1]))
        self.assertEqual(key.open([forged] * 10), ["badBox"] * 10)
        self.assertEqual(key.open([self.friend.box(b"x")]), ["breakerOpen"])
        self.assertEqual(len(key.box([("alice", b"x")])[0]), 3)
        counters = self.host.vault_status()["counters"]
        self.assertEqual((counters["breakers_tripped"], counters["breakers_open"]), (1, 1))
        self.assertIn("breaker opened", self.host.log())

    def test_a_honey_key_raises_an_alarm(self):
        self.host.key("trap")
        self.host.grant("trap", keys=["trap"], verbs=["box"], peers=["*"])
        self.host.keys_options = {"trap": {"honey": True}}
        app = self.start()
        self.assertEqual(self.host.vault_status()["counters"]["honey_key_uses"], 0)
        app.key("trap").box([("alice", b"x")])
        self.assertEqual(self.host.vault_status()["counters"]["honey_key_uses"], 2)
        self.assertRegex(self.host.log(), r"ALARM: honey key used key=trap .* uid=\d+ pid=\d+")

    # -- what it says

    def test_numbers_are_told_and_no_secret_is(self):
        secret = os.urandom(32)
        self.host.key("known", secret=secret)
        self.host.grants["all"]["keys"] = ["k", "known"]
        app = self.start()
        key = app.key("known")
        friend = Friend(self.host.publics["known"])
        [(nonce, box, _)] = key.box([(friend.public, b"a text that nobody logs")])
        self.assertEqual(friend.open(nonce, box), b"a text that nobody logs")
        self.assertEqual(key.open([friend.box(b"x", b"CurveCPV")]), ["badNonce"])
        page = self.host.metrics("vault-metrics.sock")
        self.assertEqual(page['sallyport_vault_uses_total{verb="box",outcome="done"}'], 1)
        self.assertEqual(page['sallyport_vault_uses_total{verb="open",outcome="bad_nonce"}'], 1)
        self.assertEqual(page['sallyport_vault_execution_seconds_bucket{verb="box",le="+Inf"}'], 1)
        self.assertEqual(page['sallyport_vault_key_locked{key="k"}'], 0)
        shown = self.host.cli("status", "--json", check=False).stdout
        text = self.host.cli("status", check=False).stdout.decode()
        self.assertRegex(text, r"USES +DONE +REFUSED +QUEUED P99 +EXECUTED P99\n +box +1 +0 ")
        told = shown + text.encode() + self.host.log().encode() + repr(page).encode()
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:40], b"nobody logs"):
            self.assertNotIn(form, told)


if __name__ == "__main__":
    unittest.main()
