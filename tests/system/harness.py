"""Real daemons for tests: a Site is what one host runs, a vaultd and a netd from one sallyport.toml in a folder of its own.

lint: size: one Site, and what every test asks of it

The sandbox is on and nothing of the product is replaced. Binaries come from the build tree in $SALLYPORT_BIN_ROOT, keys from
`sallyport key`, state from `status` over the daemons' own sockets. Everything stays on loopback. A Site cleans up whatever happens:
its processes share a session of their own, found again in /proc, so that also a daemon whose parent was killed is ended.

    class Example(SystemTest):
        def test_it(self):
            site = self.site()
            alice = site.peer("alice")                       # a key pair of ours, known to the site as a peer
            port = site.listen("db", allow=["alice"], service="echo")
            site.start()
            with site.connect(port, alice) as session: ...   # our own curve_tun, tests/interop/curvetun.py
"""

import atexit
import base64
import contextlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))
sys.path.insert(0, str(HERE))
import curvetun as ct  # noqa: E402
import minicapnp  # noqa: E402

READY_TIMEOUT_S = 20
STOP_TIMEOUT_S = 15
LOG_TAIL_LINES = 60


def bin_root():
    root = os.environ.get("SALLYPORT_BIN_ROOT")
    if not root:
        sys.exit("SALLYPORT_BIN_ROOT is not set: the meson build folder, e.g. SALLYPORT_BIN_ROOT=build tests/system/tunnel_test.py")
    return pathlib.Path(root).resolve()


def binary(name):
    folder = {"sallyport": "cli", "vaultd": "vaultd", "hsmd": "hsmd", "token-guard": "hsmd"}.get(name, "netd")
    return str(bin_root() / folder / name)


_COPIES = {}


def reachable(path):
    """The file, or where other users can't reach it (a clone in root's home) a copy that they can read and run."""
    path = pathlib.Path(path).resolve()
    if os.geteuid() != 0 or all(folder.stat().st_mode & stat.S_IXOTH for folder in path.parents):
        return path
    if path not in _COPIES:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-reachable-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        _COPIES[path] = pathlib.Path(shutil.copy(path, folder))
        _COPIES[path].chmod(0o755)
    return _COPIES[path]


def b64(data):
    return base64.b64encode(data).decode()


def toml_value(value):
    """JSON's spelling is TOML's but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def full_run(name, quick, full):
    """A count: `quick` in every test run, `full` when SALLYPORT_FULL=1, or what the variable `name` says."""
    default = full if os.environ.get("SALLYPORT_FULL") == "1" else quick
    return int(os.environ.get(name, default))


SANITIZED = os.environ.get("SALLYPORT_SANITIZE", "none") != "none"  # the daemons are a build of `./dev sanitize`


def memory_limit(kib):
    """A bound on resident memory; a sanitizer's shadow and quarantine are not what it is about."""
    return kib + (1 << 20) if SANITIZED else kib


def require_no_report(log):
    """A sanitizer's report in a log is a failure, whatever else the test saw: a daemon that ends for it may be started again unnoticed.
    What our mock of a token does on request isn't meant."""
    for report in re.split(r"\n(?==+\n==\d+==|\S+ runtime error: |AddressSanitizer:)", "\n" + log)[1:]:
        if "sallyport::mock::" not in report and not report.startswith("AddressSanitizer:DEADLYSIGNAL"):
            raise AssertionError(f"a sanitizer reports:\n{report[:4000]}")


def free_port(host="127.0.0.1"):
    """Below the kernel's ephemeral range, so that no outgoing connection takes it before the daemon does."""
    for _ in range(200):
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port
    raise RuntimeError("no free port")


def wait_until(condition, timeout, what, step=0.02):
    """The first true value of condition(); fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(step)


def raise_fd_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


# --- processes -------------------------------------------------------------------------------------------------------------------


def process_stat(pid):
    """(name, state, parent, session) from /proc, or None when there is no such process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
    return name, rest[0], int(rest[1]), int(rest[3])


def processes_of_session(session):
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = process_stat(int(entry))
            if stat and stat[3] == session and stat[1] != "Z":
                found[int(entry)] = stat[0]
    return found


def is_alive(pid):
    stat = process_stat(pid)
    return stat is not None and stat[1] != "Z"


def resident_kib(pid):
    match = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(match.group(1)) if match else 0


def own_memory_kib(pid):
    """What the process takes for itself, in KiB: (`written`, `clean`). Written pages are its alone and nothing can give them back: heap,
    stack, locked secrets, data and relocations of the libraries. Clean ones are of files that nobody else happens to have mapped, and the
    kernel takes them when it needs room. Unlike PSS, `written` is the same whatever runs beside. Of another user's process only root may
    ask."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return kib["Private_Dirty"], kib["Private_Clean"]


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


# --- a site ----------------------------------------------------------------------------------------------------------------------


class Site:
    _living = set()

    def __init__(self, name="site", workers=2, metrics=True):
        self.name = name
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"sallyport-{name}-"))
        self.dir.chmod(0o755)  # started as root, the daemons have uids of their own
        self.config = self.dir / "sallyport.toml"
        self.vault = {"keys": "keys", "socket": "run/vault.sock"}
        self.net = {"socket": "run/net.sock", "workers": workers}
        if metrics:
            self.net["metrics"] = "unix:run/metrics.sock"
        self.limits = {}
        self.top = {}
        self.listens, self.connects, self.peers, self.signers = {}, {}, {}, {}
        self.vault_sockets, self.grants, self.keys_options, self.tokens = {}, {}, {}, {}
        self.secrets = {}   # of keys we imported, for tests that decrypt
        self.pass_fds = ()  # descriptors that daemons are started with
        self.publics = {}
        self.processes = []
        self.log_text = ""
        self._starts = 0
        Site._living.add(self)

    # -- configuration

    def key(self, name, secret=None):
        """A key of this site's vault, `sallyport key new` or `key import`. Returns its public half."""
        self.write_config()
        if secret is None:
            self.cli("key", "new", name)
        else:
            self.secrets[name] = secret
            self.cli("key", "import", name, stdin=b64(secret).encode() + b"\n")
        shown = self.cli("key", "show", name).stdout.decode().strip()
        self.publics[name] = base64.b64decode(shown, validate=True)
        return self.publics[name]

    def token(self, name, token, **more):
        """A [token.NAME] of this fixture (tokens.py)."""
        self.tokens[name] = token.config(**more)

    def token_key(self, name, token, secret=None):
        """A key that lives in the token of that name: made there, or brought into it. Returns its public half."""
        self.write_config()
        if secret is None:
            self.cli("hsm", "init-key", name, "--token", token)
        else:
            self.secrets[name] = secret
            self.cli("hsm", "import", name, "--token", token, stdin=b64(secret).encode() + b"\n")
        self.publics[name] = base64.b64decode(self.cli("key", "show", name).stdout.decode().strip(), validate=True)
        return self.publics[name]

    def peer(self, name, public=None):
        """Adds a peer. Without `public`: makes and returns a key pair that the test owns."""
        pair = None
        if public is None:
            pair = ct.KeyPair()
            public = pair.public
        self.peers[name] = b64(public)
        return pair

    def listen(self, name, allow, service, key="server", address=None):
        """A [[listen]] entry; returns its port (or the address if one was given)."""
        if key not in self.publics:
            self.key(key)
        port = None
        if address is None:
            port = free_port()
            address = f"127.0.0.1:{port}"
        self.listens[name] = {"name": name, "address": address, "protocol": "curve", "key": key, "allow": allow, "service": service}
        return port or address

    def connect_entry(self, name, address, peer, key="client", listen=True):
        """A [[connect]] entry; returns the port of its plain side (or its address, or None)."""
        if key not in self.publics:
            self.key(key)
        if isinstance(address, tuple):
            address = f"{address[0]}:{address[1]}"
        entry = {"name": name, "address": address, "protocol": "curve", "key": key, "peer": peer}
        port = None
        if listen is True:
            port = free_port()
            entry["listen"] = f"127.0.0.1:{port}"
        elif listen:
            entry["listen"] = listen
        self.connects[name] = entry
        return port or (listen if listen else None)

    def grant(self, name, **terms):
        """A [[grant]]; for root on the main socket unless `terms` say otherwise."""
        self.grants[name] = {"name": name, **({} if "users" in terms or "groups" in terms else {"users": [os.geteuid()]}), **terms}

    def config_text(self):
        def lines(table):
            return [f"{key} = {toml_value(value)}" for key, value in table.items()]

        parts = lines(self.top)
        for title, table in (("[vault]", self.vault), ("[net]", self.net), ("[limits]", self.limits)):
            if table:
                parts += ["", title] + lines(table)
        for title, entries in (("[[listen]]", self.listens), ("[[connect]]", self.connects),
                               ("[[vault_socket]]", self.vault_sockets), ("[[grant]]", self.grants)):
            for entry in entries.values():
                parts += ["", title] + lines(entry)
        for title, tables in (("key", self.keys_options), ("token", self.tokens)):
            for name, options in tables.items():
                parts += ["", f"[{title}.{name}]"] + lines(options)
        parts += ["", "[peers]"] + lines(self.peers)
        if self.signers:
            parts += ["", "[signers]"] + lines(self.signers)
        return "\n".join(parts) + "\n"

    def write_config(self):
        temporary = self.config.with_suffix(".new")
        temporary.write_text(self.config_text())
        temporary.replace(self.config)

    # -- running

    def _spawn(self, *command):
        self._starts += 1
        log = open(self.dir / f"log.{self._starts}.{pathlib.Path(command[0]).name}", "wb")
        with log:
            process = subprocess.Popen([*command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir,
                                       start_new_session=True, pass_fds=self.pass_fds)
        self.processes.append(process)
        return process

    def start(self, wait=True):
        """`sallyport up`: both daemons, restarted when they die."""
        self.write_config()
        self.up = self._spawn(binary("sallyport"), "up", "-c", str(self.config))
        if wait:
            self.wait_ready()
            # Before that, `up` takes the end of a daemon as a start that failed.
            wait_until(lambda: self._dead(self.up) or "sallyport: ready:" in self.log(), READY_TIMEOUT_S, "`sallyport up` is ready")
            self._check_alive(self.up)
        return self

    def wait_tokens(self):
        """Until each token is up, with all its keys: `ready` waits for none that takes its time."""
        wait_until(lambda: self.cli("hsm", "status", check=False).returncode == 0, READY_TIMEOUT_S, "the tokens are up")
        return self

    def start_vaultd(self, wait=True):
        """vaultd alone, not restarted by anybody."""
        self.write_config()
        process = self._spawn(binary("vaultd"), "-c", str(self.config))
        if wait:
            wait_until(lambda: self._dead(process) or self._vault_answers(), READY_TIMEOUT_S, "vaultd serves", step=0.002)
            self._check_alive(process)
        return process

    def start_netd(self, wait=True):
        self.write_config()
        process = self._spawn(binary("netd"), "-c", str(self.config))
        if wait:
            self.wait_ready()
        return process

    @staticmethod
    def _dead(process):
        return process.poll() is not None

    def _check_alive(self, process):
        if process.poll() is not None:
            raise AssertionError(f"{pathlib.Path(process.args[0]).name} ended with {process.returncode}:\n{self.log()}")

    def _vault_answers(self):
        try:
            with minicapnp.Rpc(self.dir / "run/vault-admin.sock", timeout=2):
                return True
        except OSError:
            return False

    def _net_answers(self):
        for process in self.processes:
            self._check_alive(process)
        try:
            return self.net_status()["vault"] == "connected"
        except OSError:
            return False

    def wait_ready(self, timeout=READY_TIMEOUT_S):
        try:
            wait_until(self._net_answers, timeout, "netd serves and is connected to the vault")
            for entry in self.listens.values():
                if not entry["address"].startswith("unix:"):
                    wait_until(lambda e=entry: self._accepts(e["address"]), timeout, f"{entry['address']} accepts")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()}") from None

    @staticmethod
    def _accepts(address):
        host, port = address.rsplit(":", 1)
        host = {"[::]": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host.strip("[]"))
        try:
            socket.create_connection((host, int(port)), 2).close()
            return True
        except OSError:
            return False

    def cli(self, *words, stdin=b"", check=True, timeout=60):
        """`sallyport ... -c FILE`. Returns the completed process."""
        done = subprocess.run([binary("sallyport"), *words, "-c", str(self.config)], input=stdin, capture_output=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"sallyport {' '.join(words)}: {done.returncode}\n{done.stderr.decode()}")
        return done

    def reload(self):
        self.write_config()
        return self.cli("reload")

    def stop_daemons(self):
        """SIGTERM to what we started, then SIGKILL to whatever is left of it."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
        for process in self.processes:
            for pid in processes_of_session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        self.processes.clear()

    def stop(self):
        """Ends all processes and removes the folder; the log stays in log_text. May be called twice."""
        self.stop_daemons()
        Site._living.discard(self)
        if self.dir.exists():
            self.log_text = self.log()
            shutil.rmtree(self.dir, ignore_errors=True)
            require_no_report(self.log_text)

    def log(self):
        if not self.dir.exists():
            return self.log_text
        parts = []
        for path in sorted(self.dir.glob("log.*"), key=lambda p: int(p.name.split(".")[1])):
            parts.append(f"--- {self.name}: {path.name}\n{path.read_text(errors='replace')}")
        return "".join(parts)

    # -- what it does for programs

    def app(self, socket_name="vault.sock"):
        return minicapnp.App(self.dir / "run" / socket_name)

    # -- what it says about itself

    def net_status(self):
        with minicapnp.Network(self.dir / "run/net.sock") as network:
            status = network.rpc.call(network.rpc.root, minicapnp.NETWORK, 2).content.pointer(0)

        def counters(index):
            return {item.text(0): item.u64(0) for item in status.list(index)}

        def process(reader):
            return {"pid": reader.u32(0), "restarts": reader.u32(4), "verdict": reader.text(1),
                    "sandbox": {layer.text(0): layer.text(1) for layer in reader.list(0)},
                    "counters": {item.text(0): item.u64(0) for item in reader.list(2)}}

        return {"monitor": process(status.pointer(1)), "workers": [process(worker) for worker in status.list(2)],
                "entries": {(e.text(1), e.text(0)): e.text(3) for e in status.list(3)},
                "limits": counters(4), "counters": counters(5), "drops": counters(6), "vault": status.text(7)}

    def vault_status(self):
        with minicapnp.Rpc(self.dir / "run/vault-admin.sock") as rpc:
            status = rpc.call(rpc.root, minicapnp.VAULT_ADMIN, 0).content.pointer(0)
        return {"pid": status.u32(0), "verdict": status.text(2),
                "sandbox": {layer.text(0): layer.text(1) for layer in status.list(1)},
                "keys": {key.text(0): {"state": key.text(3), "sealed": key.text(4), "nonce": key.text(5), "rate_limited": key.u64(16)}
                         for key in status.list(4)},
                "limits": {item.text(0): item.u64(0) for item in status.list(10)},
                "counters": {item.text(0): item.u64(0) for item in status.list(5)},
                "cut_off": {item.text(0): item.u64(0) for item in status.list(6)}}

    def drops(self):
        return {name: count for name, count in self.net_status()["drops"].items() if count}

    def counter(self, name):
        return self.net_status()["counters"].get(name, 0)

    def drops_since(self, before):
        return {name: count - before.get(name, 0) for name, count in self.drops().items() if count != before.get(name, 0)}

    def pids(self):
        status = self.net_status()
        return {"vaultd": self.vault_status()["pid"], "monitor": status["monitor"]["pid"],
                "workers": [worker["pid"] for worker in status["workers"]]}

    def metrics(self, socket_name="metrics.sock"):
        """The metrics page as {line without value: value}."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.dir / "run" / socket_name))
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := sock.recv(65536):
                data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise AssertionError(f"metrics: {head.decode(errors='replace')}")
        page = {}
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                page[name] = float(value)
        return page

    # -- talking to it with our own curve_tun

    def address(self, port):
        return ("127.0.0.1", port)

    def connect(self, port, pair, key="server", **options):
        return ct.connect(self.address(port), self.publics[key], pair, **options)

    def client(self, port, pair, key="server", **options):
        return ct.Client(self.address(port), self.publics[key], pair, **options)


@atexit.register
def _stop_all():
    for site in list(Site._living):
        site.stop()


class SystemTest(unittest.TestCase):
    """Sites that end with the test, and their logs when it failed."""

    shared = ()  # sites of the class, for the logs

    def site(self, name="site", **options):
        site = Site(name, **options)
        self._sites.append(site)
        self.addCleanup(site.stop)
        return site

    @classmethod
    def class_site(cls, name="site", **options):
        site = Site(name, **options)
        cls.shared = (*cls.shared, site)
        cls.addClassCleanup(site.stop)
        return site

    def run(self, result=None):
        self._sites = []
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > before:
            for site in (*self._sites, *self.shared):
                lines = site.log().splitlines()
                print(f"\n--- log of {site.name} (last {LOG_TAIL_LINES} lines), {self.id()}", *lines[-LOG_TAIL_LINES:], sep="\n",
                      file=sys.stderr)

    def assert_echo(self, session, text=b"are you there"):
        session.send(text)
        self.assertEqual(session.receive(), text)

    def assert_closed_silently(self, sock, timeout=5.0):
        """No byte comes, and the connection ends within `timeout`. Returns "eof" or "reset"."""
        data, end = ct.read_to_end(sock, timeout)
        self.assertEqual(data, b"")
        self.assertIn(end, ("eof", "reset"), f"still open after {timeout} s")
        return end

    def assert_dropped(self, site, before, reasons, timeout=5.0):
        """Since `before` = site.drops() a drop under one of the `reasons` was counted."""
        try:
            wait_until(lambda: any(name in reasons for name in site.drops_since(before)), timeout, "")
        except AssertionError:
            self.fail(f"none of {reasons} counted, but {site.drops_since(before)}")


class Crowd:
    """Threads that end together; `errors` tells what went wrong in them."""

    def __init__(self):
        self.stop = threading.Event()
        self.errors = []
        self.threads = []

    def start(self, function, *arguments):
        def run():
            try:
                function(*arguments)
            except Exception as error:  # reported by the test
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self, timeout=30):
        self.stop.set()
        for thread in self.threads:
            thread.join(timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.join()
