#!/usr/bin/python3
"""Goal: the tree stays as readable as on its first day.
Method: what a reviewer would otherwise have to say again and again, as rules. A file may ask for an exception in its first
lines, with the reason: `lint: RULE: reason` (rules: refs, size, width, words).

usage: tidy.py SOURCE_ROOT
"""

import pathlib
import re
import sys

import tree

CPP_COLUMNS = 120    # clang-format keeps it: `./dev format`
OTHER_COLUMNS = 140  # people wrap it
MAX_CODE_LINES = 500
MAX_BLOB_BYTES = 64 * 1024

# Everywhere. (Spelled in pieces, so that this file passes.)
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX", "not implemen" + "ted")) + r")\b")
# In the product.
BANNED = [
    (re.compile(r"\bKJ_DBG\b"), "a debugging leftover"),
    (re.compile(r"\bstd::(cout|cerr|clog)\b"), "daemons log with common/log, the CLI talks through its terminal file"),
    (re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|alloca|strtok)\s*\("), "no bounds"),
    (re.compile(r"\bs?rand\s*\("), "randomness comes from the kernel: fillRandom"),
    (re.compile(r"\bsetupAsyncIo\b|\bEzRpc|<kj/compat/http"), "docs/decisions: one loop, no EzRpc, no kj-http"),
    (re.compile(r"\[=\]"), "captures are explicit"),
    (re.compile(r"\bstd::(views|ranges::(views|subrange|search|equal_range|unique|rotate|remove))\b|#include <ranges>"),
     "clang 14, which ./dev sanitize needs, can't compile g++ 12's"),
    (re.compile(r"\b(co_await|co_return|co_yield)\b"), "g++ 12 can't compile coroutines of kj::Promise"),
]
# Where each word may stand after all, because that place is what the rule protects.
MAY_SAY = {
    "cli/": re.compile(r"std::(cout|cerr)"),
}
DESIGN = re.compile(r"\bDESIGN(\.md)? §|\bresearch/[a-z-]+\.md")


def check_text(name, text, problems):
    for number, line in enumerate(text.splitlines(), 1):
        if line != line.rstrip():
            problems.append(f"{name}:{number}: trailing blanks")
        if "\t" in line:
            problems.append(f"{name}:{number}: a tab")
        if UNFINISHED.search(line):
            problems.append(f"{name}:{number}: an unfinished mark")
        if DESIGN.search(line):
            problems.append(f"{name}:{number}: cites a paper that isn't in this repository; cite docs/ or say it")
    if text and not text.endswith("\n"):
        problems.append(f"{name}: no newline at the end")
    if text.endswith("\n\n"):
        problems.append(f"{name}: empty lines at the end")


def check_width(name, text, problems):
    if tree.waived(text, "width"):
        return
    limit = CPP_COLUMNS if name.endswith((".h", ".cc")) else OTHER_COLUMNS
    for number, line in enumerate(text.splitlines(), 1):
        # Long addresses and tables can't be broken.
        if len(line) > limit and "http" not in line and not line.lstrip().startswith(("|", "X(")):
            problems.append(f"{name}:{number}: {len(line)} columns, at most {limit}")


def strip_comment(line):
    return line.split("//")[0]


def check_cpp(name, path, text, problems):
    lines = text.splitlines()
    # An implementation is told by its header; everything else tells itself.
    if not path.with_suffix(".h").is_file() or path.suffix == ".h":
        if not lines or not re.match(r"// \S+ - \S|// Goal: ", lines[0]):
            problems.append(f"{name}: the first line must be `// {path.name} - what it is`")
    if path.suffix == ".h" and "#pragma once" not in text:
        problems.append(f"{name}: no #pragma once")
    if path.suffix == ".h" and "\nusing namespace" in text:
        problems.append(f"{name}: using namespace in a header: names say which privilege they are of")
    for number, line in enumerate(lines, 1):
        include = re.match(r'#include "([^"]+)"', line)
        if include and "/" not in include[1]:
            problems.append(f'{name}:{number}: include "{include[1]}" from the root of the tree')


def check_size(name, text, problems):
    lines = len(text.splitlines())
    if lines > MAX_CODE_LINES and not tree.waived(text, "size"):
        problems.append(f"{name}: {lines} lines; more than {MAX_CODE_LINES} want a split, or `lint: size: reason` on top")


def check_product(name, text, problems):
    if tree.waived(text, "words"):
        return
    for number, line in enumerate(text.splitlines(), 1):
        code = strip_comment(line)
        for pattern, why in BANNED:
            found = pattern.search(code)
            if not found:
                continue
            if any(name.startswith(place) and allowed.fullmatch(found[0]) for place, allowed in MAY_SAY.items()):
                continue
            problems.append(f"{name}:{number}: {found[0].strip()}: {why}")
        part = name.split("/")[0]
        # A failing KJ_REQUIRE sends its operands' values to the RPC peer: in the key holder only main may use it.
        if part == "vaultd" and not name.endswith("main.cc") and re.search(r"\bKJ_(REQUIRE|ASSERT)\b", code):
            problems.append(f"{name}:{number}: KJ_REQUIRE prints values; CHECK doesn't")


def check_python(name, text, problems):
    if not re.match(r'(#!/usr/bin/python3\n)?(# lint: .*\n)*"""', text):
        problems.append(f"{name}: must begin with a docstring, or #!/usr/bin/python3 and one (`env` may find another python)")


def check_tests_say_why(root, problems):
    for path, text in tree.sources(root):
        name = str(path.relative_to(root))
        if name.startswith("tests/") and path.name.endswith(("_test.cc", "_test.py")):
            head = "\n".join(text.splitlines()[:12])
            if "Goal:" not in head:
                problems.append(f"{name}: a test file says its Goal: (and Method:) on top")


def check_drop_reasons(root, problems):
    """Every reason to drop is reached by at least one test, by its enumerator or its name in metrics."""
    header = root / "proto/wire/drop_reason.h"
    if not header.is_file():
        problems.append("proto/wire/drop_reason.h is gone")
        return
    reasons = re.findall(r'X\((\w+),\s*"(\w+)",', header.read_text())
    tests = "\n".join(text for path, text in tree.sources(root)
                      if str(path.relative_to(root)).startswith("tests/") and "tests/lint/" not in str(path))
    protocol = (root / "docs/protocol.md").read_text()
    for enumerator, name in reasons:
        if not re.search(rf"DropReason::{enumerator}\b|\bR::{enumerator}\b|[\"'`]{name}[\"'`]", tests):
            problems.append(f"DropReason::{enumerator} ({name}) is reached by no test")
        if f"`{name}`" not in protocol:
            problems.append(f"DropReason::{enumerator}: docs/protocol.md §4 doesn't tell of `{name}`")
    for name in re.findall(r"^\| `(\w+)` \|", protocol, re.M):
        if name not in {name for _, name in reasons}:
            problems.append(f"docs/protocol.md §4 tells of `{name}`, which the code doesn't know")


def check_blobs(root, problems):
    for path in tree.files(root):
        name = str(path.relative_to(root))
        if path.stat().st_size > MAX_BLOB_BYTES and path.suffix not in tree.TEXT_SUFFIXES and "vectors" not in name:
            problems.append(f"{name}: {path.stat().st_size} bytes; what is so large belongs elsewhere")


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    problems = []
    count = 0
    for path, text in tree.texts(root):
        name = str(path.relative_to(root))
        count += 1
        check_text(name, text, problems)
        if tree.is_source(path) and path.suffix != ".policy":  # there a line is one call with its reason
            check_width(name, text, problems)
            check_size(name, text, problems)
        if path.suffix in (".h", ".cc") and "compile_fail" not in name:
            check_cpp(name, path, text, problems)
        if tree.is_source(path) and tree.product(root, path):
            check_product(name, text, problems)
        if path.suffix == ".py" or name == "demo/run":
            check_python(name, text, problems)
    check_tests_say_why(root, problems)
    check_drop_reasons(root, problems)
    check_blobs(root, problems)
    print("\n".join(problems) or f"{count} files, nothing to say")
    return 1 if problems or not count else 0


if __name__ == "__main__":
    sys.exit(main())
