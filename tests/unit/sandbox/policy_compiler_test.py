#!/usr/bin/python3
"""Goal: no policy compiles that lacks a reason, an order, a condition where one is needed, or that allows the unthinkable.
Method: small policies, each with one fault, through the compiler's own functions.

usage: policy_compiler_test.py COMPILER SECCOMP_SYSCALLS_H
"""
import importlib.util
import sys
import unittest

COMPILER, SYSCALLS = sys.argv[1:3]
spec = importlib.util.spec_from_file_location("compile_policy", COMPILER)
compile_policy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compile_policy)
KNOWN = compile_policy.known_syscalls(SYSCALLS)


def parse(text, locked=True):
    return compile_policy.parse("x.policy", text, KNOWN, locked)


class Refuses(unittest.TestCase):
    def check(self, lines, expected, locked=True):
        text = "default kill\n" + "\n".join(lines) + "\n"
        with self.assertRaises(compile_policy.PolicyError) as caught:
            parse(text, locked)
        self.assertIn(expected, str(caught.exception))

    def test_a_line_without_a_reason(self):
        self.check(["read"], "x.policy:2: no reason")
        self.check(["read  #"], "no reason")
        self.check(["read  #   "], "white space")

    def test_lines_out_of_order(self):
        self.check(["write  # log", "read  # log"], "x.policy:3: not sorted: `read` after `write`")

    def test_an_unknown_call(self):
        self.check(["raed  # typo"], "`raed` is no system call")

    def test_the_same_line_twice(self):
        self.check(["read  # one", "read  # two"], "`read` is here twice")

    def test_a_condition_beside_an_unconditional_line(self):
        self.check(["read  # all", "read arg0 == 1  # one"], "the others mean nothing")
        self.check(["read arg0 == 1  # one", "read  # all"], "the others mean nothing")

    def test_two_actions_for_one_call(self):
        self.check(["read arg0 == 1  # one", "read arg0 == 2 => EPERM  # two"], "two actions")

    def test_the_default_again(self):
        self.check(["ptrace => kill  # never"], "`ptrace` is kill by default")

    def test_what_no_process_may_have(self):
        for call in ("ptrace", "bpf", "io_uring_setup", "process_vm_readv", "keyctl", "userfaultfd", "perf_event_open", "setns"):
            self.check([f"{call}  # please"], f"`{call}` is never allowed in any process", locked=False)

    def test_what_no_locked_process_may_have(self):
        for call in ("openat", "execve", "connect", "bind", "kill", "chroot", "unshare arg0 == 1", "socket arg0 == AF_INET",
                     "prctl arg0 == PR_SET_NAME", "clone arg0 == SIGCHLD", "ioctl arg1 == FIONREAD"):
            self.check([f"{call}  # please"], "is never allowed in a locked process")

    def test_powerful_calls_without_a_condition(self):
        for call in ("mmap", "mprotect", "futex", "madvise", "setsockopt", "fcntl", "tgkill", "mremap"):
            self.check([f"{call}  # please"], f"`{call}` needs a condition")

    def test_memory_that_runs(self):
        self.check(["mmap arg2 in PROT_READ|PROT_WRITE|PROT_EXEC  # jit"], "lets new code in", locked=False)
        self.check(["mmap arg2 in PROT_READ|PROT_EXEC  # plugin"], "lets new code in")
        self.check(["mmap arg3 == MAP_PRIVATE  # heap"], "needs a condition on arg2")
        self.check(["mprotect arg0 == 0  # heap"], "needs a condition on arg2")

    def test_conditions_that_it_cannot_read(self):
        for condition in ("arg6 == 1", "arg0 = 1", "arg0 < 1", "prot in PROT_READ", "arg0 == -1", "arg0 in", "arg0 == 1 ignoring",
                          "arg0 == 1 || arg1 == 2", "arg0 in own_pid"):
            self.check([f"read {condition}  # odd"], "can't read the condition")

    def test_one_argument_compared_twice(self):
        self.check(["read arg0 in 7 && arg0 == 1  # odd"], "compared twice")

    def test_too_many_conditions(self):
        self.check(["read arg0 == 1 && arg1 == 1 && arg2 == 1 && arg3 == 1  # odd"], "more than 3")

    def test_an_action_that_is_none(self):
        self.check(["read => trap  # odd"], "is no action")

    def test_white_space(self):
        self.check(["read\t# tab"], "a tab")
        self.check([" read  # indented"], "white space")

    def test_a_policy_without_a_default(self):
        for text, expected in (("read  # log\n", "first line"), ("default allow\n", "is none"), ("", "empty"),
                               ("default kill\n", "empty"), ("default perhaps\n", "no action")):
            with self.assertRaises(compile_policy.PolicyError) as caught:
                parse(text)
            self.assertIn(expected, str(caught.exception))


class Accepts(unittest.TestCase):
    def test_comments_blank_lines_and_alternatives(self):
        default, rules = parse("# what\n\ndefault kill\n\n# why\nfutex arg1 == FUTEX_WAIT  # a\nfutex arg1 == FUTEX_WAKE  # b\nread  # c\n")
        self.assertEqual((default, [rule.call for rule in rules]), ("kill", ["futex", "futex", "read"]))

    def test_errors_as_answers(self):
        default, rules = parse("default EPERM\nclone3 => ENOSYS  # falls back\nptrace => kill  # never\n", locked=False)
        self.assertEqual((default, [rule.action for rule in rules]), ("EPERM", ["ENOSYS", "kill"]))

    def test_every_form_of_condition(self):
        _, rules = parse("default kill\nmmap arg2 in PROT_READ|PROT_WRITE && arg3 == MAP_PRIVATE ignoring MAP_STACK  # heap\n"
                         "tgkill arg0 == own_pid && arg2 == 6  # abort\n")
        self.assertEqual(rules[0].clauses, [("2", "false", "~u64(PROT_READ|PROT_WRITE)", "0"),
                                            ("3", "false", "~u64(MAP_STACK)", "u64(MAP_PRIVATE) & ~u64(MAP_STACK)")])
        self.assertEqual(rules[1].clauses, [("0", "true", "~u64(0)", "0"), ("2", "false", "~u64(0)", "u64(6)")])


class Inheritance(unittest.TestCase):
    def covers(self, outer, inner, expected):
        self.assertEqual(compile_policy.covers(outer, inner), expected, f"{outer!r} over {inner!r}")

    def test_conditions(self):
        self.covers("", "", True)
        self.covers("", "arg0 == A", True)
        self.covers("arg0 == A", "", False)
        self.covers("arg0 == A", "arg0 == A", True)
        self.covers("arg0 == A", "arg0 == B", False)
        self.covers("arg0 == A", "arg1 == A", False)
        self.covers("arg0 == A", "arg0 == A && arg1 == B", True)
        self.covers("arg0 == A && arg1 == B", "arg0 == A", False)
        self.covers("arg0 in A|B", "arg0 == A", True)
        self.covers("arg0 in A|B", "arg0 in B", True)
        self.covers("arg0 in B", "arg0 in A|B", False)
        self.covers("arg0 in A|B", "arg0 == A ignoring B", True)
        self.covers("arg0 == A ignoring B|C", "arg0 == A ignoring B", True)
        self.covers("arg0 == A ignoring B", "arg0 == A ignoring B|C", False)
        self.covers("arg0 == A ignoring B", "arg0 in A|B", False)

    def test_a_child_that_needs_more_than_its_monitor_has(self):
        outer = parse("default kill\nread  # x\n", locked=False)
        inner = parse("default kill\nread  # x\nwrite  # x\n", locked=False)
        compile_policy.lint_outer("netd", inner, "netd_worker", outer)
        with self.assertRaises(compile_policy.PolicyError) as caught:
            compile_policy.lint_outer("netd", outer, "netd_worker", inner)
        self.assertIn("netd_worker:3: `write", str(caught.exception))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
