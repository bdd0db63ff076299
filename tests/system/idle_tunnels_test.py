#!/usr/bin/python3
"""Goal: 10,000 idle tunnels are held at once, each costs a few KiB, all still carry bytes, new ones open beside them, and the memory comes
back when they close. 2,000 in a quick run, 10,000 with SALLYPORT_FULL=1; skipped where a process may not hold so many descriptors.
"""

import random
import select
import subprocess
import sys
import time
import unittest

from harness import Crowd, SystemTest, full_run, memory_limit, open_files, raise_fd_limit, resident_kib, wait_until

TUNNELS = full_run("SALLYPORT_IDLE_TUNNELS", quick=2000, full=10_000)
KIB_PER_TUNNEL = memory_limit(8)

# The service behind the tunnels is a process of its own, for the sake of descriptors: it returns what comes.
SERVICE = """
import resource, selectors, socket, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
listener.setblocking(False)
print(listener.getsockname()[1], flush=True)
selector = selectors.EpollSelector()
selector.register(listener, selectors.EVENT_READ)
while True:
    for key, _ in selector.select():
        try:
            if key.fileobj is listener:
                sock = listener.accept()[0]
                selector.register(sock, selectors.EVENT_READ)
                continue
            data = key.fileobj.recv(65536)
            if data:
                key.fileobj.sendall(data)
                continue
        except BlockingIOError:
            continue
        except OSError:
            pass
        if key.fileobj is not listener:
            selector.unregister(key.fileobj)
            key.fileobj.close()
"""


class IdleTunnels(SystemTest):
    def test_held(self):
        limit = raise_fd_limit()
        # netd holds two descriptors a tunnel, and its two workers may share unevenly
        needed = int(TUNNELS * 1.3) + 200
        if limit < needed:
            self.skipTest(f"{TUNNELS} tunnels need {needed} descriptors in a process, {limit} are allowed")
        service = subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True)
        self.addCleanup(service.wait)
        self.addCleanup(service.kill)
        self.addCleanup(service.stdout.close)
        site = self.site("idle")
        alice = site.peer("alice")
        port = site.listen("tunnel", ["alice"], f"tcp:127.0.0.1:{service.stdout.readline().strip()}")
        site.vault["handshakes_per_second"] = 1_000_000
        site.start()
        workers = site.pids()["workers"]
        for _ in range(50):  # what is allocated once
            site.connect(port, alice).close()
        before = sum(resident_kib(pid) for pid in workers)
        start = time.monotonic()
        sessions = []
        with Crowd() as crowd:
            def open_share(count):
                for _ in range(count):
                    sessions.append(site.connect(port, alice))
            for i in range(4):
                crowd.start(open_share, TUNNELS // 4)
            for thread in crowd.threads:
                thread.join()
        self.assertEqual(crowd.errors, [])
        opened = time.monotonic() - start
        wait_until(lambda: site.counter("tunnels") == len(sessions), 20, f"{len(sessions)} tunnels stand")
        grown = sum(resident_kib(pid) for pid in workers) - before
        print(f"# {len(sessions)} tunnels in {opened:.1f} s, {grown / len(sessions):.2f} KiB each in the workers, "
              f"descriptors {[open_files(pid) for pid in workers]}")
        self.assertLess(grown / len(sessions), KIB_PER_TUNNEL)
        for session in random.sample(sessions, 300):
            self.assert_echo(session)
        with site.connect(port, alice) as session:
            self.assert_echo(session)
        poll = select.poll()
        for session in sessions:
            poll.register(session.sock, select.POLLIN)
        self.assertEqual(poll.poll(0), [], "a tunnel ended or spoke by itself")
        for session in sessions:
            session.close()
        wait_until(lambda: site.counter("tunnels") == 0, 20, "all tunnels are gone")
        left = sum(resident_kib(pid) for pid in workers) - before
        print(f"# {left} KiB more than before after all were closed")
        self.assertLess(left, memory_limit(max(8192, grown // 2)))
        with site.connect(port, alice) as session:
            self.assert_echo(session)


if __name__ == "__main__":
    unittest.main()
