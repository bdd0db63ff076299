"""Tokens for tests: a SoftHSM token, a database of NSS's softoken, and our mock module, each in a temporary folder of its own.

A Token knows what sallyport.toml needs to say about it (`config()`), and is owned by whom hsmd becomes. Nothing of this machine's
own tokens is read or written. The mock's faults can be changed while it runs:

    token = tokens.Mock()
    site.tokens["hsm"] = token.config()
    token.faults("C_DeriveKey times=1 segfault")
    token.count("C_Login")
"""

import atexit
import os
import pathlib
import pwd
import shutil
import struct
import subprocess
import tempfile

SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
NSS_CANDIDATES = ("/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
                  "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so")
USER, FALLBACK_ID = "sallyport-hsm", 65203  # sandbox/sandbox.h: FALLBACK_HSM_ID


def owner():
    """(uid, gid) of hsmd, started as whoever we are."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    try:
        account = pwd.getpwnam(USER)
        return account.pw_uid, account.pw_gid
    except KeyError:
        return FALLBACK_ID, FALLBACK_ID


def missing():
    """Programs and modules that these fixtures need and that aren't installed."""
    found = [name for name in ("softhsm2-util", "certutil") if not shutil.which(name)]
    if not pathlib.Path(SOFTHSM).exists():
        found.append(SOFTHSM)
    if not any(pathlib.Path(path).exists() for path in NSS_CANDIDATES):
        found.append("libsoftokn3.so")
    return found


def run(*command, env=None):
    done = subprocess.run([str(word) for word in command], env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Token:
    module = spelling = None
    label, pin = "sallyport", "sesame-1"
    init_args = ""
    can_sign = can_gcm = can_oaep256 = True

    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"sallyport-{type(self).__name__.lower()}-"))
        self.dir.chmod(0o755)
        atexit.register(self.remove)
        self.home = self.dir / "token"
        self.home.mkdir()
        self.env = {}
        self.pin_file = self.dir / "pin"
        self.pin_file.write_text(self.pin + "\n")
        self.pin_file.chmod(0o400)
        self.make()
        self.give()

    def make(self):
        raise NotImplementedError

    def give(self):
        """All that the module reads and writes belongs to hsmd's user."""
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, *owner())

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def config(self, **more):
        """The [token.NAME] table."""
        table = {"module": str(self.module), "uri": f"pkcs11:token={self.label}", "pin": f"file:{self.pin_file}"}
        if self.init_args:
            table["init_args"] = self.init_args
        if self.env:
            table["env"] = self.env
        return {**table, **more}

    def set_pin_file(self, pin):
        """What hsmd will try the next time it starts."""
        self.pin_file.chmod(0o600)
        self.pin_file.write_text(pin + "\n")
        self.pin_file.chmod(0o400)

    def take_away(self):
        """As a token that is pulled: its files are gone from where they were."""
        self.home.rename(self.dir / "pulled")

    def put_back(self):
        (self.dir / "pulled").rename(self.home)


class SoftHsm(Token):
    module, spelling = SOFTHSM, "edwards-name"
    can_oaep256 = False

    def make(self):
        conf = self.dir / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {self.home}\nobjectstore.backend = file\nlog.level = ERROR\n"
                        "slots.removable = false\n")
        conf.chmod(0o644)
        self.env = {"SOFTHSM2_CONF": str(conf)}
        run("softhsm2-util", "--init-token", "--free", "--label", self.label, "--so-pin", "security-officer", "--pin", self.pin,
            env=self.env)


class Nss(Token):
    spelling = "ec"
    can_sign = False

    def make(self):
        self.module = next(path for path in NSS_CANDIDATES if pathlib.Path(path).exists())
        run("certutil", "-N", "-d", f"sql:{self.home}", "-f", self.pin_file)
        self.init_args = (f"configdir='sql:{self.home}' certPrefix='' keyPrefix='' secmod='secmod.db' "
                          f"dbTokenDescription='{self.label}' flags=")


class Mock(Token):
    """tests/mock_pkcs11: the standard's own spelling, and every fault that one can ask for."""

    spelling = "montgomery"
    _COUNTER = struct.Struct("<I52sQ")

    def __init__(self, pin_limit=3, faults=""):
        self.pin_limit, self.first_faults = pin_limit, faults
        super().__init__()

    def make(self):
        self.module = built_module("mock_pkcs11.so")
        self.env = {"MOCK_PKCS11_DIR": str(self.home)}
        (self.home / "token").write_text(f"mock-pkcs11 1\nlabel {self.label}\nserial 4711\npin {self.pin}\n"
                                         f"tries {self.pin_limit}\nlimit {self.pin_limit}\n")
        (self.home / "faults").write_text("")
        (self.home / "counters").write_text("")
        self.faults(self.first_faults)

    def faults(self, *lines):
        """Replaces all faults by these lines (tests/mock_pkcs11/faults.h), in place and by one write: the module has it open."""
        text = "".join(line + "\n" for line in lines if line).encode()
        with open(self.home / "faults", "r+b", buffering=0) as file:
            old = os.fstat(file.fileno()).st_size
            file.write(text.ljust(old, b"\n"))
            file.truncate(len(text))

    def counters(self):
        data = (self.home / "counters").read_bytes()
        found = {}
        for at in range(0, len(data) - self._COUNTER.size + 1, self._COUNTER.size):
            state, name, number = self._COUNTER.unpack_from(data, at)
            if state == 2:
                name = name.rstrip(b"\0").decode()
                found[name] = found.get(name, 0) + number
        return found

    def count(self, name):
        return self.counters().get(name, 0)

    def state(self):
        """{"tries": "3", ...} of the token's file."""
        lines = (self.home / "token").read_text().splitlines()[1:]
        return dict(line.split(" ", 1) for line in lines if not line.startswith("object "))


ALL = (SoftHsm, Nss, Mock)


def not_a_module():
    """A shared library without C_GetFunctionList."""
    return built_module("not_pkcs11.so")


def built_module(name):
    from harness import bin_root, reachable
    return reachable(bin_root() / "tests" / "mock_pkcs11" / name)  # hsmd's user loads it
