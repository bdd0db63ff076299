#!/usr/bin/python3
"""Goal: the folder is the privilege domain, and nothing crosses it.
Method: the table boundaries.toml against what the compiler really read (ninja's dependency log, so transitive and generated
includes count), and against what the objects and programs really name (nm).

usage: boundaries.py SOURCE_ROOT BUILD_ROOT
"""

import fnmatch
import os
import pathlib
import re
import subprocess
import sys
import tomllib

OBJECT = re.compile(r"^(?P<folder>.*)/[^/]+\.p/(?P<name>.+)\.o$")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def matches(name, globs):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in globs)


def read_dependencies(build):
    """{object: [files it was made from, relative to the build folder]}"""
    objects, current = {}, None
    for line in run("ninja", "-C", str(build), "-t", "deps").splitlines():
        if line.startswith("    "):
            current.append(line.strip())
        elif ": #deps" in line:
            current = objects.setdefault(line.split(": #deps")[0], [])
    return objects


def source_of(object_path, source):
    """The source file of an object, e.g. netd/session.cc; None for tests and for generated or foreign ones."""
    match = OBJECT.match(object_path)
    if not match:
        return None
    candidate = f"{match['folder']}/{match['name']}"
    return candidate if (source / candidate).is_file() else None


def locate(path, source, build):
    """Where a dependency lives: its path in the tree (generated headers included), or None if it isn't ours."""
    absolute = pathlib.Path(os.path.normpath(build / path))
    for root in (build, source):
        if absolute.is_relative_to(root):
            return str(absolute.relative_to(root))
    return None


def check_includes(table, objects, source, build, complain):
    seen = set()
    for object_path, dependencies in objects.items():
        folder = object_path.split("/")[0]
        if folder not in table["include"]:
            continue
        seen.add(folder)
        allowed = table["include"][folder]
        for dependency in dependencies:
            path = locate(dependency, source, build)
            if path is None:
                continue
            if not any(path == entry or path.startswith(entry + "/") for entry in allowed):
                complain(f"{object_path} includes {path}: {folder}/ may include only {', '.join(allowed)}")
    for folder in table["include"]:
        if any((source / folder).rglob("*.cc")) and folder not in seen:
            complain(f"nothing of {folder}/ is in ninja's dependency log: build first, and check the table's names")


def check_purity(table, objects, source, complain):
    pure, checked = table["pure"], 0
    for object_path, dependencies in objects.items():
        path = source_of(object_path, source)
        if path is None or not matches(path, pure["sources"]):
            continue
        checked += 1
        for dependency in dependencies:
            for prefix in ("/usr/include/x86_64-linux-gnu/", "/usr/include/aarch64-linux-gnu/", "/usr/include/"):
                if dependency.startswith(prefix):
                    header = dependency[len(prefix):]
                    if matches(header, pure["system_headers"]):
                        complain(f"{path} must stay pure, but includes <{header}>")
                    break
    if checked < len(pure["sources"]):
        complain("[pure] names sources that are not built")


def undefined_symbols(path):
    lines = run("nm", "--undefined-only", str(path)).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.split()}


def check_calls(table, objects, source, build, complain):
    for rule in table["calls"]:
        checked = 0
        for object_path in objects:
            path = source_of(object_path, source)
            chosen = matches(object_path, rule.get("objects", [])) or path and matches(path, rule.get("sources", []))
            if not chosen or path and matches(path, rule.get("except", [])):
                continue
            checked += 1
            for symbol in sorted(undefined_symbols(build / object_path)):
                if matches(symbol, rule["forbidden"]):
                    complain(f"{path or object_path} calls {symbol}: {rule['why']}")
        if not checked:
            complain(f"[[calls]] {rule.get('sources') or rule.get('objects')} matches no object")


def check_programs(table, build, complain):
    for rule in table["program"]:
        for name in rule["paths"]:
            path = build / name
            if not path.is_file():
                complain(f"{name} is not built")
                continue
            for line in run("nm", "--defined-only", "--demangle", str(path)).splitlines():
                symbol = line.split(" ", 2)[-1]
                if any(banned in symbol for banned in rule["defines"]):
                    complain(f"{name} holds {symbol}: {rule['why']}")
            for line in run("nm", "--dynamic", "--undefined-only", str(path)).splitlines():
                symbol = line.split()[-1].split("@")[0]
                if matches(symbol, rule["imports"]):
                    complain(f"{name} imports {symbol}: {rule['why']}")


def main():
    source, build = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
    table = tomllib.loads((pathlib.Path(__file__).parent / "boundaries.toml").read_text())
    problems = []
    objects = read_dependencies(build)
    check_includes(table, objects, source, build, problems.append)
    check_purity(table, objects, source, problems.append)
    check_calls(table, objects, source, build, problems.append)
    check_programs(table, build, problems.append)
    for problem in problems[:50]:
        print(problem)
    print(f"{len(objects)} objects, {len(problems)} problems")
    return 1 if problems or not objects else 0


if __name__ == "__main__":
    sys.exit(main())
