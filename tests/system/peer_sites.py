"""Sites with entries of the peer protocol, and a peer of our own: the Python implementation, tests/interop/peerframe.py, on a socket.

    site, block = test.site(), os.urandom(128)
    add_block(site, "link", block, "B")
    port = peer_listen(site, "db", service.where, key="link")
    site.start()
    with WirePeer(("127.0.0.1", port), "A", block) as peer: ...
"""

import base64
import os
import socket

from harness import SystemTest, free_port
from traffic import Service, plain, read_count
import peerframe as pf

END = pf.CODE_CONTROL  # with an empty payload
OPEN = (pf.CODE_CONTROL, pf.OPEN_TEXT)
PATIENCE_S = 30.0


def add_block(site, name, block, party, unused=True):
    """A block that we know as a key of the site's vault."""
    site.write_config()
    site.cli("key", "import", name, "--kind", "peer-block", "--party", party, *(["--unused"] if unused else []),
             stdin=base64.encodebytes(block))  # in lines of 76, as base64(1) has it
    site.publics[name] = b""


def peer_listen(site, name, service, key="link", address=None, **options):
    """A [[listen]] entry; returns its port, or the address that was given."""
    port = None
    if address is None:
        port = free_port()
        address = f"127.0.0.1:{port}"
    site.listens[name] = {"name": name, "address": address, "protocol": "peer", "key": key, "service": service, **options}
    return port or address


def peer_connect(site, name, address, key="link", listen=True, **options):
    """A [[connect]] entry; returns the port of its plain side, if it has one."""
    if isinstance(address, int):
        address = f"127.0.0.1:{address}"
    site.connects[name] = {"name": name, "address": address, "protocol": "peer", "key": key, **options}
    if not listen:
        return None
    port = free_port()
    site.connects[name]["listen"] = f"127.0.0.1:{port}"
    return port


class TwoHosts(SystemTest):
    """Two sites, hq and branch, that know each other's keys; once started, each dials the other under one block, `link`."""

    def setUp(self):
        super().setUp()
        self.hq, self.branch = self.site("hq"), self.site("branch")
        hq_key, branch_key = self.hq.key("hq"), self.branch.key("branch")
        self.hq.peer("branch", branch_key)
        self.branch.peer("hq", hq_key)
        self.hq.grant("pair", keys=["hq"], verbs=["box", "open"], peers=["branch"])
        self.branch.grant("pair", keys=["branch"], verbs=["box", "open"], peers=["hq"])

    def start_both(self):
        block = os.urandom(128)
        add_block(self.hq, "link", block, "B")
        add_block(self.branch, "link", block, "A")
        service = Service()
        self.addCleanup(service.close)
        self.to_hq = peer_connect(self.branch, "to-hq", peer_listen(self.hq, "in-hq", service.where))
        self.to_branch = peer_connect(self.hq, "to-branch", peer_listen(self.branch, "in-branch", service.where))
        self.hq.start()
        self.branch.start()
        self.assert_both_serve("before")

    @staticmethod
    def serves(port, text):
        try:
            with plain(port) as sock:
                sock.sendall(text)
                return read_count(sock, len(text), 10) == text
        except (OSError, EOFError):
            return False

    def assert_both_serve(self, when):
        """Several: a salt that was drawn before a step must do as well as a fresh one."""
        for _ in range(4):
            self.assertTrue(self.serves(self.to_hq, b"to hq"), f"{when}: branch dials hq")
            self.assertTrue(self.serves(self.to_branch, b"to branch"), f"{when}: hq dials branch")


class WirePeer:
    """One end of a connection in Python. `frames` are those that came and weren't taken yet."""

    def __init__(self, where, own, block, mode="hard", rotate=None, opening=True, handshake=True):
        if isinstance(where, socket.socket):
            self.sock = where
        elif isinstance(where, tuple):
            self.sock = socket.create_connection(where, PATIENCE_S)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(where))
        self.sock.settimeout(PATIENCE_S)
        self.party = pf.Party(own, block, mode, rotate=rotate)
        self.frames = []
        if mode == "hard":
            self.sock.sendall(self.party.outgoing)
            if not handshake:
                return
            while self.party.sending is None:
                self.read()
            if opening:
                self.send(pf.OPEN_TEXT, pf.CODE_CONTROL)

    def read(self):
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError("the wire ended")
        self.frames += self.party.feed(data)

    def send(self, payload=b"", code=0):
        self.sock.sendall(self.party.frame(payload, code))

    def receive(self):
        """The next frame: (code, payload)."""
        while not self.frames:
            self.read()
        return self.frames.pop(0)

    def receive_bytes(self, count):
        data = b""
        while len(data) < count:
            code, payload = self.receive()
            assert code == 0, code
            data += payload
        return data

    def ended(self, timeout=10.0):
        """Waits for the end of the wire: "eof" or "reset"; frames that still come are thrown away."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(1 << 16):
                pass
            return "eof"
        except ConnectionResetError:
            return "reset"

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
