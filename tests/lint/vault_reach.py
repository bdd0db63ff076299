#!/usr/bin/python3
"""Goal: nobody widens what the holder of the long-term keys may do by the way, for a token or for anything else.
Method: each call that sandbox/vaultd.policy allows is covered by a line of vaultd_reach.policy, the reviewed list, which also isn't
wider than it says: a line that the policy doesn't need any more is taken out. The default stays `kill`, and there is no second policy
of vaultd's that a configuration could choose.

usage: vault_reach.py SOURCE_ROOT
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent.parent / "sandbox"))
import compile_policy  # noqa: E402

POLICY, REVIEWED = "sandbox/vaultd.policy", "tests/lint/vaultd_reach.policy"


def parsed(root, name, text):
    """(default action, allowed rules). Names of calls are libseccomp's business, when the policy is compiled."""
    known = {line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")}
    default, rules = compile_policy.parse(name, text, known, locked=True)
    return default, [rule for rule in rules if rule.action == "allow"]


def check(root):
    text = (root / POLICY).read_text()
    reviewed = "\n".join(line if not line.strip() or line.startswith("#") else line + "  # reviewed"
                         for line in (root / REVIEWED).read_text().splitlines())
    default, rules = parsed(root, POLICY, text)
    _, reach = parsed(root, REVIEWED, "default kill\n" + reviewed)
    problems = []
    if default != "kill":
        problems.append(f"{POLICY}: what isn't allowed must kill, not be answered with {default}")

    def covered(rule, by):
        return any(other.call == rule.call and compile_policy.covers(other.condition, rule.condition) for other in by)

    def ticked(rule):
        return f"`{rule.call} {rule.condition}".rstrip() + "`"
    problems += [f"{POLICY}:{rule.line}: {ticked(rule)} is not in {REVIEWED}: vaultd would reach further"
                 for rule in rules if not covered(rule, reach)]
    problems += [f"{REVIEWED}: {ticked(rule)} is wider than {POLICY}: take it out" for rule in reach if not covered(rule, rules)]
    others = sorted(path.name for path in (root / "sandbox").glob("vault*.policy") if path.name != pathlib.Path(POLICY).name)
    problems += [f"sandbox/{name}: vaultd has one policy, with and without tokens" for name in others]
    return problems


def main():
    try:
        problems = check(pathlib.Path(sys.argv[1]).resolve())
    except (compile_policy.PolicyError, OSError) as problem:
        problems = [str(problem)]
    print("\n".join(problems) or "vaultd reaches as far as was reviewed, and no further")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
