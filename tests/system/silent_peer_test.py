#!/usr/bin/python3
"""Goal: a host that is gone is told from a program that pauses. Bytes that nobody acknowledges for `user_timeout_ms` end the session, with
a reset for the program here; a reader may pause for as long as it likes while its host lives, and then gets every byte.
Method: a host that is gone is a socket whose filter drops all that arrives, so that its kernel acknowledges nothing.
"""

import ctypes
import socket
import struct
import threading
import time
import unittest

from harness import SystemTest
from traffic import Service, patterned, plain, read_all, sha256

LIMIT_MS = 1000
SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K, 0 bytes
SIZE = 48 << 20  # more than all sockets on the way hold


def fall_silent(sock):
    program = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


class SilentPeer(SystemTest):
    def start(self, handler, **limits):
        site = self.site("silent")
        site.limits.update(limits)
        self.alice = site.peer("alice")
        site.peer("client", site.key("client"))
        service = Service(handler)
        self.addCleanup(service.close)
        self.port = site.listen("tunnel", ["alice", "client"], service.where)
        site.listen("echo", ["alice"], "echo")
        site.peer("server", site.publics["server"])
        self.plain = site.connect_entry("tunnel", ("127.0.0.1", self.port), "server")
        site.start()
        return site, service

    def gone(self, **limits):
        """A session whose peer is gone, and whose service has just sent it something."""
        speak = threading.Event()

        def handler(sock, arrival):
            speak.wait(20)
            sock.sendall(b"anybody there")
            while piece := sock.recv(4096):
                arrival.data += piece
            arrival.end = "eof"

        site, service = self.start(handler, **limits)
        before = site.drops()
        client = site.connect(self.port, self.alice)
        self.addCleanup(client.close)
        service.arrival()
        fall_silent(client.sock)
        began = time.monotonic()
        speak.set()
        return site, service, before, began

    def test_a_host_that_acknowledges_nothing_is_gone(self):
        site, service, before, began = self.gone(user_timeout_ms=LIMIT_MS)
        arrival = service.ended(timeout=20)
        self.assertGreaterEqual(time.monotonic() - began, LIMIT_MS / 1000)
        self.assertEqual(arrival.end, "reset")
        self.assert_dropped(site, before, ["transport_error"])

    def test_without_a_limit_the_kernel_decides(self):
        _, service, _, _ = self.gone(user_timeout_ms=0)
        self.assertFalse(service.arrival().done.wait(3 * LIMIT_MS / 1000))

    def test_a_reader_that_pauses_loses_nothing(self):
        data = patterned(SIZE)

        def handler(sock, arrival):
            sock.sendall(data)
            arrival.end = "sent"

        site, _ = self.start(handler, user_timeout_ms=LIMIT_MS)
        before = site.drops()
        with plain(self.plain) as client:
            time.sleep(6 * LIMIT_MS / 1000)
            got, end = read_all(client)
        self.assertEqual((len(got), end), (SIZE, "eof"))
        self.assertEqual(sha256(got), sha256(data))
        self.assertEqual(site.drops_since(before), {})

    def test_an_idle_session_is_left_alone(self):
        site, service = self.start(None, user_timeout_ms=LIMIT_MS)
        with plain(self.plain) as client:
            service.arrival()
            time.sleep(3 * LIMIT_MS / 1000)
            client.sendall(b"still here")
            client.shutdown(socket.SHUT_WR)
            self.assertEqual(read_all(client), (b"still here", "eof"))


if __name__ == "__main__":
    unittest.main()
