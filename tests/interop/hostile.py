"""The table of what a hostile peer can send: one line a fault, with the reasons under which a curve_tun side may count it.

CASES are for servers (the hostile side is a client, `act(client)`); SERVER_CASES are for clients (the hostile side is a
server, `act(connection)`). After the fault the other side must close without a byte. Where two checks could catch the same
fault, both reasons are listed: which comes first is the product's choice, but it must be a named one.
"""

import collections
import os

import curvetun as ct

# `genuine`: what the application may get before the fault.
Case = collections.namedtuple("Case", "name reasons act genuine", defaults=[b""])

LENGTH, MAGIC, COUNTER, BOX = "bad_length", "bad_magic", "bad_counter", "bad_box"


def run(case, client, timeout=8.0):
    """Plays the case; returns (bytes received after the fault, how the connection ended)."""
    try:
        case.act(client)
    except (BrokenPipeError, ConnectionResetError):
        pass  # closed while we were still sending: as good an answer as any
    return ct.read_to_end(client.sock, timeout)


def _raw(data):
    return lambda c: c.send_raw(data)


def _hello(**changes):
    return lambda c: c.send_hello(**changes)


def _hello_from(packet_of):
    return lambda c: c.send_raw(ct.frame(packet_of(c.hello())))


def _hello_low_order(key):
    return lambda c: c.send_hello(public=key, shared=ct.shared_key(key, c.ephemeral.secret, allow_low_order=True))


def _hello_to_another_server(c):
    c.send_raw(ct.frame(ct.make_hello(c.ephemeral, ct.KeyPair().public)))


def _after_cookie(act):
    def play(c):
        c.send_hello()
        c.read_cookie()
        act(c)
    return play


def _initiate(**changes):
    return _after_cookie(lambda c: c.send_initiate(**changes))


def _initiate_from(packet_of):
    return _after_cookie(lambda c: c.send_raw(ct.frame(packet_of(c.initiate()))))


def _foreign_cookie(c):
    """The cookie of a second connection from the same client with the same ephemeral key, made a moment ago."""
    with ct.Client(c.sock.getpeername()[:2], c.server_public, c.long_term, ephemeral=c.ephemeral) as other:
        other.send_hello()
        other.read_cookie()
        # its ES too, so that nothing but the binding to the connection is wrong
        packet = other.initiate()
    c.send_raw(ct.frame(packet))


def _stranger_vouch(c):
    c.send_initiate(long_term=ct.KeyPair())


def _vouch_by_another(c):
    """Says C = alice, but the vouch was made with a key that isn't hers."""
    thief = ct.KeyPair()
    nonce = os.urandom(16)
    c.send_initiate(vouch_nonce=nonce, vouch=ct.make_vouch(thief, c.server_public, c.ephemeral.public, nonce))


def _low_order_client(key):
    def act(c):
        nonce = os.urandom(16)
        shared = ct.shared_key(key, c.long_term.secret, allow_low_order=True)
        c.send_initiate(client_public=key, vouch_nonce=nonce, vouch=ct.seal(c.ephemeral.public, b"CurveCPV" + nonce, shared))
    return _after_cookie(act)


def _in_session(act):
    def play(c):
        act(c, c.handshake())
    return play


def _message(text=b"x", **changes):
    return _in_session(lambda c, s: s.send(text, **changes))


def _message_from(packet_of):
    return _in_session(lambda c, s: s.send_raw(ct.frame(packet_of(s.seal_next(b"hello")[2:]))))


def _swapped(c, s):
    first, second = s.seal_next(b"1"), s.seal_next(b"2")
    s.send_raw(second + first)


CASES = [
    # bytes that are not the protocol
    Case("zero-length packet first", [LENGTH], _raw(b"\0\0")),
    Case("one-byte packet first", [LENGTH], _raw(b"\0\1x")),
    Case("largest length announced first", [LENGTH], _raw(b"\xff\xff")),
    Case("tls client hello", [LENGTH], _raw(bytes.fromhex("1603010200010001fc0303") + bytes(200))),
    Case("http request", [LENGTH], _raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    Case("random bytes", [LENGTH, MAGIC], _raw(b"\x7f" + os.urandom(4096))),
    # Hello
    Case("hello a byte short", [LENGTH], _hello_from(lambda p: p[:-1])),
    Case("hello a byte long", [LENGTH], _hello_from(lambda p: p + b"\0")),
    Case("hello with another magic", [MAGIC], _hello(magic=ct.flip(ct.HELLO_MAGIC, 7))),
    Case("hello with CurveCP's magic", [MAGIC], _hello(magic=b"QvnQ5XlH")),
    Case("hello counter 1", [COUNTER], _hello(counter=1)),
    Case("hello counter 2^64-1", [COUNTER], _hello(counter=2**64 - 1)),
    Case("hello box, first byte flipped", [BOX], _hello_from(lambda p: ct.flip(p, 48))),
    Case("hello box, last byte flipped", [BOX], _hello_from(lambda p: ct.flip(p, -1))),
    Case("hello ephemeral key flipped", [BOX], _hello_from(lambda p: ct.flip(p, 8))),
    Case("hello under another nonce prefix", [BOX], _hello(prefix=ct.INITIATE_PREFIX)),
    Case("hello under another nonce counter", [BOX], _hello(nonce_counter=1)),
    Case("hello for another server", [BOX], _hello_to_another_server),
    Case("hello with 64 other bytes", ["bad_content", BOX], _hello(zeros=bytes(63) + b"\1")),
    Case("hello, box of zeros", [BOX], _hello(box=bytes(80))),
    *[Case(f"hello, low-order key {i}", ["low_order_key"], _hello_low_order(key))
      for i, key in enumerate(ct.LOW_ORDER_KEYS)],
    # packets of another phase
    Case("initiate first", [LENGTH, MAGIC], _raw(ct.frame(ct.INITIATE_MAGIC + bytes(216)))),
    Case("message first", [LENGTH, MAGIC], _raw(ct.frame(ct.MESSAGE_MAGIC + bytes(120)))),
    Case("cookie first", [LENGTH, MAGIC], _raw(ct.frame(ct.COOKIE_MAGIC + bytes(160)))),
    Case("hello twice", [LENGTH, MAGIC], _after_cookie(lambda c: c.send_hello())),
    Case("message in place of initiate", [LENGTH, MAGIC],
         _after_cookie(lambda c: c.send_raw(ct.frame(ct.MESSAGE_MAGIC + bytes(216))))),
    Case("initiate twice", [LENGTH, MAGIC, COUNTER], _in_session(lambda c, s: c.send_initiate())),
    Case("hello in a session", [MAGIC], _in_session(lambda c, s: c.send_hello())),
    # Initiate
    Case("zero-length packet for initiate", [LENGTH], _after_cookie(lambda c: c.send_raw(b"\0\0"))),
    Case("initiate a byte short", [LENGTH], _initiate_from(lambda p: p[:-1])),
    Case("initiate a byte long", [LENGTH], _initiate_from(lambda p: p + b"\0")),
    Case("initiate with another magic", [MAGIC], _initiate(magic=ct.flip(ct.INITIATE_MAGIC, 0))),
    Case("initiate with hello's magic", [MAGIC], _initiate(magic=ct.HELLO_MAGIC)),
    Case("cookie nonce flipped", ["unknown_cookie"], _initiate_from(lambda p: ct.flip(p, 8))),
    Case("cookie box flipped", ["unknown_cookie"], _initiate_from(lambda p: ct.flip(p, 103))),
    Case("cookie of zeros", ["unknown_cookie"], _initiate(cookie=bytes(96))),
    Case("cookie of another connection", ["unknown_cookie"], _after_cookie(_foreign_cookie)),
    Case("initiate counter 0", [COUNTER], _initiate(counter=0)),
    Case("initiate counter 2", [COUNTER], _initiate(counter=2)),
    Case("initiate box flipped", [BOX], _initiate_from(lambda p: ct.flip(p, 112))),
    Case("initiate box, last byte flipped", [BOX], _initiate_from(lambda p: ct.flip(p, -1))),
    Case("initiate under another nonce prefix", [BOX], _initiate(prefix=ct.HELLO_PREFIX)),
    Case("initiate under another nonce counter", [BOX], _initiate(nonce_counter=0)),
    Case("vouch for another ephemeral key", ["bad_vouch"], _initiate(vouch_ephemeral=ct.KeyPair().public)),
    Case("vouch for another server", ["bad_vouch"], _initiate(vouch_server=ct.KeyPair().public)),
    Case("vouch of zeros", ["bad_vouch"], _initiate(vouch=bytes(48))),
    Case("vouch under the cookie's prefix", ["bad_vouch"], _initiate(vouch_prefix=ct.COOKIE_PREFIX)),
    Case("vouch by another key", ["bad_vouch"], _after_cookie(_vouch_by_another)),
    Case("client unknown, vouch right", ["peer_not_allowed"], _after_cookie(_stranger_vouch)),
    *[Case(f"client key of low order {i}", ["low_order_key", "bad_vouch", "peer_not_allowed"], _low_order_client(key))
      for i, key in enumerate(ct.LOW_ORDER_KEYS)],
    # messages
    Case("zero-length packet in a session", [LENGTH], _in_session(lambda c, s: s.send_raw(b"\0\0"))),
    Case("message of 31 bytes", [LENGTH], _message_from(lambda p: p[:31])),
    Case("message a byte short", [BOX], _message_from(lambda p: p[:-1])),
    Case("message a byte long", [BOX], _message_from(lambda p: p + b"\0")),
    Case("message with another magic", [MAGIC], _message(magic=ct.flip(ct.MESSAGE_MAGIC, 3))),
    Case("message box flipped", [BOX], _message_from(lambda p: ct.flip(p, 16))),
    Case("message text flipped", [BOX], _message_from(lambda p: ct.flip(p, -1))),
    Case("message counter 1", [COUNTER], _message(counter=1)),
    Case("message counter 0", [COUNTER], _message(counter=0)),
    Case("message counter 3 first", [COUNTER], _message(counter=3)),
    Case("message counter 2^64-1", [COUNTER, "counter_exhausted"], _message(counter=2**64 - 1)),
    Case("message under another nonce counter", [BOX], _message(nonce_counter=3)),
    Case("messages swapped", [COUNTER], _in_session(_swapped)),
    Case("largest packet, garbage", [MAGIC], _in_session(lambda c, s: s.send_raw(b"\xff\xff" + bytes(65535)))),
    Case("largest packet, box garbage", [BOX],
         _in_session(lambda c, s: s.send_raw(ct.frame(ct.MESSAGE_MAGIC + ct.be64(2) + bytes(65519))))),
]


# --- the hostile side is a server ---------------------------------------------------------------------------------------------


def _server_raw(data):
    def act(s):
        s.read_hello()
        s.sock.sendall(data)
    return act


def _cookie(**changes):
    def act(s):
        s.read_hello()
        s.send_cookie(**changes)
    return act


def _cookie_from(packet_of):
    def act(s):
        s.read_hello()
        s.sock.sendall(ct.frame(packet_of(s.cookie_packet())))
    return act


def _server_message(**changes):
    def act(s):
        s.handshake().send(b"x", **changes)
    return act


def _server_message_from(packet_of):
    def act(s):
        session = s.handshake()
        session.send_raw(ct.frame(packet_of(session.seal_next(b"hello")[2:])))
    return act


def _reflected(s):
    """Sends the client's own Hello back."""
    hello = ct.read_packet(s.sock)
    s.sock.sendall(ct.frame(hello))


def _replayed_message(s):
    session = s.handshake()
    data = session.seal_next(b"x")
    session.send_raw(data + data)


SERVER_CASES = [
    Case("server: zero-length packet", [LENGTH], _server_raw(b"\0\0")),
    Case("server: an announced 65,535", [LENGTH], _server_raw(b"\xff\xff")),
    Case("server: ssh banner", [LENGTH], _server_raw(b"SSH-2.0-OpenSSH_9.2\r\n")),
    Case("server: reflected hello", [LENGTH, MAGIC], _reflected),
    Case("server: cookie a byte short", [LENGTH], _cookie_from(lambda p: p[:-1])),
    Case("server: cookie a byte long", [LENGTH], _cookie_from(lambda p: p + b"\0")),
    Case("server: cookie with another magic", [MAGIC], _cookie(magic=ct.flip(ct.COOKIE_MAGIC, 1))),
    Case("server: cookie nonce flipped", [BOX], _cookie_from(lambda p: ct.flip(p, 8))),
    Case("server: cookie box flipped", [BOX], _cookie_from(lambda p: ct.flip(p, -1))),
    Case("server: cookie under the vouch's prefix", [BOX], _cookie(prefix=ct.VOUCH_PREFIX)),
    *[Case(f"server: low-order ES {i}", ["low_order_key"], _cookie(es_public=key)) for i, key in enumerate(ct.LOW_ORDER_KEYS)],
    Case("server: message counter 1", [COUNTER], _server_message(counter=1)),
    Case("server: message counter 3 first", [COUNTER], _server_message(counter=3)),
    Case("server: message replayed", [COUNTER], _replayed_message, b"x"),
    Case("server: message box flipped", [BOX], _server_message_from(lambda p: ct.flip(p, -1))),
    Case("server: message of 31 bytes", [LENGTH], _server_message_from(lambda p: p[:31])),
    Case("server: zero-length packet in a session", [LENGTH], lambda s: s.handshake().send_raw(b"\0\0")),
]
