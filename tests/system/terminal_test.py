"""Goal: `sallyport up` on a terminal. vaultd asks for a passphrase there without echo, and Ctrl-C, also in the middle of the question,
leaves the terminal as it was. Ctrl-C reaches `up` alone, which stops netd first: a tunnel may end in its drain time, and the vault is there
until then.

Method: the real command on a pty, with one key sealed by a passphrase. What is typed goes through the pty's line discipline."""

import os
import pty
import select
import signal
import socket
import termios
import time
import unittest

from harness import SystemTest, binary

PATIENCE_S = 60
PASSPHRASE = "correct horse"
PROMPT = b"passphrase of key `server`: "
CTRL_C = b"\x03"


class OnATerminal:
    """The command with a terminal of its own."""

    def __init__(self, test, *command):
        self.output = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        test.addCleanup(self.close)

    def close(self):
        os.close(self.terminal)
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)

    def wait_for(self, words):
        deadline = time.monotonic() + PATIENCE_S
        while words not in self.output:
            ready = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0]
            if not ready or not self.read():
                raise AssertionError(f"no {words!r} in:\n{self.output.decode()}")

    def read(self):
        try:
            more = os.read(self.terminal, 4096)
        except OSError:  # nobody has the other end open any more
            more = b""
        self.output += more
        return more

    def type(self, keys):
        os.write(self.terminal, keys)

    def echoes(self):
        return bool(termios.tcgetattr(self.terminal)[3] & termios.ECHO)

    def end(self):
        """The exit status; what was printed until then is in `output`."""
        pid, self.pid = self.pid, 0
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        while select.select([self.terminal], [], [], 0)[0] and self.read():
            pass
        return status


class UpOnATerminal(SystemTest):
    def setUp(self):
        self.site_ = site = self.site("terminal")
        site.write_config()
        file = site.dir / "passphrase"
        file.write_text(PASSPHRASE + "\n")
        file.chmod(0o600)
        site.cli("key", "new", "server", "--passphrase-file", str(file))
        file.unlink()
        site.publics["server"] = None  # it is there
        self.echo = site.listen("echo", ["server"], "echo")
        site.peers["server"] = site.cli("key", "show", "server").stdout.decode().strip()
        self.plain = site.connect_entry("echo", ("127.0.0.1", self.echo), "server", key="server")
        site.write_config()

    def start(self):
        return OnATerminal(self, binary("sallyport"), "up", "-c", str(self.site_.config))

    def started(self):
        up = self.start()
        up.wait_for(PROMPT)
        up.type(PASSPHRASE.encode() + b"\n")
        up.wait_for(b"sallyport: ready:")
        return up

    def test_a_passphrase_is_asked_for_without_echo(self):
        up = self.start()
        up.wait_for(PROMPT)
        self.assertFalse(up.echoes())
        up.type(PASSPHRASE.encode() + b"\n")
        up.wait_for(b"sallyport: ready:")
        self.assertTrue(up.echoes())
        self.assertNotIn(PASSPHRASE.encode(), up.output)

    def test_a_wrong_passphrase_is_told(self):
        up = self.start()
        up.wait_for(PROMPT)
        up.type(b"wrong\n")
        self.assertNotEqual(up.end(), 0)
        self.assertIn(b"passphrase", up.output.split(PROMPT)[1])

    def test_ctrl_c_at_the_question_leaves_a_terminal_with_echo(self):
        for _ in range(10):  # it may come just before the wait for a line
            up = self.start()
            up.wait_for(PROMPT)
            up.type(CTRL_C)
            up.end()
            self.assertTrue(up.echoes())
            self.assertNotIn(b"ready", up.output)
            self.assertNotIn(b"killed", up.output)

    def test_ctrl_c_stops_netd_first_and_a_tunnel_may_end_meanwhile(self):
        up = self.started()
        with socket.create_connection(("127.0.0.1", self.plain), timeout=PATIENCE_S) as tunnel:
            tunnel.sendall(b"before")
            self.assertEqual(tunnel.recv(6, socket.MSG_WAITALL), b"before")
            up.type(CTRL_C)
            up.wait_for(b"netd: draining")
            self.assertTrue(self.site_.vault_status())  # it still serves
            tunnel.sendall(b"within")
            self.assertEqual(tunnel.recv(6, socket.MSG_WAITALL), b"within")
        self.assertEqual(up.end(), 0)
        self.assertNotIn(b"vault lost", up.output)
        self.assertLess(up.output.index(b"netd: draining"), up.output.index(b"vaultd: stopped"))


if __name__ == "__main__":
    unittest.main()
