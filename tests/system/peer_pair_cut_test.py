#!/usr/bin/python3
"""Goal: wherever the channel of `sallyport pair` is cut, also after one host has stored the block and before the other knows,
connections of the peer protocol come about as before, whichever side dials; both hosts stay party A and party B; each command says
what to do; and doing it, a second run, mends all.
Method: two sites that dial each other under a block, and pair again through a man in the middle who passes whole packets of
curve_tun on and cuts at a given one; for a name that is there, and for a new one.
"""

import re
import struct
import subprocess
import unittest

from harness import binary
from peer_sites import TwoHosts
from traffic import Mitm

# The packets of one direction, in order: the offerer's go up, the taker's down.
STEPS = {"offer": ("up", 2), "have": ("down", 1), "both": ("up", 3), "done": ("down", 2)}


class CutAt:
    """An attack for one connection: cuts it instead of passing the step's packet on."""

    def __init__(self, step, how="rst"):
        self.direction, self.left = STEPS[step]
        self.how = how
        self.held = b""
        self.done = False

    def __call__(self, direction, _offset, data):
        if direction != self.direction or self.done:
            return data
        self.held += data
        passed = b""
        while len(self.held) >= 2 and len(self.held) >= 2 + struct.unpack(">H", self.held[:2])[0]:
            if self.left == 0:
                self.done = True
                return passed, self.how
            size = 2 + struct.unpack(">H", self.held[:2])[0]
            passed, self.held = passed + self.held[:size], self.held[size:]
            self.left -= 1
        return passed


class CutPairing(TwoHosts):
    def setUp(self):
        super().setUp()
        self.middle = Mitm(("127.0.0.1", self.hq.listen("pairing", ["branch"], "channel", key="hq")))
        self.addCleanup(self.middle.close)
        self.branch.connect_entry("hq", ("127.0.0.1", self.middle.port), "hq", key="branch", listen=False)
        # The other way round, for a run in which the other host offers.
        back = self.branch.listen("back", ["hq"], "channel", key="branch")
        self.back = Mitm(("127.0.0.1", back))
        self.addCleanup(self.back.close)
        self.hq.connect_entry("branch", ("127.0.0.1", self.back.port), "branch", key="hq", listen=False)
        self.start_both()

    # -- one run of both commands: (the offerer's, the taker's) status, standard output and error

    def pair(self, name="link", step=None, how="rst", *more, taker=None, offerer=None, entries=("pairing", "hq"), middle=None):
        taker, offerer, middle = taker or self.hq, offerer or self.branch, middle or self.middle
        cut = CutAt(step, how) if step else None
        middle.attack = cut or (lambda _direction, _offset, data: data)
        waiting = subprocess.Popen([binary("sallyport"), "pair", name, "--listen", entries[0], "--wait", "60s", "-c", str(taker.config)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: (waiting.poll() is None and waiting.kill(), waiting.communicate()))
        near = offerer.cli("pair", name, "--connect", entries[1], *more, check=False)
        out, err = waiting.communicate(timeout=60)
        self.assertTrue(cut is None or cut.done, "it wasn't cut")
        return (near.returncode, near.stdout.decode().strip(), near.stderr.decode()), (waiting.returncode, out.strip(), err)

    def pair_back(self, step=None):
        return self.pair("link", step, taker=self.branch, offerer=self.hq, entries=("back", "branch"), middle=self.back)

    # -- what must be

    @staticmethod
    def key(site, name):
        """(kind, party), and the states of its versions; None if there is no such key."""
        for line in site.cli("key", "list").stdout.decode().splitlines():
            words = line.split()
            if words[0] == name:
                listed = site.cli("key", "show", name, "--versions").stdout.decode()
                return (words[1], words[2]), re.findall(r"^\s*\d+\s.*?(pending|active|open-only|retired)", listed, re.M)
        return None

    def states(self, name="link"):
        keys = [self.key(site, name) for site in (self.branch, self.hq)]
        parties = [key[0] for key in keys if key]
        self.assertEqual(len(set(parties)), len(parties), "two hosts that are the same party")
        return [key[1] if key else None for key in keys]

    def assert_mended(self, name="link"):
        near, far = self.pair(name)
        self.assertEqual((near[0], far[0]), (0, 0), (near, far))
        self.assertEqual(near[1], far[1], "the fingerprints")
        self.assertIn("active on both hosts", near[2])
        for states in self.states(name):
            self.assertEqual(states[-1], "active")
            self.assertNotIn("pending", states)
        shown = [site.cli("key", "show", name).stdout.decode().strip() for site in (self.branch, self.hq)]
        self.assertEqual(shown, [near[1]] * 2)

    # -- each step, for a block that is there already

    def test_the_offer_is_lost(self):
        near, far = self.pair(step="offer")
        self.assertEqual((near[0], far[0]), (1, 1))
        self.assertRegex(near[2], "nothing was changed here: .*\n.*hint: .*pair again")
        self.assertRegex(far[2], "hint: .*pair again")
        self.assertEqual(self.states(), [["active"], ["active"]])
        self.assert_both_serve("the offer was lost")
        self.assert_mended()
        self.assert_both_serve("mended")

    def test_the_answer_of_who_has_stored_the_block_is_lost(self):
        for how in ("rst", "fin"):
            near, far = self.pair("link", "have", how)
            self.assertEqual((near[0], far[0]), (1, 1), how)
            self.assertRegex(near[2], "nothing was changed here: .*\n.*hint: .*pair again")
            self.assertRegex(far[2], "stored and not used: .*\n.*hint: pair again; or .*--confirm")
            branch, hq = self.states()
            self.assertNotIn("pending", branch)
            self.assertEqual(hq[-1], "pending")
            self.assert_both_serve(f"one host has stored it, {how}")
            self.assert_mended()
            self.assert_both_serve("mended")

    def test_the_word_that_both_have_it_is_lost(self):
        near, far = self.pair(step="both")
        self.assertEqual((near[0], far[0]), (1, 1))
        self.assertRegex(near[2], "active here, and the other host hasn't said .*\n.*hint: pair again; or .*--confirm")
        self.assertRegex(far[2], "stored and not used: .*\n.*hint: pair again; or .*--confirm")
        self.assertEqual(self.states(), [["open-only", "active"], ["active", "pending"]])
        self.assert_both_serve("one host uses it, the other has it")
        self.assert_mended()
        self.assert_both_serve("mended")

    def test_or_what_the_hint_says_instead_is_done(self):
        near, _ = self.pair(step="both")
        told = re.search(r"or if it waits there: sallyport (pair .*)", near[2]).group(1).split()
        self.assertEqual(told[-1], near[1], "the fingerprint on standard output")
        self.hq.cli(*told)
        self.assertEqual(self.states(), [["open-only", "active"]] * 2)
        self.assert_both_serve("confirmed")

    def test_the_last_answer_is_lost(self):
        near, far = self.pair(step="done")
        self.assertEqual((near[0], far[0]), (1, 0))
        self.assertRegex(near[2], "active here, and the other host hasn't said .*\n.*hint: pair again; or .*--confirm")
        self.assertEqual(near[1], far[1])
        self.assertEqual(self.states(), [["open-only", "active"]] * 2)
        self.assert_both_serve("both use it")
        self.assert_mended()
        self.assert_both_serve("mended")

    # -- one run after the other

    def test_a_second_run_is_cut_too(self):
        self.pair(step="both")
        self.pair(step="have")
        self.assert_both_serve("branch uses a block of which hq doesn't know that it does")
        self.pair(step="both")
        self.assert_both_serve("and the next")
        self.assert_mended()
        self.assert_both_serve("mended")

    def test_the_second_run_goes_the_other_way_and_is_cut_too(self):
        self.pair(step="both")
        near, far = self.pair_back(step="both")
        self.assertEqual((near[0], far[0]), (1, 1))
        self.assert_both_serve("each uses a block that waits at the other host")
        near, far = self.pair_back()
        self.assertEqual((near[0], far[0], near[1]), (0, 0, far[1]))
        self.assert_both_serve("mended")

    # -- a name that is new on both

    def test_a_new_name_after_each_cut(self):
        expected = {"offer": [None, None], "have": [None, ["pending"]], "both": [["active"], ["pending"]],
                    "done": [["active"], ["active"]]}
        for step, states in expected.items():
            with self.subTest(step):
                self.pair(f"new-{step}", step)
                self.assertEqual(self.states(f"new-{step}"), states)
                self.assert_mended(f"new-{step}")

    def test_the_second_run_cant_give_both_the_same_party(self):
        self.pair("roles", "have")
        self.assertEqual(self.key(self.hq, "roles")[0], ("peer-block", "B"))
        near, far = self.pair("roles", None, "rst", "--party", "B")
        self.assertEqual((near[0], far[0]), (1, 1))
        self.assertRegex(far[2], "offers a block for party A, and this host is B\n.*hint: give --party A to the other host")
        self.assertEqual(self.states("roles"), [None, ["pending"]])
        self.assert_mended("roles")


if __name__ == "__main__":
    unittest.main()
