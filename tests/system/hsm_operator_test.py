#!/usr/bin/python3
"""Goal: whoever runs `sallyport hsm probe|init-key|import|seal` may bring the PIN along in any way: the configuration's file, --pin-file,
--pin-fd, a descriptor of the configuration, the terminal; also after a wrong one in the file. A wrong one costs one try. What is sealed
opens by the same ways.
Method: the real command with SoftHSM and with our mock behind it; the terminal is a pty.
"""

import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import tempfile
import unittest

import tokens
from harness import SystemTest, binary

COMMAND_S = 120


class Typist:
    """A terminal of its own, at which the PIN is typed when it is asked for."""

    def __init__(self, words, pin, stdin):
        self.pid, terminal = pty.fork()
        if self.pid == 0:
            os.dup2(os.open(stdin, os.O_RDONLY), 0)
            os.execv(words[0], words)
        self.output, asked = b"", False
        while select.select([terminal], [], [], COMMAND_S)[0]:
            try:
                more = os.read(terminal, 4096)
            except OSError:  # the other end was closed
                break
            self.output += more
            if not asked and re.search(rb"PIN of token `\w+`: $", self.output):
                asked = True
                os.write(terminal, pin.encode() + b"\n")
        os.close(terminal)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.stdout = self.stderr = self.output


class Ways(SystemTest):
    """For each kind of token once."""

    token_class = None

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="sallyport-pins-")
        self.addCleanup(self.folder.cleanup)
        self.pins = pathlib.Path(self.folder.name)
        self.token = self.token_class()
        self.addCleanup(self.token.remove)
        self.site_ = self.site("operator")
        self.site_.key("sealed")

    def file(self, name, text):
        path = self.pins / name
        path.write_text(text)
        path.chmod(0o600)
        return str(path)

    def run_with(self, way, words, stdin):
        """The finished command, given the PIN in this way."""
        site, pin = self.site_, self.token.pin
        command = [binary("sallyport"), "hsm", *words, "-c", str(site.config)]
        source = {"file": None, "fd": "fd:9", "fd that isn't given, --pin-file": "fd:9",
                  "wrong file, --pin-file": f"file:{self.file('wrong', 'not-it')}"}.get(way, "ask")
        site.token("hsm", self.token, **({"pin": source} if source else {}))
        site.write_config()
        given = self.file("stdin", stdin)
        if way == "terminal":
            return Typist(command, pin, given)
        redirections = f"<{given}"
        if "--pin-file" in way:
            command += ["--pin-file", self.file("right", pin + "\n")]
        elif way == "--pin-fd 9":
            command += ["--pin-fd", "9"]
            redirections += f" 9<{self.file('right', pin)}"
        elif way == "--pin-fd 0":
            command += ["--pin-fd", "0"]
            redirections = f"<{self.file('right', pin)}"
        elif way == "fd":
            redirections += f" 9<{self.file('right', pin)}"
        return subprocess.run(["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *command], capture_output=True, timeout=COMMAND_S)

    def assert_all_verbs(self, way):
        secret = os.urandom(32).hex()
        verbs = {"probe": ("hsm",), "init-key": ("made", "--token", "hsm"), "import": ("brought", "--token", "hsm"),
                 "seal": ("sealed", "--token", "hsm")}
        if way == "--pin-fd 0":
            del verbs["import"]  # which reads the secret from there
        for verb, words in verbs.items():
            done = self.run_with(way, (verb, *words), secret if verb == "import" else "")
            self.assertEqual(done.returncode, 0, f"hsm {verb}: {done.stdout.decode()}{done.stderr.decode()}")
            self.assertNotIn(self.token.pin.encode(), done.stdout + done.stderr)
            if verb == "probe":
                self.assertIn(b"mode   derive", done.stdout)
        text = (self.site_.dir / "keys" / "sealed.key").read_text()
        self.assertRegex(text, r"(?m)^slot: \d+ token")

    def test_by_the_file_of_the_configuration(self):
        self.assert_all_verbs("file")

    def test_by_pin_file(self):
        self.assert_all_verbs("--pin-file")

    def test_by_pin_fd(self):
        self.assert_all_verbs("--pin-fd 9")

    def test_by_pin_fd_of_standard_input(self):
        self.assert_all_verbs("--pin-fd 0")

    def test_by_the_terminal(self):
        self.assert_all_verbs("terminal")

    def test_by_a_descriptor_of_the_configuration(self):
        self.assert_all_verbs("fd")

    def test_where_that_is_not_given(self):
        self.assert_all_verbs("fd that isn't given, --pin-file")

    def test_after_a_wrong_one_in_the_file(self):
        self.assert_all_verbs("wrong file, --pin-file")

    def test_what_is_sealed_opens_by_them(self):
        site = self.site_
        for way in ("file", "--pin-file", "terminal"):
            site.key(f"k{len(way)}")
            done = self.run_with(way, ("seal", f"k{len(way)}", "--token", "hsm"), "")
            self.assertEqual(done.returncode, 0, done.stderr.decode())
        site.token("hsm", self.token, pin="ask")
        site.write_config()
        site.cli("key", "slot", "add", "k4", "recovery", "--pin-file", self.file("right", self.token.pin))


class WithSoftHsm(Ways):
    token_class = tokens.SoftHsm


class WithMock(Ways):
    token_class = tokens.Mock

    def test_a_wrong_one_costs_one_try_and_is_named(self):
        site = self.site_
        site.token("hsm", self.token, pin="ask")
        site.write_config()
        logins = self.token.count("C_Login")
        for words in (("probe", "hsm"), ("init-key", "made", "--token", "hsm")):
            done = site.cli("hsm", *words, "--pin-file", self.file("wrong", "not-it"), check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"the token refused the PIN", done.stderr)
        self.assertEqual(self.token.count("C_Login") - logins, 2)
        self.assertEqual(self.token.state()["tries"], "1")
        self.assertFalse((site.dir / "keys" / "made.key").exists())
        last = ("probe", "hsm", "--pin-file", self.file("right", self.token.pin))
        done = site.cli("hsm", *last, check=False)
        self.assertEqual((done.returncode, self.token.count("C_Login") - logins), (1, 2), "the last try was spent without --force")
        self.assertIn(b"--force", done.stderr)
        site.cli("hsm", *last, "--force")
        self.assertEqual(self.token.state()["tries"], "3")


del Ways  # not a test of its own

if __name__ == "__main__":
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        sys.exit(77)
    unittest.main()
