"""Plain services, plain clients and a man in the middle, for the tests of tunnels."""

import fcntl
import hashlib
import os
import random
import select
import socket
import struct
import termios
import threading
import time


def patterned(size, seed=1):
    return random.Random(seed).randbytes(size)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def reset(sock):
    """Closes with a TCP reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_all(sock, timeout=30.0):
    """(bytes, "eof" | "reset" | "open")"""
    sock.settimeout(timeout)
    parts = []
    while True:
        try:
            piece = sock.recv(262144)
        except (ConnectionResetError, BrokenPipeError):
            return b"".join(parts), "reset"
        except socket.timeout:
            return b"".join(parts), "open"
        if not piece:
            return b"".join(parts), "eof"
        parts.append(piece)


def read_count(sock, count, timeout=30.0):
    sock.settimeout(timeout)
    data = bytearray()
    while len(data) < count:
        piece = sock.recv(min(262144, count - len(data)))
        if not piece:
            raise EOFError(f"{len(data)} of {count} bytes, then the end")
        data += piece
    return bytes(data)


def acknowledged(sock, timeout=3.0):
    """Whether the other kernel has, within that time, all that was sent."""
    deadline = time.monotonic() + timeout
    while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0] > 0:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


class ResetSocket:
    """A connection that was reset before connect() had returned, as may happen on loopback: like any that was reset."""

    def recv(self, _count):
        raise ConnectionResetError("reset before connect returned")

    sendall = recv

    def settimeout(self, _timeout):
        pass

    def close(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def plain(address, timeout=10.0):
    """A connection to a plain listener: a port on loopback, a (host, port), or a path."""
    if isinstance(address, int):
        address = ("127.0.0.1", address)
    if isinstance(address, tuple):
        try:
            sock = socket.create_connection(address, timeout)
        except ConnectionResetError:
            return ResetSocket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(str(address))
    return sock


class Arrival:
    """What a service got on one connection."""

    def __init__(self):
        self.data = bytearray()
        self.end = "open"
        self.done = threading.Event()


class Service:
    """A plain TCP (or, with `path`, Unix) service. Without `handler` it returns each byte and, after the end, closes its side."""

    def __init__(self, handler=None, path=None, host="127.0.0.1"):
        if path is None:
            self.listener = socket.create_server((host, 0), backlog=1024, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
            self.port = self.listener.getsockname()[1]
            self.where = f"tcp:[{host}]:{self.port}" if ":" in host else f"tcp:{host}:{self.port}"
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(str(path))
            os.chmod(path, 0o777)
            self.listener.listen(1024)
            self.where = f"unix:{path}"
        self.handler = handler or self._echo
        self.arrivals = []
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            arrival = Arrival()
            self.arrivals.append(arrival)
            self.sockets.append(sock)
            threading.Thread(target=self._run, args=(sock, arrival), daemon=True).start()

    def _run(self, sock, arrival):
        try:
            self.handler(sock, arrival)
        except (ConnectionResetError, BrokenPipeError):
            arrival.end = "reset"
        except OSError:
            pass
        finally:
            arrival.done.set()
            sock.close()

    @staticmethod
    def _echo(sock, arrival):
        while True:
            piece = sock.recv(262144)
            if not piece:
                arrival.end = "eof"
                sock.shutdown(socket.SHUT_WR)
                return
            arrival.data += piece
            sock.sendall(piece)

    @staticmethod
    def swallow(sock, arrival):
        """Takes all, answers nothing."""
        while True:
            piece = sock.recv(262144)
            if not piece:
                arrival.end = "eof"
                return
            arrival.data += piece

    def arrival(self, index=0, timeout=10.0):
        deadline = time.monotonic() + timeout
        while len(self.arrivals) <= index:
            if time.monotonic() > deadline:
                raise AssertionError(f"the service got {len(self.arrivals)} connections, not {index + 1}")
            time.sleep(0.01)
        return self.arrivals[index]

    def ended(self, index=0, timeout=10.0):
        """The arrival after its end."""
        arrival = self.arrival(index, timeout)
        if not arrival.done.wait(timeout):
            raise AssertionError("the service's connection didn't end")
        return arrival

    def close(self):
        for sock in [self.listener, *self.sockets]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# How a Service may behave instead of echoing.

def speaks_first(sock, arrival):
    sock.sendall(b"220 welcome\r\n")
    Service._echo(sock, arrival)


def answers_after_end(sock, arrival):
    arrival.data += read_all(sock)[0]
    arrival.end = "eof"
    sock.sendall(sha256(bytes(arrival.data)).encode())


def ends_first(sock, arrival):
    sock.sendall(b"all I have to say")
    sock.shutdown(socket.SHUT_WR)
    data, arrival.end = read_all(sock)
    arrival.data += data


class Line:
    """The two sockets of one connection through a Mitm. Nobody closes a socket in which another thread still sits: the reset would
    not go out before that one wakes up. So receivers look up often, and the last to leave closes both."""

    TICK_MS = 20

    def __init__(self, client, server):
        self.client, self.server = client, server
        for sock in (client, server):
            sock.settimeout(30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cut = threading.Event()   # a FIN was injected
        self.dead = threading.Event()  # to be reset on both sides
        self.users = 2
        self.lock = threading.Lock()

    def receive(self, source):
        """The next piece; None at the end."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while not self.dead.is_set():
            if poll.poll(self.TICK_MS):
                return source.recv(16384) or None
        return None

    def leave(self):
        with self.lock:
            self.users -= 1
            if self.users:
                return
        for sock in (self.client, self.server):
            if self.dead.is_set():
                reset(sock)
            else:
                sock.close()


class Mitm:
    """A TCP proxy that sees the wire. `attack(direction, offset, data)` gets each piece ("up" is from client to server, offset counts
    the bytes of that direction) and returns the bytes to pass on, or "fin" / "rst" to end both sides so, or both: (bytes, "rst")."""

    def __init__(self, target, attack=None):
        self.target = target
        self.attack = attack or (lambda direction, offset, data: data)
        self.recorded = {"up": bytearray(), "down": bytearray()}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.lines = []
        self.closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.closed:
            try:
                client, _ = self.listener.accept()
            except OSError:
                continue
            try:
                line = Line(client, socket.create_connection(self.target, 10))
            except OSError:
                reset(client)
                continue
            self.lines.append(line)
            attack = self.attack  # of this connection, also when the next one gets another
            for way in (("up", line, line.client, line.server, attack), ("down", line, line.server, line.client, attack)):
                threading.Thread(target=self._pass, args=way, daemon=True).start()

    def _pass(self, direction, line, source, sink, attack):
        offset = 0
        try:
            while (piece := line.receive(source)) is not None:
                if line.cut.is_set():
                    continue  # after an injected FIN: swallow, so that no reset of the kernel's spoils the picture
                self.recorded[direction] += piece
                out = attack(direction, offset, piece)
                offset += len(piece)
                if isinstance(out, tuple):
                    sink.sendall(out[0])
                    out = out[1]
                if out == "fin":
                    line.cut.set()
                    source.shutdown(socket.SHUT_WR)
                    sink.shutdown(socket.SHUT_WR)
                elif out == "rst":
                    line.dead.set()
                else:
                    sink.sendall(out)
            if not line.cut.is_set() and not line.dead.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            line.dead.set()
        line.leave()

    def close(self):
        self.closed = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for line in self.lines:
            line.dead.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
