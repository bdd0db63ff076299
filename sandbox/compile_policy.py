#!/usr/bin/python3
"""Compiles sandbox/*.policy into a C++ table and lints them. Runs at build time; no policy is read at run time.

A line:        name [condition] [=> action]  # reason
A condition:   argN == EXPR | argN == EXPR ignoring EXPR | argN in EXPR | argN == own_pid, joined by &&
An action:     allow (if none is written), kill, or an errno such as EPERM
First line:    default kill | default EPERM

Filters are inherited over exec: --outer netd=netd_worker,netd_resolver checks that the first allows what the others do.

`in` means: no bit outside EXPR. All comparisons are over 64 bits. EXPR is constants of the system's headers, joined by |.
Several lines of one call are alternatives. Lines are sorted by name; each has its reason.

usage: compile_policy.py --syscalls seccomp-syscalls.h [--output FILE] [--outer NAME=NAMES] NAME=FILE[:locked]...
  :locked  the profile of a process that holds keys or parses network bytes: LOCKED_NEVER applies as well
"""
import argparse
import re
import sys

# No process of ours may ever have these, whatever the reason.
NEVER = set("""
    acct add_key adjtimex afs_syscall bpf clock_adjtime clock_settime create_module delete_module fanotify_init finit_module fsconfig
    fsmount fsopen fspick get_kernel_syms init_module io_setup io_submit io_uring_enter io_uring_register io_uring_setup ioperm iopl
    kcmp kexec_file_load kexec_load keyctl lookup_dcookie memfd_secret migrate_pages modify_ldt mount_setattr move_mount move_pages
    name_to_handle_at nfsservctl open_by_handle_at open_tree perf_event_open personality pidfd_getfd pkey_mprotect
    process_madvise process_vm_readv process_vm_writev ptrace quotactl quotactl_fd reboot remap_file_pages request_key
    set_mempolicy_home_node setdomainname sethostname setns settimeofday stime swapoff swapon syslog tee tuxcall umount uselib
    userfaultfd ustat vhangup vm86 vmsplice vserver
""".split())

# Holders of keys and parsers of network bytes: no path, no new socket, no process, no privilege.
LOCKED_NEVER = set("""
    access arch_prctl bind capset chdir chmod chown chroot clone clone3 connect creat dup dup2 dup3 execve execveat faccessat
    faccessat2 fchdir fchmod fchmodat fchown fchownat fork futimesat getcwd inotify_add_watch ioctl kill lchown link linkat listen
    lstat memfd_create mkdir mkdirat mknod mknodat mlock mlockall mount name_to_handle_at newfstatat open openat openat2
    pidfd_open pidfd_send_signal pipe pipe2 pivot_root prctl prlimit64 process_mrelease readlink readlinkat rename renameat renameat2
    rmdir rt_sigqueueinfo rt_tgsigqueueinfo seccomp setfsgid setfsuid setgid setgroups setpgid setregid setresgid setresuid setreuid
    setrlimit setsid setuid shmat shmctl shmdt shmget signalfd signalfd4 socket socketpair splice stat statx symlink symlinkat
    sysinfo timer_create tkill truncate umask umount2 uname unlink unlinkat unshare utimensat vfork
""".split())

# Too powerful without a look at their arguments.
NEEDS_CONDITION = {"mmap", "mprotect", "madvise", "futex", "tgkill", "prctl", "ioctl", "clone", "fcntl", "socket", "setsockopt",
                   "mremap", "unshare", "umount2", "prlimit64"}
# ... and these may not let new code in.
NEVER_EXECUTABLE = {"mmap", "mprotect"}

MAX_CONDITIONS = 3
HEADERS = ["errno.h", "fcntl.h", "linux/capability.h", "linux/futex.h", "linux/seccomp.h",
           "linux/sockios.h", "netinet/in.h", "netinet/tcp.h", "sched.h",
           "seccomp.h", "signal.h", "sys/epoll.h", "sys/ioctl.h", "sys/mman.h", "sys/mount.h", "sys/prctl.h", "sys/resource.h",
           "sys/socket.h"]
# Debian 12's headers are older than the kernels we run on.
NEWER = {"PR_SET_MDWE": 65, "PR_GET_MDWE": 66, "PR_SET_VMA": 0x53564d41}

EXPR = r"(?:[A-Z][A-Z0-9_]*|0x[0-9a-f]+|[0-9]+)(?: ?\| ?(?:[A-Z][A-Z0-9_]*|0x[0-9a-f]+|[0-9]+))*"
CLAUSE = re.compile(rf"arg([0-5]) (?:== (own_pid)|== ({EXPR}) ignoring ({EXPR})|== ({EXPR})|in ({EXPR}))")


class PolicyError(Exception):
    def __init__(self, file, line, text):
        super().__init__(f"{file}:{line}: {text}")


class Rule:
    def __init__(self, line, call, condition, clauses, action):
        self.line, self.call, self.condition, self.clauses, self.action = line, call, condition, clauses, action


def parse_action(text, fail):
    if text in ("allow", "kill") or re.fullmatch(r"E[A-Z0-9]+", text):
        return text
    fail(f"`{text}` is no action: allow, kill or an errno")


def parse_clauses(condition, fail):
    clauses = []
    for part in condition.split("&&"):
        match = CLAUSE.fullmatch(part.strip())
        if not match:
            fail(f"can't read the condition `{part.strip()}`")
        argument, own_pid, masked, ignored, equal, subset = match.groups()
        if any(argument == other[0] for other in clauses):
            fail(f"arg{argument} is compared twice in one line: libseccomp can't do that")
        if own_pid:
            clauses.append((argument, "true", "~u64(0)", "0"))
        elif masked:
            clauses.append((argument, "false", f"~u64({ignored})", f"u64({masked}) & ~u64({ignored})"))
        elif equal:
            clauses.append((argument, "false", "~u64(0)", f"u64({equal})"))
        else:
            clauses.append((argument, "false", f"~u64({subset})", "0"))
    if len(clauses) > MAX_CONDITIONS:
        fail(f"more than {MAX_CONDITIONS} conditions in one line")
    return clauses


def lint_rule(rule, locked, default, rules, fail):
    """What is wrong with `rule`, given those before it."""
    allowed = rule.action == "allow"
    if rule.action == default:
        fail(f"`{rule.call}` is {default} by default")
    if rules and rule.call < rules[-1].call:
        fail(f"not sorted: `{rule.call}` after `{rules[-1].call}`")
    for other in rules:
        if other.call != rule.call:
            continue
        if other.condition == rule.condition:
            fail(f"`{rule.call}` is here twice")
        if not other.condition or not rule.condition:
            fail(f"`{rule.call}` has a line without a condition: the others mean nothing")
        if other.action != rule.action:
            fail(f"`{rule.call}` has two actions")
    if allowed and rule.call in NEVER:
        fail(f"`{rule.call}` is never allowed in any process")
    if allowed and locked and rule.call in LOCKED_NEVER:
        fail(f"`{rule.call}` is never allowed in a locked process")
    if allowed and rule.call in NEEDS_CONDITION and not rule.condition:
        fail(f"`{rule.call}` needs a condition on its arguments")
    if allowed and rule.call in NEVER_EXECUTABLE:
        if not re.search(r"\barg2 (==|in) ", rule.condition):
            fail(f"`{rule.call}` needs a condition on arg2, the protection")
        if "PROT_EXEC" in rule.condition and (locked or "PROT_WRITE" in rule.condition):
            fail(f"`{rule.call}` lets new code in")


def parse(file, text, known, locked, widening=False):
    """The default action and the rules of one policy. `widening`: the sanitizer's group, which has no default of its own."""
    default, rules = ("kill" if widening else None), []
    for number, line in enumerate(text.splitlines(), 1):
        def fail(problem):
            raise PolicyError(file, number, problem)

        if not line.strip() or line.startswith("#"):
            continue
        if line != line.rstrip() or line != line.lstrip() or "\t" in line:
            fail("white space at an end, or a tab")
        rule_text, hash_mark, reason = line.partition("#")
        if default is None:
            match = re.fullmatch(r"default (\S+)", rule_text.strip())
            if not match:
                fail("the first line must be `default ACTION`")
            default = parse_action(match.group(1), fail)
            if default == "allow":
                fail("a policy that allows by default is none")
            continue
        if not hash_mark or not reason.strip():
            fail("no reason: each line ends in `# why`")
        rule_text, _, action = rule_text.partition("=>")
        call, _, condition = rule_text.strip().partition(" ")
        condition = " ".join(condition.split())
        if call not in known:
            fail(f"`{call}` is no system call")
        rule = Rule(number, call, condition, parse_clauses(condition, fail) if condition else [],
                    parse_action(action.strip() or "allow", fail))
        if widening:
            # Debugging builds may be wider, but not without limits.
            if call in NEVER - {"personality"}:
                fail(f"`{call}` is never allowed in any process")
        else:
            lint_rule(rule, locked, default, rules, fail)
        rules.append(rule)
    if default is None or not rules:
        raise PolicyError(file, 0, "an empty policy")
    return default, rules


def split_clause(clause):
    """("arg2", constants that must be there, constants that may be)."""
    argument, _, rest = clause.strip().partition(" ")
    equal, _, ignored = rest.removeprefix("== ").partition(" ignoring ")
    if rest.startswith("in "):
        return argument, frozenset(), frozenset(re.split(r" ?\| ?", rest.removeprefix("in ")))
    return argument, frozenset(re.split(r" ?\| ?", equal)), frozenset(re.split(r" ?\| ?", ignored)) if ignored else frozenset()


def covers(wide, narrow):
    """Whether every call that passes the condition `narrow` passes `wide`; by constants' names, on the safe side."""
    inner = {argument: (must, may) for argument, must, may in map(split_clause, narrow.split("&&"))} if narrow else {}
    for argument, must, may in map(split_clause, wide.split("&&")) if wide else ():
        if argument not in inner:
            return False
        inner_must, inner_may = inner[argument]
        exact = inner_must - {"0"} >= must - {"0"}
        if not exact or not (inner_must | inner_may) - {"0"} <= must | may:
            return False
    return True


def lint_outer(name, policy, inner_name, inner):
    for rule in inner[1]:
        if rule.action != "allow":
            continue
        if not any(wide.call == rule.call and wide.action == "allow" and covers(wide.condition, rule.condition)
                   for wide in policy[1]):
            raise PolicyError(inner_name, rule.line, f"`{rule.call} {rule.condition}` is allowed here, but not by {name}, whose filter "
                                                     "is inherited")


def action_fields(action):
    if action in ("allow", "kill"):
        return f"Action::{action.title()}, 0"
    return f"Action::Errno, {action}"


def emit(name, default, rules):
    out = [f"constexpr Rule {name.upper()}_RULES[] = {{"]
    for rule in rules:
        conditions = ", ".join(f"{{{argument}, {pid}, {mask}, {value}}}" for argument, pid, mask, value in rule.clauses)
        out.append(f"    {{SCMP_SYS({rule.call}), {action_fields(rule.action)}, {len(rule.clauses)}, {{{conditions}}}}},")
    out.append("};")
    out.append(f"constexpr Policy {name.upper()} = {{{action_fields(default)}, {name.upper()}_RULES}};")
    return "\n".join(out) + "\n"


def generate(policies):
    includes = "\n".join(f"#include <{header}>" for header in HEADERS)
    newer = "\n".join(f"#ifndef {name}\n#define {name} {value}\n#endif" for name, value in NEWER.items())
    tables = "\n".join(emit(name, default, rules) for name, (default, rules) in policies.items())
    return f"""// Made by compile_policy.py from sandbox/*.policy. Do not edit.
{includes}

#include "sandbox/policy.h"

{newer}

namespace sallyport::sandbox {{
namespace {{

// Through the constant's own type, so that a negative int fills the high bits as the C library's call does.
constexpr uint64_t u64(auto constant) {{ return static_cast<uint64_t>(constant); }}

{tables}
}}  // namespace

const Policy& policyOf(Profile profile) {{
  switch (profile) {{
    case Profile::Vaultd: return VAULTD;
    case Profile::Netd: return NETD;
    case Profile::NetdWorker: return NETD_WORKER;
    case Profile::NetdResolver: return NETD_RESOLVER;
    case Profile::HsmKeeper: return HSM_KEEPER;
    case Profile::HsmSoftHsm: return HSM_SOFTHSM;
    case Profile::HsmNss: return HSM_NSS;
    case Profile::HsmLocal: return HSM_LOCAL;
    case Profile::HsmNetwork: return HSM_NETWORK;
  }}
  return VAULTD;  // the narrowest
}}

const Policy& sanitizerPolicy() {{ return SANITIZER; }}

}}  // namespace sallyport::sandbox
"""


def known_syscalls(path):
    with open(path, encoding="utf-8") as header:
        return set(re.findall(r"^#define __SNR_(\w+)", header.read(), re.MULTILINE))


def main(arguments):
    parser = argparse.ArgumentParser(description="compiles and lints syscall policies")
    parser.add_argument("--syscalls", required=True, help="seccomp-syscalls.h: the names that libseccomp knows")
    parser.add_argument("--output", help="the C++ table; without it the policies are only checked")
    parser.add_argument("--outer", default="", metavar="NAME=NAMES", help="whose filter the others inherit")
    parser.add_argument("policy", nargs="+", metavar="NAME=FILE[:locked]")
    options = parser.parse_args(arguments)
    known = known_syscalls(options.syscalls)
    policies = {}
    try:
        for spec in options.policy:
            name, _, file = spec.partition("=")
            locked = file.endswith(":locked")
            file = file.removesuffix(":locked")
            with open(file, encoding="utf-8") as stream:
                policies[name] = parse(file, stream.read(), known, locked, widening=name == "sanitizer")
        outer, _, children = options.outer.partition("=")
        for child in filter(None, children.split(",")):
            lint_outer(outer, policies[outer], child, policies[child])
    except (PolicyError, OSError) as problem:
        print(f"sallyport: error: {problem}", file=sys.stderr)
        return 1
    if options.output:
        with open(options.output, "w", encoding="utf-8") as stream:
            stream.write(generate(policies))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
