#!/usr/bin/python3
"""Goal: vaultd serves under the same lock-down with tokens and without: the same filter of system calls, instruction for instruction, the
same layers, no capability.
Method: two sites, one of them with a key in a token; the kernel is asked which filter it holds for their vaultds (that needs root and no
filter of our own; else only what /proc and `status` say is compared). What the policy may say is tests/lint/vault_reach.py's business.
"""

import ctypes
import os
import pathlib
import re
import struct
import sys
import unittest

import tokens
from harness import SystemTest

PTRACE_ATTACH, PTRACE_DETACH, PTRACE_SECCOMP_GET_FILTER = 16, 17, 0x420c
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def filter_of(pid):
    """The last filter that this process was put under, as [(code, jt, jf, k)], its own pid as "pid"; None: we may not see it."""
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        return None
    os.waitpid(pid, 0)
    try:
        count = libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, None, None)
        if count <= 0:
            return None
        buffer = ctypes.create_string_buffer(count * 8)
        libc.ptrace(PTRACE_SECCOMP_GET_FILTER, pid, None, buffer)
    finally:
        libc.ptrace(PTRACE_DETACH, pid, None, None)
    return [(code, jt, jf, "pid" if k == pid else k) for code, jt, jf, k in struct.iter_unpack("=HBBI", buffer.raw)]


def proc_facts(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {name: re.search(rf"(?m)^{name}:\s+(\S+)", status)[1]
            for name in ("Seccomp", "Seccomp_filters", "NoNewPrivs", "CapEff", "CapPrm", "CapBnd", "Threads")}


class SameLockDown(SystemTest):
    def test_with_a_token_and_without(self):
        found = {}
        for with_token in (True, False):
            site = self.site("with" if with_token else "without")
            if with_token:
                token = tokens.Mock()
                self.addCleanup(token.remove)
                site.token("hsm", token)
                site.token_key("server", "hsm")
            alice = site.peer("alice")
            port = site.listen("echo", ["alice"], "echo", key="server")
            site.start()
            if with_token:
                site.wait_tokens()
            with site.connect(port, alice, key="server") as session:
                self.assert_echo(session)
            status = site.vault_status()
            self.assertEqual(status["verdict"], "full")
            found[with_token] = (status["sandbox"], proc_facts(status["pid"]), filter_of(status["pid"]))
        self.assertEqual(found[True][0], found[False][0])
        self.assertEqual(found[True][1], found[False][1])
        if None in (found[True][2], found[False][2]):
            self.skipTest("the kernel doesn't show us filters here: /proc and status agree")
        self.assertGreater(len(found[True][2]), 50)
        self.assertIn("pid", [each[3] for each in found[True][2]], "the rule of abort isn't there")
        self.assertEqual(found[True][2], found[False][2])


if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
