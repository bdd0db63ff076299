#!/usr/bin/python3
"""Goal: nobody has to guess why a line stands in what we hand to systemd.
Method: a comment above every directive (or group of directives without an empty line), no directive twice without need,
`systemd-analyze verify` where it is installed, and the exposure that `systemd-analyze security` computes stays low.

usage: units.py SOURCE_ROOT
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

UNITS = {"sallyport-vaultd.service": 2.7, "sallyport-netd.service": 3.7, "sallyport-rotate.service": 2.7}  # highest exposure that we accept
OTHERS = ["systemd/sallyport-rotate.timer", "sysusers.d/sallyport.conf", "tmpfiles.d/sallyport.conf"]
MAY_REPEAT = {"After", "Wants", "ReadWritePaths", "ReadOnlyPaths", "LoadCredential", "SystemCallFilter"}


def check_reasons(name, text):
    problems, reasoned, seen = [], False, set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            reasoned = False
        elif line.startswith(("#", ";")):
            reasoned = True
        elif line.startswith("["):
            reasoned = False
        else:
            if not reasoned:
                problems.append(f"{name}:{number}: no reason above `{line}`")
            reasoned = False  # every directive has a comment of its own
            key = line.split("=")[0]
            if "=" in line and name.endswith(".service"):
                if key in seen and key not in MAY_REPEAT:
                    problems.append(f"{name}:{number}: {key} a second time")
                seen.add(key)
    return problems


def verify(folder):
    """Copies of the units with programs that exist everywhere, so that systemd judges the rest."""
    problems = []
    with tempfile.TemporaryDirectory() as temp:
        for unit in UNITS:
            text = (folder / "systemd" / unit).read_text()
            text = re.sub(r"^(Exec\w+=[-+!]*)\S+", r"\1/bin/true", text, flags=re.M)
            (pathlib.Path(temp) / unit).write_text(text)
        for unit, limit in UNITS.items():
            path = f"{temp}/{unit}"
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)
            problems += [line for line in done.stderr.splitlines() if unit in line]
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", path], capture_output=True,
                                  text=True)
            found = re.search(r"exposure level for .*: ([\d.]+)", done.stdout)
            if found:
                print(f"{unit}: exposure {found[1]} (at most {limit})")
                if float(found[1]) > limit:
                    problems.append(f"{unit}: exposure {found[1]} is above {limit}")
            else:
                print(f"{unit}: systemd-analyze gave no exposure level: {done.stderr.strip()}")
    return problems


def main():
    folder = pathlib.Path(sys.argv[1]).resolve() / "packaging"
    problems = []
    for name in [f"systemd/{unit}" for unit in UNITS] + OTHERS:
        path = folder / name
        if path.is_file():
            problems += check_reasons(name, path.read_text())
        else:
            problems.append(f"{name} is missing")
    if shutil.which("systemd-analyze") and not problems:
        problems += verify(folder)
    print("\n".join(problems) or "every directive has its reason")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
