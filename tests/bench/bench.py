#!/usr/bin/python3
"""What Sallyport costs, beside Debian's spiped and stunnel in the same run on the same cores; for messages beside
CurveZMQ; for the vault beside ssh-agent (Ed25519) and gpg-agent (cv25519); and beside the same work without
cryptography (a pair of haproxy, plain ZeroMQ): the floor of this machine.
Everything is on loopback, in temporary folders, and ended afterwards.

    ./dev bench                                   everything, under five minutes
    tests/bench/bench.py --only bulk,conn         some of: bulk lat conn idle messages vault app start
    tests/bench/bench.py --full                   longer, and 9,500 idle connections too

Absolute figures move with the machine and with what else it does: the ratios to the others of the same run are what
counts. Rounds are interleaved over the tunnels, and the table holds medians. A target was set beside a measurement of
the others on the reference machine: it is printed as ratio to each of them too, with "missed" where ours is below it.
Latencies are measured with the cores kept awake: otherwise it is the machine's waking up that is measured.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import agents  # noqa: E402
import peers  # noqa: E402
from peers import harness  # noqa: E402

TESTS = ["bulk", "lat", "conn", "idle", "messages", "vault", "app", "start"]
OURS = peers.Sallyport.name
PEER = peers.PeerProtocol.name
CURVE_ZMQ, PLAIN_ZMQ, DIRECT = "CurveZMQ", "ZMQ plain", "libsodium"
SSH, GPG = agents.SshAgent.name, agents.GpgAgent.name

# What is to be reached with curve 1.0, and what the others did on the reference machine when that was set (2 cores with
# VAES, otherwise idle): spiped, stunnel, the pair without cryptography; for messages CurveZMQ and plain ZeroMQ; for the
# vault's cookies the same cryptography in a loop.
TARGETS = {
    "bulk up, 1 connection": (">=", 900, {"spiped": 297, "stunnel": 1201, "no crypto": 2434}),
    "bulk up, 8 connections": (">=", 1000, {"spiped": 322, "stunnel": 1577, "no crypto": 2448}),
    "CPU up, 1 connection": ("<=", 1.9, {"spiped": 5.2, "stunnel": 1.3, "no crypto": 0.6}),
    "64 B there and back, p50": ("<=", 36, {"spiped": 39, "stunnel": 42, "no crypto": 37}),
    "new connections, 16 at once": (">=", 3000, {"spiped": 828, "stunnel": 746, "no crypto": 19540}),
    "CPU per connection": ("<=", 0.65, {"spiped": 1.8, "stunnel": 2.6, "no crypto": 0.1}),
    "PSS per idle connection": ("<=", 8, {"spiped": 38, "stunnel": 231, "no crypto": 6.6}),
    "messages of 64 B": (">=", 700_000, {CURVE_ZMQ: 1_400_000, PLAIN_ZMQ: 2_800_000}),
    "messages of 1,024 B": (">=", 350_000, {CURVE_ZMQ: 382_000, PLAIN_ZMQ: 1_339_000}),
    "cookies, one in flight": (">=", 12_000, {DIRECT: 23_000}), "cookies, one in flight, p99": ("<=", 110, {}),
    "cookies, 64 in flight": (">=", 18_000, {DIRECT: 23_000}), "cookies, 64 a call": (">=", 22_000, {DIRECT: 23_000}),
    "vouches verified, peer known, 64 a call": (">=", 500_000, {}), "start to first answer": ("<=", 100, {}),
    "box to anybody, one in flight": (">=", 12_000, {GPG: 4_304, DIRECT: 23_000}),
    "box to anybody, one in flight, p99": ("<=", 110, {}),
    "open from anybody, one in flight": (">=", 12_000, {GPG: 4_304, DIRECT: 23_000}),
    "open from anybody, one in flight, p99": ("<=", 110, {}),
    "box to anybody, 64 in flight": (">=", 18_000, {DIRECT: 23_000}),
    "box to anybody, 64 a call": (">=", 22_000, {DIRECT: 23_000}),
    "open from anybody, 64 a call": (">=", 22_000, {DIRECT: 23_000}),
    "box to a known peer, 64 a call": (">=", 500_000, {DIRECT: 2_100_000}),
    "signature, one in flight": (">=", 20_000, {SSH: 1_487, DIRECT: 57_000}),
    "signature, 64 in flight": (">=", 20_000, {SSH: 1_642}),
    "fresh nonce, 64 a call": (">=", 500_000, {DIRECT: 3_000_000}),
    "memory of the vault, its own": ("<=", 8_192, {}),
}
# The same for the peer protocol.
PEER_TARGETS = {
    "bulk up, 1 connection": (">=", 850), "bulk up, 8 connections": (">=", 900), "CPU up, 1 connection": ("<=", 2.2),
    "64 B there and back, p50": ("<=", 36), "new connections, 16 at once": (">=", 6000), "CPU per connection": ("<=", 0.3),
    "PSS per idle connection": ("<=", 8), "messages of 64 B": (">=", 700_000), "messages of 1,024 B": (">=", 350_000),
}

# The rows of the program `app`, by the beginning of its figures' names. An agent's figures stand in the rows of the
# work that is likest: PKDECRYPT is one X25519 and no box.
APP_ROWS = [("box to anybody, one in flight", "box_1", "box_direct"), ("open from anybody, one in flight", "open_1", "box_direct"),
            ("box to anybody, 64 in flight", "box_64", "box_direct"), ("box to anybody, 64 a call", "box_batch", "box_direct"),
            ("open from anybody, 64 a call", "open_batch", "box_direct"), ("box to a known peer, one in flight", "known_1", None),
            ("box to a known peer, 64 in flight", "known_64", None), ("box to a known peer, 64 a call", "known_batch", "known_direct"),
            ("signature, one in flight", "sign_1", "sign_direct"), ("signature, 64 in flight", "sign_64", "sign_direct"),
            ("signature, 64 a call", "sign_batch", "sign_direct"), ("fresh nonce, 64 a call", "nonces_batch", "nonces_direct")]
AGENT_ROWS = [(SSH, "signature, one in flight", []), (SSH, "signature, 64 in flight", ["--width", 64]),
              (GPG, "open from anybody, one in flight", []), (GPG, "box to anybody, one in flight", [])]


def program(name):
    return str(harness.bin_root() / "tests" / "bench" / name)


def run_json(*command, timeout=120):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(f"{pathlib.Path(command[0]).name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Table:
    """figures[row][tunnel] = values of the rounds; rows keep the order in which they first came."""

    def __init__(self, columns):
        self.columns = columns
        self.rows = {}

    def add(self, row, unit, tunnel, value):
        self.rows.setdefault((row, unit), {}).setdefault(tunnel, []).append(value)

    @staticmethod
    def number(value):
        if value is None:
            return "-"
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    def show(self):
        """For each row the figures, then ours : each of the others, with the target's own ratio behind the slash."""
        others = [name for name in self.columns if name != OURS]
        self.print_table(["", "unit", OURS, *others, "target"],
                         [[row, unit, *(self.number(median.get(name)) for name in (OURS, *others)), self.absolute(row)]
                          for row, unit, median in self.medians()])
        print(f"\n{OURS} : others, and in brackets what the target asks for\n")
        lines = []
        for row, _, median in self.medians():
            cells = [self.ratio(row, median, name) for name in others]
            if any(cells):
                lines.append([row, "", *cells])
        self.print_table(["", "", *others], lines)

    def show_peer(self):
        """The peer protocol beside its own targets and beside curve_tun in the same run."""
        lines = []
        for row, unit, median in self.medians():
            sense, value = PEER_TARGETS.get(row, ("", None))
            if not sense or not median.get(PEER):
                continue
            missed = median[PEER] < value if sense == ">=" else median[PEER] > value
            lines.append([row, unit, self.number(median[PEER]), self.number(median.get(OURS)),
                          f"{sense} {value:,}{' missed' if missed else ''}"])
        if lines:
            print(f"\n{PEER}, and {OURS} (curve_tun)\n")
            self.print_table(["", "unit", PEER, OURS, "target"], lines)

    def medians(self):
        return [(row, unit, {name: statistics.median(values) for name, values in figures.items()})
                for (row, unit), figures in self.rows.items()]

    def absolute(self, row):
        sense, value, _ = TARGETS.get(row, ("", None, {}))
        return f"{sense} {value:,}" if sense else ""

    @staticmethod
    def ratio(row, median, other):
        if not median.get(OURS) or not median.get(other):
            return ""
        ratio = median[OURS] / median[other]
        sense, value, reference = TARGETS.get(row, ("", None, {}))
        if other not in reference:
            return f"{ratio:.2f}"
        wanted = value / reference[other]
        missed = ratio < wanted if sense == ">=" else ratio > wanted
        return f"{ratio:.2f} ({sense} {wanted:.2f}){' missed' if missed else ''}"

    @staticmethod
    def print_table(head, lines):
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        for line in [head, *lines]:
            print("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                            for i, (cell, width) in enumerate(zip(line, widths))).rstrip())


class AwakeCores:
    """Keeps all cores from sleeping while it is entered: by the kernel's own switch where we may (root), which costs
    the others no time, else by spinning at the lowest priority, which does."""

    LATENCY_SWITCH = "/dev/cpu_dma_latency"

    def __enter__(self):
        self.switch = self.spinner = None
        try:
            self.switch = os.open(self.LATENCY_SWITCH, os.O_WRONLY)
            os.write(self.switch, (0).to_bytes(4, "little"))
        except OSError:
            self.spinner = subprocess.Popen([program("load"), "spin"])
        time.sleep(0.1)

    def __exit__(self, *_):
        if self.switch is not None:
            os.close(self.switch)
        if self.spinner is not None:
            self.spinner.kill()
            self.spinner.wait()


class Bench:
    def __init__(self, options, folder):
        self.options = options
        kinds = [kind for kind in (peers.Spiped, peers.Stunnel, peers.Floor) if kind.installed()]
        self.ours, self.peer = peers.Sallyport(), peers.PeerProtocol()
        # Tunnels are started only for tests that need them.
        all_tunnels = [self.ours, self.peer, *(kind(folder) for kind in kinds)]
        self.tunnels = all_tunnels if set(options.only) - {"vault", "app", "start"} else []
        self.has_zmq = os.path.exists(program("zmq"))
        self.table = Table([tunnel.name for tunnel in self.tunnels] + [CURVE_ZMQ, PLAIN_ZMQ] * self.has_zmq
                           + [kind.name for kind in self.agent_kinds()] + [DIRECT])
        self.folder = folder
        self.sink = harness.free_port()

    def load(self, mode, tunnel, *words):
        pids = ",".join(str(pid) for pid in tunnel.pids())
        return run_json(program("load"), mode, self.sink, tunnel.port, "--secs", self.options.secs, "--pids", pids,
                        *words)

    # -- one test of one tunnel each

    def bulk(self, tunnel):
        for conns in (1, 8):
            for direction, words in (("up", []), ("down", ["--down"])):
                result = self.load("bulk", tunnel, "--conns", conns, *words)
                plural = "connection" if conns == 1 else "connections"
                self.table.add(f"bulk {direction}, {conns} {plural}", "MiB/s", tunnel.name, result["mib_per_s"])
                self.table.add(f"CPU {direction}, {conns} {plural}", "s/GiB", tunnel.name, result["cpu_s_per_gib"])

    def lat(self, tunnel):
        with AwakeCores():
            result = self.load("lat", tunnel)
        self.table.add("64 B there and back, p50", "us", tunnel.name, result["p50_us"])
        self.table.add("64 B there and back, p99", "us", tunnel.name, result["p99_us"])
        self.table.add("CPU per round trip", "us", tunnel.name, result["cpu_us"])

    def conn(self, tunnel):
        result = self.load("conn", tunnel, "--conns", 16)
        if result["failed"]:
            print(f"   {tunnel.name}: {result['failed']:.0f} connections failed", flush=True)
        self.table.add("new connections, 16 at once", "per s", tunnel.name, result["per_s"])
        self.table.add("CPU per connection", "ms", tunnel.name, result["cpu_ms"])

    def idle(self, tunnel, count):
        before = peers.memory_kib(tunnel.pids())
        command = [program("load"), "idle", str(self.sink), str(tunnel.port), "--conns", str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            line = holder.stdout.readline()
            if not line:
                raise RuntimeError(f"{tunnel.name}: idle connections could not be opened")
            opened = json.loads(line)["open"]
            time.sleep(0.5)
            after = peers.memory_kib(tunnel.pids())
            suffix = "" if count == 1000 else f", {count:,}"
            for kind, index in (("PSS", 0), ("private", 1)) if before and after else ():
                self.table.add(f"{kind} per idle connection{suffix}", "KiB", tunnel.name,
                               (after[index] - before[index]) / opened)
            if opened < count:
                print(f"   {tunnel.name}: {opened:.0f} of {count} idle connections in a minute", flush=True)
            holder.stdin.close()
            if holder.wait(120) != 0:
                print(f"   {tunnel.name}: an idle connection died", flush=True)

    # -- ours, and what has no tunnel

    def messages(self):
        for size, batch in ((64, 2048), (1024, 512)):
            for ours in (self.ours, self.peer):
                pids = ",".join(str(pid) for pid in ours.pids())
                near, far = (site.dir / "run/net.sock" for site in (ours.near, ours.far))
                result = run_json(program("messages"), near, far, "channel", "--size", size, "--batch", batch,
                                  "--secs", self.options.secs, "--pids", pids)
                self.table.add(f"messages of {size:,} B", "per s", ours.name, result["per_s"])
                self.table.add(f"CPU per message of {size:,} B", "us", ours.name, result["cpu_us"])
            for mechanism, name in (("curve", CURVE_ZMQ), ("null", PLAIN_ZMQ)) if self.has_zmq else ():
                result = run_json(program("zmq"), mechanism, harness.free_port(), "--size", size,
                                  "--secs", self.options.secs)
                self.table.add(f"messages of {size:,} B", "per s", name, result["per_s"])
                self.table.add(f"CPU per message of {size:,} B", "us", name, result["cpu_us"])

    def vault(self):
        """A vault alone, which lets its own client key in: asked over its net socket as netd asks it."""
        site = harness.Site("bench-vault", metrics=False)
        try:
            site.vault["handshakes_per_second"] = 1_000_000
            site.peer("client", site.key("client"))
            site.listen("in", ["client"], "echo")
            site.peer("server", site.publics["server"])
            site.connect_entry("out", ("127.0.0.1", 1), "server", listen=False)
            began = time.monotonic()
            process = site.start_vaultd()
            self.table.add("start to first answer", "ms", OURS, (time.monotonic() - began) * 1e3)
            if "vault" not in self.options.only:
                return
            with AwakeCores():
                result = run_json(program("vault"), site.dir / "run/vault-net.sock", "in", site.peers["server"], "out",
                                  "--secs", self.options.secs / 2, "--pids", process.pid)
        finally:
            site.stop()
        for row, unit, key in (("cookies, one in flight", "per s", "cookies_1"),
                               ("cookies, one in flight, p50", "us", "cookies_1_p50_us"),
                               ("cookies, one in flight, p99", "us", "cookies_1_p99_us"),
                               ("cookies, 64 in flight", "per s", "cookies_64"),
                               ("cookies, 64 a call", "per s", "cookies_batch"),
                               ("vault's CPU per cookie, 64 a call", "us", "cookies_batch_cpu_us"),
                               ("vouches verified, peer known, 64 a call", "per s", "verify_batch"),
                               ("vault's CPU per vouch verified", "us", "verify_batch_cpu_us"),
                               ("vouches made, 64 a call", "per s", "make_batch"),
                               ("vault's CPU per vouch made", "us", "make_batch_cpu_us"),
                               ("vouch verified, one in flight, p50", "us", "verify_1_p50_us"),
                               ("vouch verified, one in flight, p99", "us", "verify_1_p99_us")):
            self.table.add(row, unit, OURS, result[key])
        for row in ("cookies, one in flight", "cookies, 64 in flight", "cookies, 64 a call"):
            self.table.add(row, "per s", DIRECT, result["cookies_direct"])
        self.table.add("vault's CPU per cookie, 64 a call", "us", DIRECT, result["cookies_direct_cpu_us"])

    @staticmethod
    def agent_kinds():
        return [kind for kind in (agents.SshAgent, agents.GpgAgent) if kind.installed()]

    def app(self, number):
        """A vault alone, asked as programs ask it, and in the same minute the agents."""
        site = harness.Site("bench-app", metrics=False)
        try:
            site.key("box")
            site.cli("key", "new", "sign", "--kind", "ed25519")
            site.peer("known")
            site.grant("all", keys=["box", "sign"], verbs=["box", "open", "sign", "fresh_nonce"], peers=["*"],
                       domains=["bench"])
            process = site.start_vaultd()
            with AwakeCores():
                result = run_json(program("app"), site.dir / "run/vault.sock", "box", "sign", "known", "bench",
                                  "--secs", self.options.secs / 2, "--pids", process.pid)
            memory = peers.memory_kib([process.pid])
        finally:
            site.stop()
        for row, key, alone in APP_ROWS:
            self.table.add(row, "per s", OURS, result[key])
            if alone:
                self.table.add(row, "per s", DIRECT, result[alone])
                self.table.add(f"{row}, CPU", "us", DIRECT, result[f"{alone}_cpu_us"])
            for what in ("p50", "p99") if key.endswith("_1") else ():
                self.table.add(f"{row}, {what}", "us", OURS, result[f"{key}_{what}_us"])
            self.table.add(f"{row}, CPU", "us", OURS, result[f"{key}_cpu_us"])
        self.own_memory(OURS, memory)
        for kind in self.agent_kinds():
            agent = kind(self.folder / f"agents-{number}")
            self.attempt(kind.name, self.agent, agent)

    def own_memory(self, name, memory):
        """What it takes for itself: the same whatever else runs. And the clean pages of files that nobody else has mapped just now."""
        if memory:
            self.table.add("memory of the vault, its own", "KiB", name, memory[2])
            self.table.add("clean pages of files beside it", "KiB", name, memory[1] - memory[2])

    def agent(self, agent):
        try:
            agent.start()
            results = {}
            for name, row, words in AGENT_ROWS:
                if name != agent.name:
                    continue
                # The same work in two rows is measured once.
                if str(words) not in results:
                    with AwakeCores():
                        results[str(words)] = run_json(program("agents"), *agent.words(), *words, "--secs",
                                                       self.options.secs / 2, "--pids", agent.pid)
                result = results[str(words)]
                self.table.add(row, "per s", name, result["per_s"])
                for what in ("p50", "p99") if not words else ():
                    self.table.add(f"{row}, {what}", "us", name, result[f"{what}_us"])
                self.table.add(f"{row}, CPU", "us", name, result["cpu_us"])
            self.own_memory(agent.name, peers.memory_kib([agent.pid]))
        finally:
            agent.stop()

    # -- all

    def attempt(self, what, function, *arguments):
        """A peer that fails a test leaves a gap, not an end."""
        try:
            function(*arguments)
        except (RuntimeError, AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as error:
            self.failed = self.failed or what.startswith(OURS)
            print(f"   {what}: {error}", flush=True)

    def run(self):
        self.failed = False
        only = self.options.only
        for tunnel in self.tunnels:
            tunnel.start(self.sink)
        for number in range(self.options.rounds):
            print(f"-- round {number + 1} of {self.options.rounds}", flush=True)
            for test in ("bulk", "lat", "conn"):
                for tunnel in self.tunnels if test in only else ():
                    self.attempt(f"{tunnel.name} {test}", getattr(self, test), tunnel)
            if "messages" in only:
                self.attempt(f"{OURS} messages", self.messages)
            if "vault" in only or "start" in only:
                self.attempt(f"{OURS} vault", self.vault)
            if "app" in only:
                (self.folder / f"agents-{number}").mkdir()
                self.attempt(f"{OURS} app", self.app, number)
        if "idle" in only:
            self.fresh_idle()

    def fresh_idle(self):
        """Memory is asked of tunnels that have done nothing before."""
        for count in (1000, 9500) if self.options.full else (1000,):
            print(f"-- {count:,} idle connections", flush=True)
            for tunnel in self.tunnels:
                self.attempt(f"{tunnel.name} restart", self.restart, tunnel)
                self.attempt(f"{tunnel.name} idle", self.idle, tunnel, count)

    def restart(self, tunnel):
        tunnel.stop()
        if not isinstance(tunnel, peers.Sallyport):
            tunnel.processes.clear()
        tunnel.start(self.sink)

    def stop(self):
        for tunnel in self.tunnels:
            self.attempt(f"stopping {tunnel.name}", tunnel.stop)


class Machine:
    """How much of the cores others had during the run: a table made beside them says less."""

    def __init__(self):
        model = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), "unknown processor")
        print(f"{os.cpu_count()} cores, {model}, Linux {platform.release()}, "
              f"load {os.getloadavg()[0]:.1f} before the run")
        self.before = self.times()

    @staticmethod
    def times():
        """Seconds of the cores: all, busy, and ours (of children that have ended)."""
        ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        total, idle = sum(ticks), ticks[3] + ticks[4]
        hertz = os.sysconf("SC_CLK_TCK")
        return total / hertz, (total - idle) / hertz, sum(os.times()[:4])

    def tell(self):
        total, busy, ours = (after - before for before, after in zip(self.before, self.times()))
        print(f"\nother programs had {max(0.0, busy - ours) / total:.0%} of the cores during the run")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default=",".join(TESTS), help="comma-separated: " + " ".join(TESTS))
    parser.add_argument("--rounds", type=int, default=0, help="how often each test runs (default 2, full 3)")
    parser.add_argument("--secs", type=float, default=0, help="seconds a measurement (default 1.2, full 3)")
    parser.add_argument("--full", action="store_true", help="longer, and 9,500 idle connections")
    options = parser.parse_args()
    options.only = options.only.split(",")
    if set(options.only) - set(TESTS):
        parser.error("unknown test; there are " + " ".join(TESTS))
    options.rounds = options.rounds or (3 if options.full else 2)
    options.secs = options.secs or (3 if options.full else 1.2)
    harness.raise_fd_limit()
    machine = Machine()
    with tempfile.TemporaryDirectory(prefix="sallyport-bench-") as folder:
        bench = Bench(options, pathlib.Path(folder))
        try:
            bench.run()
        finally:
            bench.stop()
    machine.tell()
    print()
    bench.table.show()
    bench.table.show_peer()
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
