#!/usr/bin/python3
"""Writes the hand-made beginnings of the corpora: tests/fuzz/corpus/NAME/seed-*. What fuzzers add beside them stays.

usage: seeds.py
"""

import base64
import hashlib
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "system"))

from minicapnp import (CHANNEL, LISTENER, NETWORK, PEER_CHANNEL, PEER_SESSION, VAULT_ADMIN, VAULT_APP, VAULT_KEY,  # noqa: E402
                       VAULT_NET, Pointers, Struct, U16s, bootstrap_message, call_message, encode, finish_message, release_message)

HELLO = bytes.fromhex("6c09afb28aa9fafc")
COOKIE = bytes.fromhex("1c45dcb941c0e3f6")
INITIATE = bytes.fromhex("6c09afb28aa9fafd")
MESSAGE = bytes.fromhex("6d1b39cbf65a11b4")

KEYS = {"alice": "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA=", "server": "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="}
CONFIG = f"""require_sandbox = "available"
[vault]
keys = "keys"
socket = "run/vault.sock"
handshakes_per_second = 100
[net]
workers = 2
metrics = "127.0.0.1:9000"
[limits]
half_open = 100
[[listen]]
name = "db"
address = "[::]:7001"
key = "server"
allow = ["alice"]
service = "tcp:127.0.0.1:5432"
[[listen]]
name = "chat"
address = "unix:/run/chat.sock"
key = "server"
allow = ["alice"]
service = "channel"
[[connect]]
name = "out"
listen = "127.0.0.1:15432"
address = "db.example.com:7001"
key = "alice"
peer = "server"
[peers]
alice = "{KEYS['alice']}"
server = "{KEYS['server']}"
"""


def write(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"seed-{name}").write_bytes(data)


def packets():
    write("packets", "hello", HELLO + bytes(range(32)) + bytes(8) + bytes(80))
    write("packets", "cookie", COOKIE + bytes(16) + bytes(144))
    write("packets", "initiate", INITIATE + bytes(96) + struct.pack(">Q", 1) + bytes(112))
    write("packets", "message", MESSAGE + struct.pack(">Q", 2) + bytes(21))


def scripts():
    server = {"genuine": [2, 0, 4, 3, 0, 4], "changed-hello": [2, 1, 0, 50, 7, 4], "changed-initiate": [2, 0, 4, 3, 1, 0, 120, 1, 4],
              "highest-bit": [2, 1, 0, 39, 128, 4, 3, 0, 4], "replay": [2, 0, 4, 3, 0, 4, 8, 1, 4, 4], "replay-initiate": [2, 0, 4, 8, 0],
              "refused": [2, 0, 5, 15], "refused-late": [2, 0, 4, 3, 0, 5, 14], "expired": [2, 0, 4, 7, 7, 3, 0],
              "one-turn": [2, 0, 4, 7, 3, 0, 4], "lie": [2, 0, 6, 0, 3, 0, 6], "yes": [2, 0, 4, 3, 0, 6, 97, 98],
              "raw": [1] + list(HELLO) + [9] * 40, "twice": [2, 0, 2, 0], "cookie-then-raw": [2, 0, 4, 1] + list(INITIATE)}
    for name, script in server.items():
        write("server_handshake", name, bytes(script))
    client = {"genuine": [2, 0, 3], "changed": [2, 1, 0, 30, 1], "length": [0, 167] + list(COOKIE), "raw": [1] + list(COOKIE) + [5] * 60,
              "old": [6], "refused": [2, 0, 4, 14], "lie": [2, 0, 5, 1, 0, 3, 9], "twice": [2, 0, 2, 0]}
    for name, script in client.items():
        write("client_handshake", name, bytes(script))
    session = {"two": [0, 3, 65, 66, 67, 0, 0, 3, 255, 255, 4], "split": [0, 40] + [7] * 40 + [2, 1, 4, 2, 1, 4, 2, 30, 14, 2, 200, 134],
               "large": [1, 255, 223, 3, 128, 0, 4, 3, 128, 0, 4], "many": [0, 1, 1] * 20 + [3, 255, 255, 134],
               "flip": [0, 2, 1, 2, 6, 1, 0, 30, 1, 3, 9, 9, 4], "drop": [0, 2, 1, 2, 0, 2, 3, 4, 7, 0, 35, 4], "twice": [0, 2, 1, 2, 8],
               "reflect": [0, 1, 1, 9, 1, 2, 3, 4], "garbage": [5, 40] + list(b"\0\x20" + MESSAGE + struct.pack(">Q", 2)) + [1] * 22,
               "zero-length": [5, 4, 0, 0, 0, 0], "half": [0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2, 20, 4, 0, 1, 1]}
    for name, script in session.items():
        write("frame_session", name, bytes(script))


def hellos(count):
    hello = Struct(b"", ["db", bytes(range(32)), bytes(80), bytes(range(1, 33)), bytes(96)])
    return Struct(b"", [[hello] * count])


def program_calls(begin):
    """App, then Key by a pipelined call: the key is pointer 0 of the outcome, which is pointer 0 of the results."""
    key = [call_message(1, ("answer", 0), VAULT_APP, 2, Struct(bytes(8), ["server", None]))]
    peer, nonce = bytes(range(32)), b"SallyBox" + bytes(16)

    def on_key(method, params=None):
        return key + [call_message(2, ("answer", 1, 0, 0), VAULT_KEY, method, params), finish_message(2), finish_message(1)]

    calls = {"public-key": [call_message(1, ("answer", 0), VAULT_APP, 0, Struct(b"", ["server"]))],
             "ping": [call_message(1, ("answer", 0), VAULT_APP, 1)], "keys": [call_message(1, ("answer", 0), VAULT_APP, 3)],
             "verbs": [call_message(1, ("answer", 0), VAULT_APP, 2, Struct(bytes(8), ["alice", U16s([0, 1, 2, 3, 9])]))],
             "verify": [call_message(1, ("answer", 0), VAULT_APP, 4, Struct(b"", [[Struct(b"", [peer, b"text", bytes(64)])]]))],
             "box": on_key(0, Struct(b"", [[Struct(b"\0\0", [peer, b"text"]), Struct(b"\1\0", ["alice", b"text"])]])),
             "open": on_key(1, Struct(b"", [[Struct(b"\1\0", ["alice", nonce, bytes(20)]), Struct(b"\0\0", [peer, bytes(24), b""])]])),
             "open-sealed": on_key(2, Struct(b"", [Pointers([bytes(48), bytes(range(60)), b""])])),
             "sign": on_key(3, Struct(b"", [Pointers([b"text", b""])])),
             "fresh": on_key(4, Struct(struct.pack("<I", 64), ["minute-k"])), "fresh-ours": on_key(4, Struct(b"\1", ["CurveCPK"])),
             "renew": on_key(5, Struct(b"\7")), "close": on_key(6), "too-many": on_key(3, Struct(b"", [Pointers([b""] * 65)])),
             "on-nothing": [call_message(1, ("answer", 0), VAULT_APP, 2, Struct(bytes(8), ["nothing", None])),
                            call_message(2, ("answer", 1, 0, 0), VAULT_KEY, 0)]}
    for name, messages in calls.items():
        write("vault_app_rpc", name, bytes([3]) + begin + b"".join(messages))


def peer_steps():
    """Calls to the vault about the peer protocol: entries "in" and "peer-out" of hard mode, "base" of base mode."""
    def entry(name, listen):
        return Struct(bytes([listen]), [name])

    def on_session(*calls):
        """PeerSession by pipelined calls: it is pointer 0 of the outcome, which is pointer 0 of the results."""
        messages = [call_message(1, ("answer", 0), VAULT_NET, 6, Struct(b"", [entry("base", True)]))]
        for number, (method, frames) in enumerate(calls, 2):
            messages.append(call_message(number, ("answer", 1, 0, 0), PEER_SESSION, method, Struct(b"", [frames])))
        return messages + [finish_message(1), release_message(1)]

    salts = [entry("in", True), entry("peer-out", False), entry("base", True), entry("db", True), entry("nobody", False)]
    frame = struct.pack(">4I", 5, 1, 1, 5) + b"hello" + bytes(8)
    calls = {"salts": (4, [salts]), "salts-many": (4, [[entry("in", True)] * 65]),
             "keys": (5, [[Struct(b"", [entry("peer-out", False), bytes(32), bytes(range(32))])]]),
             "keys-short": (5, [[Struct(b"", [entry("peer-out", False), bytes(31), bytes(33)])]]),
             "accept": (7, [[Struct(b"", [entry("in", True), bytes(range(32))]), Struct(b"", [entry("base", True), bytes(32)])]]),
             "accept-short": (7, [[Struct(b"", [entry("in", True), b""])] * 3]),
             "accept-many": (7, [[Struct(b"", [entry("in", True), bytes(32)])] * 65]),
             "session-of-hard": (6, [entry("in", True)])}
    messages = {name: [call_message(1, ("answer", 0), VAULT_NET, method, Struct(b"", params)), finish_message(1)]
                for name, (method, params) in calls.items()}
    messages["session"] = on_session((1, frame), (0, frame * 2), (0, b""), (2, None), (0, frame))
    messages["session-garbage"] = on_session((1, bytes(range(200))), (1, frame))
    messages["session-long"] = on_session((0, struct.pack(">4I", 0xFFFFFFFF, 0, 0, 0)), (0, frame[:7]), (0, frame[7:]))
    return messages


def peer_channels():
    """Calls to netd: entries "peers" and "peer-out" of the peer protocol, beside those of curve_tun."""
    def on_channel(start, pointers):
        calls = ((0, Struct(struct.pack("<I", 7), [b"text"])), (1, Struct(struct.pack("<QI", 100, 1))), (0, Struct(b"\xff" * 4, [b""])),
                 (2, None), (0, Struct(bytes(4), [bytes(5000)])), (1, Struct(struct.pack("<QIB", 2**64 - 1, 0, 1))), (3, None), (1, None))
        return start + [call_message(number, ("answer", len(start), *pointers), PEER_CHANNEL, method, params)
                        for number, (method, params) in enumerate(calls, len(start) + 1)]

    def connect(name):
        return [call_message(1, ("answer", 0), NETWORK, 4, Struct(b"", [name]))]

    def accept(name, method):
        return [call_message(1, ("answer", 0), NETWORK, 1, Struct(b"", [name])),
                call_message(2, ("answer", 1, 0, 0), LISTENER, method, Struct(struct.pack("<I", 1)))]

    return {"peer-connect": on_channel(connect("peer-out"), (0, 0)), "peer-connect-curve": connect("out"),
            "peer-connect-unknown": connect("nobody"), "peer-accept": on_channel(accept("peers", 2), (0, 0)),
            "peer-accept-curve": accept("chat", 2), "peer-accept-plain": accept("peers", 0),
            "peer-channel-of-nothing": on_channel([], ())}


def open_peer_channels():
    """A channel to "peer-out", where wire_party.h answers: the lowest bits of a frame's code say what with."""
    echo, halves, singly, twice, large, spoil, end, close = range(8, 16)

    def send(data, code):
        return 0, Struct(struct.pack("<I", code), [data])

    def receive(most, timeout=0, continued=False):
        return 1, Struct(struct.pack("<QIB", most, timeout, continued))

    finish, leave, nothing = (2, None), (3, None), []
    scripts = {"echo": [send(b"text", echo), receive(4), send(b"", echo), receive(10), finish, receive(1), leave],
               "codes": [send(b"abc", twice), receive(100), receive(100), send(b"", 0xFFFFFFFE), send(b"x", 0xFFFFFFF8), receive(1)],
               "frames": [send(b"0123456789", singly), receive(5), receive(5), send(b"01234", singly), receive(0), receive(5)],
               "halves": [send(b"half and half", halves), receive(4), receive(13, 1), send(b"two", echo), receive(13), receive(3)],
               "header": [send(b"one", echo), send(b"half and half", halves), receive(10), send(b"two", echo), receive(16)],
               "slow": [send(b"half", echo), receive(100), receive(96, 1, True)],
               "inside": [send(b"a" * 100, twice), send(b"b" * 100, echo), receive(150), receive(150), receive(150)],
               "too-big": [send(b"x" * 100, echo), receive(10), receive(99), receive(100)],
               "large": [send(b"x" * 3000, large), receive(900_000), receive(900_000 - 512 * 1024, 0, True), send(b"y" * 100, large),
                         receive(2**64 - 1), leave],
               "tag": [send(b"good", echo), send(bytes([20]) + b"spoiled", spoil), receive(100), receive(100), send(b"late", echo)],
               "spoiled": [send(b"good", echo), send(bytes([2]) + b"spoiled", spoil), receive(4), receive(100), receive(100)],
               "end": [send(b"last", echo), send(b"", end), receive(100), receive(100), send(b"and on", echo), receive(100), finish],
               "cut": [send(b"half", echo), send(b"", close), receive(100), receive(100), send(b"late", echo)],
               "finish": [finish, send(b"late", echo), finish, receive(10), leave, receive(10), send(b"later", echo), finish],
               "busy": [receive(10), receive(10), send(b"0123456789", echo), receive(10)], "gone": [send(b"nobody reads this", echo)],
               "flood": [send(b"z" * 5000, echo)] * 8 + [receive(40_000)] * 3, "empty": nothing}
    connect = [call_message(1, ("answer", 0), NETWORK, 4, Struct(b"", ["peer-out"]))]
    made = {name: connect + [call_message(number, ("answer", 1, 0, 0), PEER_CHANNEL, method, params)
                             for number, (method, params) in enumerate(calls, 2)] for name, calls in scripts.items()}
    made["given-up"] = connect + [call_message(2, ("answer", 1, 0, 0), PEER_CHANNEL, *receive(10)), finish_message(2),
                                  call_message(3, ("answer", 1, 0, 0), PEER_CHANNEL, *send(b"kept", echo)),
                                  call_message(4, ("answer", 1, 0, 0), PEER_CHANNEL, *receive(4)), finish_message(1)]
    plain = [Struct(b"", [[Struct(b"", [b"one"]), Struct(b"", [b""]), Struct(b"", [bytes(5000)])]])]
    made["plain"] = [call_message(1, ("answer", 0), NETWORK, 0, Struct(struct.pack("<I", 0), ["peer-out"]))] + [
        call_message(number, ("answer", 1, 0, 0), CHANNEL, method, params)
        for number, (method, params) in enumerate([(0, *plain), (1, Struct(struct.pack("<II", 2, 0))), (1, None), (3, None), (2, None)], 2)]
    return made


def rpc():
    begin = bootstrap_message(0)
    vault = {"ping": [call_message(1, ("answer", 0), VAULT_NET, 3)],
             "hellos": [call_message(1, ("answer", 0), VAULT_NET, 0, hellos(2)), finish_message(1)],
             "too-many": [call_message(1, ("answer", 0), VAULT_NET, 0, hellos(65))],
             "vouches": [call_message(1, ("answer", 0), VAULT_NET, 1, Struct(b"", [[Struct(b"", [
                 "db", bytes(range(32)), bytes(16), bytes(48), bytes(range(32))])]]))],
             "make": [call_message(1, ("answer", 0), VAULT_NET, 2, Struct(b"", [[Struct(b"", ["out", bytes(range(32))])]]))],
             "wrong-interface": [call_message(1, ("answer", 0), VAULT_ADMIN, 0)],
             "capability": [call_message(1, ("answer", 0), VAULT_NET, 3, caps=[Struct(struct.pack("<HHI", 1, 0, 5))])],
             "finish-first": [finish_message(0), call_message(1, ("answer", 0), VAULT_NET, 3)]}
    net = {"status": [call_message(1, ("answer", 0), NETWORK, 2)],
           "connect": [call_message(1, ("answer", 0), NETWORK, 0, Struct(struct.pack("<I", 0), ["out"]))],
           "unknown": [call_message(1, ("answer", 0), NETWORK, 0, Struct(struct.pack("<I", 0), ["nobody"]))],
           "listen": [call_message(1, ("answer", 0), NETWORK, 1, Struct(b"", ["chat"])),
                      call_message(2, ("answer", 1, 0, 0), LISTENER, 0, Struct(struct.pack("<I", 1))),
                      call_message(3, ("answer", 1, 0, 0), LISTENER, 1), finish_message(2), finish_message(1), release_message(1)],
           "not-a-channel": [call_message(1, ("answer", 0), CHANNEL, 0)],
           "reload": [call_message(1, ("answer", 0), NETWORK, 3)]}
    vault |= peer_steps()
    net |= peer_channels()
    program_calls(begin)
    for mode in (0, 1, 2, 3, 7, 8):
        write("vault_rpc", f"begin-{mode}", bytes([mode]) + begin)
    for name, messages in vault.items():
        write("vault_rpc", name, bytes([3]) + begin + b"".join(messages))
        write("link", name, bytes([3 | 8 | 16]) + begin + b"".join(messages))
    for name, messages in net.items():
        write("net_rpc", name, bytes([1]) + begin + b"".join(messages))
        write("net_rpc", name + "-cut", bytes([11]) + begin + b"".join(messages)[:-5])
    for name, messages in open_peer_channels().items():
        # In pieces, so that what a call asks of the peer has come before the next one; and all at once, no answer being read.
        write("net_rpc", "open-" + name, bytes([17 if name == "slow" else 1]) + begin + b"".join(messages))
        write("net_rpc", "open-" + name + "-at-once", bytes([7]) + begin + b"".join(messages))
    for target in ("link", "vault_rpc", "net_rpc"):
        write(target, "ff", bytes([3]) + b"\xff" * 8)
        write(target, "huge", bytes([3]) + struct.pack("<II", 0, 0x1FFFFFFF))
        write(target, "segments", bytes([3]) + struct.pack("<IIII", 2, 1, 1, 1) + begin[8:])
        write(target, "empty", bytes([3]) + struct.pack("<II", 0, 0) * 3)
        write(target, "abort", bytes([3]) + encode(Struct(struct.pack("<H", 1), [Struct(b"\0\0", ["bye"])])))
        write(target, "far", bytes([3]) + struct.pack("<IIII", 1, 1, 1, 0) + struct.pack("<II", 2, 1) + struct.pack("<II", 2, 0))
    write("link", "many-calls", bytes([8]) + begin + b"".join(call_message(n, ("answer", 0), VAULT_NET, 3) for n in range(1, 9)))
    write("link", "client", bytes([4 | 3]) + begin * 3)
    write("link", "end-inside", bytes([32]) + begin[:-3])


def texts():
    write("config", "full", CONFIG.encode())
    write("config", "empty", b"")
    write("config", "token", b"""[token.a]
module = "/usr/lib/softhsm/libsofthsm2.so"
uri = "pkcs11:token=a%20b;serial=00ff"
pin = "file:pin"
env = { SOFTHSM2_CONF = "/x" }
presence = "always"
read_paths = ["/r"]
""")
    for name, text in {"unknown": "[[listen]]\nnam = \"db\"\n", "type": "[vault]\nkeys = 3\n", "peer": "[peers]\na = \"AAAA\"\n",
                       "address": "[2001:db8::1]:7001\n", "unix": "unix:run/x.sock\n", "no-port": "host:\n", "twice": "[vault]\n[vault]\n",
                       "deep": "a = " + "[" * 200}.items():
        write("config", name, text.encode())
    head = "sallyport key 1\nname: alice\nkind: x25519\n"
    secret = bytes([1] * 32)
    public = base64.b64encode(bytes.fromhex("a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209")).decode()
    plain = f"{head}public: {public}\ncreated: 2026-11-21T04:00:00Z\nseal: plain\npayload: {base64.b64encode(secret).decode()}\n"
    salt, nonce, sealed = (base64.b64encode(bytes(n)).decode() for n in (16, 24, 48))
    write("key_format", "plain", plain.encode())
    write("key_format", "passphrase", plain.replace(
        "seal: plain", f"seal: passphrase argon2id13 opslimit=3 memlimit=67108864 salt={salt}\nnonce: {nonce}").replace(
            base64.b64encode(secret).decode(), sealed).encode())
    write("key_format", "credential", plain.replace(
        "seal: plain", f"seal: systemd-credential name=sallyport salt={salt}\nnonce: {nonce}").replace(
            base64.b64encode(secret).decode(), sealed).encode())
    write("key_format", "cut", plain.encode()[:-2])
    versions = (f"version: 1 public={public} active=1795245600 open-only=1795249200 retired=1795252800 deleted=0 destroy=0\n"
                f"version: 3 public={public} active=1795249200 open-only=0 retired=0 deleted=0 destroy=0\n")
    two = (f"name: alice\nkind: x25519\ncreated: 2026-11-21T04:00:00Z\nledger: {public}\nexport: no\nbackup: yes\n{versions}"
           f"nonce: {nonce}\npayload: {base64.b64encode(bytes(2 * 36 + 16)).decode()}\n")
    slots = (f"slot: 1 passphrase argon2id13 opslimit=3 memlimit=67108864 salt={salt} wrapped={sealed}\n"
             f"slot: 2 recovery argon2id13 opslimit=1 memlimit=8192 salt={salt} wrapped={sealed}\n"
             f"slot: 4 systemd-credential name=sallyport salt={salt} wrapped={sealed}\n"
             f"slot: 5 shares needed=2 total=3 set={salt} wrapped={sealed}\n")
    mac = f"mac: {base64.b64encode(bytes(32)).decode()}\n"
    write("key_format", "2-slots", ("sallyport key 2\n" + two + slots + mac).encode())
    write("key_format", "2-plain", ("sallyport key 2\n" + two + f"slot: 1 plain key={public}\n" + mac).encode())
    backup = two.replace(f"ledger: {public}\n", "") + slots.splitlines(True)[0]
    write("key_format", "2-backup", ("sallyport backup 1\n" + backup + mac).encode())
    write("key_format", "share", b"sallyport-share-1 a 2 3 1 1e2f6fadbb35e9279ebc3bd330fa02ed "
          b"6be5edd9d5e7d13f35201005ba8c2ac36da8038cf3c4f35d9ef1c6a389c84e00 50df4ea1\n")
    write("key_format", "import-key", f"sallyport import key 1\nsecret: {base64.b64encode(secret).decode()}\n".encode())
    write("key_format", "base64", base64.b64encode(secret) + b"\n")
    write("key_format", "hex", secret.hex().encode())


def files():
    # Recipients, size of the text, then what is done to the file: see box_file_fuzz.cc.
    scripts = {"whole": [0, 0, 9], "two": [1, 0, 9], "blocks": [1, 3, 7], "empty": [0, 0, 0], "flip": [0, 0, 9, 1, 0, 60, 1],
               "flip-tag": [1, 0, 9, 1, 2, 6, 128], "cut": [0, 2, 1, 2, 0, 80], "swap": [1, 3, 7, 3, 0, 1], "repeat": [0, 3, 7, 4, 1],
               "drop": [1, 3, 7, 5, 1], "behind": [0, 1, 0, 6, 3, 1, 2, 3], "splice": [1, 2, 0, 7, 0], "splice-head": [0, 1, 5, 8]}
    for name, script in scripts.items():
        write("box_file", name, bytes([0]) + bytes(script))
    head = b"sallyport box 1\n" + struct.pack(">I", 1) + bytes(range(32)) + b"\1" + bytes(range(1, 33)) + bytes(144 + 32 + 24)
    write("box_file", "head", bytes([1]) + head)
    write("box_file", "head-cut", bytes([1]) + head[:-1])
    write("box_file", "head-many", bytes([1]) + head[:52] + b"\x40" + head[53:])
    write("box_file", "head-format", bytes([1]) + b"sallyport box 2\n" + bytes(60))
    lines = [base64.b64encode(bytes(range(48))) + b"\n", base64.b64encode(bytes(7)) + b"\n"]
    begin, end = b"-----BEGIN SALLYPORT BOX-----\n", b"-----END SALLYPORT BOX-----\n"
    armor = begin + b"".join(lines) + end
    for name, text in {"good": armor, "empty": begin + end, "mail": armor.replace(b"\n", b"\r\n"), "cut": armor[:-20],
                       "behind": armor + b"\n", "no-end-of-line": armor[:-1], "spelling": armor.replace(b"AAA==", b"AAB=="),
                       "short-line": begin + lines[1] + armor, "long-line": begin + lines[0][:-1] + lines[0] + end,
                       "padding": armor.replace(b"=", b"")}.items():
        write("box_file", f"armor-{name}", bytes([3, 4]) + text)
    signature = (b"sallyport signature 1\nkey: " + base64.b64encode(bytes(range(32))) + b"\nsignature: "
                 + base64.b64encode(bytes(range(64))) + b"\n")
    for name, text in {"good": signature, "cut": signature[:-1], "spelling": signature.replace(b"Pj8=", b"Pj9="),
                       "behind": signature + b"\n", "crlf": signature.replace(b"\n", b"\r\n")}.items():
        write("signature_file", name, text)


def audit():
    key, chain, lines = bytes([7] * 32), bytes(32), []
    for number, fields in enumerate((
            '"verb":"start","outcome":"ok","note":"vaultd 0.1.0, pid 7, sandbox full"',
            '"socket":"main","uid":1001,"gid":1002,"pid":42,"verb":"box","key":"backup","version":2,"peer":"alice","items":3,'
            '"bytes":1200,"outcome":"ok"',
            '"verb":"seal_cookie","entry":"db","items":64,"outcome":"rate_limited"',
            '"socket":"side","uid":0,"gid":0,"pid":1,"verb":"fresh_nonce","key":"k","domain":"mine","items":1,"bytes":16,'
            '"outcome":"ok"'), 1):
        body = f'{{"seq":{number},"time":"2026-11-21T04:00:0{number}.000Z",{fields}'
        mac = hashlib.blake2b(chain + body.encode(), key=key, digest_size=16).hexdigest()
        whole = f'{body},"mac":"{mac}"'
        chain = hashlib.blake2b(chain + whole.encode(), key=b"sallyport audit chain 1", digest_size=32).digest()
        key = hashlib.blake2b(b"sallyport audit next key 1", key=key, digest_size=32).digest()
        lines.append(f'{whole},"chain":"{chain.hex()}"}}\n')
    head = f'{{"audit":1,"segment":0,"seq":1,"previous":"{bytes(32).hex()}"}}\n'
    write("audit", "log", (head + "".join(lines)).encode())
    write("audit", "torn", (head + "".join(lines))[:-40].encode())
    write("audit", "swapped", (head + lines[1] + lines[0] + lines[2]).encode())
    write("audit", "changed", (head + "".join(lines)).replace("alice", "bobby").encode())
    write("audit", "header-again", (head + lines[0] + head.replace('"segment":0,"seq":1', '"segment":1,"seq":2')).encode())
    write("audit", "second-spelling", head.replace('"seq":1', '"seq":01').encode())
    write("audit", "export", f'{{"audit":1,"seq":18446744073709551615,"previous":"{bytes(32).hex()}"}}\n'.encode())
    write("audit", "key", f"sallyport audit key 1\n# a word\nkey: {base64.b64encode(bytes([7] * 32)).decode()}\n".encode())


def others():
    def slot(how, generation, bound, wall, instance=b"i"):
        return bytes([how]) + b"SPNONCE1" + struct.pack(">QQQ", generation, bound, wall) + instance * 16 + bytes(32)
    tail = bytes([20, 0, 5, 2, 5, 2, 5, 2])
    write("nonce_slot", "good", slot(3, 2, 1000, 1700000000) + slot(3, 1, 900, 1600000000) + tail)
    write("nonce_slot", "one-damaged", slot(3, 2, 1000, 1700000000) + slot(7, 1, 900, 1600000000) + tail)
    write("nonce_slot", "both-damaged", slot(7, 2, 1000, 1700000000) + slot(7, 1, 900, 1600000000) + tail)
    write("nonce_slot", "gap", slot(3, 8, 1000, 1700000000) + slot(3, 1, 900, 1600000000) + tail)
    write("nonce_slot", "bound-down", slot(3, 2, 100, 1700000000) + slot(3, 1, 900, 1600000000) + tail)
    write("nonce_slot", "future", slot(3, 2, 1000, 1 << 40) + slot(3, 1, 900, 1600000000) + tail)
    write("nonce_slot", "last", slot(3, 2, (1 << 63) - 20, 1700000000) + slot(3, 1, 900, 1600000000) + tail)
    write("nonce_slot", "version", slot(2, 2, 1000, 1700000000).replace(b"SPNONCE1", b"SPNONCE2") + slot(3, 1, 9, 9) + tail)
    record = struct.pack("<IIQQ", 65, 1, 7, 0)
    write("control", "dial", bytes([0, 24]) + record)
    write("control", "payload", bytes([0, 40]) + struct.pack("<IIQQ", 64, 0, 0, 0) + b"full\nseccomp\tact")
    write("control", "descriptors", bytes([12, 24]) + record + bytes([4, 24]) + record)
    write("control", "short", bytes([0, 23]) + record[:23])
    write("control", "long", bytes([3]) + struct.pack(">H", 20000))
    write("control", "largest", bytes([3]) + struct.pack(">H", 16384))
    write("control", "end", bytes([64, 24]) + record)
    write("sandbox_report", "good", b"full\nseccomp\tactive\t38 rules\nlandlock\tactive\tabi 2\n")
    write("sandbox_report", "strange", b"\x1b[31mfull\xff\n\t\t\t\n\nno end")
    write("sandbox_report", "many", b"full\n" + b"a\tb\tc\n" * 100)
    for name, text in {"get": "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "root": "GET / HTTP/1.0\n\n", "other": "POST /x HTTP/1.1\r\n\r\n",
                       "cut": "GET /metr", "long": "GET /" + "a" * 5000}.items():
        write("metrics", name, bytes([len(name) % 4]) + text.encode())
    write("canary", "found", b"bird")


def peers():
    header = struct.pack(">3I", 100, 7, 5) + bytes(4)
    for name, how in {"good": [1, 255, 255, 0], "unmade": [0, 255, 255, 0], "too-large": [1, 0, 99, 0], "wide": [1, 255, 255, 16]}.items():
        write("peer_header", name, bytes([0, 9, 8, 7, 6]) + header + bytes(how))
    for name, text in {"preamble": b"p2pf\x01\x01B\x00" + bytes(range(32)), "same": b"p2pf\x01\x01A\x00" + bytes(32),
                       "other": b"GET / HTTP/1.1\r\n", "behind": b"p2pf\x01\x01B\x00" + bytes(60)}.items():
        write("peer_header", name, bytes([1, 0, 49]) + text)
    two, take = [0, 5, *b"first", 8, 6, *b"second"], [4, 1, 0, 5, 200]
    # The first byte is the mode; see peer_frames_fuzz.cc for the rest.
    scripts = {"two": two + take, "one-code": [0, 2, 1, 2, 0, 2, 3, 4] + take, "end": two + [130] + take + [5, 9], "open": [2] + two + take,
               "large": [1, 0x40, 0, 4, 0xff, 0xff, 5, 9, 6, 0x40, 0], "slow": two + [3, 30, 5, 100, 132, 1, 0, 5, 100],
               "too-big": two + [3, 30, 5, 4, 4, 1, 0, 5, 200, 5, 200], "flip": two + [15, 1, 0, 20, 1] + take,
               "cut": two + [23, 10, 3] + take, "again": two + [31] + take, "reflected": [39, 1, 2, 3, 4] + take,
               "lie": [47, 0xff, 0xff, 16, 1] + take, "lie-small": [47, 0, 100, 0, 1] + two + take, "garbage": [7, 40] + [9] * 40 + take,
               "epochs": [0, 1, 1] * 20 + take, "after-end": [130, 7, 2, 1, 1] + take}
    for name, script in scripts.items():
        for mode in (0, 1):
            write("peer_frames", f"{name}-{'base' if mode == 0 else 'hard'}", bytes([mode] + script))


def hsm_frames():
    ask, answer, control = b"\0SPHQ", b"\2SPHA", b"\4SPHC"
    head = struct.pack(">IQ", 1, 7)
    write("hsm_frames", "hello", ask + head + b"\0")
    write("hsm_frames", "derive", ask + head + b"\2" + struct.pack(">HH", 3, 5) + bytes(range(32)))
    write("hsm_frames", "unwrap", ask + head + b"\5" + struct.pack(">HHB", 1, 2, 2) + bytes(32) + struct.pack(">H", 4) + b"blob")
    write("hsm_frames", "blob-too-long", ask + head + b"\5" + struct.pack(">HHB", 1, 2, 2) + bytes(32) + struct.pack(">H", 1025))
    write("hsm_frames", "generate", ask + head + b"\6\1" + struct.pack(">H", 2) + b"id" + bytes(62) + struct.pack(">H", 3) + b"key")
    write("hsm_frames", "login", ask + head + b"\12" + struct.pack(">HHB", 1, 6, 1))
    write("hsm_frames", "unknown-verb", ask + head + b"\77")
    write("hsm_frames", "cut", b"\1SPHQ" + head)
    write("hsm_frames", "refusal", answer + head + b"\5" + struct.pack(">I", 0xa0) + b"\0")
    write("hsm_frames", "signature", answer + head + b"\0" + bytes(4) + b"\3" + bytes(range(64)))
    write("hsm_frames", "refusal-with-result", answer + head + b"\5" + bytes(4) + b"\3" + bytes(range(64)))
    write("hsm_frames", "up", control + b"\0" + struct.pack(">IIB", 1, 4242, 0))
    write("hsm_frames", "died-of-a-flood", control + b"\1" + struct.pack(">IIBiI", 1, 4242, 22, 9, 100))
    write("hsm_frames", "keeper-died", control + b"\1" + struct.pack(">IIBiI", 7, 0, 23, 0, 0))
    write("hsm_frames", "kill", control + b"\4" + struct.pack(">IB", 1, 1))


for make in (packets, scripts, rpc, texts, files, audit, others, peers, hsm_frames):
    make()
