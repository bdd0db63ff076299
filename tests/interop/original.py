"""The original curve_tun, run as a peer: an Erlang process with original.escript, driven over its standard input and output.

Nothing of the original is in this repository. $SALLYPORT_ORIGINAL names a folder with the compiled applications `curve_tun` and `enacl`
in it, each with its `ebin`, enacl with its `priv`; CONTRIBUTING.md tells in words how they are made.

What it does otherwise than one may think is in docs/protocol.md §15.

Requests run beside each other; `ask` gives a future, everything else waits. What fails over there is `Failed`, with the original's words.
"""

import base64
import concurrent.futures
import contextlib
import hashlib
import itertools
import os
import pathlib
import subprocess
import sys
import threading

SKIPPED = 77  # meson's word for it
START_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 90
SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 4096, 16384, 32768, 65471, 65472, 65502, 65503]
MIXED = [1, 63, 64, 4096, 7, 65503, 300]  # of floods
THOUSANDS = 4000


def folder():
    """$SALLYPORT_ORIGINAL; ends the program when there is no original to be run."""
    named = os.environ.get("SALLYPORT_ORIGINAL")
    if not named:
        print("skipped: SALLYPORT_ORIGINAL is not set: the folder with the original's compiled modules (CONTRIBUTING.md)", file=sys.stderr)
        sys.exit(SKIPPED)
    path = pathlib.Path(named).resolve()
    for needed in ("curve_tun/ebin/curve_tun.beam", "curve_tun/ebin/curve_tun.app", "enacl/ebin/enacl.beam", "enacl/ebin/enacl.app",
                   "enacl/priv/enacl_nif.so"):
        if not (path / needed).is_file():
            sys.exit(f"SALLYPORT_ORIGINAL={named}: there is no {needed} in it")
    return path


def message(seed, number, size):
    """Message `number` of a flood, as in original.escript."""
    block = hashlib.sha256(seed.to_bytes(8, "big") + number.to_bytes(8, "big")).digest()
    return (block * (size // 32 + 1))[:size]


def messages(count, seed, sizes):
    return [message(seed, number, sizes[number % len(sizes)]) for number in range(count)]


def thousands_both_ways(network, channel, session):
    """Floods both ends at once; returns what the channel received, and what it should have."""
    ours = messages(THOUSANDS, 2, MIXED)
    drained, sent = session.drain(THOUSANDS, 2, MIXED), session.flood(THOUSANDS, 1, MIXED)
    received = []
    for at in range(0, THOUSANDS, 20):
        question = channel.start_send(ours[at:at + 20])
        received += channel.receive_all(20)
        channel.sent(network.rpc.wait(question, 30))
    sent.result(30)
    drained.result(30)
    return received, messages(THOUSANDS, 1, MIXED)


def _word(value):
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode() or "="
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def _text(word):
    return b"" if word == "=" else base64.b64decode(word, validate=True)


class Failed(Exception):
    """The original's answer to a request that it didn't carry out."""


class Original:
    def __init__(self):
        script = pathlib.Path(__file__).resolve().with_name("original.escript")
        self.process = subprocess.Popen(["escript", str(script)], env={**os.environ, "ERL_LIBS": str(folder())},
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._waiting = {"0": concurrent.futures.Future()}
        started = self._waiting["0"]
        self._tags, self._names = itertools.count(1), itertools.count(1)
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        started.result(START_TIMEOUT_S)
        self.public = _text(self.do("key")[0])

    def _read(self):
        for line in self.process.stdout:
            tag, verdict, *words = line.decode("latin1").rstrip("\n").split(" ")
            with self._lock:
                future = self._waiting.pop(tag)
            if verdict == "ok":
                future.set_result(words)
            else:
                future.set_exception(Failed(" ".join(words)))
        with self._lock:
            for future in self._waiting.values():
                future.set_exception(Failed("the original's process has ended"))
            self._waiting.clear()

    def ask(self, verb, *arguments):
        """The future of the answer's words."""
        future = concurrent.futures.Future()
        with self._lock:
            tag = str(next(self._tags))
            self._waiting[tag] = future
            self.process.stdin.write(" ".join([tag, verb, *map(_word, arguments)]).encode() + b"\n")
            self.process.stdin.flush()
        return future

    def do(self, verb, *arguments):
        return self.ask(verb, *arguments).result(ANSWER_TIMEOUT_S)

    def allow(self, key, ip="127.0.0.1"):
        """From now on, the one key that is taken from that address."""
        self.do("allow", ip, key)

    def connect(self, port, key, ip="127.0.0.1"):
        socket = OriginalSocket(self, f"s{next(self._names)}")
        self.do("connect", socket.name, port, key, ip)
        return socket

    def listen(self, port):
        return OriginalListener(self, port)

    def kill(self):
        """As the kernel ends a program: its sockets are closed without a word."""
        self.process.kill()
        self.process.wait()

    def close(self):
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()


class OriginalListener:
    def __init__(self, original, port):
        self.original, self.port, self.name = original, port, f"l{port}"
        original.do("listen", self.name, port)

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    def start_accept(self, timeout_ms=ANSWER_TIMEOUT_S * 1000):
        """(the socket, the future of its handshake)"""
        socket = OriginalSocket(self.original, f"s{next(self.original._names)}")
        return socket, self.original.ask("accept", socket.name, self.name, timeout_ms)

    def accept(self, timeout_ms=20000):
        socket, done = self.start_accept(timeout_ms)
        done.result(ANSWER_TIMEOUT_S)
        return socket


class OriginalSocket:
    def __init__(self, original, name):
        self.original, self.name = original, name

    def send(self, *texts):
        self.original.do("send", self.name, *texts)

    def receive(self, timeout_ms=20000):
        """The next message. A time-out makes the original lose the one after it: no test may count on going on."""
        return _text(self.original.do("recv", self.name, timeout_ms)[0])

    def flood(self, count, seed, sizes):
        return self.original.ask("flood", self.name, count, seed, sizes)

    def drain(self, count, seed, sizes):
        return self.original.ask("drain", self.name, count, seed, sizes)

    def bytes(self, count):
        """The future of (SHA-256,) of the next `count` bytes."""
        return self.original.ask("bytes", self.name, count)

    def stream(self):
        """(bytes, SHA-256) up to the empty message."""
        count, digest = self.original.do("stream", self.name)
        return int(count), digest.lower()

    def echo(self, count):
        """The future of having returned the next `count` messages."""
        return self.original.ask("echo", self.name, count)

    def ended(self, timeout_ms=10000):
        """Waits for the end of the connection: "closed" or "open". A message before that is `Failed`."""
        return self.original.do("ended", self.name, timeout_ms)[0]

    def close(self):
        self.original.do("close", self.name)
