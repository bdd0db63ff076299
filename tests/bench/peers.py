"""The tunnels that are measured: ours and Debian's, each as two ends on loopback.

Each class has `name`, `installed()`, and start(sink) / stop(); after start() `port` is where programs connect, and
pids() are the processes of both ends: their CPU time and memory are counted.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))
import harness  # noqa: E402
import peer_sites  # noqa: E402

MAX_TUNNELS = 9900


class Sallyport:
    """Two sites, each started by `sallyport up`: netd and vaultd of both ends count."""

    name = "sallyport"

    @staticmethod
    def installed():
        return True

    def start(self, sink):
        self.near, self.far = harness.Site("bench-near", metrics=False), harness.Site("bench-far", metrics=False)
        for site in (self.near, self.far):
            site.vault["handshakes_per_second"] = 1_000_000
        near, far = self.near, self.far
        far.peer("near", near.key("client"))
        near.peer("far", far.key("server"))
        tunnel = far.listen("tunnel", ["near"], f"tcp:127.0.0.1:{sink}")
        channel = far.listen("channel", ["near"], "channel")
        self.port = near.connect_entry("tunnel", ("127.0.0.1", tunnel), "far")
        near.connect_entry("channel", ("127.0.0.1", channel), "far", listen=False)
        far.start()
        near.start()

    def pids(self):
        return [pid for site in (self.near, self.far) for pid in harness.processes_of_session(site.up.pid)]

    def stop(self):
        self.near.stop()
        self.far.stop()


class PeerProtocol(Sallyport):
    """The same two sites with the peer protocol in hard mode."""

    name = "peer protocol"

    def start(self, sink):
        self.near, self.far = harness.Site("bench-near", metrics=False), harness.Site("bench-far", metrics=False)
        block = os.urandom(128)
        for site, party in ((self.near, "A"), (self.far, "B")):
            site.vault["handshakes_per_second"] = 1_000_000
            peer_sites.add_block(site, "link", block, party)
        tunnel = peer_sites.peer_listen(self.far, "tunnel", f"tcp:127.0.0.1:{sink}")
        channel = peer_sites.peer_listen(self.far, "channel", "channel")
        self.port = peer_sites.peer_connect(self.near, "tunnel", tunnel)
        peer_sites.peer_connect(self.near, "channel", channel, listen=False)
        self.far.start()
        self.near.start()


class Pair:
    """A foreign tunnel: one command for each end."""

    def __init__(self, folder):
        self.folder = folder / self.name
        self.folder.mkdir()
        self.processes = []

    @classmethod
    def installed(cls):
        return shutil.which(cls.program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is not None

    def start(self, sink):
        self.port, self.wire = harness.free_port(), harness.free_port()
        ends = ((self.far_command(self.wire, sink), self.wire), (self.near_command(self.port, self.wire), self.port))
        for command, port in ends:
            with open(self.folder / "log", "ab") as log:
                self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                       start_new_session=True))  # scheduled like ours: as a group
            harness.wait_until(lambda port=port: listens(port), 10, f"{self.name} listens: {self.folder}/log")

    def pids(self):
        return [process.pid for process in self.processes]

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)


class Spiped(Pair):
    """A pre-shared key, but a Diffie-Hellman exchange for each connection, AES-256-CTR and HMAC-SHA256."""

    name = program = "spiped"

    def command(self, direction, source, target):
        key = self.folder / "key"
        if not key.exists():
            key.write_bytes(os.urandom(32))
        return ["spiped", "-F", direction, "-s", f"127.0.0.1:{source}", "-t", f"127.0.0.1:{target}", "-k", str(key),
                "-n", "0", "-o", "60"]

    def far_command(self, wire, sink):
        return self.command("-d", wire, sink)

    def near_command(self, port, wire):
        return self.command("-e", port, wire)


class Stunnel(Pair):
    """TLS 1.3 with certificates on both sides, AES-256-GCM, X25519, a full handshake for each connection."""

    name = "stunnel"
    program = "stunnel4"
    COMMON = """foreground = yes
pid =
debug = 3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[tunnel]
verifyChain = yes
sslVersion = TLSv1.3
ciphersuites = TLS_AES_256_GCM_SHA384
curves = X25519
sessionResume = no
"""

    def certificates(self):
        """One P-256 authority, one certificate for each end."""
        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, stdin=subprocess.DEVNULL,
                           capture_output=True)

        for name in ("ca", "near", "far"):
            openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        openssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=bench", "-days", "9", "-out", "ca.pem")
        for name in ("near", "far"):
            openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-days", "9", "-out", f"{name}.crt")
            both = [(self.folder / f"{name}.{kind}").read_text() for kind in ("crt", "key")]
            self.write(f"{name}.pem", "".join(both))
            (self.folder / f"{name}.pem").chmod(0o600)

    def command(self, end, accept, connect, *extra):
        text = self.COMMON + f"accept = 127.0.0.1:{accept}\nconnect = 127.0.0.1:{connect}\n" \
            + f"cert = {self.folder}/{end}.pem\nCAfile = {self.folder}/ca.pem\n" \
            + "".join(f"{line}\n" for line in extra)
        return ["stunnel4", self.write(f"{end}.conf", text)]

    def far_command(self, wire, sink):
        self.certificates()
        return self.command("far", wire, sink)

    def near_command(self, port, wire):
        return self.command("near", port, wire, "client = yes", "checkHost = far")


class Floor(Pair):
    """Two forwarding hops without cryptography: what any pair of processes costs."""

    name = "no crypto"
    program = "haproxy"

    def command(self, end, listen, target):
        text = f"global\n nbthread 2\n maxconn {MAX_TUNNELS}\ndefaults\n mode tcp\n maxconn {MAX_TUNNELS}\n" \
               " timeout connect 10s\n timeout client 1h\n timeout server 1h\n" \
               f"listen {end}\n bind 127.0.0.1:{listen} backlog 4096\n server next 127.0.0.1:{target}\n"
        return ["haproxy", "-db", "-f", self.write(f"{end}.cfg", text)]

    def far_command(self, wire, sink):
        return self.command("far", wire, sink)

    def near_command(self, port, wire):
        return self.command("near", port, wire)


def listens(port):
    """Whether somebody listens, without connecting."""
    wanted = f"0100007F:{port:04X}"
    lines = pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


def memory_kib(pids):
    """(PSS, private, written) of all; None where the kernel doesn't tell: only root sees the memory of netd and vaultd.
    PSS and private memory (USS) fall when others map the same files, written (harness.own_memory_kib) doesn't."""
    pss = private = written = 0
    for pid in pids:
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            return None
        values = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        pss += values["Pss"]
        private += values["Private_Clean"] + values["Private_Dirty"]
        written += values["Private_Dirty"]
    return pss, private, written
