# lint: size: one module to import and to copy; its two halves (vault, channels) share all the ctypes below
"""Boxes, signatures and fresh nonces under keys that stay in Sallyport's vault.

    import sallyport
    with sallyport.connect("/run/sallyport/vault/vault.sock") as vault, vault.key("backup") as key:
        boxed = key.box("alice", b"text")                   # a peer of the vault's configuration, or 32 bytes of a public key
        text = key.open("alice", boxed.nonce, boxed.box).text

Calls block, other Python threads run meanwhile, and any thread may call. A vault that restarts is connected to anew: the call that
waited raises Disconnected, the next one works. A refusal is an exception named as in the vault's schema (NotPermitted, BadBox);
the `_each` forms take any number of items and give back, item by item, the result or the exception. After fork() the child connects
by itself.

What was opened is `bytes`, which Python can't wipe: for texts that mustn't stay in memory, use C or C++.

It is a view of libsallyport (docs/api.md tells the contract, libsallyport(3) the library); nothing but the standard library is used.
"""

from __future__ import annotations

import ctypes
import enum
import math
import operator
import os
from typing import Callable, Iterable, NamedTuple, Optional, Sequence, Type, TypeVar, Union

__all__ = ["connect", "Vault", "Key", "Verb", "Boxed", "Opened", "Signed", "GrantedKey", "Error",
           "connect_peer", "listen_peer", "PeerChannel", "PeerListener", "PeerReceived", "PeerStatus"]  # and every exception, below

Peer = Union[str, bytes]  # a name of [peers], or the 32 bytes of an X25519 public key
Data = Union[bytes, bytearray, memoryview]

# --- errors ----------------------------------------------------------------------------------------------------------------------

CODES = {
    1: "unknownEntry", 2: "unknownKey", 3: "peerNotAllowed", 4: "badBox", 5: "badSize", 6: "lowOrderKey", 7: "rateLimited",
    8: "nonceUnavailable", 9: "locked", 10: "tooMany", 11: "notPermitted", 12: "badConfig", 13: "badNonce", 14: "tooLong",
    15: "expired", 16: "wrongKind", 17: "wrongVersion", 18: "breakerOpen", 19: "notRecorded", 20: "tooManyObjects",
    21: "badSignature", 22: "badDomain", 23: "hsmUnavailable", 24: "wrongProtocol", 25: "blockUsed",
    255: "unspecified", 256: "cantConnect", 257: "disconnected", 258: "timedOut",
    259: "unsupported", 260: "protocolError", 261: "vaultFailed", 262: "selfTestFailed", 263: "closed", 264: "badArgument",
    265: "bufferTooSmall", 266: "outOfMemory", 267: "broken", 512: "netUnspecified", 513: "netUnknownName", 514: "netNotAChannel",
    515: "netTimedOut", 516: "netUnreachable", 517: "netHandshakeFailed", 518: "netVaultRefused", 519: "netTooBig", 520: "netClosed",
    521: "netTooManyObjects", 522: "netFailed", 523: "netShuttingDown", 524: "netWrongProtocol", 525: "netReservedCode",
}


class Error(Exception):
    """Anything that can go wrong. `code` is the number, `name` the schema's name of it ("notPermitted")."""

    code: int = 0
    name: str = "unknown"

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


class Refused(Error):
    """The vault said no."""


def _exceptions() -> dict[int, Type[Error]]:
    made: dict[int, Type[Error]] = {}
    for code, name in CODES.items():
        title = name[0].upper() + name[1:]
        made[code] = type(title, (Refused if code < 256 else Error,), {"code": code, "name": name, "__module__": __name__})
        globals()[title] = made[code]
        __all__.append(title)
    return made


_BY_CODE = _exceptions()
__all__.append("Refused")

# --- the library -----------------------------------------------------------------------------------------------------------------


class _BoxItem(ctypes.Structure):
    _fields_ = [("peer_name", ctypes.c_char_p), ("peer_key", ctypes.c_void_p), ("peer_key_size", ctypes.c_size_t),
                ("text", ctypes.c_void_p), ("text_size", ctypes.c_size_t), ("nonce", ctypes.c_uint8 * 24),
                ("box", ctypes.c_void_p), ("box_size", ctypes.c_size_t), ("version", ctypes.c_uint32), ("code", ctypes.c_int)]


class _OpenItem(ctypes.Structure):
    _fields_ = [("peer_name", ctypes.c_char_p), ("peer_key", ctypes.c_void_p), ("peer_key_size", ctypes.c_size_t),
                ("nonce", ctypes.c_void_p), ("nonce_size", ctypes.c_size_t), ("box", ctypes.c_void_p), ("box_size", ctypes.c_size_t),
                ("text", ctypes.c_void_p), ("text_size", ctypes.c_size_t), ("version", ctypes.c_uint32), ("code", ctypes.c_int)]


class _SignItem(ctypes.Structure):
    _fields_ = [("message", ctypes.c_void_p), ("message_size", ctypes.c_size_t), ("signature", ctypes.c_uint8 * 64),
                ("version", ctypes.c_uint32), ("code", ctypes.c_int)]


class _VerifyItem(ctypes.Structure):
    _fields_ = [("public_key", ctypes.c_void_p), ("public_key_size", ctypes.c_size_t), ("message", ctypes.c_void_p),
                ("message_size", ctypes.c_size_t), ("signature", ctypes.c_void_p), ("signature_size", ctypes.c_size_t),
                ("code", ctypes.c_int)]


class _GrantedKey(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("kind", ctypes.c_char_p), ("public_key", ctypes.POINTER(ctypes.c_uint8)),
                ("verbs", ctypes.c_uint), ("grants", ctypes.POINTER(ctypes.c_char_p))]


class _PeerReceived(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("code", ctypes.c_uint32), ("status", ctypes.c_int), ("needed", ctypes.c_uint32),
                ("reason", ctypes.c_char * 32)]


_EACH_KEY = ctypes.CFUNCTYPE(None, ctypes.POINTER(_GrantedKey), ctypes.c_void_p)
_POINTER = ctypes.POINTER(ctypes.c_void_p)


def _load() -> ctypes.CDLL:
    # SALLYPORT_LIBRARY is for a library that is not installed, as in a build tree.
    library = ctypes.CDLL(os.environ.get("SALLYPORT_LIBRARY", "libsallyport.so.0"))
    size, text, handle = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p
    for name, result, arguments in (
            ("error_name", text, [ctypes.c_int]), ("strerror", text, [ctypes.c_int]), ("last_error", text, []),
            ("version", text, []), ("connect", ctypes.c_int, [text, ctypes.c_uint32, _POINTER]),
            ("disconnect", None, [_POINTER]), ("ping", ctypes.c_int, [handle]),
            ("public_key", ctypes.c_int, [handle, text, ctypes.c_void_p]),
            ("public_keys", ctypes.c_int, [handle, text, ctypes.POINTER(ctypes.c_uint32), ctypes.c_void_p, ctypes.POINTER(size)]),
            ("keys", ctypes.c_int, [handle, _EACH_KEY, ctypes.c_void_p]),
            ("key_open", ctypes.c_int, [handle, text, ctypes.c_uint, ctypes.c_uint64, _POINTER]),
            ("key_close", None, [_POINTER]), ("key_verbs", ctypes.c_int, [handle, ctypes.POINTER(ctypes.c_uint)]),
            ("key_lease", ctypes.c_int, [handle, ctypes.POINTER(ctypes.c_uint64)]),
            ("key_renew", ctypes.c_int, [handle, ctypes.c_uint64]),
            ("box", ctypes.c_int, [handle, ctypes.POINTER(_BoxItem), size]),
            ("open", ctypes.c_int, [handle, ctypes.POINTER(_OpenItem), size]),
            ("open_sealed", ctypes.c_int, [handle, ctypes.POINTER(_OpenItem), size]),
            ("sign", ctypes.c_int, [handle, ctypes.POINTER(_SignItem), size]),
            ("verify", ctypes.c_int, [handle, ctypes.POINTER(_VerifyItem), size]),
            ("fresh_nonces", ctypes.c_int, [handle, text, ctypes.c_uint32, ctypes.c_void_p]),
            ("peer_connect", ctypes.c_int, [text, text, ctypes.c_uint32, _POINTER]),
            ("peer_listen", ctypes.c_int, [text, text, ctypes.c_uint32, _POINTER]),
            ("peer_accept", ctypes.c_int, [handle, ctypes.c_uint32, _POINTER]),
            ("peer_unlisten", None, [_POINTER]), ("peer_close", None, [_POINTER]), ("peer_abandon", None, [_POINTER]),
            ("peer_send", ctypes.c_int, [handle, ctypes.c_void_p, size, ctypes.c_uint32]),
            ("peer_set_send_timeout", ctypes.c_int, [handle, ctypes.c_uint32]),
            ("peer_receive", ctypes.c_int, [handle, ctypes.c_void_p, size, ctypes.c_uint32, ctypes.POINTER(_PeerReceived)]),
            ("peer_finish", ctypes.c_int, [handle])):
        function = getattr(library, "sallyport_" + name)
        function.restype, function.argtypes = result, arguments
    return library


_lib = _load()


def _error(code: int, text: Optional[str] = None) -> Error:
    if text is None:
        text = f"{_lib.sallyport_error_name(code).decode()}: {_lib.sallyport_strerror(code).decode()}"
    return _BY_CODE.get(code, Refused if code < 256 else Error)(code, text)


def _check(code: int) -> None:
    if code:
        raise _error(code, _lib.sallyport_last_error().decode(errors="replace"))


class _Memory:
    """What the library reads and writes during one call, kept alive until it is over."""

    def __init__(self) -> None:
        self.kept: list[object] = []

    def read(self, data: Data) -> tuple[Optional[int], int]:
        try:
            copy = memoryview(data).tobytes()  # not bytes(): of a number that would be so many zeros
        except TypeError:
            raise _error(264) from None
        pointer = ctypes.cast(ctypes.c_char_p(copy), ctypes.c_void_p)
        self.kept.append(copy)
        # An empty text needs an address too: NULL is for what isn't there.
        return pointer.value, len(copy)

    def room(self, size: int) -> ctypes.Array:
        buffer = (ctypes.c_uint8 * max(size, 1))()
        self.kept.append(buffer)
        return buffer

    def peer(self, item: Union[_BoxItem, _OpenItem], peer: Peer) -> None:
        if isinstance(peer, str):
            item.peer_name = _text(peer)
        else:
            item.peer_key, item.peer_key_size = self.read(peer)


# ctypes cuts a number to the size of its C type in silence. So every value of a caller's is checked before it gets there.


def _text(value: str) -> bytes:
    if not isinstance(value, str):
        raise _error(264)
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise _error(264) from None
    if b"\0" in encoded:
        raise _error(264)
    return encoded


def _path(value: Union[str, os.PathLike]) -> bytes:
    try:
        encoded = os.fsencode(value)
    except (TypeError, UnicodeEncodeError):
        raise _error(264) from None
    if b"\0" in encoded:
        raise _error(264)
    return encoded


def _number(value: int, bits: int) -> int:
    """A whole number that an unsigned C type of so many bits holds."""
    try:
        value = operator.index(value)
    except TypeError:
        raise _error(264) from None
    if not 0 <= value < 2**bits:
        raise _error(264)
    return value


def _milliseconds(seconds: float, bits: int = 63) -> int:
    if not isinstance(seconds, (int, float)) or not math.isfinite(seconds) or seconds < 0:
        raise _error(264)
    return _number(int(seconds * 1000), bits)


def _timeout(seconds: float) -> int:
    """Of a call; 0 would be the library's own."""
    value = _milliseconds(seconds, 32)
    if value == 0:
        raise _error(264)
    return value


def _patience(seconds: Optional[float]) -> int:
    """Of what waits for the peer. For the library 0 is for ever, so no time at all is a moment."""
    return 0 if seconds is None else max(_milliseconds(seconds, 32), 1)


# --- what programs use -----------------------------------------------------------------------------------------------------------


class Verb(enum.IntFlag):
    BOX = 1
    OPEN = 2
    SIGN = 4
    FRESH_NONCE = 8


class Boxed(NamedTuple):
    nonce: bytes
    box: bytes
    version: int  # of our key


class Opened(NamedTuple):
    text: bytes
    version: int


class Signed(NamedTuple):
    signature: bytes
    version: int


class PublicKeys(NamedTuple):
    active: bytes
    version: int                # the active one; 0: the vault is older than this field
    opening: tuple[bytes, ...]  # of all versions that may open now, the active one first


class GrantedKey(NamedTuple):
    name: str
    kind: str                   # "x25519" or "ed25519"
    public_key: Optional[bytes]  # of the active version, if there is one
    verbs: Verb
    grants: tuple[str, ...]


T = TypeVar("T")


def _outcomes(items: ctypes.Array, code: int, read: Callable[..., T]) -> list[Union[T, Error]]:
    """Raises when there was no answer; else each item's result, or its exception as a value."""
    if code >= 256 and all(item.code == code for item in items):
        _check(code)
    return [_error(item.code) if item.code else read(item) for item in items]


def _only(outcomes: Sequence[Union[T, Error]]) -> T:
    (outcome,) = outcomes
    if isinstance(outcome, Error):
        raise outcome
    return outcome


class _Handle:
    """A pointer of the library that is given back once."""

    def __init__(self, pointer: ctypes.c_void_p, give_back: Callable[[object], None]):
        self._pointer, self._give_back = pointer, give_back

    def _live(self) -> ctypes.c_void_p:
        if not self._pointer:
            raise _error(263)
        return self._pointer

    def close(self) -> None:
        """A second time: nothing. Not while another thread is in a call of the same object."""
        self._give_back(ctypes.byref(self._pointer))

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            self.close()


def connect(path: Union[str, os.PathLike], timeout: float = 10.0) -> Vault:
    """The vault behind a socket. `timeout`: how many seconds a call waits for its next answer."""
    return Vault(path, timeout)


class Vault(_Handle):
    def __init__(self, path: Union[str, os.PathLike], timeout: float = 10.0):
        pointer = ctypes.c_void_p()
        _check(_lib.sallyport_connect(_path(path), _timeout(timeout), ctypes.byref(pointer)))
        super().__init__(pointer, _lib.sallyport_disconnect)

    def ping(self) -> None:
        """Raises SelfTestFailed if the vault's known-answer test fails."""
        _check(_lib.sallyport_ping(self._live()))

    def public_key(self, name: str) -> bytes:
        room = (ctypes.c_uint8 * 32)()
        _check(_lib.sallyport_public_key(self._live(), _text(name), room))
        return bytes(room)

    def public_keys(self, name: str) -> PublicKeys:
        """With the number of the version, and the public halves of what still opens: to whom something may be boxed."""
        most = 64
        room, version, count = (ctypes.c_uint8 * (32 * most))(), ctypes.c_uint32(), ctypes.c_size_t(most)
        _check(_lib.sallyport_public_keys(self._live(), _text(name), ctypes.byref(version), room, ctypes.byref(count)))
        opening = tuple(bytes(room[32 * i:32 * i + 32]) for i in range(count.value))
        return PublicKeys(opening[0], version.value, opening)

    def keys(self) -> list[GrantedKey]:
        """What this caller may do, key by key."""
        found: list[GrantedKey] = []

        def take(pointer, _context) -> None:
            key, grants = pointer.contents, []
            while key.grants[len(grants)] is not None:
                grants.append(key.grants[len(grants)].decode())
            found.append(GrantedKey(key.name.decode(), key.kind.decode(), bytes(key.public_key[:32]) if key.public_key else None,
                                    Verb(key.verbs), tuple(grants)))

        _check(_lib.sallyport_keys(self._live(), _EACH_KEY(take), None))
        return found

    def key(self, name: str, verbs: Verb = Verb(0), lease: float = 0) -> Key:
        """A key with those of `verbs` that policy grants (0: all of them), for at most `lease` seconds (0: the longest allowed)."""
        return Key(self, name, verbs, lease)

    def verify(self, public_key: Data, message: Data, signature: Data) -> None:
        """Returns if the signature is genuine and raises (BadSignature, BadSize, LowOrderKey) if not."""
        _only(self.verify_each([(public_key, message, signature)]))

    def verify_each(self, items: Iterable[tuple[Data, Data, Data]]) -> list[Union[bool, Error]]:
        """True, or the exception, for each (public key, message, signature)."""
        wanted, memory = list(items), _Memory()
        array = (_VerifyItem * len(wanted))()
        for item, (public_key, message, signature) in zip(array, wanted):
            item.public_key, item.public_key_size = memory.read(public_key)
            item.message, item.message_size = memory.read(message)
            item.signature, item.signature_size = memory.read(signature)
        return _outcomes(array, _lib.sallyport_verify(self._live(), array, len(array)), lambda _item: True)


class Key(_Handle):
    """One key's capability. From Vault.key()."""

    def __init__(self, vault: Vault, name: str, verbs: Verb, lease: float):
        pointer = ctypes.c_void_p()
        _check(_lib.sallyport_key_open(vault._live(), _text(name), _number(verbs, 32), _milliseconds(lease), ctypes.byref(pointer)))
        super().__init__(pointer, _lib.sallyport_key_close)
        self.name = name
        self._vault = vault  # lives as long as its keys, unless it is closed

    @property
    def verbs(self) -> Verb:
        """What was granted."""
        mask = ctypes.c_uint()
        _check(_lib.sallyport_key_verbs(self._live(), ctypes.byref(mask)))
        return Verb(mask.value)

    @property
    def lease(self) -> float:
        """The seconds that were given; 0: no end."""
        lease = ctypes.c_uint64()
        _check(_lib.sallyport_key_lease(self._live(), ctypes.byref(lease)))
        return lease.value / 1000

    def renew(self, lease: float = 0) -> float:
        """Begins the lease anew; returns what was given."""
        _check(_lib.sallyport_key_renew(self._live(), _milliseconds(lease)))
        return self.lease

    def box(self, to: Peer, text: Data) -> Boxed:
        return _only(self.box_each([(to, text)]))

    def box_each(self, items: Iterable[tuple[Peer, Data]]) -> list[Union[Boxed, Error]]:
        wanted, memory = list(items), _Memory()
        array = (_BoxItem * len(wanted))()
        for item, (to, text) in zip(array, wanted):
            memory.peer(item, to)
            item.text, item.text_size = memory.read(text)
            item.box_size = item.text_size + 16
            item.box = ctypes.addressof(memory.room(item.box_size))
        return _outcomes(array, _lib.sallyport_box(self._live(), array, len(array)),
                         lambda item: Boxed(bytes(item.nonce), ctypes.string_at(item.box, item.box_size), item.version))

    def open(self, sender: Peer, nonce: Data, box: Data) -> Opened:
        return _only(self.open_each([(sender, nonce, box)]))

    def open_each(self, items: Iterable[tuple[Peer, Data, Data]]) -> list[Union[Opened, Error]]:
        return self._open(_lib.sallyport_open, 16, list(items))

    def open_sealed(self, box: Data) -> Opened:
        """libsodium's crypto_box_seal: a box by nobody in particular to this key."""
        return _only(self.open_sealed_each([box]))

    def open_sealed_each(self, boxes: Iterable[Data]) -> list[Union[Opened, Error]]:
        return self._open(_lib.sallyport_open_sealed, 48, [(None, b"", box) for box in boxes])

    def _open(self, function, overhead: int, wanted: list) -> list[Union[Opened, Error]]:
        memory = _Memory()
        array = (_OpenItem * len(wanted))()
        rooms = []
        for item, (sender, nonce, box) in zip(array, wanted):
            if sender is not None:
                memory.peer(item, sender)
            item.nonce, item.nonce_size = memory.read(nonce)
            item.box, item.box_size = memory.read(box)
            size = max(item.box_size - overhead, 0)
            rooms.append(memory.room(size))
            item.text, item.text_size = ctypes.addressof(rooms[-1]), size
        code = function(self._live(), array, len(array))
        try:
            return _outcomes(array, code, lambda item: Opened(ctypes.string_at(item.text, item.text_size), item.version))
        finally:
            for room in rooms:
                ctypes.memset(room, 0, len(room))

    def sign(self, message: Data) -> Signed:
        return _only(self.sign_each([message]))

    def sign_each(self, messages: Iterable[Data]) -> list[Union[Signed, Error]]:
        wanted, memory = list(messages), _Memory()
        array = (_SignItem * len(wanted))()
        for item, message in zip(array, wanted):
            item.message, item.message_size = memory.read(message)
        return _outcomes(array, _lib.sallyport_sign(self._live(), array, len(array)),
                         lambda item: Signed(bytes(item.signature), item.version))

    def fresh_nonces(self, domain: str, count: int = 1) -> list[bytes]:
        """Values of 16 bytes that were never given out before under this key and domain. At most 64."""
        count = _number(count, 32)
        room = (ctypes.c_uint8 * (16 * min(count, 64) or 1))()
        _check(_lib.sallyport_fresh_nonces(self._live(), _text(domain), count, room))
        return [bytes(room[16 * i:16 * i + 16]) for i in range(count)]


# --- channels of the peer protocol, through this host's netd -----------------------------------------------------------------------


class PeerStatus(enum.IntEnum):
    COMPLETE = 0   # all that was asked for, or all whole frames of one code that fit
    SLOW_PEER = 1  # the time is over; what half a frame there is stays for the next call
    TOO_BIG = 2    # the first frame is larger than what was asked for: `needed`. Nothing is lost
    ENDED = 3      # the peer's authenticated end, after `data`
    BROKEN = 4     # after `data` the connection failed: `reason` is the drop reason's name, or send_given_up or receive_given_up
                   # after a call that raised TimedOut


class PeerReceived(NamedTuple):
    data: bytes  # all of it genuine, whatever the status is
    code: int
    status: PeerStatus
    needed: int
    reason: str


def connect_peer(path: Union[str, os.PathLike], name: str, timeout: float = 10.0, send_timeout: Optional[float] = None) -> PeerChannel:
    """A channel through the [[connect]] entry `name` of the netd behind a socket. `timeout`: for the channel, be it the
    peer that is slow (else raises TimedOut), and for each later answer of netd that doesn't wait for the peer. `send_timeout`: a limit
    for each send() and finish(); None: no limit."""
    pointer, limit = ctypes.c_void_p(), _patience(send_timeout)
    _check(_lib.sallyport_peer_connect(_path(path), _text(name), _timeout(timeout), ctypes.byref(pointer)))
    return PeerChannel(pointer, limit)


def listen_peer(path: Union[str, os.PathLike], name: str, timeout: float = 10.0) -> PeerListener:
    """Takes part in accepting the channels of the [[listen]] entry `name`."""
    return PeerListener(path, name, timeout)


class PeerListener(_Handle):
    def __init__(self, path: Union[str, os.PathLike], name: str, timeout: float = 10.0):
        pointer = ctypes.c_void_p()
        _check(_lib.sallyport_peer_listen(_path(path), _text(name), _timeout(timeout), ctypes.byref(pointer)))
        super().__init__(pointer, _lib.sallyport_peer_unlisten)

    def accept(self, timeout: Optional[float] = None, send_timeout: Optional[float] = None) -> PeerChannel:
        """The next channel; None waits for ever, else raises NetTimedOut. `send_timeout` as of connect_peer()."""
        pointer, limit = ctypes.c_void_p(), _patience(send_timeout)
        _check(_lib.sallyport_peer_accept(self._live(), _patience(timeout), ctypes.byref(pointer)))
        return PeerChannel(pointer, limit)


class PeerChannel(_Handle):
    """One thread at a time. Left by an exception, or dropped, it is closed without an end: the peer sees it broken."""

    def __init__(self, pointer: ctypes.c_void_p, send_timeout_ms: int):
        super().__init__(pointer, _lib.sallyport_peer_close)
        _check(_lib.sallyport_peer_set_send_timeout(pointer, send_timeout_ms))

    def send(self, data: Data, code: int = 0) -> None:
        """Any size, in frames of one code; nothing is one empty frame. Waits for as long as the peer doesn't read. What the peer sends
        meanwhile netd reads ahead, up to max_frame_bytes and at least 1 MiB: if both sides send more and receive nothing, both wait
        without end. So receive meanwhile (in a thread), or set `send_timeout`.

        Raises Broken (the channel has failed); NetReservedCode, NetClosed (behind finish()), BadArgument: nothing was sent, and the
        channel goes on; Disconnected: netd has ended, and the channel with it; TimedOut: no progress (64 KiB that netd handed to the
        kernel) for `send_timeout`. Then the channel is broken: the peer sees it truncated at once, what wasn't received yet is lost,
        and each later call tells "send_given_up".
        """
        memory = _Memory()
        pointer, size = memory.read(data)
        _check(_lib.sallyport_peer_send(self._live(), pointer, size, _number(code, 32)))

    def receive(self, size: int, timeout: Optional[float] = None) -> PeerReceived:
        """Up to `size` bytes, from whole frames of one code; None waits for ever."""
        size, time = _number(size, 63), _patience(timeout)
        room, got = (ctypes.c_uint8 * max(size, 1))(), _PeerReceived()
        _check(_lib.sallyport_peer_receive(self._live(), room, size, time, ctypes.byref(got)))
        return PeerReceived(bytes(memoryview(room)[:got.size]), got.code, PeerStatus(got.status), got.needed, got.reason.decode())

    def finish(self) -> None:
        """Our direction's authenticated end; receiving goes on. Waits, and raises, as send()."""
        _check(_lib.sallyport_peer_finish(self._live()))

    def abandon(self) -> None:
        """Closes without an end."""
        _lib.sallyport_peer_abandon(ctypes.byref(self._pointer))

    def __exit__(self, kind: object, *_: object) -> None:
        self.close() if kind is None else self.abandon()

    def __del__(self) -> None:
        if getattr(self, "_pointer", None):
            self.abandon()
