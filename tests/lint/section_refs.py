#!/usr/bin/python3
"""Goal: a reader who follows a reference from the code arrives.
Method: every `protocol §n` (and `step n` behind it) in a source, and every docs/ path that a source or a document names, must
exist; every numbered section of protocol.md must be cited by the code that keeps it, or say that it is not code's to keep.

usage: section_refs.py SOURCE_ROOT
"""

import pathlib
import re
import sys

import tree

PROTOCOL = "docs/protocol.md"
HEADING = re.compile(r"^#+ §(\d+(?:\.\d+)*)\b", re.M)
STEP = re.compile(r"^\*\*Step (\d+)", re.M)
# "protocol §2", "docs/protocol.md §1 and §2", "protocol §3 step 2"
REFERENCE = re.compile(r"protocol(?:\.md)? ((?:§\d+(?:\.\d+)*(?: step \d+)?(?:, | and )?)+)")
ONE = re.compile(r"§(\d+(?:\.\d+)*)(?: step (\d+))?")
DOCUMENT = re.compile(r"\bdocs/[A-Za-z0-9_./-]*[A-Za-z0-9]")
LINK = re.compile(r"\[[^\]]*\]\(([A-Za-z0-9_./-]*[./][A-Za-z0-9_./-]*)(?:#[^)]*)?\)")


def sections(text):
    """{section: {its steps}}"""
    headings = list(HEADING.finditer(text))
    found = {}
    for heading, following in zip(headings, headings[1:] + [None]):
        body = text[heading.end():following.start() if following else len(text)]
        found[heading[1]] = set(STEP.findall(body))
    return found


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    known = sections((root / PROTOCOL).read_text())
    problems, cited = [], set()
    for path, text in tree.texts(root):
        name = str(path.relative_to(root))
        if tree.waived(text, "refs"):
            continue
        for number, line in enumerate(text.splitlines(), 1):
            at = f"{name}:{number}"
            for reference in REFERENCE.finditer(line):
                for section, step in ONE.findall(reference[1]):
                    if section not in known:
                        problems.append(f"{at}: {PROTOCOL} has no §{section}")
                    elif step and step not in known[section]:
                        problems.append(f"{at}: {PROTOCOL} §{section} has no step {step}")
                    elif tree.is_source(path):
                        cited.add(section.split(".")[0])
            for document in DOCUMENT.findall(line):
                if not (root / document).exists() and "NNNN" not in document:
                    problems.append(f"{at}: {document} does not exist")
            if path.suffix == ".md":
                for target in LINK.findall(line):
                    if not (path.parent / target).exists():
                        problems.append(f"{at}: the link {target} leads nowhere")
    for section in known:
        if "." not in section and section not in cited:
            problems.append(f"{PROTOCOL} §{section} is cited by no source: who keeps it?")
    print("\n".join(problems) or f"{len(known)} sections, all references good")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
