#!/usr/bin/python3
"""curve_tun 1.0, both sides, a second time: from docs/protocol.md alone, in another language, on another library's API.

This is a test instrument, not a product: sockets block, one thread serves one connection, and every field of every packet
can be replaced, because the other side's answer to nonsense is what the tests are after. What it must never do is share a
line of code or an assumption with netd/ or proto/wire/: two equal mistakes would agree with each other.

Shapes: every packet travels as be16 length || packet.
    Hello     magic(8) EC(32) N=0(8) Box[64 zero bytes](ECs>S)
    Cookie    magic(8) R(16) Box[ES(32) K(96)](Ss>EC)              K = R'(16) SecretBox[EC ESs](Ts)
    Initiate  magic(8) K(96) N=1(8) Box[C(32) R2(16) V(48)](ECs>ES)      V = Box[EC](Cs>S)
    Message   magic(8) N(8) Box[m]                                  N = 2, 3, 4, ... in each direction
"""

import os
import socket
import struct
import threading
import time

from nacl import bindings
from nacl.exceptions import CryptoError

from packets import *  # noqa: F403  (its names are part of this module's face)
from packets import (CLIENT_MESSAGE_PREFIX, COOKIE_MAGIC, COOKIE_PREFIX, FIRST_MESSAGE_COUNTER, HELLO_MAGIC, HELLO_PREFIX, INITIATE_MAGIC,
                     INITIATE_PREFIX, MESSAGE_MAGIC, MINUTE_PREFIX, SERVER_MESSAGE_PREFIX, VOUCH_PREFIX, KeyPair, be64, frame,
                     is_low_order, make_cookie_packet, make_hello, make_initiate, make_message, make_vouch, shared_key, unseal)


class Closed(Exception):
    """The other side ended the connection. `data` is what came before the end without making a whole packet."""

    def __init__(self, how, data=b""):
        super().__init__(how + (f" inside a packet, {len(data)} bytes" if data else ""))
        self.how = how  # "eof" or "reset"
        self.data = data


class BadPeer(Exception):
    """The other side sent something that curve_tun doesn't allow."""


# --- sockets --------------------------------------------------------------------------------------------------------------


def read_exactly(sock, count, deadline):
    data = bytearray()
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{len(data)} of {count} bytes came in time")
        sock.settimeout(left)
        try:
            piece = sock.recv(count - len(data))
        except (ConnectionResetError, BrokenPipeError):
            raise Closed("reset", bytes(data)) from None
        except socket.timeout:
            continue
        if not piece:
            raise Closed("eof", bytes(data))
        data += piece
    return bytes(data)


def read_packet(sock, timeout=10.0, size=None):
    """The next packet. With `size` any other announced length is refused before a byte of the packet is waited for."""
    deadline = time.monotonic() + timeout
    length = struct.unpack(">H", read_exactly(sock, 2, deadline))[0]
    if size is not None and length != size:
        raise BadPeer(f"a packet of {length} bytes where one of {size} is due")
    try:
        return read_exactly(sock, length, deadline)
    except Closed as closed:
        raise Closed(closed.how, struct.pack(">H", length) + closed.data) from None


def read_to_end(sock, timeout=10.0):
    """All bytes up to the end of the connection, and how it ended: "eof", "reset" or "open" when the time is over."""
    deadline = time.monotonic() + timeout
    data = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return bytes(data), "open"
        sock.settimeout(left)
        try:
            piece = sock.recv(65536)
        except socket.timeout:
            return bytes(data), "open"
        except (ConnectionResetError, BrokenPipeError):
            return bytes(data), "reset"
        if not piece:
            return bytes(data), "eof"
        data += piece


def drip(sock, data, interval, stop=None):
    """Sends a byte each `interval` seconds; returns how many went out before the other side closed."""
    for sent in range(len(data)):
        if stop is not None and stop.is_set():
            return sent
        try:
            sock.sendall(data[sent:sent + 1])
        except OSError:
            return sent
        time.sleep(interval)
    return len(data)


# --- a session: what both sides are after the handshake --------------------------------------------------------------------


class Session:
    def __init__(self, sock, shared, out_prefix, in_prefix):
        self.sock = sock
        self.shared = shared
        self.out_prefix = out_prefix
        self.in_prefix = in_prefix
        self.out_counter = FIRST_MESSAGE_COUNTER
        self.in_counter = FIRST_MESSAGE_COUNTER
        self.record = []  # every frame sent, for replays

    def seal_next(self, text, **changes):
        counter = changes.pop("counter", self.out_counter)
        packet = make_message(text, self.shared, self.out_prefix, counter, **changes)
        self.out_counter += 1
        return frame(packet)

    def send(self, text, **changes):
        self.send_raw(self.seal_next(text, **changes))

    def send_many(self, texts):
        self.send_raw(b"".join(self.seal_next(text) for text in texts))

    def send_raw(self, data):
        self.record.append(data)
        self.sock.settimeout(30)
        self.sock.sendall(data)

    def finish(self):
        """The authenticated end of our direction: an empty message."""
        self.send(b"")

    def open_packet(self, packet):
        if len(packet) < 32 or packet[:8] != MESSAGE_MAGIC:
            raise BadPeer("not a message packet")
        counter = struct.unpack(">Q", packet[8:16])[0]
        if counter != self.in_counter:
            raise BadPeer(f"counter {counter} where {self.in_counter} is due")
        try:
            text = unseal(packet[16:], self.in_prefix + packet[8:16], self.shared)
        except CryptoError:
            raise BadPeer("a message box that doesn't open") from None
        self.in_counter += 1
        return text

    def receive(self, timeout=10.0):
        return self.open_packet(read_packet(self.sock, timeout))

    def receive_stream(self, timeout=30.0):
        """Message texts joined up to the authenticated end."""
        parts = []
        while True:
            text = self.receive(timeout)
            if not text:
                return b"".join(parts)
            parts.append(text)

    def receive_bytes(self, count, timeout=30.0):
        """Message texts joined until `count` bytes are there; exactly that many must come."""
        parts = bytearray()
        while len(parts) < count:
            text = self.receive(timeout)
            if not text:
                raise Closed("eof", bytes(parts))
            parts += text
        if len(parts) != count:
            raise BadPeer(f"{len(parts)} bytes where {count} were due")
        return bytes(parts)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# --- client ----------------------------------------------------------------------------------------------------------------


class Client:
    """One connection as a client, step by step, so that a test can stop or lie at any of them."""

    def __init__(self, address, server_public, long_term, ephemeral=None, timeout=10.0, source=None, sock=None):
        self.server_public = server_public
        self.long_term = long_term
        self.ephemeral = ephemeral or KeyPair()
        self.timeout = timeout
        self.record = []  # frames sent in the handshake
        self.cookie = None
        self.es = None
        self.cookie_nonce = None
        if sock is None:
            sock = socket.create_connection(address, timeout, source_address=source)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    def send_raw(self, data):
        self.record.append(data)
        self.sock.sendall(data)

    def hello(self, **changes):
        return make_hello(self.ephemeral, self.server_public, **changes)

    def send_hello(self, **changes):
        self.send_raw(frame(self.hello(**changes)))

    def read_cookie(self, timeout=None):
        packet = read_packet(self.sock, timeout or self.timeout, 168)
        if packet[:8] != COOKIE_MAGIC:
            raise BadPeer("not a cookie packet")
        self.cookie_nonce = packet[8:24]
        try:
            content = unseal(packet[24:], COOKIE_PREFIX + self.cookie_nonce,
                             shared_key(self.server_public, self.ephemeral.secret))
        except CryptoError:
            raise BadPeer("a cookie box that doesn't open") from None
        self.es, self.cookie = content[:32], content[32:]
        if is_low_order(self.es):
            raise BadPeer("a low-order server key")

    def initiate(self, long_term=None, vouch_nonce=None, vouch=None, vouch_ephemeral=None, vouch_server=None,
                 client_public=None, cookie=None, vouch_prefix=VOUCH_PREFIX, **changes):
        long_term = long_term or self.long_term
        nonce = vouch_nonce or os.urandom(16)
        if vouch is None:
            vouch = make_vouch(long_term, vouch_server or self.server_public, vouch_ephemeral or self.ephemeral.public, nonce,
                               prefix=vouch_prefix)
        return make_initiate(cookie or self.cookie, shared_key(self.es, self.ephemeral.secret),
                             client_public or long_term.public, nonce, vouch, **changes)

    def send_initiate(self, **changes):
        self.send_raw(frame(self.initiate(**changes)))

    def session(self):
        session = Session(self.sock, shared_key(self.es, self.ephemeral.secret), CLIENT_MESSAGE_PREFIX, SERVER_MESSAGE_PREFIX)
        session.record = list(self.record)
        return session

    def handshake(self):
        self.send_hello()
        self.read_cookie()
        self.send_initiate()
        return self.session()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(address, server_public, long_term, **options):
    """The well-behaved way in: a Session, ready for messages."""
    client = Client(address, server_public, long_term, **options)
    try:
        return client.handshake()
    except BaseException:
        client.close()
        raise


# --- server ----------------------------------------------------------------------------------------------------------------


class ServerConnection:
    """One accepted connection as the server, step by step."""

    def __init__(self, sock, long_term, allow, minute_key=None):
        self.sock = sock
        self.long_term = long_term
        self.allow = allow  # public keys, or None for anybody
        self.minute_key = minute_key or os.urandom(32)
        self.ephemeral = KeyPair()
        self.client_ephemeral = None
        self.client = None
        self.cookie = None

    def read_hello(self, timeout=10.0):
        packet = read_packet(self.sock, timeout, 128)
        if packet[:8] != HELLO_MAGIC:
            raise BadPeer("not a hello packet")
        if packet[40:48] != be64(0):
            raise BadPeer("a hello counter other than 0")
        self.client_ephemeral = packet[8:40]
        try:
            zeros = unseal(packet[48:], HELLO_PREFIX + packet[40:48], shared_key(self.client_ephemeral, self.long_term.secret))
        except CryptoError:
            raise BadPeer("a hello box that doesn't open") from None
        if zeros != bytes(64):
            raise BadPeer("a hello box that doesn't hold zeros")

    def make_cookie(self):
        nonce = os.urandom(16)
        return nonce + bindings.crypto_secretbox(self.client_ephemeral + self.ephemeral.secret, MINUTE_PREFIX + nonce,
                                                 self.minute_key)

    def cookie_packet(self, nonce=None, cookie=None, es_public=None, **changes):
        self.cookie = self.make_cookie() if cookie is None else cookie
        return make_cookie_packet(self.long_term, self.client_ephemeral, es_public or self.ephemeral.public, self.cookie,
                                  nonce or os.urandom(16), **changes)

    def send_cookie(self, **changes):
        self.sock.sendall(frame(self.cookie_packet(**changes)))

    def read_initiate(self, timeout=10.0):
        packet = read_packet(self.sock, timeout, 224)
        if packet[:8] != INITIATE_MAGIC:
            raise BadPeer("not an initiate packet")
        if packet[8:104] != self.cookie:
            raise BadPeer("a cookie that this connection didn't get")
        if packet[104:112] != be64(1):
            raise BadPeer("an initiate counter other than 1")
        try:
            inner = bindings.crypto_secretbox_open(self.cookie[16:], MINUTE_PREFIX + self.cookie[:16], self.minute_key)
            if inner != self.client_ephemeral + self.ephemeral.secret:
                raise BadPeer("a cookie of another connection")
            content = unseal(packet[112:], INITIATE_PREFIX + packet[104:112],
                             shared_key(self.client_ephemeral, self.ephemeral.secret))
            client, nonce, vouch = content[:32], content[32:48], content[48:]
            vouched = unseal(vouch, VOUCH_PREFIX + nonce, shared_key(client, self.long_term.secret))
        except CryptoError:
            raise BadPeer("an initiate or vouch box that doesn't open") from None
        if vouched != self.client_ephemeral:
            raise BadPeer("a vouch for another ephemeral key")
        if self.allow is not None and client not in self.allow:
            raise BadPeer("a client that isn't allowed")
        self.client = client

    def session(self):
        return Session(self.sock, shared_key(self.client_ephemeral, self.ephemeral.secret), SERVER_MESSAGE_PREFIX,
                       CLIENT_MESSAGE_PREFIX)

    def handshake(self):
        self.read_hello()
        self.send_cookie()
        self.read_initiate()
        return self.session()


def echo(session):
    while True:
        session.send(session.receive(60))


class Server:
    """A listening server; each connection is handed to `handler(ServerConnection)` on a thread of its own.

    Without a handler it is honest: a handshake, then `serve(session)`. Faults end up in `errors`.
    """

    def __init__(self, long_term=None, allow=None, serve=echo, handler=None, address=("127.0.0.1", 0)):
        self.long_term = long_term or KeyPair()
        self.allow = allow
        self.serve = serve
        self.handler = handler or self._honest
        self.errors = []
        self.accepted = 0
        self.sessions = 0
        self._connections = []
        self._lock = threading.Lock()
        self.listener = socket.create_server(address, backlog=1024,
                                             family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.address = self.listener.getsockname()[:2]
        self.port = self.address[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.accepted += 1
                self._connections.append(sock)
            threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock):
        try:
            self.handler(ServerConnection(sock, self.long_term, self.allow))
        except (Closed, BadPeer, OSError, CryptoError) as error:
            with self._lock:
                self.errors.append(error)
        finally:
            sock.close()

    def _honest(self, connection):
        session = connection.handshake()
        with self._lock:
            self.sessions += 1
        self.serve(session)

    def close(self):
        # shutdown wakes the accepting thread, which close alone wouldn't
        for sock in [self.listener] + self._connections:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
