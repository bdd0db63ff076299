"""Just enough Cap'n Proto RPC, by hand, to talk to vaultd and netd as a stranger would, and to send what no library would send.

Struct and List build one segment; Reader reads any. Rpc is one connection: bootstrap, call, release. Field positions come from
`capnp compile -ocapnp proto/*.capnp`. Nothing here knows libcapnp, so it shows too that the schemas can be used without it.

lint: size: the wire format, and a short class for each interface of ours
"""

import socket
import struct
import time

# interface ids of proto/*.capnp
NETWORK = 0xC4D3251445181F6E
LISTENER = 0xD985001DC081A5A6
CHANNEL = 0x87E7FC417939410C
PEER_CHANNEL = 0xA4C1569AD18B6BA3
VAULT_NET = 0xCBB76FE4E5B6427A
VAULT_APP = 0xAAA4312B4F3F7664
VAULT_KEY = 0xB4712084D1D6EDC3
VAULT_ADMIN = 0xE992E56F9BF60625
PEER_SESSION = 0xEBCF77A2BE8FED6E

REFUSALS = ["unspecified", "unknownName", "notAChannel", "timedOut", "unreachable", "handshakeFailed", "vaultRefused", "tooBig",
            "closed", "tooManyObjects", "failed", "shuttingDown"]
OPEN, ENDED, BROKEN = 0, 1, 2
VERBS = ["box", "open", "sign", "freshNonce"]
VAULT_REFUSALS = ["unspecified", "unknownEntry", "unknownKey", "peerNotAllowed", "badBox", "badSize", "lowOrderKey", "rateLimited",
                  "nonceUnavailable", "locked", "tooMany", "notPermitted", "badConfig", "badNonce", "tooLong", "expired", "wrongKind",
                  "wrongVersion", "breakerOpen", "notRecorded", "tooManyObjects", "badSignature", "badDomain", "hsmUnavailable",
                  "wrongProtocol", "blockUsed"]


# --- building -----------------------------------------------------------------------------------------------------------------


class Struct:
    """`data` is the data section (a multiple of 8 bytes); `pointers` hold None, bytes (Data), str (Text), Struct, or a list of Structs."""

    def __init__(self, data=b"", pointers=()):
        self.data = data + bytes(-len(data) % 8)
        self.pointers = list(pointers)

    def words(self):
        return len(self.data) // 8 + len(self.pointers)


class Cap:
    """An entry of the sender's capability table."""

    def __init__(self, index):
        self.index = index


class Pointers(list):
    """A list of Data or Text."""


class U16s(list):
    """A list of enums."""


def encode(root):
    """One segment, framed for a stream."""
    out = bytearray(8)
    _place(out, 0, root)
    return struct.pack("<II", 0, len(out) // 8) + bytes(out)


def _point(out, at, kind, target, upper):
    offset = (target - at) // 8 - 1
    struct.pack_into("<II", out, at, ((offset << 2) | kind) & 0xFFFFFFFF, upper)


def _fill(out, start, value):
    out[start:start + len(value.data)] = value.data
    for i, pointer in enumerate(value.pointers):
        _place(out, start + len(value.data) + 8 * i, pointer)


def _place(out, at, value):
    start = len(out)
    if value is None:
        return
    if isinstance(value, Cap):
        struct.pack_into("<II", out, at, 3, value.index)
    elif isinstance(value, Struct):
        out += bytes(8 * value.words())
        if value.words() == 0:
            struct.pack_into("<I", out, at, 0xFFFFFFFC)
        else:
            _point(out, at, 0, start, len(value.data) // 8 | len(value.pointers) << 16)
        _fill(out, start, value)
    elif isinstance(value, (bytes, str)):
        raw = value.encode() + b"\0" if isinstance(value, str) else value
        out += raw + bytes(-len(raw) % 8)
        _point(out, at, 1, start, 2 | len(raw) << 3)
    elif isinstance(value, Pointers):
        out += bytes(8 * len(value))
        _point(out, at, 1, start, 6 | len(value) << 3)
        for i, item in enumerate(value):
            _place(out, start + 8 * i, item)
    elif isinstance(value, U16s):
        raw = struct.pack(f"<{len(value)}H", *value)
        out += raw + bytes(-len(raw) % 8)
        _point(out, at, 1, start, 3 | len(value) << 3)
    else:
        words = value[0].words() if value else 0
        out += bytes(8 + 8 * words * len(value))
        _point(out, at, 1, start, 7 | words * len(value) << 3)
        data_words = len(value[0].data) // 8 if value else 0
        pointers = len(value[0].pointers) if value else 0
        struct.pack_into("<II", out, start, len(value) << 2, data_words | pointers << 16)
        for i, item in enumerate(value):
            _fill(out, start + 8 + 8 * words * i, item)


# --- reading -------------------------------------------------------------------------------------------------------------------


class Reader:
    """A struct in received segments. Unset pointers read as None, fields beyond the data section as 0."""

    def __init__(self, segments, segment, data, data_words, pointers):
        self.segments, self.segment, self.start = segments, segment, data
        self.data_bytes, self.pointer_count = 8 * data_words, pointers

    def _number(self, offset, size, code):
        if offset + size > self.data_bytes:
            return 0
        return struct.unpack_from(code, self.segments[self.segment], self.start + offset)[0]

    def u16(self, offset):
        return self._number(offset, 2, "<H")

    def u32(self, offset):
        return self._number(offset, 4, "<I")

    def u64(self, offset):
        return self._number(offset, 8, "<Q")

    def pointer(self, index):
        if index >= self.pointer_count:
            return None
        return _follow(self.segments, self.segment, self.start + self.data_bytes + 8 * index)

    def text(self, index):
        raw = self.pointer(index)
        return "" if raw is None else bytes(raw[:-1]).decode()

    def data(self, index):
        raw = self.pointer(index)
        return b"" if raw is None else bytes(raw)

    def list(self, index):
        return self.pointer(index) or []


def _follow(segments, segment, at):
    low, high = struct.unpack_from("<II", segments[segment], at)
    if low == 0 and high == 0:
        return None
    kind = low & 3
    if kind == 3:
        return Cap(high)
    if kind == 2:  # a far pointer: the real one lies in another segment
        pad = (low >> 3) * 8
        if not low & 4:
            return _follow(segments, high, pad)
        far_low, far_high = struct.unpack_from("<II", segments[high], pad)
        tag_low, tag_high = struct.unpack_from("<II", segments[high], pad + 8)
        return _object(segments, far_high, (far_low >> 3) * 8, tag_low, tag_high)
    offset = struct.unpack("<i", struct.pack("<I", low))[0] >> 2
    return _object(segments, segment, at + 8 + 8 * offset, low, high)


def _object(segments, segment, start, low, high):
    if low & 3 == 0:
        return Reader(segments, segment, start, high & 0xFFFF, high >> 16)
    size, count = high & 7, high >> 3
    if size == 2:
        return bytes(segments[segment][start:start + count])
    if size == 7:
        tag_low, tag_high = struct.unpack_from("<II", segments[segment], start)
        data, pointers = tag_high & 0xFFFF, tag_high >> 16
        return [Reader(segments, segment, start + 8 + 8 * (data + pointers) * i, data, pointers) for i in range(tag_low >> 2)]
    if size == 6:
        return [_follow(segments, segment, start + 8 * i) for i in range(count)]
    if size == 3:
        return list(struct.unpack_from(f"<{count}H", segments[segment], start))
    if size == 0 and count == 0:
        return []
    raise ValueError(f"a list of element size {size} isn't used by our schemas")


# --- messages of rpc.capnp ---------------------------------------------------------------------------------------------------


def _message(tag, body):
    return encode(Struct(struct.pack("<H", tag), [body]))


def bootstrap_message(question):
    return _message(8, Struct(struct.pack("<I", question), [None]))


def call_message(question, target, interface, method, params=None, caps=()):
    """`target`: ("cap", id) or ("answer", question, pointer indices...)."""
    if target[0] == "cap":
        where = Struct(struct.pack("<IH", target[1], 0), [None])
    else:
        ops = [Struct(struct.pack("<HH", 1, index)) for index in target[2:]]
        where = Struct(struct.pack("<IH", 0, 1), [Struct(struct.pack("<I", target[1]), [ops or None])])
    payload = Struct(b"", [params or Struct(), list(caps) or None])
    data = struct.pack("<IHHQQ", question, method, 0, interface, 0)
    return _message(2, Struct(data, [where, payload, None]))


def finish_message(question, release=True):
    return _message(4, Struct(struct.pack("<II", question, 0 if release else 1)))


def release_message(cap, count=1):
    return _message(6, Struct(struct.pack("<II", cap, count)))


class RpcError(Exception):
    pass


class Rpc:
    """One connection. Calls are made one after the other, or sent with `start` and awaited with `wait`."""

    def __init__(self, path, timeout=10.0):
        self.timeout = timeout
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        self.buffer = bytearray()
        self.returns = {}
        self.next_question = 1
        try:
            self.sock.connect(str(path))
            self.sock.sendall(bootstrap_message(0))
            self.root = self._bootstrap_cap()
        except BaseException:
            self.sock.close()
            raise

    def _bootstrap_cap(self):
        results = self.wait(0, finish=False)
        self.sock.sendall(finish_message(0, release=False))
        return results.cap(results.content)

    def _read(self, count, deadline):
        while len(self.buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            self.sock.settimeout(left)
            try:
                piece = self.sock.recv(262144)
            except socket.timeout:
                raise TimeoutError("no answer in time") from None
            if not piece:
                raise ConnectionResetError("the RPC connection was closed")
            self.buffer += piece
        data = bytes(self.buffer[:count])
        return data

    def _read_message(self, deadline):
        count = struct.unpack("<I", self._read(4, deadline))[0] + 1
        header = (4 + 4 * count + 7) // 8 * 8
        sizes = struct.unpack_from(f"<{count}I", self._read(header, deadline), 4)
        whole = self._read(header + 8 * sum(sizes), deadline)
        del self.buffer[:len(whole)]
        segments, at = [], header
        for size in sizes:
            segments.append(whole[at:at + 8 * size])
            at += 8 * size
        return _follow(segments, 0, 0)

    def start(self, cap, interface, method, params=None):
        question = self.next_question
        self.next_question += 1
        self.sock.sendall(call_message(question, ("cap", cap), interface, method, params))
        return question

    def wait(self, question, timeout=None, finish=True):
        deadline = time.monotonic() + (timeout or self.timeout)
        while question not in self.returns:
            message = self._read_message(deadline)
            tag, body = message.u16(0), message.pointer(0)
            if tag == 3:
                self.returns[body.u32(0)] = body
            elif tag == 1:
                raise RpcError("aborted: " + body.text(0))
        answer = self.returns.pop(question)
        if finish:
            self.sock.sendall(finish_message(question, release=False))
        if answer.u16(6) == 1:
            raise RpcError(answer.pointer(0).text(0))
        if answer.u16(6) != 0:
            raise RpcError(f"an answer of kind {answer.u16(6)}")
        return Results(answer.pointer(0))

    def call(self, cap, interface, method, params=None, timeout=None):
        return self.wait(self.start(cap, interface, method, params), timeout)

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Results:
    def __init__(self, payload):
        self.content = payload.pointer(0)
        self.table = payload.list(1)

    def cap(self, pointer):
        return self.table[pointer.index].u32(4)


# --- net.capnp -----------------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """`str` is the name of the NetRefusal."""


def _outcome(results):
    outcome = results.content.pointer(0)
    if outcome.u16(2) == 0:
        raise Refused(REFUSALS[outcome.u16(0)])
    return outcome


class Network:
    def __init__(self, path):
        self.rpc = Rpc(path)

    def connect(self, name, timeout_ms=5000):
        results = self.rpc.call(self.rpc.root, NETWORK, 0, Struct(struct.pack("<I", timeout_ms ^ 5000), [name]))
        return Channel(self.rpc, results.cap(_outcome(results).pointer(0)))

    def listen(self, name):
        results = self.rpc.call(self.rpc.root, NETWORK, 1, Struct(b"", [name]))
        return Listener(self.rpc, results.cap(_outcome(results).pointer(0)))

    def close(self):
        self.rpc.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Listener:
    def __init__(self, rpc, cap):
        self.rpc, self.cap = rpc, cap

    def accept(self, timeout_ms=5000):
        """The channel, the peer's name, its key and its address."""
        results = self.rpc.call(self.cap, LISTENER, 0, Struct(struct.pack("<I", timeout_ms)), timeout=timeout_ms / 1000 + 10)
        outcome = _outcome(results)
        return Channel(self.rpc, results.cap(outcome.pointer(0))), outcome.text(1), outcome.data(2), outcome.text(3)

    def close(self):
        self.rpc.call(self.cap, LISTENER, 1)


class Channel:
    def __init__(self, rpc, cap):
        self.rpc, self.cap = rpc, cap

    def start_send(self, messages):
        return self.rpc.start(self.cap, CHANNEL, 0, Struct(b"", [[Struct(b"", [m]) for m in messages] or None]))

    def send(self, messages, timeout=30):
        return self.sent(self.rpc.wait(self.start_send(messages), timeout))

    @staticmethod
    def sent(results):
        """"sent", or raises: Refused, or BrokenPipeError with the reason."""
        outcome = results.content.pointer(0)
        if outcome.u16(2) == 0:
            raise Refused(REFUSALS[outcome.u16(0)])
        if outcome.u16(2) == 1:
            raise BrokenPipeError(outcome.text(0))
        return "sent"

    def receive(self, maximum=1024, timeout_ms=10000):
        """(messages, OPEN | ENDED | BROKEN, reason)"""
        params = Struct(struct.pack("<II", maximum ^ 1024, timeout_ms))
        received = self.rpc.call(self.cap, CHANNEL, 1, params, timeout=timeout_ms / 1000 + 10).content.pointer(0)
        return [m.data(0) for m in received.list(0)], received.u16(0), received.text(1)

    def receive_all(self, count):
        """Exactly `count` messages."""
        messages = []
        while len(messages) < count:
            more, end, reason = self.receive(min(1024, count - len(messages)))
            messages += more
            if not more:
                raise AssertionError(f"{len(messages)} of {count} messages, then end {end} {reason}")
        return messages

    def finish(self):
        self.sent(self.rpc.call(self.cap, CHANNEL, 3))

    def close(self):
        self.rpc.call(self.cap, CHANNEL, 2)


# --- vault.capnp: App and Key ---------------------------------------------------------------------------------------------------


class VaultRefused(Exception):
    """`str` is the name of the Refusal."""


def _granted(outcome):
    """The outcome of a union whose tag 0 is `refused`; raises that."""
    if outcome.u16(2) == 0:
        raise VaultRefused(VAULT_REFUSALS[outcome.u16(0)])
    return outcome


def _each(results, take):
    """What `take` makes of each outcome, or the name of its refusal."""
    return [VAULT_REFUSALS[o.u16(0)] if o.u16(2) == 0 else take(o) for o in results.content.list(0)]


class App:
    """A program's connection to the vault."""

    def __init__(self, path):
        self.rpc = Rpc(path)

    def call(self, method, params=None):
        return self.rpc.call(self.rpc.root, VAULT_APP, method, params)

    def public_key(self, name):
        return _granted(self.call(0, Struct(b"", [name])).content.pointer(0)).data(0)

    def ping(self):
        return self.call(1).content.u16(0) & 1 == 1

    def key(self, name, verbs=None, lease_ms=0):
        params = Struct(struct.pack("<Q", lease_ms), [name, U16s(VERBS.index(v) for v in verbs) if verbs else None])
        results = self.call(2, params)
        outcome = _granted(results.content.pointer(0))
        return VaultKey(self.rpc, results.cap(outcome.pointer(0)), [VERBS[v] for v in outcome.list(1)], outcome.u64(8))

    def keys(self, after=None):
        """Those of one answer."""
        return [{"name": k.text(0), "kind": k.text(1), "public": k.data(2), "verbs": [VERBS[v] for v in k.list(3)],
                 "grants": [bytes(g[:-1]).decode() for g in k.list(4)]}
                for k in self.call(3, Struct(b"", [after])).content.list(0)]

    def verify(self, items):
        """`items`: (public key, message, signature). True, or the refusal, for each."""
        return _each(self.call(4, Struct(b"", [[Struct(b"", list(item)) for item in items] or None])), lambda _: True)

    def close(self):
        self.rpc.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class VaultKey:
    """A key as a capability. A peer is its name (str) or its public key (bytes)."""

    def __init__(self, rpc, cap, verbs, lease_ms):
        self.rpc, self.cap, self.verbs, self.lease_ms = rpc, cap, verbs, lease_ms

    def call(self, method, params=None):
        return self.rpc.call(self.cap, VAULT_KEY, method, params)

    @staticmethod
    def _peer(peer):
        return struct.pack("<H", 1 if isinstance(peer, str) else 0)

    def box(self, items):
        """`items`: (peer, text). (nonce, box, version), or the refusal, for each."""
        params = Struct(b"", [[Struct(self._peer(peer), [peer, text]) for peer, text in items] or None])
        return _each(self.call(0, params), lambda o: (o.data(0), o.data(1), o.u32(4)))

    def open(self, items):
        """`items`: (peer, nonce, box). (text, version), or the refusal, for each."""
        params = Struct(b"", [[Struct(self._peer(peer), [peer, nonce, box]) for peer, nonce, box in items] or None])
        return _each(self.call(1, params), lambda o: (o.data(0), o.u32(4)))

    def open_sealed(self, boxes):
        return _each(self.call(2, Struct(b"", [Pointers(boxes)])), lambda o: (o.data(0), o.u32(4)))

    def sign(self, messages):
        return _each(self.call(3, Struct(b"", [Pointers(messages)])), lambda o: (o.data(0), o.u32(4)))

    def fresh_nonces(self, domain, count):
        outcome = _granted(self.call(4, Struct(struct.pack("<I", count), [domain])).content.pointer(0))
        return [bytes(n) for n in outcome.list(0)]

    def renew(self, lease_ms=0):
        return _granted(self.call(5, Struct(struct.pack("<Q", lease_ms))).content.pointer(0)).u64(8)

    def close(self):
        self.call(6)

    def release(self):
        self.rpc.sock.sendall(release_message(self.cap))
