#!/usr/bin/python3
"""Goal: each lint notices what it is there for.
Method: a copy of a small, good tree for each test, one fault put into it, and the lint must name the fault.

lint: refs: what is cited here belongs to those small trees.
"""

import contextlib
import io
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import boundaries  # noqa: E402
import section_refs  # noqa: E402
import tidy  # noqa: E402
import units  # noqa: E402
import vault_reach  # noqa: E402

REASONS = 'X(BadBox, "bad_box", "a box that does not open")'
GOOD = {
    "docs/protocol.md": "## §1 Framing\n\n**Step 1, client.** Text.\n\n| `bad_box` | what |\n",
    "proto/wire/drop_reason.h": f"// drop_reason.h - why.\n// docs/protocol.md §1.\n#pragma once\n#define R(X) {REASONS}\n",
    "netd/a.h": "// a.h - a thing. Part of: netd.\n#pragma once\nint a();\n",
    "netd/a.cc": '#include "netd/a.h"\n\n// protocol §1 step 1: so it is.\nint a() { return 1; }\n',
    "tests/unit/a_test.cc": "// Goal: a is a.\n// Method: a look.\nint b = DropReason::BadBox;\n",
    "sandbox/vaultd.policy": "default kill\nmremap arg3 == MREMAP_MAYMOVE  # why\nread  # why\n",
    "tests/lint/vaultd_reach.policy": "mremap arg3 == MREMAP_MAYMOVE\nread\n",
}


class Lints(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        for name, text in GOOD.items():
            self.write(name, text)

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_lint(self, lint, *arguments):
        output, before = io.StringIO(), sys.argv
        sys.argv = [lint.__name__, str(self.root), *arguments]
        try:
            with contextlib.redirect_stdout(output):
                status = lint.main()
        finally:
            sys.argv = before
        return status, output.getvalue()

    def assert_good(self, lint):
        status, output = self.run_lint(lint)
        self.assertEqual(status, 0, output)

    def assert_noticed(self, lint, words):
        status, output = self.run_lint(lint)
        self.assertEqual(status, 1)
        self.assertIn(words, output)

    def test_a_good_tree_is_good(self):
        self.assert_good(tidy)
        self.assert_good(section_refs)

    def test_tidy_notices_each_fault(self):
        unfinished = "TO" + "DO"
        for name, text, words in (
                ("netd/a.cc", f"int x;  // {unfinished}\n", "unfinished mark"),
                ("netd/a.cc", "int x; \n", "trailing blanks"),
                ("netd/a.cc", "int x;", "no newline"),
                ("netd/a.cc", "int x;\n" * 501, "501 lines"),
                ("netd/a.py", '"""A."""\n' * 501, "501 lines"),
                ("netd/a.cc", "// " + "x" * 120 + "\n", "123 columns"),
                ("netd/a.cc", "char* p = strcpy(q, r);\n", "no bounds"),
                ("netd/a.cc", "for (int x : all | std::views::reverse) {}\n", "clang 14"),
                ("netd/a.cc", '#include "a.h"\n', "from the root of the tree"),
                ("netd/a.h", "#pragma once\n", "first line"),
                ("netd/a.h", "// a.h - a thing.\nint x;\n", "no #pragma once"),
                ("vaultd/b.cc", "// b.cc - b.\nvoid f() { KJ_REQUIRE(x == 1); }\n", "prints values"),
                ("tests/unit/a_test.cc", "// Goal: none.\n", "reached by no test"),
                ("tests/unit/c_test.cc", "// c_test.cc - no goal.\n", "says its Goal"),
                ("tools/t.py", "#!/usr/bin/env python3\n", "must begin with"),
                ("docs/protocol.md", "## §1 Framing\n| `no_such` |\n", "which the code doesn't know")):
            with self.subTest(words):
                self.setUp()
                self.write(name, text)
                self.assert_noticed(tidy, words)

    def test_section_refs_notices_each_fault(self):
        for name, text, words in (
                ("netd/a.cc", "// protocol §7: no.\n", "has no §7"),
                ("netd/a.cc", "// protocol §1 step 9: no.\n", "§1 has no step 9"),
                ("netd/a.cc", "// docs/nothing.md says.\n", "docs/nothing.md does not exist"),
                ("docs/protocol.md", GOOD["docs/protocol.md"] + "## §2 More\n", "§2 is cited by no source"),
                ("README.md", "[x](docs/gone.md)\n", "leads nowhere")):
            with self.subTest(words):
                self.setUp()
                self.write(name, text)
                self.assert_noticed(section_refs, words)

    def test_units_wants_a_reason_above_each_directive(self):
        self.assertEqual(units.check_reasons("x.service", "[Service]\n# Why.\nA=1\n# Why.\nB=2\n"), [])
        self.assertIn("no reason", units.check_reasons("x.service", "[Service]\n# Why.\nA=1\nB=2\n")[0])
        self.assertIn("second time", units.check_reasons("x.service", "[Service]\n# Why.\nA=1\n# Why.\nA=2\n")[0])

    def test_vault_reach_notices_what_is_wider_than_was_reviewed(self):
        policy, reviewed = GOOD["sandbox/vaultd.policy"], GOOD["tests/lint/vaultd_reach.policy"]
        self.assert_good(vault_reach)
        for name, text, words in (
                ("sandbox/vaultd.policy", policy + "recvmsg  # descriptors\n", "`recvmsg` is not in"),
                ("sandbox/vaultd.policy", policy.replace("== MREMAP_MAYMOVE", "in MREMAP_MAYMOVE|MREMAP_FIXED"), "`mremap arg3"),
                ("sandbox/vaultd.policy", policy.replace(" arg3 == MREMAP_MAYMOVE", ""), "needs a condition"),
                ("sandbox/vaultd.policy", policy + "socket arg0 == AF_UNIX  # out\n", "never allowed in a locked"),
                ("sandbox/vaultd.policy", policy.replace("kill", "EPERM"), "must kill"),
                ("tests/lint/vaultd_reach.policy", "readv\n", "take it out"),
                ("sandbox/vaultd-tokens.policy", policy, "has one policy")):
            with self.subTest(words):
                self.setUp()
                if name.endswith("_reach.policy"):
                    text = reviewed + text
                self.write(name, text)
                self.assert_noticed(vault_reach, words)

    def test_boundaries_notices_a_foreign_include(self):
        table = {"include": {"netd": ["netd", "common"]}}
        found = []
        build = self.root / "build"
        objects = {"netd/libnetd.a.p/a.cc.o": ["../netd/a.h", "/usr/include/stdio.h", "../vaultd/keyring.h"]}
        boundaries.check_includes(table, objects, self.root, build, found.append)
        self.assertEqual(len(found), 1)
        self.assertIn("includes vaultd/keyring.h", found[0])
        boundaries.check_includes(table, {}, self.root, build, found.append)
        self.assertIn("nothing of netd/", found[1])

    def test_boundaries_notices_an_impure_source(self):
        table = {"pure": {"sources": ["netd/a.cc"], "system_headers": ["kj/*"]}}
        found = []
        boundaries.check_purity(table, {"netd/libnetd.a.p/a.cc.o": ["/usr/include/kj/async.h"]}, self.root, found.append)
        self.assertIn("must stay pure", found[0])


if __name__ == "__main__":
    unittest.main()
