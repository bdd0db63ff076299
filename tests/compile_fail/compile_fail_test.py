#!/usr/bin/python3
"""Goal: what the types promise holds: mixing up keys, copying a secret, or making a nonce outside its source does not compile.
Method: each file beside this one must fail, for the reason in its first line (`// Expect: REGEX`, of the compiler's first error), and
control.cc, which does the same things rightly, must compile. Syntax only, nothing is built.

usage: compile_fail_test.py SOURCE_ROOT COMPILER...
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def errors_of(root, compiler, source):
    command = [*compiler, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-fdiagnostics-color=never",
               "-I", str(root), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}, check=False)
    return done.returncode, done.stderr


def judge(root, compiler, source):
    """What is wrong with this file, or None."""
    code, output = errors_of(root, compiler, source)
    if source.name == "control.cc":
        return None if code == 0 else f"does not compile:\n{output}"
    expected = re.match(r"// Expect: (.+)", source.read_text())
    if not expected:
        return "its first line must be `// Expect: REGEX`"
    if code == 0:
        return "compiles"
    first = re.search(r"^(.*): error: (.*)$", output, re.M)
    if not first or not first[1].startswith(str(source)) or not re.search(expected[1], first[2]):
        return f"fails for another reason than {expected[1]!r}:\n{output}"
    return None


def main():
    root, compiler = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    sources = sorted(HERE.glob("*.cc"))
    if HERE / "control.cc" not in sources or len(sources) < 10:
        sys.exit("the files to compile are missing")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(lambda source: judge(root, compiler, source), sources))
    problems = [f"{source.name}: {verdict}" for source, verdict in zip(sources, verdicts) if verdict]
    print("\n".join(problems) or f"{len(sources)} files, as expected")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
