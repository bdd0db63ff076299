"""What the demo stands on: saying and expecting things, starting and ending programs, and the props that the show needs.
"""

import pwd
import signal
import socket
import subprocess
import threading
import time

START_TIMEOUT_S = 30


class Failed(Exception):
    """An expectation did not hold."""


def say(text=""):
    print(text, flush=True)


def step(number, text):
    say(f"\n{number}. {text}")


def expect(condition, what, reason=""):
    if not condition:
        raise Failed(f"{what}{': ' + reason if reason else ''}")
    say(f"   ok: {what}")


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_until(condition, what, timeout=START_TIMEOUT_S):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise Failed(f"{what} did not happen within {timeout} s")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


# --- the programs around us ---------------------------------------------------------------------------------


class Programs:
    """Started by us, ended by us, in reverse order."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []

    def start(self, name, command, user=None, **options):
        log = open(self.folder / f"{name}.log", "ab")
        account = {}
        if user:
            account = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   **account, **options)
        log.close()
        self.running.append((name, process))
        return process

    def log_of(self, name):
        try:
            return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]
        except OSError:
            return ""

    def check_alive(self):
        for name, process in self.running:
            if process.poll() is not None:
                raise Failed(f"{name} ended by itself with status {process.returncode}; its log:\n{self.log_of(name)}")

    def stop(self):
        for _, process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.running = []


class Till(threading.Thread):
    """A service on which a replay would cost money: every line it reads is a payment made."""

    def __init__(self):
        super().__init__(daemon=True)
        self.payments = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rwb") as stream:
            try:
                for line in stream:
                    self.payments.append(line.strip())
                    stream.write(b"paid " + line)
                    stream.flush()
            except OSError:
                pass


class Wiretap(threading.Thread):
    """The attacker on the path: passes every byte on, and keeps what the client sent."""

    def __init__(self, target_port):
        super().__init__(daemon=True)
        self.target_port = target_port
        self.recorded = bytearray()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target_port))
            threading.Thread(target=self.pump, args=(client, server, self.recorded), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, None), daemon=True).start()

    @staticmethod
    def pump(source, sink, keep):
        try:
            while data := source.recv(65536):
                if keep is not None:
                    keep += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
