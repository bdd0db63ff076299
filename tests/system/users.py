"""Sites that are started by another user than root, or by a root who lacks some of root's rights, and work done as another user."""

import os
import pathlib
import shutil
import tempfile

from harness import Site, bin_root
from minicapnp import VaultRefused

NOBODY = 65534
SETPRIV = "/usr/bin/setpriv"
AS_NOBODY = (SETPRIV, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
DAEMONS = ("cli/sallyport", "vaultd/vaultd", "netd/netd", "netd/netd-worker", "netd/netd-resolver")


class StartedBy(Site):
    """A site whose commands run behind `start`, as in AS_NOBODY."""

    def __init__(self, name, start):
        super().__init__(name)
        self.by = start

    def _spawn(self, *command):
        if set(AS_NOBODY) <= set(self.by):
            for path in (self.dir, *self.dir.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        return super()._spawn(*self.by, *command)


def run_copies_of_the_programs(test_class):
    """While its tests run: from where uid 65534 can read and run them."""
    root = bin_root()
    copies = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-programs-"))
    test_class.addClassCleanup(shutil.rmtree, copies)
    copies.chmod(0o755)
    for program in DAEMONS:
        (copies / program).parent.mkdir(exist_ok=True)
        shutil.copy(root / program, copies / program)
    os.environ["SALLYPORT_BIN_ROOT"] = str(copies)
    test_class.addClassCleanup(os.environ.__setitem__, "SALLYPORT_BIN_ROOT", str(root))


def as_user(uid, groups, work):
    """What `work()` returns (True or the name of a refusal) in a process of that user."""
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            try:
                answer = str(work())
            except VaultRefused as refused:
                answer = str(refused)
            except OSError as error:
                answer = type(error).__name__
            os.write(send, answer.encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    return answer
