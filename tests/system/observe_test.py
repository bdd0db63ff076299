#!/usr/bin/python3
"""Goal: what the daemons say about themselves is there and true: `status`, `status --json`, `check` and the metrics page, with every drop
reason and the sandbox of each process; and nowhere in it, nor in logs, arguments, or netd's memory, is a secret.
"""

import base64
import json
import os
import pathlib
import re
import socket
import tempfile
import unittest

from harness import SystemTest, ct, processes_of_session, wait_until
from traffic import Service, plain, read_count

SECRET = bytes.fromhex("7e57ab1e5ec7e7000102030405060708090a0b0c0d0e0f101112131415161718")
REASONS = pathlib.Path(__file__).resolve().parents[2] / "proto" / "wire" / "drop_reason.h"


def spellings(secret):
    """The ways a key could show: hex, base64 (any alignment), raw."""
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for skip in range(3):
        yield base64.b64encode(secret[skip:])[:24]
    yield secret


class Observe(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.host = site = cls.class_site("observe")
        cls.alice = site.peer("alice")
        site.key("server", SECRET)
        site.peer("client", site.key("client"))
        cls.service = Service()
        cls.addClassCleanup(cls.service.close)
        cls.port = site.listen("tunnel", ["alice", "client"], cls.service.where)
        site.peer("server", site.publics["server"])
        cls.plain_port = site.connect_entry("tunnel", ("127.0.0.1", cls.port), "server")
        site.start()
        with site.connect(cls.port, cls.alice) as session:
            session.send(b"some traffic")
            session.receive()
            session.finish()
            session.receive_stream()
        with plain(cls.plain_port) as sock:
            sock.sendall(b"more traffic")
            read_count(sock, 12)
        with site.client(cls.port, ct.KeyPair()) as stranger:
            stranger.handshake().send(b"x")
            ct.read_to_end(stranger.sock, 5)
        with site.client(cls.port, cls.alice) as garbage:
            garbage.send_raw(b"\0\0")
            ct.read_to_end(garbage.sock, 5)

    def test_metrics_hold_counters_and_every_reason(self):
        page = self.host.metrics()
        reasons = re.findall(r'X\(\w+,\s+"(\w+)",', REASONS.read_text())
        self.assertGreater(len(reasons), 20)
        for reason in reasons:
            self.assertTrue([line for line in page if f'reason="{reason}"' in line], f"no line for {reason}")
        drops = {line: value for line, value in page.items() if "reason=" in line and value}
        self.assertTrue([line for line in drops if "peer_not_allowed" in line], drops)
        self.assertTrue([line for line in drops if "bad_length" in line], drops)
        self.assertTrue(all(line.startswith("sallyport_") for line in page), list(page)[:5])

    def test_metrics_survive_bad_requests(self):
        for request in (b"", b"\r\n", b"GET", b"POST /metrics HTTP/1.1\r\n\r\n", b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", b"\xff" * 5000,
                        b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(3)
            sock.connect(str(self.host.dir / "run/metrics.sock"))
            try:
                sock.sendall(request)
                sock.shutdown(socket.SHUT_WR)
                answer = sock.recv(200)
                self.assertNotIn(b"root:", answer)
            except OSError:
                pass
            sock.close()
        held = []
        for _ in range(300):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                sock.connect(str(self.host.dir / "run/metrics.sock"))
            except OSError:
                pass
            held.append(sock)
        for sock in held:
            sock.close()

        def served():
            try:
                return self.host.metrics()
            except OSError:
                return None  # the queue of the socket is still full
        wait_until(served, 5, "the page is served again")

    def ask_metrics(self, request):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.host.dir / "run/metrics.sock"))
            sock.sendall(request)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def test_metrics_are_served_beside_silent_clients(self):
        silent = []
        for _ in range(24):  # more than it serves at once
            silent.append(socket.socket(socket.AF_UNIX))
            self.addCleanup(silent[-1].close)
            silent[-1].connect(str(self.host.dir / "run/metrics.sock"))
        self.assertTrue(self.ask_metrics(b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 "))

    def test_metrics_answer_a_query_and_a_head(self):
        page = self.ask_metrics(b"GET /metrics?x=1 HTTP/1.1\r\n\r\n")
        self.assertTrue(page.startswith(b"HTTP/1.1 200 ") and b"sallyport_" in page, page[:200])
        head = self.ask_metrics(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n"), head[-200:])
        self.assertRegex(head, rb"Content-Length: [1-9]")
        self.assertTrue(self.ask_metrics(b"GET /metricsx HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 404 "))
        for method in (b"POST", b"HEADS"):
            answer = self.ask_metrics(method + b" /metrics HTTP/1.1\r\n\r\n")
            self.assertTrue(answer.startswith(b"HTTP/1.1 405 ") and b"\r\nAllow: GET, HEAD\r\n" in answer, answer)

    def test_status_json(self):
        done = self.host.cli("status", "--json")
        status = json.loads(done.stdout)
        text = done.stdout.decode()
        for word in ("peer_not_allowed", "seccomp", "landlock", "tunnel", "server"):
            self.assertIn(word, text)
        self.assertIsInstance(status, dict)

    def test_status_for_people(self):
        text = self.host.cli("status").stdout.decode()
        for word in ("vaultd", "netd", "seccomp", "server", "tunnel"):
            self.assertIn(word, text)

    def test_every_process_says_that_its_sandbox_holds(self):
        net, vault = self.host.net_status(), self.host.vault_status()
        for process in (net["monitor"], *net["workers"], vault):
            self.assertIn("seccomp", process["sandbox"])
            self.assertEqual(process["sandbox"]["seccomp"], "active", process)
            self.assertIn(process["verdict"], ("full", "degraded"))
            self.assertNotIn("failed", process["sandbox"].values())
        self.assertEqual(vault["keys"]["server"]["state"], "active")
        self.assertEqual(vault["keys"]["server"]["nonce"], "ready")

    def test_the_kernel_agrees(self):
        pids = self.host.pids()
        for pid in [pids["vaultd"], pids["monitor"], *pids["workers"]]:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            self.assertRegex(status, r"Seccomp:\s+2")
            self.assertRegex(status, r"NoNewPrivs:\s+1")
            self.assertRegex(status, r"CapEff:\s+0{16}")
            if os.geteuid() == 0:
                self.assertNotRegex(status, r"Uid:\s+0\s")
        self.assertEqual(len({pathlib.Path(f"/proc/{pid}").stat().st_dev for pid in pids["workers"]}), 1)

    def test_a_target_that_can_not_be_reached_is_told_until_it_can(self):
        site = self.site("targets")
        alice = site.peer("alice")
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else will
        gone = site.dir / "gone.sock"
        ports = {"refuses": site.listen("refuses", ["alice"], f"tcp:127.0.0.1:{taken.getsockname()[1]}", key="server"),
                 "absent": site.listen("absent", ["alice"], f"unix:{gone}", key="server"),
                 "unknown": site.listen("unknown", ["alice"], "tcp:nobody.invalid:5432", key="server")}
        site.start()

        def states():
            return {name: site.net_status()["entries"]["listen", name] for name in ports}

        self.assertEqual(set(states().values()), {""})
        for _ in range(3):
            for port in ports.values():
                with site.connect(port, alice, key="server") as session:
                    self.assert_closed_silently(session.sock)
        self.assertEqual(states(), {"refuses": "can't be reached: Connection refused",
                                    "absent": "can't be reached: No such file or directory",
                                    "unknown": "the name nobody.invalid doesn't resolve"})
        self.assertRegex(site.cli("status").stdout.decode(), r"refuses .*can't be reached: Connection refused")
        self.assertEqual(site.log().count("nobody.invalid doesn't resolve"), 1)
        taken.listen()
        with site.connect(ports["refuses"], alice, key="server"):
            wait_until(lambda: states()["refuses"] == "", 10, "the state that a target can be reached again")

    def test_check_names_what_would_listen_and_dial(self):
        text = self.host.cli("check").stdout.decode()
        for word in (str(self.port), str(self.plain_port), "alice", "tunnel"):
            self.assertIn(word, text)

    def test_counters_are_true(self):
        before = self.host.net_status()["counters"]
        with self.host.connect(self.port, self.alice) as session:
            session.send(bytes(1000))
            session.receive_bytes(1000)
            during = self.host.net_status()["counters"]
            self.assertEqual(during["server_handshakes"] - before["server_handshakes"], 1)
            self.assertEqual(during["tunnels"] - before["tunnels"], 1)
            self.assertEqual(during["bytes_opened"] - before["bytes_opened"], 1000)
            self.assertEqual(during["bytes_sealed"] - before["bytes_sealed"], 1000)
            self.assertEqual(during["vault_items"] - before["vault_items"], 2, "two vault items a handshake")
        wait_until(lambda: self.host.counter("tunnels") == before["tunnels"], 5, "the tunnel is gone from the count")

    def test_no_secret_is_said(self):
        site = self.host
        said = site.log().encode()
        for words in (("status",), ("status", "--json"), ("check",), ("key", "show", "server"), ("key", "list"), ("key", "export-public")):
            done = site.cli(*words, check=False)
            said += done.stdout + done.stderr
        said += json.dumps(site.metrics()).encode()
        pids = site.pids()
        for pid in [site.up.pid, pids["vaultd"], pids["monitor"], *pids["workers"]]:
            for name in ("cmdline", "environ"):
                try:
                    said += pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
                except OSError:
                    pass
        for form in spellings(SECRET):
            self.assertNotIn(form, said)
        client = (site.dir / "keys" / "client.key").read_text()
        payload = re.search(r"payload: (\S+)", client).group(1).encode()
        self.assertNotIn(payload[:24], said)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to read another process's memory")
    def test_no_secret_is_in_netds_memory(self):
        pids = self.host.pids()
        for pid in [pids["monitor"], *pids["workers"]]:
            maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
            read = 0
            with open(f"/proc/{pid}/mem", "rb") as memory:
                for low, high, mode in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (\S+)", maps, re.M):
                    if "r" not in mode or int(high, 16) - int(low, 16) > 1 << 28:
                        continue
                    try:
                        memory.seek(int(low, 16))
                        content = memory.read(int(high, 16) - int(low, 16))
                    except (OSError, ValueError, OverflowError):
                        continue
                    read += len(content)
                    self.assertNotIn(SECRET, content, f"the long-term secret is in netd's process {pid}")
            self.assertGreater(read, 100_000, "could not read the memory: the test shows nothing")

    def test_a_refused_key_is_told_so_that_it_can_be_added(self):
        stranger, address = ct.KeyPair(), ""
        before = self.entry("tunnel")
        with self.host.client(self.port, stranger) as session:
            address = "%s:%d" % session.sock.getsockname()[:2]
            session.handshake()
            ct.read_to_end(session.sock, 5)
        key = base64.b64encode(stranger.public).decode()
        wait_until(lambda: self.entry("tunnel")["refused"]["publicKey"] == key, 5, "status names the refused key")
        after = self.entry("tunnel")
        self.assertEqual(after["accepted"] - before["accepted"], 1)
        self.assertEqual(after["handshakes"], before["handshakes"])
        self.assertEqual(after["drops"] - before["drops"], 1)
        self.assertLess(after["refused"]["secondsAgo"], 60)
        self.assertIn(f"sallyport peer add NAME {key}", self.host.cli("status").stdout.decode())
        self.assertNotIn("refused", self.entry("tunnel", "connect"))

    def test_a_vouch_of_another_key_is_no_refused_key(self):
        before = self.entry("tunnel")
        stranger = ct.KeyPair()
        liar = ct.KeyPair()
        liar.public = stranger.public
        drops = self.host.drops()
        with self.host.client(self.port, liar) as session:
            session.handshake()
            ct.read_to_end(session.sock, 5)
        self.assert_dropped(self.host, drops, {"bad_vouch": 1})
        self.assertNotEqual(self.entry("tunnel").get("refused", {}).get("publicKey"), base64.b64encode(stranger.public).decode())
        self.assertEqual(self.entry("tunnel")["drops"] - before["drops"], 1)

    def entry(self, name, direction="listen"):
        entries = json.loads(self.host.cli("status", "--json").stdout)["netd"]["entries"]
        return next(entry for entry in entries if (entry["name"], entry["direction"]) == (name, direction))

    def test_logs_name_drops_without_bytes_of_the_peer(self):
        log = self.host.log()
        self.assertNotIn("some traffic", log)
        self.assertRegex(log, r"netd-worker: refused reason=peer_not_allowed entry=tunnel from=127\.0\.0\.1:\d+ key=\S{44}")
        self.assertRegex(log, r"netd-worker: drop reason=\w+ entry=tunnel from=127\.0\.0\.1:\d+")
        self.assertNotIn("\0", log)


class Descriptors(SystemTest):
    def test_none_of_those_that_up_was_started_with_reaches_netd(self):
        """One may be a PIN, `pin = "fd:N"`: whoever takes a worker over must not find it there."""
        site = self.site()
        with tempfile.TemporaryFile() as secret:
            site.pass_fds = (secret.fileno(),)
            site.peer("alice")
            site.listen("echo", ["alice"], "echo")
            site.start()
            inode = os.fstat(secret.fileno()).st_ino
            found = {name for pid, name in processes_of_session(site.up.pid).items() for fd in os.listdir(f"/proc/{pid}/fd")
                     if os.stat(f"/proc/{pid}/fd/{fd}").st_ino == inode}
        self.assertIn("vaultd", found, "nothing was tested")
        self.assertFalse({name for name in found if name.startswith("netd")}, found)


if __name__ == "__main__":
    unittest.main()
