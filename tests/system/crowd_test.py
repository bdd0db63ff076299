#!/usr/bin/python3
"""Goal: 2,000 half-open sockets and a slow-loris crowd, renewed as fast as they are dropped, don't keep a good client waiting for more
than 5 s, and don't grow the daemon. The same with limits so tight that the crowd fills them: the oldest half-open one makes room.
"""

import itertools
import selectors
import socket
import threading
import time
import unittest

from harness import SystemTest, ct, memory_limit, raise_fd_limit, resident_kib, wait_until

HALF_OPEN = 2000
GOOD_CLIENTS = 25
WAIT_S = 5.0


class HalfOpenCrowd:
    """`count` connections that never finish, spread over loopback addresses: silent, stuck after the Hello, or sending a byte a second."""

    def __init__(self, site, port, pair, count):
        self.site, self.port, self.pair, self.count = site, port, pair, count
        self.stop = threading.Event()
        self.open = 0
        self.made = 0
        self.numbers = itertools.count()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def new(self, selector):
        number = next(self.numbers)
        kind = ("silent", "hello", "loris")[number % 3]
        sock = socket.socket()
        sock.setblocking(False)
        sock.bind((f"127.0.{1 + number % 20}.{1 + number // 20 % 200}", 0))
        sock.connect_ex(("127.0.0.1", self.port))
        hello = ct.frame(ct.make_hello(ct.KeyPair(), self.site.publics["server"])) if kind != "silent" else b""
        if kind == "hello" and number % 2:
            hello = b"\0\x80" + ct.HELLO_MAGIC + bytes(120)  # costs the daemon a multiplication for nothing
        selector.register(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, {"kind": kind, "hello": hello, "at": 0, "next": 0.0})
        self.open += 1
        self.made += 1

    def run(self):
        with selectors.DefaultSelector() as selector:
            while not self.stop.is_set():
                for _ in range(min(200, self.count - self.open)):
                    self.new(selector)
                for key, events in selector.select(0.05):
                    self.serve(selector, key.fileobj, key.data, events)
                now = time.monotonic()
                for key in list(selector.get_map().values()):
                    state = key.data
                    if state["kind"] == "loris" and state["at"] and now > state["next"] and state["at"] < len(state["hello"]):
                        self.drip(key.fileobj, state, now)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def drip(self, sock, state, now):
        state["next"] = now + 1
        try:
            sock.send(state["hello"][state["at"]:state["at"] + 1])
            state["at"] += 1
        except OSError:
            pass

    def serve(self, selector, sock, state, events):
        try:
            if events & selectors.EVENT_WRITE:
                if state["kind"] == "hello":
                    sock.send(state["hello"])
                elif state["kind"] == "loris":
                    self.drip(sock, state, time.monotonic())
                selector.modify(sock, selectors.EVENT_READ, state)
            if events & selectors.EVENT_READ and not sock.recv(4096):
                raise OSError
        except BlockingIOError:
            pass
        except OSError:
            selector.unregister(sock)
            sock.close()
            self.open -= 1

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class SlowLoris(SystemTest):
    def comes_in(self, site, port, alice):
        """One try of a good client. In a slow build its half-open connection may be the oldest one and have to go."""
        try:
            with site.connect(port, alice) as good:
                self.assert_echo(good)
            return True
        except (OSError, ct.Closed, TimeoutError):
            return False

    def attack(self, **limits):
        raise_fd_limit()
        site = self.site("crowd")
        site.limits.update(limits)
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        session = site.connect(port, alice)
        self.addCleanup(session.close)
        pids = site.pids()
        before = sum(resident_kib(pid) for pid in pids["workers"])
        with HalfOpenCrowd(site, port, alice, HALF_OPEN) as crowd:
            time.sleep(3)
            slowest = 0.0
            for _ in range(GOOD_CLIENTS):
                start = time.monotonic()
                wait_until(lambda: self.comes_in(site, port, alice), 2 * WAIT_S, "a good client comes in")
                slowest = max(slowest, time.monotonic() - start)
                time.sleep(0.15)
            self.assert_echo(session)
            grown = sum(resident_kib(pid) for pid in pids["workers"]) - before
            status = site.net_status()
            print(f"# {crowd.made} half-open connections made, good client's longest wait {slowest * 1000:.0f} ms, "
                  f"workers grew by {grown} KiB, drops {site.drops()}")
        self.assertLess(slowest, WAIT_S)
        self.assertLess(grown, memory_limit(64 * 1024))
        self.assertEqual([worker["restarts"] for worker in status["workers"]], [0, 0])
        self.assert_echo(session)
        return site, status

    def test_two_thousand_half_open(self):
        _, status = self.attack()
        self.assertGreater(status["counters"]["half_open"], HALF_OPEN // 2)

    def test_a_crowd_larger_than_the_limit(self):
        site, status = self.attack(half_open=256)
        self.assertLessEqual(status["counters"]["half_open"], 256)
        self.assertGreater(site.drops().get("half_open_limit", 0), 0)

    def test_one_address_can_not_take_all_room(self):
        site = self.site("sources")
        site.limits.update(half_open_per_source=20)
        alice = site.peer("alice")
        port = site.listen("echo", ["alice"], "echo")
        site.start()
        greedy = [socket.create_connection(("127.0.0.1", port), 5, source_address=("127.0.9.9", 0)) for _ in range(100)]
        try:
            time.sleep(0.5)
            with site.connect(port, alice) as good:
                self.assert_echo(good)
            self.assertLessEqual(site.counter("half_open"), 21)
            # The oldest of that address make room for its younger ones.
            self.assertGreater(site.drops().get("half_open_limit", 0), 70)
        finally:
            for sock in greedy:
                sock.close()


if __name__ == "__main__":
    unittest.main()
