#!/usr/bin/python3
"""What a key in a token costs: handshakes per second and their latency with the server's key in software, in SoftHSM, in NSS's
softoken and in our mock module, in one run; and what hsmd adds to the module's own derive.

    ./dev bench --hsm
    tests/bench/hsm.py --secs 3 --rounds 3
    chrt -r 1 tests/bench/hsm.py      # as root, on a machine that others use: what is measured runs before all else

Rounds are interleaved over the kinds of key, and the table holds medians. A handshake is a new connection through a pair, one byte
there and back: the server's vault does two X25519 steps with its long-term key for each. "The module alone" is module_rate: the
same derive in one process, without sandbox or frames; "by hsmd" is hsm_derives, which asks hsmd in frames. The bar is that hsmd adds at
most 60 us to the median; the mean tells of a machine that is busy with other things. Absolute figures move with it.

A whole handshake takes two derives, both ends of it and the load share this machine's cores, so its rate can't come near the module's.
"Vault calls of one derive" is what can be held against it: a Hello a call, no netd, 16 and 32 of them under way, beside the module's own
derive in the same run; and "derives per s by handshakes" is twice their rate. More than 100 % is a second thread of hsmd's.

"kill -9 to the next good handshake": the process of the module is killed, and connections are tried until one works. The bar is 1 s.
Between two of them it is left in peace for as long as hsmd takes to call it stable: later crashes wait longer by design.
"""

import argparse
import base64
import os
import signal
import socket
import socketserver
import statistics
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bench import AwakeCores, Machine, Table, program, run_json  # noqa: E402
from peers import harness  # noqa: E402
import tokens  # noqa: E402

KINDS = {"software": None, "SoftHSM": tokens.SoftHsm, "NSS": tokens.Nss, "NSS, copied": tokens.Nss, "mock": tokens.Mock}
MAX_ADDED_US = 60
LEAST_PERCENT = 90  # of the module's own rate
MAX_RECOVERY_MS = 1000
STABLE_S = 10.5  # hsmd/restart_plan.h: STABLE_AFTER_MS
WIDTHS = (16, 32)


class Kind:
    """A pair whose server's key is of one kind, and the token it lives in."""

    def __init__(self, name, token_class, sink):
        self.name = name
        self.token = token_class() if token_class else None
        self.options = {"session_copy": True} if "copied" in name else {}
        self.near, self.far = harness.Site("bench-near", metrics=False), harness.Site("bench-far", metrics=False)
        for site in (self.near, self.far):
            site.vault["handshakes_per_second"] = 1_000_000
        if self.token:
            self.far.token("hsm", self.token, **self.options)
            self.far.token_key("server", "hsm")
        else:
            self.far.key("server")
        self.far.peer("near", self.near.key("client"))
        self.near.peer("far", self.far.publics["server"])
        tunnel = self.far.listen("tunnel", ["near"], f"tcp:127.0.0.1:{sink}")
        self.port = self.near.connect_entry("tunnel", ("127.0.0.1", tunnel), "far")
        self.far.start()
        if self.token:
            self.far.wait_tokens()
        self.near.start()

    def works(self):
        """One byte there and back over a new connection."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
                sock.sendall(b"?")
                return sock.recv(1) == b"?"
        except OSError:
            return False

    def processes(self, name):
        return [pid for pid, each in harness.processes_of_session(self.far.up.pid).items() if each == name]

    def stop(self):
        for site in (self.near, self.far):
            site.stop()
        if self.token:
            self.token.remove()


class Echo(socketserver.BaseRequestHandler):
    """In the load's place, behind the tunnels, while nothing but one byte is wanted."""

    def handle(self):
        self.request.sendall(self.request.recv(1))


class EchoServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Bench:
    def __init__(self, options):
        self.options = options
        self.table = Table(list(KINDS))
        self.sink = harness.free_port()
        self.added = {}
        self.shares = {}
        self.recoveries = {}

    def add(self, row, unit, kind, value):
        self.table.add(row, unit, kind.name, value)

    def handshakes(self, kind):
        for conns, suffix in ((1, "one at a time"), (16, "16 at once")):
            result = run_json(program("load"), "conn", self.sink, kind.port, "--conns", conns, "--secs", self.options.secs)
            if result["failed"]:
                print(f"   {kind.name}: {result['failed']:.0f} handshakes failed", flush=True)
            self.add(f"handshakes, {suffix}", "per s", kind, result["per_s"])
            self.add(f"handshakes, {suffix}, p50", "us", kind, result["p50_us"])
            self.add(f"handshakes, {suffix}, p99", "us", kind, result["p99_us"])
        self.add("derives per s by handshakes, 16 at once", "per s", kind, 2 * result["per_s"])

    def vault_calls(self, kind, alone):
        """Calls of one derive each, without a netd in between, and how much of the module's own rate that is."""
        key = base64.b64encode(kind.far.publics["server"]).decode()
        for width in WIDTHS:
            vault, worker = kind.processes("vaultd"), kind.processes("hsmd-worker")
            result = run_json(program("vault"), kind.far.dir / "run" / "vault-net.sock", "tunnel", key, "-", "--width", width,
                              "--secs", self.options.secs, "--pids", ",".join(map(str, vault)))
            row = f"vault calls of one derive, {width} under way"
            self.add(row, "per s", kind, result["per_s"])
            self.add(f"{row}, CPU of vaultd", "us each", kind, result["cpu_us"])
            if alone and worker:
                share = 100 * result["per_s"] / alone
                self.add(f"{row}, of the module's own", "%", kind, share)
                if kind.name != "mock":  # which reads its faults at each call, in every thread: no device's behaviour
                    self.shares.setdefault(kind.name, {}).setdefault(width, []).append(share)

    def recovery(self, kinds):
        """kill -9 of each module's process, and how long until a handshake works again."""
        time.sleep(STABLE_S)
        with EchoServer(("127.0.0.1", self.sink), Echo):
            for kind in kinds:
                worker = kind.processes("hsmd-worker")[0]
                began = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                while harness.is_alive(worker) or not kind.works():
                    if time.monotonic() > began + 60:
                        raise RuntimeError(f"{kind.name}: no handshake a minute after kill -9")
                took = (time.monotonic() - began) * 1000
                self.add("kill -9 to the next good handshake", "ms", kind, took)
                self.recoveries.setdefault(kind.name, []).append(took)

    def derives(self, kind):
        """The module alone and hsmd in front of it, one after the other, with a key of the token each."""
        token, copied = kind.token, bool(kind.options)
        with AwakeCores():
            alone = run_json_env(token.env, program("module_rate"), token.module, token.label, token.pin_file, token.spelling,
                                 *(["--init", token.init_args] if token.init_args else []), *(["--session"] if copied else []),
                                 "--secs", self.options.secs)
        self.vault_calls(kind, alone["derives_per_s"])
        with AwakeCores():
            served = run_json(program("hsm_derives"), harness.binary("token-guard"), kind.far.config, "hsm", "--secs", self.options.secs)
        self.add("derives of the module alone", "per s", kind, alone["derives_per_s"])
        self.add("derives of the module alone, mean", "us", kind, alone["mean_us"])
        self.add("derives of the module alone, CPU", "us each", kind, alone["cpu_us"])
        self.add("derives by hsmd, one in flight", "per s", kind, served["one_per_s"])
        self.add("derives by hsmd, one in flight, mean", "us", kind, served["one_mean_us"])
        self.add("derives by hsmd, one in flight, p99", "us", kind, served["one_p99_us"])
        self.add("derives by hsmd, 16 in flight", "per s", kind, served["wide_per_s"])
        self.add("derives by hsmd, 16 in flight, CPU", "us each", kind, served["wide_cpu_us"])
        self.added.setdefault(kind.name, []).append((served["one_mean_us"] - alone["mean_us"], served["one_p50_us"] - alone["p50_us"]))

    def run(self):
        kinds = []
        try:
            for name, token_class in KINDS.items():
                kinds.append(Kind(name, token_class, self.sink))
            for number in range(self.options.rounds):
                print(f"-- round {number + 1} of {self.options.rounds}", flush=True)
                for kind in kinds:
                    self.handshakes(kind)
                    if kind.token:
                        self.derives(kind)
                    else:
                        self.vault_calls(kind, None)
            for number in range(self.options.kills):
                print(f"-- kill -9, {number + 1} of {self.options.kills}", flush=True)
                self.recovery([kind for kind in kinds if kind.token])
        finally:
            for kind in kinds:
                kind.stop()

    def show(self):
        head = ["", "unit", *KINDS]
        self.table.print_table(head, [[row, unit, *(self.table.number(median.get(name)) for name in KINDS)]
                                      for row, unit, median in self.table.medians()])
        print()
        for name, pairs in self.added.items():
            mean, p50 = (statistics.median(values) for values in zip(*pairs))
            verdict = "" if p50 <= MAX_ADDED_US else f"  (more than {MAX_ADDED_US})"
            print(f"hsmd adds {p50:.0f} us to the median and {mean:.0f} us to the mean of {name}'s own derive{verdict}")
        for name, widths in self.shares.items():
            best = max(statistics.median(values) for values in widths.values())
            verdict = "" if best >= LEAST_PERCENT else f"  (less than {LEAST_PERCENT} %)"
            print(f"vault calls of one derive come to {best:.0f} % of {name}'s own rate{verdict}")
        for name, times in self.recoveries.items():
            verdict = "" if max(times) <= MAX_RECOVERY_MS else f"  (more than {MAX_RECOVERY_MS})"
            print(f"{name}: kill -9 to the next good handshake took {statistics.median(times):.0f} ms, {max(times):.0f} at worst, "
                  f"of {len(times)}{verdict}")


def run_json_env(env, *command):
    before = dict(os.environ)
    os.environ.update(env)
    try:
        return run_json(*command)
    finally:
        os.environ.clear()
        os.environ.update(before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--secs", type=float, default=1.2, help="seconds a measurement")
    parser.add_argument("--rounds", type=int, default=2, help="how often each runs")
    parser.add_argument("--kills", type=int, default=3, help="how often each module's process is killed")
    options = parser.parse_args()
    if tokens.missing():
        print("not installed:", ", ".join(tokens.missing()), file=sys.stderr)
        return 77
    machine = Machine()
    bench = Bench(options)
    try:
        bench.run()
    except (RuntimeError, AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"hsm bench: {error}", file=sys.stderr)
        return 1
    machine.tell()
    print()
    bench.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
