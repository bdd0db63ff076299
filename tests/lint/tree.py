"""What the lints agree on: which files of the tree are ours to judge."""

import pathlib
import subprocess

SOURCE_SUFFIXES = {".h", ".cc", ".py", ".capnp", ".policy", ".build", ".toml", ".sh", ".pml", ".escript"}
TEXT_SUFFIXES = SOURCE_SUFFIXES | {".md", ".service", ".conf", ".txt"}
# Programs without a suffix.
SCRIPTS = {"dev", ".ci/run", "demo/run"}
FOREIGN = {"LICENSE"}


def files(root):
    """Every file of the tree: what git knows or would add; without git (a release tarball), what lies there."""
    try:
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                check=True, capture_output=True, text=True).stdout.split("\0")
        names = [name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(root)) for path in root.rglob("*")
                 if path.is_file() and not any(part.startswith("build") or part in ("__pycache__", ".git") for part in path.parts)]
    return [root / name for name in sorted(names) if (root / name).is_file() and not (root / name).is_symlink()]


def relative_is_script(path):
    return "/".join(path.parts[-2:]) in SCRIPTS or path.name in SCRIPTS


def is_source(path):
    return path.suffix in SOURCE_SUFFIXES or relative_is_script(path)


def texts(root):
    """(path, text) of every file that people write and read."""
    for path in files(root):
        if path.name in FOREIGN or not (path.suffix in TEXT_SUFFIXES or relative_is_script(path)):
            continue
        yield path, path.read_text(encoding="utf-8")


def waived(text, rule):
    """True if the file itself asks for an exception and says why: `lint: RULE: reason`."""
    return any(f"lint: {rule}: " in line for line in text.splitlines()[:12])


def sources(root):
    return [(path, text) for path, text in texts(root) if is_source(path)]


def product(root, path):
    """True for files of the daemons and the CLI, false for tests and tools."""
    return pathlib.PurePath(path.relative_to(root)).parts[0] in {"common", "proto", "sandbox", "vaultd", "netd", "cli", "clients"}
