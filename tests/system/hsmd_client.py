"""An hsmd of a test's own: started as vaultd starts it, spoken to in frames of proto/hsm/frames.h by a codec written from that
header's text alone. What the two disagree on fails a test.

    with Hsmd(token) as hsm:
        key = hsm.ask("generate", kind="x25519", id=b"1", label=b"server")
        shared = hsm.derive(key["index"], peer)
"""

import fcntl
import mmap
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

from harness import STOP_TIMEOUT_S, binary, require_no_report, toml_value

SLOT_BYTES, SLOTS, PAGE_BYTES = 64, 64, 65536
MESSAGE_AT = SLOT_BYTES * SLOTS
REQUEST_BYTES = REPLY_BYTES = 1152
CONTROL_BYTES = 256
UP_TIMEOUT_S = 20
REPLY_TIMEOUT_S = 30

STATUSES = ["ok", "noModule", "noToken", "ambiguousToken", "noKey", "pinWrong", "pinLocked", "pinLowRefused", "pinFinalTryRefused",
            "pinUnset", "notLoggedIn", "deviceRemoved", "sessionLimit", "moduleFailed", "badResult", "unsupported", "blobRejected",
            "badRequest", "staleEpoch", "keyExists", "readOnly", "starting",
            "saidTooMuch", "keeperDied", "moduleHangs"]
KINDS = ["other", "x25519", "ed25519", "aes", "rsa"]
SPELLINGS = ["none", "montgomery", "montgomery-name", "edwards-name", "edwards", "ec"]
ALGORITHMS = [None, "aes-gcm", "rsa-oaep-sha256", "rsa-oaep-sha1"]
TRIALS = ["untried", "works", "refused", "wrong result", "crashed", "timed out"]
FORMS = ["raw", "octets"]
KILLS = ["deadline", "memory", "operator", "garbage", "newKey"]

# name, then (field, type): u8..u64 and i32 big-endian, flag, a number of bytes, "sN" for a bounded field of N, or a list of words.
ASKS = [("hello",), ("list", ("index", "u16")),
        ("derive", ("key", "u16"), ("slot", "u16"), ("peer", 32)),
        ("sign", ("key", "u16"), ("messageBytes", "u32")),
        ("wrap", ("key", "u16"), ("slot", "u16"), ("algorithm", ALGORITHMS), ("bound", 32)),
        ("unwrap", ("key", "u16"), ("slot", "u16"), ("algorithm", ALGORITHMS), ("bound", 32), ("blob", "s1024")),
        ("generate", ("kind", KINDS), ("id", "s64"), ("label", "s64")),
        ("import", ("kind", KINDS), ("slot", "u16"), ("id", "s64"), ("label", "s64")),
        ("random", ("slot", "u16"), ("bytes", "u16")), ("ping",),
        ("login", ("slot", "u16"), ("pinBytes", "u16"), ("force", "flag")), ("logout",), ("probe", ("index", "u16"))]
ANSWERS = [("done",),
           ("hello", ("version", "u16"), ("login", STATUSES), ("tokenFlags", "u32"), ("keyCount", "u16"), ("sessions", "u16"),
            ("module", "s64"), ("label", "s32"), ("manufacturer", "s32"), ("model", "s32"), ("serial", "s32")),
           ("key", ("index", "u16"), ("count", "u16"), ("kind", KINDS), ("spelling", SPELLINGS), ("form", FORMS),
            ("proof", STATUSES), ("sensitive", "flag"), ("extractable", "flag"), ("gcm", "flag"), ("oaepSha256", "flag"),
            ("oaepSha1", "flag"), ("bits", "u16"), ("publicKey", 32), ("id", "s64"), ("label", "s64")),
           ("signature", ("signature", 64)), ("wrapped", ("blob", "s1024")),
           ("ping", ("rssKiB", "u64"), ("calls", "u64"), ("threads", "u32"), ("recoveries", "u32")),
           ("probe", ("index", "u16"), ("count", "u16"), ("what", "s48"), ("trial", TRIALS), ("ckr", "u32"),
            ("microseconds", "u32"), ("call", "s24"))]
CONTROLS = [("up", ("epoch", "u32"), ("pid", "u32"), ("login", STATUSES), ("detail", "s200")),
            ("died", ("epoch", "u32"), ("pid", "u32"), ("status", STATUSES), ("waitStatus", "i32"), ("restartInMs", "u32"),
             ("detail", "s200")),
            ("layer", ("epoch", "u32"), ("layer", "s16"), ("state", "u8"), ("detail", "s160")),
            ("denials", ("epoch", "u32"), ("total", "u64"), ("lastCall", "s32")),
            ("kill", ("epoch", "u32"), ("reason", KILLS)), ("stop",),
            ("hung", ("epoch", "u32"), ("afterMs", "u32"), ("what", "s200"))]
NUMBERS = {"u8": ">B", "u16": ">H", "u32": ">I", "u64": ">Q", "i32": ">i", "flag": ">?"}
LAYER_STATES = ["active", "unavailable", "disabled", "failed"]  # sandbox::LayerState


def encode(fields, values):
    out = b""
    for name, kind in fields:
        value = values[name]
        if isinstance(kind, list):
            out += bytes([kind.index(value)])
        elif isinstance(kind, int):
            assert len(value) == kind, name
            out += value
        elif kind in NUMBERS:
            out += struct.pack(NUMBERS[kind], value)
        else:
            out += struct.pack(">H", len(value)) + value.ljust(int(kind[1:]), b"\0")
    return out


def decode(fields, data):
    values, at = {}, 0
    for name, kind in fields:
        if isinstance(kind, list):
            values[name] = kind[data[at]]
            at += 1
        elif isinstance(kind, int):
            values[name] = data[at:at + kind]
            at += kind
        elif kind in NUMBERS:
            values[name], = struct.unpack_from(NUMBERS[kind], data, at)
            at += struct.calcsize(NUMBERS[kind])
        else:
            length, room = struct.unpack_from(">H", data, at)[0], int(kind[1:])
            assert length <= room, f"{name}: {length} of {room}"
            values[name] = data[at + 2:at + 2 + length]
            assert not any(data[at + 2 + length:at + 2 + room]), f"{name}: padding"
            at += 2 + room
    assert not any(data[at:]), "padding"
    return values


class Refused(Exception):
    """A reply whose status isn't ok."""

    def __init__(self, status, ckr):
        super().__init__(f"{status} (CKR 0x{ckr:x})")
        self.status, self.ckr = status, ckr


class WorkerGone(Exception):
    """The worker died before it answered."""


class Hsmd:
    def __init__(self, token, operator=False, name="hsm", wait=True, sandbox="full", **config):
        self.token, self.name, self.operator = token, name, operator
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sallyport-hsmd-"))
        self.dir.chmod(0o755)
        table = token.config(**config)
        lines = [f'require_sandbox = "{sandbox}"', "[vault]", 'keys = "keys"', f"[token.{name}]"]
        lines += [f"{key} = {toml_value(value)}" for key, value in table.items()]
        (self.dir / "sallyport.toml").write_text("\n".join(lines) + "\n")
        self.events, self.replies = [], {}
        self.epoch, self.pid, self.login_status, self.alive = 0, 0, None, False
        self.layers, self.denials = {}, (0, "")
        self.next_id, self.next_slot = 1, 0
        self.start()
        try:
            if wait:
                self.wait_up()
        except BaseException:
            self.__exit__()
            raise

    def start(self):
        self.calls, calls = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        page = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(page, PAGE_BYTES)
        fcntl.fcntl(page, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.page = mmap.mmap(page, PAGE_BYTES)
        fds = [calls.fileno(), control.fileno(), page]
        self.log_path = self.dir / "log"
        with open(self.log_path, "wb") as log:
            self.keeper = subprocess.Popen(
                [binary("token-guard"), "--config", str(self.dir / "sallyport.toml"), "--token", self.name, "--calls-fd", str(fds[0]),
                 "--control-fd", str(fds[1]), "--page-fd", str(fds[2]), *(["--operator"] if self.operator else [])],
                pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        calls.close()
        control.close()
        os.close(page)

    def log(self):
        return self.log_path.read_text(errors="replace")

    # -- events

    def take_control(self, frame):
        assert len(frame) == CONTROL_BYTES and frame[:4] == b"SPHC", frame[:8]
        name, *fields = CONTROLS[frame[4]]
        event = decode(fields, frame[5:])
        self.events.append((name, event))
        if name == "up":
            self.epoch, self.pid, self.login_status, self.alive = event["epoch"], event["pid"], event["login"], True
            self.layers, self.denials = {}, (0, "")
        elif name == "died":
            self.alive = False
        elif name == "layer":
            self.layers[event["layer"].decode()] = (LAYER_STATES[event["state"]], event["detail"].decode())
        elif name == "denials":
            self.denials = (event["total"], event["lastCall"].decode())

    def take_reply(self, frame):
        assert len(frame) == REPLY_BYTES and frame[:4] == b"SPHA", frame[:8]
        epoch, identifier, status, ckr, kind = struct.unpack_from(">IQBIB", frame, 4)
        self.replies[identifier] = (STATUSES[status], ckr, epoch, decode(ANSWERS[kind][1:], frame[22:]))

    def pump(self, timeout):
        """Takes what has come within `timeout` seconds. False at the end of the keeper."""
        for sock in select.select([self.control, self.calls], [], [], timeout)[0]:
            try:
                frame = sock.recv(REPLY_BYTES + 1)
            except ConnectionResetError:
                frame = b""
            if not frame:
                return False
            (self.take_control if sock is self.control else self.take_reply)(frame)
        return True

    def wait(self, condition, timeout, what):
        deadline = time.monotonic() + timeout
        self.pump(0)
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not self.pump(min(left, 0.5)):
                raise AssertionError(f"{what}: not within {timeout} s, keeper {self.keeper.poll()}\n{self.events[-5:]}\n{self.log()}")

    def wait_up(self, after=0, timeout=UP_TIMEOUT_S):
        """A worker of an epoch beyond `after`."""
        self.wait(lambda: self.alive and self.epoch > after, timeout, "the worker is up")
        return self

    def wait_layers(self):
        """Its whole sandbox report. An operator's worker isn't locked down: it probes in children."""
        self.wait(lambda: "seccomp" in self.layers, UP_TIMEOUT_S, "the sandbox report")
        return self.layers

    def wait_died(self, epoch=None, timeout=UP_TIMEOUT_S):
        epoch = epoch or self.epoch

        def died():
            return next((event for name, event in self.events if name == "died" and event["epoch"] >= epoch), None)
        self.wait(died, timeout, f"worker {epoch} has died")
        return died()

    # -- verbs

    def send(self, verb, epoch=None, **values):
        """Without waiting for the answer; returns the request's id."""
        kind = next(i for i, ask in enumerate(ASKS) if ask[0] == verb)
        identifier, self.next_id = self.next_id, self.next_id + 1
        frame = b"SPHQ" + struct.pack(">IQB", self.epoch if epoch is None else epoch, identifier, kind)
        frame += encode(ASKS[kind][1:], values)
        self.calls.send(frame.ljust(REQUEST_BYTES, b"\0"))
        return identifier

    def receive(self, identifier, timeout=REPLY_TIMEOUT_S):
        epoch = self.epoch

        def there():
            return identifier in self.replies or not self.alive or self.epoch != epoch
        self.wait(there, timeout, f"reply {identifier}")
        if identifier not in self.replies:
            raise WorkerGone()
        status, ckr, _, values = self.replies.pop(identifier)
        if status != "ok":
            raise Refused(status, ckr)
        return values

    def ask(self, verb, timeout=REPLY_TIMEOUT_S, **values):
        return self.receive(self.send(verb, **values), timeout)

    def status_of(self, verb, **values):
        """The status alone."""
        try:
            self.ask(verb, **values)
            return "ok"
        except Refused as refused:
            return refused.status

    def slot(self):
        self.next_slot = (self.next_slot + 1) % SLOTS
        return self.next_slot

    def put(self, slot, secret):
        self.page[slot * SLOT_BYTES:slot * SLOT_BYTES + len(secret)] = secret

    def get(self, slot, size=32):
        """Reads and wipes, as whoever reads must."""
        at = slot * SLOT_BYTES
        secret = self.page[at:at + size]
        self.page[at:at + SLOT_BYTES] = bytes(SLOT_BYTES)
        return secret

    def derive(self, key, peer):
        slot = self.slot()
        self.ask("derive", key=key, slot=slot, peer=peer)
        return self.get(slot)

    def sign(self, key, message):
        self.page[MESSAGE_AT:MESSAGE_AT + len(message)] = message
        return self.ask("sign", key=key, messageBytes=len(message))["signature"]

    def wrap(self, key, secret, algorithm, bound=bytes(32)):
        slot = self.slot()
        self.put(slot, secret)
        blob = self.ask("wrap", key=key, slot=slot, algorithm=algorithm, bound=bound)["blob"]
        assert not any(self.get(slot)), "the worker didn't wipe what it wrapped"
        return blob

    def unwrap(self, key, blob, algorithm, bound=bytes(32)):
        slot = self.slot()
        self.ask("unwrap", key=key, slot=slot, algorithm=algorithm, bound=bound, blob=blob)
        return self.get(slot)

    def import_key(self, kind, secret, identifier, label=b""):
        slot = self.slot()
        self.put(slot, secret)
        info = self.ask("import", kind=kind, slot=slot, id=identifier, label=label)
        assert not any(self.get(slot)), "the worker didn't wipe what it imported"
        return info

    def log_in(self, pin, force=False):
        slot = self.slot()
        self.put(slot, pin.encode())
        status = self.status_of("login", slot=slot, pinBytes=len(pin), force=force)
        assert not any(self.get(slot, SLOT_BYTES)), "the worker didn't wipe the PIN"
        if status == "ok" and self.login_status != "ok":
            self.wait_up(after=self.epoch)  # which finds and proves its keys before it is locked down
        return status

    def keys(self):
        count = self.ask("hello")["keyCount"]
        return [self.ask("list", index=index) for index in range(count)]

    def probe(self):
        """{what: (trial, ckr)}."""
        first = self.ask("probe", index=0, timeout=120)
        lines = [first] + [self.ask("probe", index=index, timeout=120) for index in range(1, first["count"])]
        return {line["what"].decode(): (line["trial"], line["ckr"]) for line in lines}

    def kill(self, reason="operator"):
        self.control.send((b"SPHC" + bytes([4]) + struct.pack(">IB", self.epoch, KILLS.index(reason))).ljust(CONTROL_BYTES, b"\0"))

    # -- end

    def close(self):
        """By closing the control socket, as a vault that died does; all that hsmd started has to end."""
        self.control.close()
        self.calls.close()
        self.alive = False
        try:
            self.keeper.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.keeper.pid, signal.SIGKILL)
            self.keeper.wait()
            raise AssertionError(f"hsmd outlives its control socket\n{self.log()}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
        log = self.log()
        shutil.rmtree(self.dir, ignore_errors=True)
        require_no_report(log)
