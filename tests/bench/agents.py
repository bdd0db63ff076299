"""Debian's key agents, each with one key of its own in a temporary folder: what a vault is measured beside.

Each class has `name`, `installed()`, start() / stop(), `pid`, and words() for the program tests/bench/agents.cc.
"""

import os
import shutil
import signal
import subprocess

from peers import harness

PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"


class Agent:
    programs = ()

    def __init__(self, folder):
        self.folder = folder / self.name
        self.folder.mkdir(mode=0o700)
        self.process = None

    @classmethod
    def installed(cls):
        return all(shutil.which(program, path=PATH) for program in cls.programs)

    @property
    def pid(self):
        return self.process.pid

    def spawn(self, *command, **options):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True, **options)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(5)
            self.process = None


class SshAgent(Agent):
    """Ed25519; it un-shields the key from its own memory for each use."""

    name = "ssh-agent"
    programs = ("ssh-agent", "ssh-add", "ssh-keygen")

    def start(self):
        self.socket, key = self.folder / "agent", self.folder / "key"
        self.spawn("ssh-agent", "-D", "-a", str(self.socket))
        harness.wait_until(self.socket.exists, 10, "ssh-agent listens")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, capture_output=True)
        subprocess.run(["ssh-add", "-q", str(key)], check=True, capture_output=True,
                       env={**os.environ, "SSH_AUTH_SOCK": str(self.socket)})
        self.blob = key.with_suffix(".pub").read_text().split()[1]

    def words(self):
        return "ssh", self.socket, self.blob


class GpgAgent(Agent):
    """cv25519 without a passphrase: PKDECRYPT gives the raw shared point to the caller, which a vault never does."""

    name = "gpg-agent"
    programs = ("gpg", "gpg-agent", "gpgconf", "gpg-connect-agent")

    def start(self):
        env = {**os.environ, "GNUPGHOME": str(self.folder)}

        def run(*command):
            return subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

        # It always leaves the process that starts it, and tells its own pid.
        run("gpgconf", "--launch", "gpg-agent")
        self.agent_pid = int(run("gpg-connect-agent", "GETINFO pid", "/bye").split()[1])
        self.socket = run("gpgconf", "--list-dirs", "agent-socket").strip()
        run("gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "bench", "future-default", "default", "never")
        grips = [line.split(":")[9] for line in run("gpg", "--list-secret-keys", "--with-keygrip", "--with-colons").splitlines()
                 if line.startswith("grp:")]
        self.keygrip = grips[1]  # of the subkey, which encrypts

    @property
    def pid(self):
        return self.agent_pid

    def stop(self):
        if self.agent_pid:
            os.kill(self.agent_pid, signal.SIGTERM)
            self.agent_pid = 0

    agent_pid = 0

    def words(self):
        return "gpg", self.socket, self.keygrip
