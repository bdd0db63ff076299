#!/usr/bin/python3
"""Goal: who has taken over a daemon can do its work and nothing else, whoever started it and wherever it runs.
Method: sandbox_probe (see sandbox_probe.cc) locks down as each daemon does and tries every attack of its table; as root, without root,
in a container, in a container without root, as a root without rights, and as the root of a user namespace. What this machine doesn't
permit to play is said and left out.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else None
TIMEOUT_S = 70


class SandboxProbe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Where uid 65534 can read and run it.
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-probe-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.folder.chmod(0o755)
        cls.probe = cls.folder / "sandbox_probe"
        shutil.copy(PROGRAM, cls.probe)
        cls.probe.chmod(0o755)

    def run_probe(self, *options, by=()):
        done = subprocess.run([*by, self.probe, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
        if done.returncode == 2:
            self.skipTest(f"this machine can't play {options}: {done.stderr.strip()}")
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, "\n".join(line for line in text.splitlines() if not line.startswith("  ok")))
        self.assertTrue(done.stdout.endswith("\nok\n"), text)
        return text

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_started_as_root(self):
        self.run_probe()

    def test_without_root(self):
        self.run_probe("--unprivileged")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_as_root_in_a_container(self):
        self.run_probe("--container")

    def test_without_root_in_a_container(self):
        self.run_probe("--unprivileged", "--container")

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_as_a_root_without_rights(self):
        self.run_probe(by=("/usr/bin/setpriv", "--inh-caps=-all", "--bounding-set=-all"))

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_as_the_root_of_a_user_namespace(self):
        start = ("/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/unshare", "-r")
        if subprocess.run([*start, "/bin/true"], capture_output=True).returncode != 0:
            self.skipTest("this machine has no user namespaces")
        self.run_probe(by=start)


if __name__ == "__main__":
    if PROGRAM is None:
        sys.exit("usage: sandbox_probe_test.py PROGRAM")
    outcome = unittest.main(exit=False, verbosity=2).result
    if not outcome.wasSuccessful():
        sys.exit(1)
    # Nothing was tried: meson shall not count that as passed.
    sys.exit(77 if len(outcome.skipped) == outcome.testsRun else 0)
