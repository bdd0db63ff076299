// Goal: a worker ends each connection under the right name, tells its peer nothing, and keeps nothing of it.
// Method: a whole worker in the test's loop; peers, targets, vault and monitor misbehave one at a time.
#include "tests/unit/netd/worker_fixture.h"

namespace sallyport::netd {
namespace {

using R = wire::DropReason;

class AWorker : public test::WorkerTest {
 protected:
  static constexpr uint32_t ECHO = test::ECHO_ENTRY, TARGET = test::TARGET_ENTRY, CHANNEL = test::CHANNEL_ENTRY;
};

TEST_F(AWorker, EchoesEachMessageAsItCame) {
  start();
  Peer peer = connected(ECHO);
  for (const std::string& text : {std::string("hello"), std::string(), std::string(65503, 'x'), std::string("end")}) {
    say(peer, text);
    EXPECT_EQ(hear(peer), text);
  }
  peer.socket = nullptr;
  EXPECT_TRUE(until([&] { return stats.get(Counter::Connections) == 0; }));
  EXPECT_EQ(stats.get(Counter::ServerHandshakes), 1u);
}

TEST_F(AWorker, CarriesAStreamAndItsEndsBothWays) {
  start();
  Peer peer = connected(TARGET);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  say(peer, "question");
  EXPECT_EQ(test::text(read(target, 8)), "question");
  ASSERT_EQ(::send(target, "answer", 6, 0), 6);
  EXPECT_EQ(hear(peer), "answer");
  say(peer, "");
  EXPECT_TRUE(closed(target));  // half-closed: the other direction goes on
  ASSERT_EQ(::send(target, "more", 4, 0), 4);
  EXPECT_EQ(hear(peer), "more");
  target = nullptr;
  EXPECT_EQ(hear(peer), "");
  EXPECT_TRUE(closed(peer.socket));
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) EXPECT_EQ(stats.get(static_cast<R>(i)), 0u) << i;
}

// --- handshakes ------------------------------------------------------------------------------------------------------

TEST_F(AWorker, DropsAPeerThatClosesInTheHandshake) {
  start();
  {
    Peer silent = dial(ECHO);
    Peer half = dial(ECHO);
    hello(half);
    turns();
  }
  EXPECT_TRUE(dropped(R::ClosedInHandshake, 2));
}

TEST_F(AWorker, DropsALengthThatTheStateDoesNotTakeBeforeTheContentArrives) {
  start();
  for (const char* head : {"0000", "007f", "0081", "ffff", "00e0"}) {
    Peer peer = dial(ECHO);
    write(peer, test::hex(head));
    EXPECT_TRUE(closed(peer.socket)) << head;
  }
  EXPECT_TRUE(dropped(R::BadLength, 5));
}

TEST_F(AWorker, DropsAHelloForAnotherServer) {
  start();
  Peer peer = dial(ECHO);
  peer.machine.emplace(test::Pair::random().open);
  hello(peer);
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::BadBox));
}

TEST_F(AWorker, DropsAPeerWhoseTimeIsOver) {
  start({.handshakeTimeoutMs = 60});
  Peer silent = dial(ECHO);
  Peer half = dial(ECHO);
  hello(half);
  EXPECT_TRUE(closed(silent.socket));
  EXPECT_TRUE(dropped(R::HandshakeTimeout, 2));
}

TEST_F(AWorker, BlamesTheVaultThatDoesNotAnswerInTime) {
  start({.handshakeTimeoutMs = 60}, false);
  Peer peer = dial(ECHO);
  hello(peer);
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::VaultUnavailable));
}

TEST_F(AWorker, JudgesThePeerAgainAfterTheVault) {
  start({.allowed = false});  // the vault still allows it: a reload is half-way
  Peer peer = dial(ECHO);
  ASSERT_TRUE(handshake(peer));
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::PeerNotAllowed));
}

TEST_F(AWorker, DropsAnInitiateAfterTwoNewMinuteKeys) {
  start();
  Peer peer = dial(ECHO);
  hello(peer);
  const auto cookie = read(peer.socket, 170);
  for (int i = 0; i < 2; ++i) monitor->send({.kind = ControlKind::CookieKey}, MinuteKey::random().expose());
  turns();
  auto asked = peer.machine->onPacket(ByteSpan(cookie).subspan(2));
  auto made = peer.machine->onVault(vault.makeVouch(std::get<MakeVouchRequest>(asked)));
  write(peer, std::get<3>(made).first);
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::ExpiredCookie));
}

TEST_F(AWorker, KeepsForTheSessionWhatCameRightBehindTheInitiate) {
  start();
  Peer peer = dial(TARGET);
  answerDials = false;
  ASSERT_TRUE(handshake(peer));
  say(peer, "early");
  ASSERT_TRUE(until([&] { return recordsOf(ControlKind::Dial) == 1; }));
  turns();
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  target = kj::AutoCloseFd(ends[0]);
  sendFd({.kind = ControlKind::Dialed, .request = records.back().request}, kj::AutoCloseFd(ends[1]));
  EXPECT_EQ(test::text(read(target, 5)), "early");
}

// --- limits ----------------------------------------------------------------------------------------------------------

TEST_F(AWorker, HasNoRoomForOneConnectionMore) {
  start({.connections = 1});
  Peer first = connected(ECHO);
  Peer second = dial(ECHO);
  EXPECT_TRUE(closed(second.socket));
  EXPECT_TRUE(dropped(R::ConnectionLimit));
  say(first, "still here");
  EXPECT_EQ(hear(first), "still here");
}

TEST_F(AWorker, HasNoRoomForOneMoreOfASource) {
  start({.connectionsPerSource = 1});
  Peer first = connected(ECHO);
  Peer second = dial(ECHO);
  EXPECT_TRUE(closed(second.socket));
  EXPECT_TRUE(dropped(R::SourceLimit));
}

TEST_F(AWorker, MakesRoomByDroppingTheOldestHalfOpenConnection) {
  start({.halfOpen = 2});
  Peer oldest = dial(ECHO);
  turns(3);
  Peer second = dial(ECHO);
  turns(3);
  Peer third = dial(ECHO);
  EXPECT_TRUE(closed(oldest.socket));
  EXPECT_TRUE(dropped(R::HalfOpenLimit));
  EXPECT_TRUE(handshake(second));
}

TEST_F(AWorker, DropsTheOldestOfTheSameSourceFirst) {
  start({.halfOpenPerSource = 1});
  Peer oldest = dial(ECHO);
  turns(3);
  Peer second = dial(ECHO);
  EXPECT_TRUE(closed(oldest.socket));
  EXPECT_TRUE(dropped(R::HalfOpenLimit));
}

TEST_F(AWorker, EndsASessionWithoutTraffic) {
  start({.idleTimeoutMs = 120});
  Peer idle = connected(ECHO);
  Peer busy = connected(ECHO);
  for (int i = 0; i < 20; ++i) {
    say(busy, "tick");
    ASSERT_EQ(hear(busy), "tick");
    loop.await(loop.timer().afterDelay(15 * kj::MILLISECONDS));
  }
  EXPECT_TRUE(closed(idle.socket));
  EXPECT_EQ(stats.get(R::IdleTimeout), 1u);
}

TEST_F(AWorker, EndsAPeerThatFillsItsBuffersAndDoesNotRead) {
  start({.bufferBytes = 10000});
  Peer peer = connected(ECHO);
  const auto frame = sealed(peer, std::string(60000, 'x'));
  write(peer, frame);
  for (int i = 0; i < 100 && stats.get(R::MemoryLimit) == 0; ++i) say(peer, std::string(60000, 'x'));
  EXPECT_TRUE(dropped(R::MemoryLimit));
  EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
}

// --- sessions --------------------------------------------------------------------------------------------------------

TEST_F(AWorker, CallsAFailingTargetALocalError) {
  start();
  Peer peer = connected(TARGET);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  say(peer, "never read");
  ASSERT_TRUE(until([&] { return stats.get(Counter::BytesOpened) == 10; }));
  target = nullptr;  // with bytes unread: a reset
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::LocalError));
}

TEST_F(AWorker, CallsAWireThatEndsWithoutAnEndTruncated) {
  start();
  for (const char* said : {"", "text"}) {
    Peer peer = connected(TARGET);
    ASSERT_TRUE(until([&] { return target.get() >= 0; }));
    const auto frame = sealed(peer, said);
    write(peer, ByteSpan(frame).first(frame.size() - 1));  // also the end itself, when it is cut short
    turns();
    peer.socket = nullptr;
    EXPECT_TRUE(closed(target));
    target = nullptr;
  }
  EXPECT_TRUE(dropped(R::Truncated, 2));
}

TEST_F(AWorker, TakesNothingAfterTheEnd) {
  start();
  Peer peer = connected(TARGET);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  say(peer, "");
  say(peer, "one more thing");
  EXPECT_TRUE(closed(target));
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::AfterEnd));
}

TEST_F(AWorker, DeliversWhatWasGenuineBeforeAFault) {
  start();
  Peer peer = connected(TARGET);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  auto frames = sealed(peer, "genuine");
  auto bad = sealed(peer, "forged");
  bad.back() ^= std::byte{1};
  frames.insert(frames.end(), bad.begin(), bad.end());
  write(peer, frames);
  EXPECT_EQ(test::text(read(target, 7)), "genuine");
  EXPECT_TRUE(closed(target));
  EXPECT_TRUE(dropped(R::BadBox));
}

TEST_F(AWorker, DropsARepeatedAndAMissingMessage) {
  start();
  for (const bool repeat : {true, false}) {
    Peer peer = connected(ECHO);
    const auto frame = sealed(peer, "once");
    if (repeat) {
      write(peer, frame);
      EXPECT_EQ(hear(peer), "once");
      write(peer, frame);
    } else {
      say(peer, "without the first");
    }
    EXPECT_TRUE(closed(peer.socket));
  }
  EXPECT_TRUE(dropped(R::BadCounter, 2));
}

TEST_F(AWorker, AsksForTheNextAddressAndGivesUpWhenThereIsNone) {
  start();
  dialError = 2;
  Peer peer = dial(TARGET);
  ASSERT_TRUE(handshake(peer));
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::TargetUnavailable));
  EXPECT_EQ(recordsOf(ControlKind::Dial), 3u);
  const auto last = std::ranges::find(records, 2u, &ControlRecord::value);
  ASSERT_NE(last, records.end());
  EXPECT_EQ(last->kind, ControlKind::Dial);
  EXPECT_EQ(last->target, TARGET);
  ASSERT_TRUE(until([&] { return recordsOf(ControlKind::DialOutcome) == 1; }));
  EXPECT_EQ(records.back().value, static_cast<uint64_t>(ECONNREFUSED));  // of the last that was tried
  EXPECT_EQ(records.back().target, TARGET);
}

TEST_F(AWorker, TellsThatATargetIsReachedAgainAndNothingWhileAllIsWell) {
  start();
  for (const uint64_t failedBefore : {0u, 1u}) {
    dialedValue = failedBefore;
    Peer peer = dial(TARGET);
    ASSERT_TRUE(handshake(peer));
    ASSERT_TRUE(until([&] { return target.get() >= 0; }));
    say(peer, "hello");
    EXPECT_EQ(test::text(read(target, 5)), "hello");
    EXPECT_EQ(recordsOf(ControlKind::DialOutcome), failedBefore);
    target = nullptr;
  }
  EXPECT_EQ(records.back().value, 0u);
}

TEST_F(AWorker, GivesUpATargetThatNobodyAnswersFor) {
  start({.dialTimeoutMs = 60});
  answerDials = false;
  Peer peer = dial(TARGET);
  ASSERT_TRUE(handshake(peer));
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::TargetUnavailable));
}

TEST_F(AWorker, ThatServesNoProgramsHasNoAcceptor) {
  start();
  Peer peer = dial(CHANNEL);
  ASSERT_TRUE(handshake(peer));
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::NoAcceptor));
}

TEST_F(AWorker, EndsTheSessionsOfARevokedPeer) {
  start();
  Peer peer = connected(ECHO);
  configure({.allowed = true});
  turns();
  say(peer, "a reload that changes nothing");
  EXPECT_EQ(hear(peer), "a reload that changes nothing");
  configure({.allowed = false});
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::PeerRevoked));
}

// --- the monitor -----------------------------------------------------------------------------------------------------

TEST_F(AWorker, EndsHandshakesAtOnceAndSessionsWhenTheDrainTimeIsOver) {
  start({.drainTimeoutMs = 150});
  Peer session = connected(ECHO);
  Peer half = dial(ECHO);
  hello(half);
  ASSERT_EQ(read(half.socket, 170).size(), 170u);
  monitor->send({.kind = ControlKind::Drain});
  EXPECT_TRUE(closed(half.socket));
  EXPECT_EQ(stats.get(R::ShuttingDown), 1u);
  EXPECT_THROW(connectUnix(address(ECHO)), kj::Exception);
  say(session, "not yet");
  EXPECT_EQ(hear(session), "not yet");
  EXPECT_TRUE(closed(session.socket));
  EXPECT_TRUE(dropped(R::ShuttingDown, 2));
  EXPECT_TRUE(until([&] { return recordsOf(ControlKind::Drained) > 0; }));
}

TEST_F(AWorker, AsksForAnotherVaultWhenItsOwnIsGoneAndKeepsItsSessions) {
  start();
  Peer peer = connected(ECHO);
  vaultServer.reset();
  EXPECT_TRUE(until([&] { return recordsOf(ControlKind::VaultLost) == 1; }));
  say(peer, "still here");
  EXPECT_EQ(hear(peer), "still here");
}

TEST_F(AWorker, StopsWhenItsMonitorIsGone) {
  start();
  monitor.reset();
  loop.run();  // would not come back otherwise
}

TEST_F(AWorker, GoesOnAfterARecordThatAMonitorDoesNotSend) {
  start();
  Peer peer = connected(ECHO);
  for (const ControlKind kind : {ControlKind::Ready, ControlKind::Dial, ControlKind::Drained, ControlKind(4711)}) {
    monitor->send({.kind = kind});
  }
  monitor->send({.kind = ControlKind::WireListener, .target = ECHO});  // its descriptor found no room
  monitor->send({.kind = ControlKind::CookieKey}, asBytes("too short"));
  turns();
  say(peer, "still here");
  EXPECT_EQ(hear(peer), "still here");
  EXPECT_FALSE(workerGone);
}

TEST_F(AWorker, AsksForAnotherVaultWhenTheLinkGotLost) {
  start();
  monitor->send({.kind = ControlKind::VaultLink});
  EXPECT_TRUE(until([&] { return recordsOf(ControlKind::VaultLost) == 1; }));
}

TEST_F(AWorker, ServesNobodyWithoutItsConfiguration) {
  start();
  monitor->send({.kind = ControlKind::Config});
  loop.run();  // would not come back otherwise: a worker that missed a reload serves whom it should not
}

TEST_F(AWorker, ForgetsAnswersThatItNoLongerWaitsFor) {
  start();
  monitor->send({.kind = ControlKind::DialFailed, .request = 77});
  monitor->send({.kind = ControlKind::ReloadDone, .request = 78});
  sendFd({.kind = ControlKind::Dialed, .request = 79}, kj::AutoCloseFd(dup(0)));
  turns();
  Peer peer = connected(ECHO);
}

// --- metrics ---------------------------------------------------------------------------------------------------------

TEST_F(AWorker, ServesItsCountersAndNothingElse) {
  start();
  sendFd({.kind = ControlKind::MetricsListener}, kj::AutoCloseFd(listenUnix(folder / "metrics", 0600)));
  turns();
  Peer peer = connected(ECHO);
  const auto ask = [&](std::string_view request) {
    kj::AutoCloseFd socket(connectUnix(folder / "metrics"));
    EXPECT_EQ(::send(socket, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
    return test::text(read(socket, 1 << 20));
  };
  const std::string page = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(page.starts_with("HTTP/1.1 200 OK\r\n")) << page;
  EXPECT_NE(page.find("sallyport_net_server_handshakes_total{worker=\"0\"} 1\n"), std::string::npos);
  EXPECT_NE(page.find("sallyport_net_drops_total{reason=\"bad_box\"} 0\n"), std::string::npos);
  const size_t body = page.find("\r\n\r\n") + 4;
  EXPECT_NE(page.find("Content-Length: " + std::to_string(page.size() - body) + "\r\n"), std::string::npos);
  EXPECT_TRUE(ask("GET /secret HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
  EXPECT_TRUE(ask("POST /secret HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
  EXPECT_TRUE(
      ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n"));
  EXPECT_EQ(ask(std::string(4096, 'x')), "");  // no end of the head within 4 KiB
}

}  // namespace
}  // namespace sallyport::netd
