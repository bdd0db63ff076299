#!/usr/bin/python3
"""Goal: a rotation of a block happens on two hosts and not at one moment, and no connection is refused in between, whichever of them has
switched and whichever dials: by `sallyport pair`, whose last step may never come, and by hand. When the block before is retired, who
still has it is refused, under a name.
Method: two sites, each of which dials the other; at each step of the rotation a new connection in each direction.
"""

import os
import re
import unittest

from harness import wait_until
from peer_sites import TwoHosts


class Rotation(TwoHosts):
    def setUp(self):
        super().setUp()
        self.start_both()

    def versions(self, site):
        listed = site.cli("key", "show", "link", "--versions").stdout.decode()
        return re.findall(r"^\s*(\d+)\s.*?(pending|active|open-only|retired)", listed, re.M)

    def test_paired_and_the_confirmation_comes_late(self):
        made = self.branch.cli("pair", "link", "--to", "hq", "--key", "branch")
        told = re.search(r"fingerprint (\S+),", made.stderr.decode()).group(1)
        self.assertEqual(self.versions(self.branch), [("1", "active"), ("2", "pending")])
        self.assert_both_serve("one has it and waits")
        self.hq.cli("pair", "link", "--from", "branch", "--key", "hq", stdin=made.stdout)
        self.assertEqual(self.versions(self.hq), [("1", "open-only"), ("2", "active")])
        self.assert_both_serve("the other uses it")
        for site in (self.hq, self.branch):
            site.reload()
        self.assert_both_serve("and both were told to read their configuration")
        self.branch.cli("pair", "link", "--confirm", told)
        self.assertEqual(self.versions(self.branch), [("1", "open-only"), ("2", "active")])
        self.assert_both_serve("both use it")
        for site in (self.hq, self.branch):
            self.assertEqual({name for name in site.drops() if name not in ("peer_revoked", "truncated", "closed_in_handshake")},
                             set())  # the last: how the harness finds out that a site listens

    def test_the_confirmation_never_comes_and_the_block_before_is_retired(self):
        made = self.branch.cli("pair", "link", "--to", "hq", "--key", "branch")
        told = re.search(r"fingerprint (\S+),", made.stderr.decode()).group(1)
        self.hq.cli("pair", "link", "--from", "branch", "--key", "hq", stdin=made.stdout)
        self.hq.cli("key", "retire", "link", "1")
        # Who has switched is let in with what waits here; who hasn't is not, and it is counted by its name.
        self.assertTrue(self.serves(self.to_branch, b"to branch"))
        before = self.hq.drops()
        self.assertFalse(self.serves(self.to_hq, b"to hq"))
        wait_until(lambda: self.hq.drops_since(before).get("bad_checksum"), 10, "counted")
        self.branch.cli("pair", "link", "--confirm", told)
        self.assert_both_serve("confirmed at last")

    def test_at_a_set_time_while_one_clock_is_behind(self):
        """As if branch's clock was ahead: it uses already what is to be used in an hour at hq."""
        block = os.urandom(128).hex().encode() + b"\n"
        self.hq.cli("key", "rotate", "link", "--import", "--activate-in", "1h", stdin=block)
        self.branch.cli("key", "rotate", "link", "--import", "--activate-in", "1h", stdin=block)
        self.assertEqual(self.versions(self.hq), [("1", "active"), ("2", "pending")])
        self.assert_both_serve("neither has switched")
        self.branch.cli("key", "retire", "link", "2")
        self.branch.cli("key", "rotate", "link", "--import", stdin=block)
        self.assertEqual(self.versions(self.branch)[-1], ("3", "active"))
        self.assert_both_serve("one has switched, and the other one's time is to come")
        self.branch.reload()
        self.assert_both_serve("and was told to read its configuration")
        self.assertEqual({name for name in self.hq.drops() if name not in ("peer_revoked", "truncated", "closed_in_handshake")}, set())

    def test_by_hand_one_host_after_the_other(self):
        fresh = os.urandom(128).hex().encode() + b"\n"
        self.hq.cli("key", "rotate", "link", "--import", "--unused", stdin=fresh)
        # hq accepts the old one; branch, which doesn't have the new one at all, can't.
        self.assertTrue(self.serves(self.to_hq, b"to hq"))
        self.branch.cli("key", "rotate", "link", "--import", "--unused", stdin=fresh)
        self.assert_both_serve("both have rotated")


if __name__ == "__main__":
    unittest.main()
