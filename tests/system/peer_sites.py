"""Sites with entries of the peer protocol, and a peer of our own: the Python implementation, tests/interop/peerframe.py, on a socket.

    site, block = test.site(), os.urandom(128)
    add_block(site, "link", block, "B")
    port = peer_listen(site, "db", service.where, key="link")
    site.start()
    with WirePeer(("127.0.0.1", port), "A", block) as peer: ...
"""

import base64
import socket

from harness import free_port
import peerframe as pf

OPEN, END = pf.CODE_OPEN, pf.CODE_END
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
                self.send(b"", OPEN)

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
