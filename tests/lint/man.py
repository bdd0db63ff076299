#!/usr/bin/python3
"""Goal: the man pages are well-formed and complete.
Method: mandoc's own lint at warning level; the sections that every page of ours must have; and every command and option of the
CLI's table, every option of the daemons' help and every key of the configuration's parser in its page. Without mandoc: skipped (77).

usage: man.py SOURCE_ROOT
"""

import pathlib
import re
import shutil
import subprocess
import sys

PAGES = ["vaultd.8", "netd.8", "hsmd.8", "sallyport.1", "sallyport.toml.5", "libsallyport.3"]
SECTIONS = ["NAME", "DESCRIPTION", "EXAMPLES", "SECURITY CONSIDERATIONS", "SEE ALSO"]


def words(page):
    """The page's text without mdoc's macros, so that `Fl -json` reads `--json`."""
    text = re.sub(r"\bFl (-?[A-Za-z-]+)", r"-\1", page)
    return re.sub(r"^\.(It|Op|Oo|Nm|Cm|Ar|Ql|Li|Pa)\b", "", text, flags=re.M)


def undocumented(root):
    """(page, what the code knows and the page doesn't)"""
    pages = {page: words((root / "docs/man" / page).read_text()) for page in PAGES}
    table = (root / "cli/main.cc").read_text()
    commands = re.findall(r'^ +\{"([a-z][a-z -]*)",\s*"', table, re.M)
    options = set(re.findall(r'"(--[a-z-]+)=?\*?"', table))
    if len(commands) < 10:
        yield "sallyport.1", "nothing: the table of commands in cli/main.cc wasn't understood"
    for command in commands:
        if not re.search(rf"\b(Cm )?{command}\b", pages["sallyport.1"]):
            yield "sallyport.1", f"the command `{command}`"
    for option in sorted(options):
        if option not in pages["sallyport.1"]:
            yield "sallyport.1", f"the option {option}"
    for source in ("vaultd/main.cc", "netd/main.cc", "hsmd/main.cc", "hsmd/guard_main.cc"):
        page = source.partition("/")[0] + ".8"
        for option in re.findall(r'"  (--[a-z-]+)', (root / source).read_text()):
            if option not in pages[page]:
                yield page, f"the option {option}"
    parser = "".join((root / "common" / name).read_text() for name in ("config_parse.cc", "config_token.cc"))
    keys = set()
    for group in re.findall(r"\{((?:\s*\"[a-z_]+\",?)+)\}", parser):
        keys.update(re.findall(r'"([a-z_]+)"', group))
    keys.update(re.findall(r'\{"([a-z_]+)", &LimitsConfig', parser))
    if len(keys) < 30:
        yield "sallyport.toml.5", "nothing: the keys in common/config_*.cc weren't understood"
    for key in sorted(keys):
        if not re.search(rf"\b{key}\b", pages["sallyport.toml.5"]):
            yield "sallyport.toml.5", f"the key `{key}`"


def main():
    folder = pathlib.Path(sys.argv[1]).resolve() / "docs/man"
    problems = []
    for page in PAGES:
        path = folder / page
        if not path.is_file():
            problems.append(f"{page} is missing")
            continue
        text = path.read_text()
        problems += [f"{page}: no section {section}" for section in SECTIONS if f".Sh {section}\n" not in text]
    if not problems:
        problems += [f"{page} doesn't tell of {what}" for page, what in undocumented(folder.parent.parent)]
    if not shutil.which("mandoc"):
        print("\n".join(problems) or "mandoc is not installed: only the sections were checked")
        return 1 if problems else 77
    pages = [str(folder / page) for page in PAGES if (folder / page).is_file()]
    lint = subprocess.run(["mandoc", "-Tlint", "-W", "warning", *pages], capture_output=True, text=True)
    # Pages that are not installed on this machine can't be found by mandoc; that says nothing about ours.
    problems += [line for line in lint.stdout.splitlines() + lint.stderr.splitlines() if "Xr to" not in line]
    print("\n".join(problems) or f"{len(pages)} pages, nothing to say")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
