"""A vault that refuses with whatever it is told to, hangs, lies or talks nonsense: what a client must survive. For tests of clients."""

import contextlib
import os
import socket
import struct
import threading

import minicapnp
from minicapnp import Struct

PING = 1


def answer(question, results, caps=None):
    """A Return with results."""
    body = Struct(struct.pack("<IHH", question, 1, 0), [Struct(b"", [results, caps])])
    return minicapnp.encode(Struct(struct.pack("<H", 3), [body]))


def failure(question, kind):
    """A Return with an exception: 0 failed, 1 overloaded, 2 disconnected, 3 unimplemented."""
    exception = Struct(struct.pack("<HHH", 0, 0, kind), ["unimplemented" if kind == 3 else "the vault's own words"])
    return minicapnp.encode(Struct(struct.pack("<H", 3), [Struct(struct.pack("<IHH", question, 1, 1), [exception])]))


def refused(number):
    return Struct(b"", [Struct(struct.pack("<HH", number, 0), [None])])


class FakeVault:
    """Answers ping; what publicKey("NAME") gets is told by the name.

    refuse:N      refused with number N
    failed:N      an exception of kind N
    raw:HEX       these bytes instead of an answer
    hang          nothing
    hangup        the connection ends
    cut           half an answer, then the connection ends
    other         an answer to a question that nobody asked
    """

    def __init__(self, path):
        self.path = str(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(16)
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError, EOFError):
            file = connection.makefile("rb")
            while True:
                head = file.read(8)
                if len(head) < 8:
                    return
                segments, words = struct.unpack("<II", head)
                if segments != 0:
                    raise AssertionError("our clients send one segment")
                message = minicapnp._follow([file.read(8 * words)], 0, 0)
                tag, body = message.u16(0), message.pointer(0)
                if tag == 8:
                    connection.sendall(answer(body.u32(0), minicapnp.Cap(0), [Struct(struct.pack("<HHI", 1, 0, 0), [None])]))
                elif tag == 2 and body.u16(4) == PING:
                    connection.sendall(answer(body.u32(0), Struct(b"\1")))
                elif tag == 2 and not self._public_key(connection, body.u32(0), body.pointer(1).pointer(0).text(0)):
                    return

    @staticmethod
    def _public_key(connection, question, name):
        verb, _, argument = name.partition(":")
        if verb == "refuse":
            connection.sendall(answer(question, refused(int(argument))))
        elif verb == "failed":
            connection.sendall(failure(question, int(argument)))
        elif verb == "raw":
            connection.sendall(bytes.fromhex(argument))
        elif verb == "other":
            connection.sendall(answer(question + 5, refused(1)))
        elif verb == "cut":
            connection.sendall(answer(question, refused(1))[:-8])
        return verb not in ("hangup", "cut")

    def close(self):
        self.listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
