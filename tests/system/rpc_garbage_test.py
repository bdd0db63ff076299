#!/usr/bin/python3
"""Goal: whatever a local program sends to the vault's and netd's sockets costs that program its connection, and nothing else: garbage, the
header FF FF FF FF, huge messages, clients that never read, ten thousand unanswered calls, leaked objects, capabilities in parameters,
connections held open. Memory stays bounded, both daemons keep their process ids, the cut-offs are counted.
"""

import os
import random
import socket
import struct
import time
import unittest

from harness import SystemTest, memory_limit, minicapnp, resident_kib, wait_until
from minicapnp import (CHANNEL, LISTENER, NETWORK, VAULT_ADMIN, VAULT_APP, VAULT_NET, Struct, bootstrap_message, call_message,
                       finish_message)

# name: (file, the interface behind it, a method without parameters)
SOCKETS = {"app": ("vault.sock", VAULT_APP, 1), "vault-net": ("vault-net.sock", VAULT_NET, 3),
           "admin": ("vault-admin.sock", VAULT_ADMIN, 0), "net": ("net.sock", NETWORK, 2)}
GROWTH_KIB = memory_limit(48 * 1024)


class RpcGarbage(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.host = site = cls.class_site("rpc")
        site.peer("client", site.key("client"))
        cls.alice = site.peer("alice")
        cls.port = site.listen("echo", ["alice", "client"], "echo")
        cls.chat = site.listen("chat", ["alice", "client"], "channel")
        site.peer("server", site.publics["server"])
        site.connect_entry("echo", ("127.0.0.1", cls.port), "server", listen=False)
        site.start()
        cls.session = site.connect(cls.port, cls.alice)
        cls.addClassCleanup(cls.session.close)

    def setUp(self):
        self.pids = self.host.pids()
        self.memory = self.resident()

    def tearDown(self):
        """After each kind of abuse: everybody is alive, small, and serves."""
        self.assert_echo(self.session)
        with self.host.connect(self.port, self.alice) as session:
            self.assert_echo(session)
        self.assertEqual(self.host.pids(), self.pids, "a daemon died")
        for pid, before in self.memory.items():
            self.assertLess(resident_kib(pid) - before, GROWTH_KIB, f"process {pid} grew")

    def resident(self):
        return {pid: resident_kib(pid) for pid in [self.pids["vaultd"], self.pids["monitor"], *self.pids["workers"]]}

    def open(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(str(self.host.dir / "run" / SOCKETS[name][0]))
        self.addCleanup(sock.close)
        return sock

    @staticmethod
    def send(sock, data):
        """What fits before the other side hangs up or stops reading for two seconds. True if all went out."""
        sock.settimeout(2)
        try:
            sock.sendall(data)
            return True
        except (OSError, socket.timeout):
            return False

    def is_cut_off(self, sock, timeout=15.0):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            sock.settimeout(max(0.05, deadline - time.monotonic()))
            try:
                if not sock.recv(1 << 20):
                    return True
            except socket.timeout:
                return False
            except OSError:
                return True
        return False

    def cut_offs(self):
        return {"vault": sum(self.host.vault_status()["cut_off"].values()), "net": self.host.counter("rpc_cut_off")}

    def assert_cut_off(self, data, what):
        for name in SOCKETS:
            with self.subTest(what, socket=name):
                side = "net" if name == "net" else "vault"
                before = self.cut_offs()[side]
                sock = self.open(name)
                self.send(sock, data)
                self.assertTrue(self.is_cut_off(sock), f"{what}: still connected")
                wait_until(lambda: self.cut_offs()[side] > before, 5, f"{what} is counted")

    def test_header_ff_ff_ff_ff(self):
        self.assert_cut_off(b"\xff" * 4, "the header alone")
        self.assert_cut_off(b"\xff" * 64, "the header and more")

    def test_headers_that_announce_too_much(self):
        for what, data in (("seventeen segments", struct.pack("<18I", 16, *[1] * 17)),
                           ("five segments of nothing", struct.pack("<IIIIII", 4, 1, 1, 1, 1, 1)),
                           ("a segment of 2^32-1 words", struct.pack("<II", 0, 0xFFFFFFFF)),
                           ("3 MiB", struct.pack("<II", 0, 3 << 17)),
                           ("sizes that overflow", struct.pack("<IIII", 1, 0x80000000, 0x80000000, 0)),
                           ("no words at all", struct.pack("<II", 0, 0))):
            self.assert_cut_off(data + bytes(256), what)

    def test_messages_that_are_not_rpc(self):
        good = bootstrap_message(0)
        for what, words in (("an unknown kind", Struct(struct.pack("<H", 77), [None])), ("a return", Struct(struct.pack("<H", 3), [None])),
                            ("pointers into the void", None)):
            data = minicapnp.encode(words) if words else struct.pack("<II", 0, 2) + b"\xfc\xff\xff\x7f\xff\xff\xff\xff" * 2
            with self.subTest(what):
                self.assert_cut_off(data, what)
        # far pointers, loops and lists that claim 2^29 elements, with a valid frame around them
        for pointer in (b"\x02\0\0\0\0\0\0\0", b"\x01\0\0\0\xff\xff\xff\xff", b"\0\0\0\0\xff\xff\xff\xff", b"\x06\0\0\0\x09\0\0\0"):
            for name in SOCKETS:
                sock = self.open(name)
                self.send(sock, struct.pack("<II", 0, 4) + pointer + bytes(24))
                self.send(sock, good)

    def test_random_bytes(self):
        source = random.Random(4)
        for i in range(300):
            name = list(SOCKETS)[i % len(SOCKETS)]
            sock = self.open(name)
            self.send(sock, source.randbytes(source.choice((1, 3, 8, 100, 5000))))
            sock.close()

    def test_valid_messages_with_random_damage(self):
        source = random.Random(5)
        for i in range(400):
            name = list(SOCKETS)[i % len(SOCKETS)]
            _, interface, method = SOCKETS[name]
            data = bytearray(bootstrap_message(0) + call_message(1, ("answer", 0), interface, method, Struct(b"", ["name"])))
            for _ in range(source.choice((1, 1, 2, 5))):
                data[source.randrange(len(data))] ^= 1 << source.randrange(8)
            sock = self.open(name)
            self.send(sock, bytes(data))
            sock.close()

    def test_half_a_message_and_silence(self):
        socks = [self.open(name) for name in SOCKETS for _ in range(20)]
        for sock in socks:
            self.send(sock, bootstrap_message(0)[:20])
        time.sleep(0.3)
        with minicapnp.Rpc(self.host.dir / "run/vault.sock") as rpc:
            rpc.call(rpc.root, VAULT_APP, 1)

    def test_ten_thousand_unanswered_calls(self):
        for name, (_, interface, method) in SOCKETS.items():
            with self.subTest(name):
                sock = self.open(name)
                calls = b"".join(call_message(i, ("answer", 0), interface, method) for i in range(1, 10_001))
                self.send(sock, bootstrap_message(0) + calls)
                self.assertTrue(self.is_cut_off(sock))

    def test_a_thousand_open_questions_of_sixty_clients(self):
        """Each answer of `status` is some kilobytes, and nobody reads one."""
        pid = self.pids["workers"][0]
        peak = self.memory[pid]
        calls = bootstrap_message(0) + b"".join(call_message(i, ("answer", 0), NETWORK, 2) for i in range(1, 1000))
        socks = [self.open("net") for _ in range(60)]
        for sock in socks:
            self.send(sock, calls)
            peak = max(peak, resident_kib(pid))
        for _ in range(100):
            time.sleep(0.02)
            peak = max(peak, resident_kib(pid))
        print(f"# worker 0 grew by {peak - self.memory[pid]} KiB")
        self.assertLess(peak - self.memory[pid], memory_limit(64 * 1024))
        for sock in socks:
            sock.close()
        wait_until(lambda: self.host.counter("rpc_clients") <= 2, 10, "the clients are gone from the count")
        with minicapnp.Network(self.host.dir / "run/net.sock") as network:
            asked = [network.rpc.start(network.rpc.root, NETWORK, 2) for _ in range(16)]
            self.assertEqual(len([network.rpc.wait(each) for each in asked]), 16, "as many as one program may ask at once")

    def test_calls_that_wait_for_ever(self):
        """Accepts that nobody answers, from one client and from many."""
        socks = []
        for _ in range(20):
            with_listener = minicapnp.Network(self.host.dir / "run/net.sock")
            listener = with_listener.listen("chat")
            for _ in range(500):
                with_listener.rpc.start(listener.cap, LISTENER, 0, Struct(struct.pack("<I", 0)))
            socks.append(with_listener)
        for network in socks:
            network.close()
        wait_until(lambda: self.host.counter("rpc_clients") <= 2, 10, "the clients are gone from the count")

    def test_a_client_that_never_reads(self):
        for name, (_, interface, method) in SOCKETS.items():
            with self.subTest(name):
                sock = self.open(name)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                data = bootstrap_message(0)
                for i in range(1, 20_000):
                    data += call_message(i, ("answer", 0), interface, method) + finish_message(i)
                    if len(data) > 100_000:
                        if not self.send(sock, data):
                            break
                        data = b""

    @staticmethod
    def one_blob_many_times(question, channel, count, size):
        """A send() of `count` messages that are all the same bytes: small on the wire, count * size to a reader."""
        data = bytearray(call_message(question, ("cap", channel.cap), CHANNEL, 0,
                                      Struct(b"", [[Struct(b"", [bytes(size)])] + [Struct(b"", [None])] * (count - 1)])))
        upper = 2 | size << 3
        at = next(i for i in range(8, len(data), 8) if data[i] & 3 == 1 and struct.unpack_from("<I", data, i + 4)[0] == upper)
        blob = at + 8 + 8 * (struct.unpack_from("<I", data, at)[0] >> 2)
        for i in range(1, count):
            struct.pack_into("<II", data, at + 8 * i, ((blob - at - 8 * i) // 8 - 1) << 2 | 1, upper)
        return bytes(data)

    def test_one_blob_sent_many_times_while_the_peer_does_not_read(self):
        """Read once to judge it and again to send it, it is more than a reader may follow: that call fails, not the worker."""
        with minicapnp.Network(self.host.dir / "run/net.sock") as network:
            listener = network.listen("chat")
            session = self.host.connect(self.chat, self.alice)
            self.addCleanup(session.close)
            channel = listener.accept()[0]
            for _ in range(7):
                channel.start_send([bytes(60000)] * 25)
            question, network.rpc.next_question = network.rpc.next_question, network.rpc.next_question + 1
            network.rpc.sock.sendall(self.one_blob_many_times(question, channel, 100, 60000))
            for _ in range(7 * 25):
                self.assertEqual(session.receive(), bytes(60000))
            with self.assertRaises(minicapnp.RpcError):
                network.rpc.wait(question)
            channel.send([b"the next one"])
            self.assertEqual(session.receive(), b"the next one")

    def test_leaked_objects(self):
        network = minicapnp.Network(self.host.dir / "run/net.sock")
        self.addCleanup(network.close)
        listeners = 0
        with self.assertRaises(minicapnp.Refused) as refused:
            for _ in range(3000):
                network.listen("chat")
                listeners += 1
        self.assertEqual(str(refused.exception), "tooManyObjects")
        self.assertLessEqual(listeners, 1024)
        network.close()

    def test_leaked_channels(self):
        for _ in range(5):
            with minicapnp.Network(self.host.dir / "run/net.sock") as network:
                for _ in range(40):
                    network.connect("echo").send([bytes(1000)] * 10)
        wait_until(lambda: self.host.counter("channels") == 0, 10, "channels of closed connections end")

    def test_capabilities_in_parameters(self):
        for name, (_, interface, method) in SOCKETS.items():
            with self.subTest(name):
                sock = self.open(name)
                descriptor = Struct(struct.pack("<HHI", 1, 0xFF, 5), [None])
                self.send(sock, bootstrap_message(0) + call_message(1, ("answer", 0), interface, method, None, [descriptor]))
                self.assertTrue(self.is_cut_off(sock))

    def test_calls_on_what_does_not_exist(self):
        """Wrong ids and wrong methods are answered with an exception that holds no text of the program's inside, or end the connection."""
        for name, (file, interface, method) in SOCKETS.items():
            for target, iface, number in ((("cap", 99), interface, method), (("cap", 0), 0x1234567812345678, 0),
                                          (("cap", 0), interface, 999), (("cap", 0), CHANNEL, 0)):
                with self.subTest(name, target=target):
                    try:
                        with minicapnp.Rpc(self.host.dir / "run" / file) as rpc:
                            rpc.sock.sendall(call_message(50, target, iface, number))
                            rpc.wait(50)
                            self.fail("answered as if it were right")
                    except minicapnp.RpcError as error:
                        self.assertNotIn("/", str(error).replace("capnp/", ""), "a path of the source leaked")
                    except (ConnectionResetError, BrokenPipeError):
                        pass

    def test_parameters_of_the_wrong_shape(self):
        """Each method of the vault with fields missing, empty, short and long: refusals, never a death."""
        shapes = [None, b"", b"x", bytes(31), bytes(32), bytes(33), bytes(5000), "", "echo", "no such entry", "x" * 3000]
        with minicapnp.Rpc(self.host.dir / "run/vault-net.sock") as rpc:
            for method in (0, 1, 2):
                for count in (0, 1, 3, 64, 65):
                    for shape in shapes if count < 4 else shapes[:2]:
                        items = [Struct(b"", ["echo", shape, shape, shape, shape]) for _ in range(count)]
                        outcomes = rpc.call(rpc.root, VAULT_NET, method, Struct(b"", [items])).content.list(0)
                        # but a vouch for 32 bytes as an ephemeral key is what makeVouches is for
                        right = 1 if method == 2 and shape == bytes(32) else 0
                        self.assertEqual([outcome.u16(2) for outcome in outcomes], [right] * len(outcomes), "nonsense was not refused")
                for entry in (b"\0", b"\xff\xfe", "../../etc/passwd"):
                    try:
                        rpc.call(rpc.root, VAULT_NET, method, Struct(b"", [[Struct(b"", [entry, bytes(32)])]]))
                    except minicapnp.RpcError as error:  # a text without its NUL is a broken message: an exception is right
                        self.assertEqual(str(error), "internal error")

    def test_ten_thousand_connections(self):
        """One after the other, then as many at once as we may: those beyond the limit are refused, not queued for ever."""
        for i in range(3000):
            sock = self.open_once(list(SOCKETS)[i % 4])
            if sock:
                sock.close()
        held = [sock for sock in (self.open_once("app") for _ in range(700)) if sock]
        time.sleep(0.3)
        for sock in held:
            sock.close()
        wait_until(self.vault_pings, 10, "the vault serves programs again")

    def open_once(self, name):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(2)
        try:
            sock.connect(str(self.host.dir / "run" / SOCKETS[name][0]))
            return sock
        except OSError:
            sock.close()
            return None

    def vault_pings(self):
        try:
            with minicapnp.Rpc(self.host.dir / "run/vault.sock", timeout=2) as rpc:
                return rpc.call(rpc.root, VAULT_APP, 1).content.u16(0) & 1 == 1
        except (OSError, TimeoutError):
            return False

    def test_roles_are_kept_apart(self):
        """A socket gives its own role's verbs and no other's."""
        for file, foreign in (("vault.sock", VAULT_NET), ("vault.sock", VAULT_ADMIN), ("vault-net.sock", VAULT_ADMIN),
                              ("vault-net.sock", VAULT_APP), ("vault-admin.sock", VAULT_NET)):
            with self.subTest(file), minicapnp.Rpc(self.host.dir / "run" / file) as rpc, self.assertRaises(minicapnp.RpcError):
                rpc.call(rpc.root, foreign, 0)

    @unittest.skipUnless(os.geteuid() == 0, "needs root to become somebody else")
    def test_other_users_are_kept_out(self):
        for name in SOCKETS:
            with self.subTest(name):
                pid = os.fork()
                if pid == 0:
                    try:
                        os.setgroups([])
                        os.setgid(65534)
                        os.setuid(65534)
                        sock = socket.socket(socket.AF_UNIX)
                        sock.settimeout(3)
                        sock.connect(str(self.host.dir / "run" / SOCKETS[name][0]))
                        sock.sendall(bootstrap_message(0))
                        os._exit(0 if sock.recv(1) == b"" else 1)
                    except OSError:
                        os._exit(0)
                    except BaseException:
                        os._exit(2)
                self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0, "a stranger was let in")


if __name__ == "__main__":
    unittest.main()
