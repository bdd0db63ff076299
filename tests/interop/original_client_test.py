#!/usr/bin/python3
"""Goal: the original curve_tun as a client works against our [[listen]] entries: echo, TCP and HTTP services, message channels; every size
of message, thousands in both directions at once, a service that speaks first, half-close, hundreds of clients; and what must not work
doesn't: unknown keys, a wrong server, a recorded session, a message that it makes too long, an end that isn't authenticated.

Runs by hand, where the original is at hand: original.py. SALLYPORT_FULL=1 adds minutes of silence, over several minute keys.
"""

import http.server
import pathlib
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
import original  # noqa: E402
from harness import Crowd, SystemTest, ct, full_run, minicapnp, wait_until  # noqa: E402
from original import MIXED, SIZES, THOUSANDS  # noqa: E402
from traffic import (Mitm, Service, answers_after_end, ends_first, patterned, plain, read_all, reset, sha256,  # noqa: E402
                     speaks_first)


def talks_and_listens(sock, arrival):
    """Sends THOUSANDS of MIXED under seed 2 while it takes what comes."""
    talker = threading.Thread(target=sock.sendall, args=(b"".join(original.messages(THOUSANDS, 2, MIXED)),))
    talker.start()
    data, arrival.end = read_all(sock, 60)
    talker.join()
    arrival.data += data


def dies(sock, arrival):
    arrival.data += sock.recv(5)
    reset(sock)


class OriginalClient(SystemTest):
    @classmethod
    def setUpClass(cls):
        cls.original = original.Original()
        cls.addClassCleanup(cls.original.close)
        cls.site = site = cls.class_site("original")
        site.peer("erlang", cls.original.public)
        cls.alice = site.peer("alice")
        cls.services = {"plain": Service(), "first": Service(speaks_first), "after": Service(answers_after_end),
                        "ends": Service(ends_first), "talks": Service(talks_and_listens), "swallow": Service(Service.swallow),
                        "dies": Service(dies)}
        cls.ports = {name: site.listen(name, ["erlang"], service.where) for name, service in cls.services.items()}
        for service in cls.services.values():
            cls.addClassCleanup(service.close)
        cls.ports["echo"] = site.listen("echo", ["erlang", "alice"], "echo")
        cls.ports["channel"] = site.listen("channel", ["erlang"], "channel")
        cls.ports["strangers"] = site.listen("strangers", ["alice"], cls.services["swallow"].where)
        cls.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        threading.Thread(target=cls.web.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.web.server_close)
        cls.addClassCleanup(cls.web.shutdown)
        cls.ports["web"] = site.listen("web", ["erlang"], f"tcp:127.0.0.1:{cls.web.server_port}")
        site.start()
        cls.server = site.publics["server"]

    def open(self, entry, ip="127.0.0.1", client=None):
        return (client or self.original).connect(self.ports[entry], self.server, ip)

    def echoes(self, session, text=b"are you there"):
        session.send(text)
        self.assertEqual(session.receive(), text)

    def next_arrival(self, name):
        """How many the service has had; to be passed to arrival() and ended()."""
        return len(self.services[name].arrivals)

    @staticmethod
    def send_all(channel, texts):
        for at in range(0, len(texts), 20):
            channel.send(texts[at:at + 20])

    # -- what works

    def test_echo_returns_every_size_as_it_came(self):
        session = self.open("echo")
        for size in SIZES:
            text = original.message(1, size, size)
            session.send(text)
            self.assertEqual(session.receive(), text, f"size {size}")
        session.close()

    def test_echo_of_thousands_in_flight(self):
        session = self.open("echo")
        sent, drained = session.flood(10_000, 3, [0, 1, 63, 64]), session.drain(10_000, 3, [0, 1, 63, 64])
        sent.result(60)
        drained.result(60)
        session.close()

    def test_every_size_through_a_tunnel(self):
        session = self.open("plain")
        for size in SIZES[1:]:
            text = original.message(1, size, size)
            session.send(text)
            self.assertEqual(session.bytes(size).result(20)[0].lower(), sha256(text), f"size {size}")
        session.close()

    def test_a_web_server(self):
        session = self.open("web")
        session.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        count, digest = session.stream()
        self.assertGreater(count, len(Page.BODY))
        session.send(b"")
        self.assertEqual(session.ended(), "closed")

    def test_thousands_both_ways_at_once_through_a_tunnel(self):
        count = self.next_arrival("talks")
        session = self.open("talks")
        expected = b"".join(original.messages(THOUSANDS, 2, MIXED))
        received = session.bytes(len(expected))
        session.flood(THOUSANDS, 1, MIXED).result(60)
        session.send(b"")
        self.assertEqual(received.result(60)[0].lower(), sha256(expected))
        arrival = self.services["talks"].ended(count, 30)
        self.assertEqual((sha256(arrival.data), arrival.end), (sha256(b"".join(original.messages(THOUSANDS, 1, MIXED))), "eof"))

    def test_a_channel_carries_every_size(self):
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            texts = [original.message(1, size, size) for size in SIZES]
            session.send(*texts)
            channel, peer, key, address = listener.accept()
            self.assertEqual((peer, key), ("erlang", self.original.public))
            self.assertTrue(address.startswith("127.0.0.1:"), address)
            self.assertEqual(channel.receive_all(len(texts)), texts)
            channel.send(texts)
            self.assertEqual([session.receive() for _ in texts], texts)
            channel.close()
            self.assertEqual(session.ended(), "closed")

    def test_thousands_both_ways_at_once_in_a_channel(self):
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            channel = listener.accept()[0]
            self.assertEqual(*original.thousands_both_ways(network, channel, session))
            session.close()
            self.assertEqual(channel.receive()[0], [])

    def test_the_service_speaks_first(self):
        session = self.open("first")
        self.assertEqual(session.receive(), b"220 welcome\r\n")
        session.send(b"HELO")
        self.assertEqual(session.receive(), b"HELO")
        session.close()

    def test_a_program_speaks_first_in_a_channel(self):
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            channel = listener.accept()[0]
            channel.send([b"", b"220 welcome"])
            self.assertEqual([session.receive(), session.receive()], [b"", b"220 welcome"])
            session.close()
            self.assertEqual(channel.receive()[0], [])

    def test_half_close_by_the_original(self):
        session = self.open("after")
        session.send(b"request", b"")
        self.assertEqual(session.receive(), sha256(b"request").encode())
        self.assertEqual(session.receive(), b"")
        self.assertEqual(session.ended(), "closed")

    def test_half_close_by_the_service(self):
        count = self.next_arrival("ends")
        session = self.open("ends")
        self.assertEqual(session.stream(), (17, sha256(b"all I have to say")))
        session.send(b"thanks", b"")
        arrival = self.services["ends"].ended(count)
        self.assertEqual((bytes(arrival.data), arrival.end), (b"thanks", "eof"))
        self.assertEqual(session.ended(), "closed")

    def test_hundreds_at_once(self):
        sessions = [self.open("plain", f"127.0.1.{i}") for i in range(1, 251)]
        floods = [(session.flood(20, i, [64, 4096]), session.bytes(20 * 2080)) for i, session in enumerate(sessions)]
        for i, (sent, received) in enumerate(floods):
            sent.result(60)
            self.assertEqual(received.result(60)[0].lower(), sha256(b"".join(original.messages(20, i, [64, 4096]))))
        for session in sessions:
            session.close()

    def test_handshakes_all_at_the_same_moment(self):
        with Crowd() as crowd:
            for _ in range(60):
                crowd.start(lambda: self.echoes(self.open("echo")))
        self.assertEqual(crowd.errors, [])

    def test_it_reads_slowly(self):
        """Back-pressure: the service's bytes wait for the original and none is lost, in a tunnel and in a channel."""
        session = self.open("talks")
        expected = b"".join(original.messages(THOUSANDS, 2, MIXED))
        time.sleep(3)
        self.assertEqual(session.bytes(len(expected)).result(60)[0].lower(), sha256(expected))
        session.close()
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            channel = listener.accept()[0]
            with Crowd() as crowd:
                crowd.start(self.send_all, channel, original.messages(600, 4, [65503]))
                time.sleep(2)
                self.assertTrue(crowd.threads[0].is_alive(), "39 MB vanished into the daemon while nobody read")
                session.drain(600, 4, [65503]).result(60)
            self.assertEqual(crowd.errors, [])
            session.close()

    def test_much_then_the_end_and_a_close_at_once(self):
        """The authenticated end makes it whole, also for a service that takes its time. It answers nothing."""
        def slow(sock, arrival):
            time.sleep(1.5)
            data, arrival.end = read_all(sock)
            arrival.data += data

        with Service(slow) as service:
            port = self.site.listen("slow", ["erlang"], service.where)
            self.site.reload()
            wait_until(lambda: self.site._accepts(f"127.0.0.1:{port}"), 5, "the new entry listens")
            session = self.original.connect(port, self.server)
            session.flood(300, 8, MIXED).result(30)
            session.send(b"")
            session.close()
            arrival = service.ended(0, 30)
            self.assertEqual((sha256(arrival.data), arrival.end), (sha256(b"".join(original.messages(300, 8, MIXED))), "eof"))

    def test_a_program_closes_behind_much(self):
        """The original reads two seconds later than that, and gets all."""
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            channel = listener.accept()[0]
            self.send_all(channel, original.messages(100, 9, MIXED))
            channel.close()
            time.sleep(4)
            session.drain(100, 9, MIXED).result(30)
            self.assertEqual(session.ended(), "closed")

    @unittest.skipUnless(full_run("SALLYPORT_ORIGINAL_IDLE_S", 0, 200), "minutes of silence: SALLYPORT_FULL=1")
    def test_minutes_of_silence(self):
        """The minute keys go by; a session needs none. New connections are made all the while."""
        sessions = {name: self.open(name) for name in ("echo", "plain")}
        end = time.monotonic() + full_run("SALLYPORT_ORIGINAL_IDLE_S", 0, 200)
        while time.monotonic() < end:
            fresh = self.open("echo")
            self.echoes(fresh)
            fresh.close()
            time.sleep(5)
        for session in sessions.values():
            self.echoes(session)
            session.close()

    # -- ends that aren't authenticated

    def test_a_close_without_the_end_is_a_reset_for_the_service(self):
        count, before = self.next_arrival("swallow"), self.site.drops()
        session = self.open("swallow")
        session.send(b"half of an order")
        self.services["swallow"].arrival(count)
        session.close()
        self.assertEqual(self.services["swallow"].ended(count).end, "reset")
        self.assert_dropped(self.site, before, ["truncated"])

    def close_behind_thousands(self, answers):
        """What a channel's program gets of THOUSANDS of messages right before a close, and how its end is called."""
        with minicapnp.Network(self.site.dir / "run/net.sock") as network:
            listener = network.listen("channel")
            session = self.open("channel")
            channel = listener.accept()[0]
            channel.send(answers)
            sent = session.flood(THOUSANDS, 5, [0, 1, 64, 300])
            received = channel.receive_all(100)
            sent.result(30)
            session.close()
            while True:
                more, end, _ = channel.receive()
                received += more
                if not more:
                    return received, end

    def test_a_close_behind_thousands_of_messages_loses_none(self):
        received, end = self.close_behind_thousands([])
        self.assertEqual((received, end), (original.messages(THOUSANDS, 5, [0, 1, 64, 300]), minicapnp.ENDED))

    def test_a_close_over_unread_messages_is_no_quiet_end(self):
        """Its kernel makes a reset of that, and throws away what it hasn't sent."""
        received, end = self.close_behind_thousands([b"never read"] * 10)
        self.assertEqual(end, minicapnp.BROKEN)
        self.assertEqual(received, original.messages(THOUSANDS, 5, [0, 1, 64, 300])[:len(received)])

    def test_a_service_that_dies(self):
        session = self.open("dies")
        session.send(b"hello")
        self.assertEqual(session.ended(), "closed")

    def test_it_is_killed_in_the_middle(self):
        victim = original.Original()
        self.addCleanup(victim.close)
        count, before = self.next_arrival("swallow"), self.site.drops()
        other = self.open("echo")
        session = self.open("swallow", client=victim)
        idle = self.open("plain", client=victim)
        self.echoes(idle)
        session.flood(1_000_000, 6, MIXED)
        arrival = self.services["swallow"].arrival(count)
        wait_until(lambda: len(arrival.data) > 1_000_000, 20, "the flood flows")
        victim.kill()
        self.assertEqual(self.services["swallow"].ended(count).end, "reset")
        expected = b"".join(original.messages(len(arrival.data) // 200, 6, MIXED))
        self.assertTrue(expected.startswith(bytes(arrival.data)), "wrong bytes were delivered")
        self.assert_dropped(self.site, before, ["truncated", "transport_error"])
        self.echoes(other)
        other.close()

    # -- what must not work

    def test_a_key_that_is_not_allowed(self):
        count, before = self.next_arrival("swallow"), self.site.drops()
        session = self.open("strangers")  # curve_tun has no acknowledgement: its connect can't fail
        self.assertEqual(session.ended(), "closed")
        self.assert_dropped(self.site, before, ["peer_not_allowed"])
        self.assertEqual(self.next_arrival("swallow"), count, "the service was dialled")

    def test_another_server_than_it_wants(self):
        before = self.site.drops()
        with self.assertRaises(original.Failed):
            self.original.connect(self.ports["echo"], ct.KeyPair().public)
        self.assert_dropped(self.site, before, ["bad_box"])
        self.echoes(self.open("echo"))

    def test_a_message_that_it_makes_too_long(self):
        """It sends length 0 and 65,536 bytes, and says ok."""
        before = self.site.drops()
        other, session = self.open("echo"), self.open("echo")
        self.echoes(session)
        session.send(bytes(65504))
        self.assert_dropped(self.site, before, ["bad_length"])
        self.assertEqual(session.ended(), "closed")
        self.echoes(other)

    def test_a_recorded_session(self):
        for entry in ("swallow", "echo"):
            with Mitm(("127.0.0.1", self.ports[entry])) as mitm:
                count = self.next_arrival("swallow")
                session = self.original.connect(mitm.port, self.server)
                session.send(b"pay 100 to mallory")
                wait_until(lambda m=mitm: len(m.recorded["up"]) == 130 + 226 + 34 + 18, 10, "all is recorded")
                if entry == "swallow":
                    wait_until(lambda: bytes(self.services["swallow"].arrival(count).data) == b"pay 100 to mallory", 10, "the order")
                else:
                    self.assertEqual(session.receive(), b"pay 100 to mallory")
                record = bytes(mitm.recorded["up"])
                for after in (False, True):
                    if after:
                        session.close()
                    self.replay(entry, record)
                if entry == "swallow":
                    self.assertEqual(self.next_arrival("swallow"), count + 1, "the order was carried out again")

    def replay(self, entry, record):
        """Its own Hello again, in one piece and step by step, and behind a Hello of the thief's: never more than a cookie comes back."""
        for whole in (True, False):
            before = self.site.drops()
            sock = plain(self.ports[entry])
            if whole:
                sock.sendall(record)
            else:
                sock.sendall(record[:130])
                ct.read_packet(sock, size=168)
                sock.sendall(record[130:])
            answer, end = ct.read_to_end(sock, 8)
            sock.close()
            self.assertLessEqual(len(answer), 170)
            self.assertIn(end, ("eof", "reset"))
            self.assert_dropped(self.site, before, ["unknown_cookie"])
        before = self.site.drops()
        with self.site.client(self.ports[entry], self.alice) as thief:
            thief.send_hello()
            thief.read_cookie()
            thief.send_raw(record[130:])
            self.assert_closed_silently(thief.sock)
        self.assert_dropped(self.site, before, ["unknown_cookie"])


class Page(http.server.BaseHTTPRequestHandler):
    BODY = patterned(300_000)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.BODY)))
        self.end_headers()
        self.wfile.write(self.BODY)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    original.folder()
    unittest.main()
