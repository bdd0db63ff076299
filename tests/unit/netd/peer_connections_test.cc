// peer_connections_test.cc - Goal: a worker's connections of the peer protocol do what docs/protocol.md §13 says, and
// no more. Method: a whole worker in the test's loop (peer_fixture.h); the test is party A of the block.
#include "tests/unit/netd/peer_fixture.h"

namespace sallyport::netd::test {
namespace {

using PeerConnections = PeerWorkerTest;

TEST_F(PeerConnections, AFirstFrameOfDataIsServedToo) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(party));
  say(party, "first", 3);
  EXPECT_EQ(hear(party), "3:first");
}

TEST_F(PeerConnections, AFirstFrameThatIsLargeIsServedToo) {
  start();
  Party party = dialParty(PEER_TARGET_ENTRY);
  ASSERT_TRUE(exchange(party));
  const std::string text(300'000, 'x');
  say(party, text);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  EXPECT_EQ(read(target, text.size()).size(), text.size());
  EXPECT_TRUE(until([&] { return stats.get(Counter::BufferBytes) == 0; }));
}

TEST_F(PeerConnections, IsHalfOpenUntilTheFirstFrame) {
  start();
  Party party = dialParty(PEER_TARGET_ENTRY);
  ASSERT_TRUE(exchange(party));
  turns();
  EXPECT_EQ(stats.get(Counter::HalfOpen), 1u);
  EXPECT_EQ(recordsOf(ControlKind::Dial), 0u);  // nothing is dialled for who hasn't proved to have the block
  say(party, PEER_OPEN_TEXT, PEER_CODE_CONTROL);
  ASSERT_TRUE(until([&] { return recordsOf(ControlKind::Dial) == 1; }));
  EXPECT_EQ(stats.get(Counter::HalfOpen), 0u);
}

TEST_F(PeerConnections, ATunnelCarriesBothWaysAndBothEnds) {
  start();
  Party party = connectedParty(PEER_TARGET_ENTRY);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  say(party, "up");
  EXPECT_EQ(text(read(target, 2)), "up");
  ASSERT_EQ(::send(target, "down", 4, 0), 4);
  EXPECT_EQ(hear(party), "0:down");
  say(party, "", PEER_CODE_CONTROL);
  EXPECT_TRUE(closed(target));  // half: the other direction goes on
  ASSERT_EQ(::send(target, "more", 4, 0), 4);
  EXPECT_EQ(hear(party), "0:more");
  target = nullptr;
  EXPECT_EQ(hear(party), END);
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(until([&] { return stats.get(Counter::Tunnels) == 0; }));
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) EXPECT_EQ(stats.get(static_cast<R>(i)), 0u) << i;
}

TEST_F(PeerConnections, AnyWayOfCuttingTheBytesIsTheSame) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  std::vector<std::byte> bytes;
  const std::vector<size_t> sizes = {0, 1, 15, 16, 17, 1000, 70'000, 200'000, 3};
  for (const size_t size : sizes) {
    const auto next = frame(party, std::string(size, 'a'), static_cast<uint32_t>(size));
    bytes.insert(bytes.end(), next.begin(), next.end());
  }
  std::vector<std::byte> answer;
  size_t total = bytes.size();
  for (size_t at = 0, piece = 1; at < bytes.size(); at += piece, piece = piece * 3 % 9973 + 1) {
    writeTo(party, ByteSpan(bytes).subspan(at, std::min(piece, bytes.size() - at)));
    loop.turn(0);
    std::byte buffer[65536];
    for (ssize_t got; (got = recv(party.socket, buffer, sizeof buffer, MSG_DONTWAIT)) > 0;)
      answer.insert(answer.end(), buffer, buffer + got);
  }
  const auto rest = read(party.socket, total - answer.size());
  answer.insert(answer.end(), rest.begin(), rest.end());
  ASSERT_EQ(answer.size(), total);
  MutableByteSpan left(answer);
  for (const size_t size : sizes) {
    const auto header = party.opener->openHeader(frameCipher, left.first<wire::PEER_HEADER_BYTES>());
    ASSERT_TRUE(header);
    EXPECT_EQ(header->length, size);
    EXPECT_EQ(header->code, size);
    left = left.subspan(wire::PEER_HEADER_BYTES);
    ASSERT_EQ(party.opener->openBody(frameCipher, left.first(size + wire::PEER_TAG_BYTES)), std::nullopt);
    EXPECT_TRUE(std::ranges::all_of(left.first(size), [](std::byte byte) { return byte == std::byte{'a'}; }));
    left = left.subspan(size + wire::PEER_TAG_BYTES);
  }
}

TEST_F(PeerConnections, GoFromEpochToEpochWithoutTheVault) {
  start({.rotateFrames = 3});
  Party party = connectedParty(PEER_ECHO_ENTRY, 3);
  vaultServer.reset();
  for (int i = 0; i < 40; ++i) {
    say(party, "frame " + std::to_string(i));
    ASSERT_EQ(hear(party), "0:frame " + std::to_string(i));
  }
}

// --- what must not work ----------------------------------------------------------------------------------------------

TEST_F(PeerConnections, RefuseGarbageAtItsFirstByte) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  writeTo(party, asBytes("x"));
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::BadPreamble));
  EXPECT_EQ(vault.accepts, 0u);  // the vault was not asked
}

TEST_F(PeerConnections, RefuseACurveHello) {
  start();
  Peer peer = dial(PEER_ECHO_ENTRY);
  hello(peer);
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::BadPreamble));
}

TEST_F(PeerConnections, RefuseAPeerOfTheSameParty) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  sendPreamble(party, wire::PeerParty::B);
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::SameParty));
}

TEST_F(PeerConnections, RefuseAnotherBlock) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  const auto real = std::exchange(vault.block, TestVault::randomBlock());
  sendPreamble(party);
  const auto bytes = read(party.socket, wire::PEER_PREAMBLE_BYTES);
  vault.block = real;
  wire::PeerPreambleBytes preamble;
  std::ranges::copy(bytes, preamble.begin());
  const auto theirs = wire::parsePeerPreamble(preamble, wire::PeerParty::A);
  ASSERT_TRUE(theirs);
  party.sealer = peer::hardSealer(
      peer::hardSendSecret(TestVault::randomBlock(), wire::PeerParty::A, party.salt, *theirs), wire::PeerParty::A);
  say(party, "let me in");
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::BadChecksum));
  EXPECT_EQ(stats.get(Counter::ServerHandshakes), 0u);
}

TEST_F(PeerConnections, RefuseARecordedSession) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(party));
  const auto recorded = frame(party, "transfer 100");
  writeTo(party, recorded);
  EXPECT_EQ(hear(party), "0:transfer 100");
  Party again = dialParty(PEER_ECHO_ENTRY);
  again.salt = party.salt;
  sendPreamble(again);
  ASSERT_EQ(read(again.socket, wire::PEER_PREAMBLE_BYTES).size(), wire::PEER_PREAMBLE_BYTES);
  writeTo(again, recorded);
  EXPECT_TRUE(closed(again.socket));
  EXPECT_TRUE(dropped(R::BadChecksum));
}

TEST_F(PeerConnections, RefuseOurOwnFramesReflected) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  say(party, "mirror");
  const auto ours = read(party.socket, wire::PEER_OVERHEAD_BYTES + 6);
  writeTo(party, ours);
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::BadChecksum));
}

TEST_F(PeerConnections, EndWithTheFirstChangedBit) {
  start();
  for (const size_t at : {0u, 5u, 9u, 13u, 16u, 20u, 21u, 28u}) {
    Party party = connectedParty(PEER_TARGET_ENTRY);
    ASSERT_TRUE(until([&] { return target.get() >= 0; }));
    auto bytes = frame(party, "hello");
    bytes[at] ^= std::byte{1};
    writeTo(party, bytes);
    EXPECT_TRUE(closed(party.socket));
    EXPECT_TRUE(closed(target)) << "not a byte may come";
    target = nullptr;
  }
  EXPECT_TRUE(dropped(R::BadChecksum, 4));
  EXPECT_TRUE(dropped(R::BadTag, 4));
}

TEST_F(PeerConnections, ALargeFrameIsShownToNobodyBeforeItsTag) {
  start();
  Party party = connectedParty(PEER_TARGET_ENTRY);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  auto bytes = frame(party, std::string(700'000, 'z'));
  bytes.back() ^= std::byte{0x80};
  writeTo(party, ByteSpan(bytes).first(bytes.size() - 1));
  turns();
  std::byte byte;
  EXPECT_LT(recv(target, &byte, 1, MSG_DONTWAIT), 0);
  EXPECT_GE(stats.get(Counter::BufferBytes), 700'000u);
  writeTo(party, ByteSpan(bytes).last(1));
  EXPECT_TRUE(closed(target));
  EXPECT_TRUE(dropped(R::BadTag));
}

TEST_F(PeerConnections, AClaimedLengthTakesNoMemory) {
  start();
  for (const bool first : {true, false}) {
    Party party = first ? dialParty(PEER_ECHO_ENTRY) : connectedParty(PEER_ECHO_ENTRY);
    if (first) { ASSERT_TRUE(exchange(party)); }
    const auto claimed = frame(party, std::string(MAX_PEER_FRAME_BYTES, 'x'));
    writeTo(party, ByteSpan(claimed).first(wire::PEER_HEADER_BYTES));
    turns();
    EXPECT_LT(stats.get(Counter::BufferBytes), 5000u);
    // Nor more than twice what came, and a page.
    writeTo(party, ByteSpan(claimed).subspan(wire::PEER_HEADER_BYTES, 1000));
    turns();
    EXPECT_GE(stats.get(Counter::BufferBytes), 1000u);
    EXPECT_LT(stats.get(Counter::BufferBytes), 8000u);
    writeTo(party, ByteSpan(claimed).subspan(wire::PEER_HEADER_BYTES + 1000));
    EXPECT_EQ(hear(party), "0:" + std::string(MAX_PEER_FRAME_BYTES, 'x'));
    turns();
    EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
  }
}

TEST_F(PeerConnections, RefuseAFrameBeyondTheLimitByItsHeader) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  writeTo(party, ByteSpan(frame(party, std::string(MAX_PEER_FRAME_BYTES + 1, 'x'))).first(wire::PEER_HEADER_BYTES));
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::FrameTooLarge));
}

TEST_F(PeerConnections, RefuseDataUnderTheReservedCode) {
  start();
  for (const std::string word : {"x", "opem", "open-"}) {
    Party party = connectedParty(PEER_ECHO_ENTRY);
    say(party, word, PEER_CODE_CONTROL);
    EXPECT_TRUE(closed(party.socket)) << word;
  }
  EXPECT_EQ(stats.get(R::ReservedCode), 3u);
  // What can't be one isn't waited for.
  Party party = connectedParty(PEER_ECHO_ENTRY);
  const auto large = frame(party, std::string(1000, 'x'), PEER_CODE_CONTROL);
  writeTo(party, ByteSpan(large).first(wire::PEER_HEADER_BYTES));
  EXPECT_TRUE(closed(party.socket));
  EXPECT_EQ(stats.get(R::ReservedCode), 4u);
}

TEST_F(PeerConnections, RefuseWhatComesAfterTheEnd) {
  start();
  const std::vector<std::pair<std::string_view, uint32_t>> late = {
      {"x", 0}, {"", PEER_CODE_CONTROL}, {PEER_OPEN_TEXT, PEER_CODE_CONTROL}};
  for (size_t i = 0; i < late.size(); ++i) {
    Party party = connectedParty(PEER_TARGET_ENTRY);
    ASSERT_TRUE(until([&] { return target.get() >= 0; }));
    say(party, "", PEER_CODE_CONTROL);
    say(party, late[i].first, late[i].second);
    EXPECT_TRUE(closed(party.socket)) << i;
    EXPECT_TRUE(dropped(R::AfterEnd, i + 1)) << i;
    target = nullptr;
  }
  // Its header tells, and the rest isn't waited for.
  Party party = connectedParty(PEER_TARGET_ENTRY);
  say(party, "", PEER_CODE_CONTROL);
  writeTo(party, ByteSpan(frame(party, std::string(1000, 'x'))).first(wire::PEER_HEADER_BYTES));
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::AfterEnd, late.size() + 1));
}

TEST_F(PeerConnections, AWireThatEndsWithoutTheEndIsTruncated) {
  start();
  for (const size_t keep : {29u, 28u, 10u}) {
    Party party = connectedParty(PEER_TARGET_ENTRY);
    ASSERT_TRUE(until([&] { return target.get() >= 0; }));
    writeTo(party, ByteSpan(frame(party, "hello")).first(keep));
    shutdown(party.socket, SHUT_WR);
    if (keep == 29) { EXPECT_EQ(text(read(target, 5)), "hello"); }
    EXPECT_TRUE(closed(target));
    target = nullptr;
  }
  EXPECT_TRUE(dropped(R::Truncated, 3));
}

TEST_F(PeerConnections, ASilentPeerIsTimedOut) {
  start({.handshakeTimeoutMs = 150});
  Party silent = dialParty(PEER_ECHO_ENTRY);
  Party preambleOnly = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(preambleOnly));
  Party halfFrame = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(halfFrame));
  writeTo(halfFrame, ByteSpan(frame(halfFrame, "hello")).first(20));
  EXPECT_TRUE(closed(silent.socket));
  EXPECT_TRUE(closed(preambleOnly.socket));
  EXPECT_TRUE(closed(halfFrame.socket));
  EXPECT_TRUE(dropped(R::HandshakeTimeout, 3));
}

TEST_F(PeerConnections, TheOldestHalfOpenOneMakesRoom) {
  start({.halfOpen = 2});
  Party first = dialParty(PEER_ECHO_ENTRY), second = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(first));
  turns();
  Party third = connectedParty(PEER_ECHO_ENTRY);
  EXPECT_TRUE(closed(first.socket));
  say(third, "here");
  EXPECT_EQ(hear(third), "0:here");
  EXPECT_TRUE(dropped(R::HalfOpenLimit));
}

// Frames that are never finished, by one who says nothing more: nothing but time tells of him.
TEST_F(PeerConnections, ThatHoldAllMemoryInSilenceGoAndKeepNobodyOutMeanwhile) {
  const size_t limit = 512 << 10;
  start({.bufferBytes = limit});
  std::vector<Party> silent;
  const auto hold = [&](size_t bytes) {
    while (stats.get(Counter::BufferBytes) < bytes) {
      silent.push_back(connectedParty(PEER_ECHO_ENTRY));
      const auto unfinished = frame(silent.back(), std::string(150'000, 'x'));
      const size_t expected = stats.get(Counter::BufferBytes) + unfinished.size() - 1;
      writeTo(silent.back(), ByteSpan(unfinished).first(unfinished.size() - 1));
      ASSERT_TRUE(until([&] { return stats.get(Counter::BufferBytes) >= expected; }));
    }
  };
  hold(limit + 1);
  Party large = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(large));
  say(large, std::string(300'000, 'y'));
  EXPECT_TRUE(closed(large.socket)) << "who has shown nothing yet gets no more of what isn't there";
  EXPECT_EQ(stats.get(R::MemoryLimit), 1u);
  Party honest = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(honest));
  say(honest, "hello");
  EXPECT_EQ(hear(honest), "0:hello");
  EXPECT_GT(stats.get(Counter::BufferBytes), limit);
  // The reserve is gone too: that doesn't stay so.
  hold(limit + limit / 4 + 1);
  EXPECT_TRUE(until([&] { return stats.get(Counter::BufferBytes) <= limit + limit / 4; }));
  EXPECT_GT(stats.get(R::MemoryLimit), 1u);
  EXPECT_TRUE(closed(silent.front().socket)) << "who has waited longest pays";
}

// Whose host holds little stays, though it has waited longest: those who hold the memory pay for it.
TEST_F(PeerConnections, DontPayForWhatTheHolderOfAnotherBlockHolds) {
  const size_t limit = 512 << 10;
  start({.bufferBytes = limit});
  Peer innocent = connected(ECHO_ENTRY);
  const auto half = sealed(innocent, std::string(60000, 'i'));
  write(innocent, ByteSpan(half).first(half.size() - 1));
  ASSERT_TRUE(until([&] { return stats.get(Counter::BufferBytes) > 0; }));
  std::vector<Party> greedy;
  while (stats.get(R::MemoryLimit) < 3) {
    greedy.push_back(connectedParty(PEER_ECHO_ENTRY));
    writeTo(greedy.back(), ByteSpan(frame(greedy.back(), std::string(150'000, 'x'))).first(100'000));
    ASSERT_TRUE(until([&] { return stats.get(Counter::BufferBytes) <= limit + limit / 4; }));
    ASSERT_LT(greedy.size(), 40u);
  }
  write(innocent, ByteSpan(half).last(1));
  EXPECT_EQ(WorkerTest::hear(innocent), std::string(60000, 'i'));
}

TEST_F(PeerConnections, EndWhenAReloadTakesTheBlockAway) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  configure({.blockName = "another"});
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::PeerRevoked));
}

// However much of its first frame came before: an end needs no deadline.
TEST_F(PeerConnections, OneThatEndsBeforeItsFirstFrameIsGoneAtOnce) {
  start({.handshakeTimeoutMs = 60'000});
  uint64_t ended = 0;
  for (const bool rotated : {false, true}) {
    if (rotated) vault.otherBlocks = {{7, TestVault::randomBlock()}};
    for (const size_t bytes : {0u, 1u, 9u, 15u, 16u, 17u, 30u}) {
      for (const bool inTwoSteps : {false, true}) {
        Party party = dialParty(PEER_ECHO_ENTRY);
        ASSERT_TRUE(exchange(party));
        turns(3);
        writeTo(party, ByteSpan(frame(party, "half a frame")).first(bytes));
        if (inTwoSteps) turns(3);
        shutdown(party.socket, SHUT_WR);
        ASSERT_TRUE(dropped(R::ClosedInHandshake, ++ended)) << bytes << rotated << inTwoSteps;
        EXPECT_TRUE(closed(party.socket));
      }
    }
  }
}

// The loop tells of both at once, and only once.
TEST_F(PeerConnections, OneThatEndsBehindItsPreambleIsGoneWhenTheVaultHasAnswered) {
  start({.handshakeTimeoutMs = 60'000});
  Party party = dialParty(PEER_ECHO_ENTRY);
  sendPreamble(party);
  shutdown(party.socket, SHUT_WR);
  EXPECT_TRUE(dropped(R::ClosedInHandshake));
  EXPECT_EQ(vault.accepts, 1u);
}

TEST_F(PeerConnections, NothingIsDialledForOneThatIsGoneBehindItsFirstFrame) {
  start({.dialTimeoutMs = 60'000});
  answerDials = false;
  Party party = dialParty(PEER_TARGET_ENTRY);
  ASSERT_TRUE(exchange(party));
  turns(3);
  say(party, PEER_OPEN_TEXT, PEER_CODE_CONTROL);
  party.socket = nullptr;
  EXPECT_TRUE(dropped(R::TransportError));
  EXPECT_EQ(recordsOf(ControlKind::Dial), 0u);
}

TEST_F(PeerConnections, AskTheVaultOnceEach) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  writeTo(party, ByteSpan(wire::writePeerPreamble(wire::PeerParty::A, party.salt)).first(39));
  turns();
  EXPECT_EQ(vault.accepts, 0u);
  party.socket = nullptr;
  Party whole = connectedParty(PEER_ECHO_ENTRY);
  say(whole, "hello");
  EXPECT_EQ(hear(whole), "0:hello");
  EXPECT_EQ(vault.accepts, 1u);
  EXPECT_TRUE(vault.salts.empty());
  EXPECT_EQ(stats.get(Counter::VaultCalls), 1u);
}

TEST_F(PeerConnections, SurviveAReloadThatChangesNothing) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  configure({});
  turns();
  say(party, "still here");
  EXPECT_EQ(hear(party), "0:still here");
}

}  // namespace
}  // namespace sallyport::netd::test
