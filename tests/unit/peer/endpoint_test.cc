// Goal: send and receive do what docs/protocol.md §13.4 says, sentence by sentence, in both modes, however the stream
// is cut. Method: two endpoints over queues in memory, with a clock that only waiting moves.
#include "peer/endpoint.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <random>

#include "tests/unit/peer/descriptor_transport.h"
#include "tests/unit/peer/memory_wire.h"

namespace sallyport::peer {
namespace {

using namespace test;

constexpr uint32_t CODE = 7;

class AnEndpoint : public testing::TestWithParam<PeerMode> {
 protected:
  static Block pattern(size_t bytes) {
    Block block(bytes);
    for (size_t i = 0; i < bytes; ++i) block[i] = static_cast<std::byte>(i * 31 + i / 256);
    return block;
  }
  void sendA(const Block& text, uint32_t code = CODE) {
    const Sent sent = wire.a.send(text, code, 0);
    ASSERT_EQ(sent.status, Status::Ok);
    ASSERT_EQ(sent.bytes, text.size());
  }
  Received receiveB(size_t bytes, uint32_t timeoutMs = 0) {
    buffer.assign(bytes, std::byte{0xee});
    return wire.b.receive(buffer, timeoutMs);
  }
  Block got(const Received& received) const {
    return Block(buffer.begin(), buffer.begin() + static_cast<ptrdiff_t>(received.bytes));
  }
  // Behind what a call returned the buffer is untouched: no byte was there for a while.
  void expectUntouchedBehind(const Received& received) const {
    for (size_t i = received.bytes; i < buffer.size(); ++i) ASSERT_EQ(buffer[i], std::byte{0xee}) << i;
  }
  bool hard() const { return GetParam() == PeerMode::Hard; }

  Conversation wire{GetParam(), 1000, 100000};
  Block buffer;
};
INSTANTIATE_TEST_SUITE_P(InEachMode, AnEndpoint, testing::Values(PeerMode::Base, PeerMode::Hard),
                         [](const auto& mode) { return mode.param == PeerMode::Base ? "Base" : "Hard"; });

TEST_P(AnEndpoint, SendsAnySizeBehindOneCallAndReceivesItBehindOneCall) {
  const Block text = pattern(54321);
  sendA(text);
  const Received received = receiveB(text.size());
  EXPECT_EQ(received.status, Status::Ok);
  EXPECT_EQ(received.code, CODE);
  EXPECT_EQ(received.frames, 55u);
  EXPECT_EQ(got(received), text);
}

TEST_P(AnEndpoint, SendsNothingAsOneEmptyFrame) {
  sendA({}, 4);
  const Received received = receiveB(100);
  EXPECT_EQ(received.status, Status::SlowPeer);  // there is room for more
  EXPECT_EQ(received.frames, 1u);
  EXPECT_EQ(received.bytes, 0u);
  EXPECT_EQ(received.code, 4u);
}

TEST_P(AnEndpoint, ReceivesTheSameHoweverTheStreamIsCut) {
  std::mt19937 dice(3);
  for (const size_t piece : {1, 2, 7, 15, 16, 17, 24, 100, 999, 1024, 5000}) {
    Conversation other{GetParam(), 700, 100000};
    other.aToB.piece = piece;
    other.wireA.whileWaiting = other.wireB.whileWaiting = [] {};
    Block text = pattern(5000 + dice() % 2000);
    ASSERT_EQ(other.a.send(text, CODE, 0).status, Status::Ok);
    Block in(text.size());
    const Received received = other.b.receive(in, 1000);
    ASSERT_EQ(received.status, Status::Ok) << piece;
    ASSERT_EQ(in, text) << piece;
  }
}

TEST_P(AnEndpoint, ReceivesTheSameWhateverTheCutsAndTheCallsAre) {
  for (uint32_t seed = 1; seed <= 150; ++seed) {
    std::mt19937 dice(seed);
    Conversation other(GetParam(), static_cast<uint32_t>(1 + dice() % 300), 300);
    const Block text = pattern(dice() % 3000);
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = std::min<size_t>(text.size() - at, 1 + dice() % 500);
      ASSERT_EQ(other.a.send(ByteSpan(text).subspan(at, bytes), dice() % 3, 0).status, Status::Ok);
      at += bytes;
    }
    Block stream = std::move(other.aToB.bytes);
    other.aToB.bytes.clear();
    size_t delivered = 0;
    Block all;
    for (int idle = 0; idle < 3;) {
      const size_t more = std::min<size_t>(stream.size() - delivered, dice() % 400);
      const auto from = stream.begin() + static_cast<ptrdiff_t>(delivered);
      other.aToB.bytes.insert(other.aToB.bytes.end(), from, from + static_cast<ptrdiff_t>(more));
      other.aToB.piece = 1 + dice() % 100;
      delivered += more;
      Block in(dice() % 700);
      const Received received = other.b.receive(in, dice() % 30);
      ASSERT_NE(received.status, Status::Broken) << seed;
      all.insert(all.end(), in.begin(), in.begin() + static_cast<ptrdiff_t>(received.bytes));
      if (received.bytes > 0 || delivered < stream.size()) {
        idle = 0;
      } else if (in.size() >= 300) {
        ++idle;
      }
    }
    ASSERT_EQ(all, text) << seed;
  }
}

TEST_P(AnEndpoint, GathersFramesOfOneCodeOnly) {
  sendA(textBlock("one"), 1);
  sendA(textBlock("two"), 1);
  sendA(textBlock("three"), 2);
  const Received first = receiveB(100);
  EXPECT_EQ(first.status, Status::Ok);
  EXPECT_EQ(first.code, 1u);
  EXPECT_EQ(got(first), textBlock("onetwo"));
  expectUntouchedBehind(first);
  const Received second = receiveB(5);
  EXPECT_EQ(second.status, Status::Ok);
  EXPECT_EQ(second.code, 2u);
  EXPECT_EQ(got(second), textBlock("three"));
}

TEST_P(AnEndpoint, ReturnsUpToTheLastWholeFrameThatFitsAndKeepsTheRest) {
  sendA(textBlock("0123456789"));
  sendA(textBlock("abcdefghij"));
  const Received first = receiveB(15);
  EXPECT_EQ(first.status, Status::Ok);
  EXPECT_EQ(got(first), textBlock("0123456789"));
  expectUntouchedBehind(first);
  const Received second = receiveB(10);
  EXPECT_EQ(second.status, Status::Ok);
  EXPECT_EQ(got(second), textBlock("abcdefghij"));
}

TEST_P(AnEndpoint, SaysHowLargeTheFirstFrameIsWhenItDoesntFit) {
  sendA(textBlock("0123456789"), 3);
  for (int again = 0; again < 2; ++again) {
    const Received refused = receiveB(9);
    EXPECT_EQ(refused.status, Status::TooBig);
    EXPECT_EQ(refused.bytes, 0u);
    EXPECT_EQ(refused.needed, 10u);
    EXPECT_EQ(refused.code, 3u);
    expectUntouchedBehind(refused);
  }
  EXPECT_EQ(receiveB(0).status, Status::TooBig);
  EXPECT_EQ(got(receiveB(10)), textBlock("0123456789"));
}

TEST_P(AnEndpoint, SaysSoWithTheHeaderAloneBeforeTheFrameHasCome) {
  sendA(textBlock("0123456789"));
  Block rest(wire.aToB.bytes.begin() + wire::PEER_HEADER_BYTES, wire.aToB.bytes.end());
  wire.aToB.bytes.resize(wire::PEER_HEADER_BYTES);
  EXPECT_EQ(receiveB(9, 1000).status, Status::TooBig);
  EXPECT_TRUE(wire.b.receiving());
  wire.aToB.bytes = rest;
  EXPECT_EQ(got(receiveB(10)), textBlock("0123456789"));
  EXPECT_FALSE(wire.b.receiving());
}

TEST_P(AnEndpoint, TellsASlowPeerWithTheGoodBytesAndKeepsThePartOfAFrame) {
  sendA(textBlock("whole"));
  sendA(textBlock("half of this"));
  const Block rest(wire.aToB.bytes.end() - 9, wire.aToB.bytes.end());
  wire.aToB.bytes.resize(wire.aToB.bytes.size() - 9);
  const uint64_t before = wire.clock;
  const Received slow = receiveB(17, 500);
  EXPECT_EQ(slow.status, Status::SlowPeer);
  EXPECT_EQ(got(slow), textBlock("whole"));
  expectUntouchedBehind(slow);
  EXPECT_EQ(wire.clock - before, 500u);
  EXPECT_TRUE(wire.b.receiving());
  wire.aToB.bytes = rest;
  const Received next = receiveB(12);
  EXPECT_EQ(next.status, Status::Ok);
  EXPECT_EQ(got(next), textBlock("half of this"));
}

TEST_P(AnEndpoint, WaitsForTheRestWithinTheTime) {
  sendA(textBlock("first"));
  wire.wireB.whileWaiting = [&] {
    if (wire.clock == 1050) sendA(textBlock("later"));
  };
  const Received received = receiveB(10, 500);
  EXPECT_EQ(received.status, Status::Ok);
  EXPECT_EQ(got(received), textBlock("firstlater"));
  EXPECT_EQ(wire.clock, 1050u);
}

TEST_P(AnEndpoint, ReturnsTheGoodBytesAndTheErrorAndRepeatsIt) {
  sendA(textBlock("good"));
  sendA(textBlock("bad!"));
  sendA(textBlock("good again"));
  wire.aToB.bytes[28 + 17] ^= std::byte{1};
  const Received received = receiveB(100, 1000);
  EXPECT_EQ(received.status, Status::Broken);
  EXPECT_EQ(received.fault, R::BadTag);
  EXPECT_EQ(got(received), textBlock("good"));
  expectUntouchedBehind(received);
  EXPECT_EQ(wire.clock, 1000u);  // at once
  for (int again = 0; again < 2; ++again) {
    const Received dead = receiveB(100, 1000);
    EXPECT_EQ(dead.status, Status::Broken);
    EXPECT_EQ(dead.fault, R::BadTag);
    EXPECT_EQ(dead.bytes, 0u);
    expectUntouchedBehind(dead);
  }
}

TEST_P(AnEndpoint, RefusesAFrameBeyondTheLimitBeforeItTakesMemory) {
  Conversation small(GetParam(), 5000, 4999);
  ASSERT_EQ(small.a.send(pattern(5000), CODE, 0).status, Status::Ok);
  Block in(5000);
  const Received received = small.b.receive(in, 0);
  EXPECT_EQ(received.status, Status::Broken);
  EXPECT_EQ(received.fault, R::FrameTooLarge);
}

TEST_P(AnEndpoint, HoldsNoMoreThanTheLargestFrame) {
  // B writes and can't, so it reads on; A sends without end.
  wire.bToA.capacity = 0;
  wire.wireB.whileWaiting = [&] {
    if (wire.aToB.bytes.size() < 200000) sendA(pattern(100000));
  };
  EXPECT_EQ(wire.b.send(pattern(10), CODE, 2000).status, Status::SlowPeer);
  EXPECT_GE(wire.aToB.bytes.size(), 200000u);
  EXPECT_FALSE(wire.wireB.waits.back().toRead);  // the read-ahead is full
  EXPECT_TRUE(wire.wireB.waits.back().toWrite);
  EXPECT_LE(wire.wireB.largestRead, 400000u);
  // And all of it is still good.
  wire.wireB.whileWaiting = nullptr;
  EXPECT_EQ(receiveB(100000).status, Status::Ok);
  EXPECT_EQ(buffer, pattern(100000));
}

TEST_P(AnEndpoint, GoesOnWithAFrameThatWasHalfWritten) {
  wire.aToB.capacity = 600;
  const Sent sent = wire.a.send(pattern(2500), CODE, 300);
  EXPECT_EQ(sent.status, Status::SlowPeer);
  EXPECT_EQ(sent.bytes, 1000u);  // the frame that waits counts: it will leave
  EXPECT_TRUE(wire.a.sending());
  EXPECT_EQ(receiveB(1000, 100).status, Status::SlowPeer);
  wire.aToB.capacity = SIZE_MAX;
  EXPECT_EQ(wire.a.flush(0).status, Status::Ok);
  EXPECT_FALSE(wire.a.sending());
  EXPECT_EQ(receiveB(1000).status, Status::Ok);
  Block first = pattern(2500);
  first.resize(1000);
  EXPECT_EQ(buffer, first);
}

TEST_P(AnEndpoint, WritesWhatWaitsWhileItReceives) {
  wire.aToB.capacity = 10;
  EXPECT_EQ(wire.a.send(textBlock("question"), CODE, 0).status, Status::SlowPeer);
  wire.wireA.whileWaiting = [&] {
    if (receiveB(8).status == Status::Ok) wire.b.send(textBlock("answer"), CODE, 0);
  };
  Block in(6);
  EXPECT_EQ(wire.a.receive(in, 1000).status, Status::Ok);
  EXPECT_EQ(in, textBlock("answer"));
}

TEST_P(AnEndpoint, CanTakeAFloodOfEmptyFramesWithoutOverstayingItsTime) {
  for (int i = 0; i < 30000; ++i) sendA({});
  wire.aToB.piece = 24;  // each comes alone
  const Received received = receiveB(10, 0);
  EXPECT_EQ(received.status, Status::SlowPeer);
  EXPECT_LT(received.frames, 100u);
}

TEST_P(AnEndpoint, TellsAnEndInsideAFrameAsTruncation) {
  sendA(textBlock("whole"));
  sendA(textBlock("cut"));
  wire.aToB.bytes.pop_back();
  wire.aToB.ended = true;
  const Received received = receiveB(100, 1000);
  EXPECT_EQ(received.status, Status::Broken);
  EXPECT_EQ(received.fault, R::Truncated);
  EXPECT_EQ(got(received), textBlock("whole"));
  EXPECT_EQ(receiveB(100).fault, R::Truncated);
}

TEST_P(AnEndpoint, TellsAnEndBetweenFramesAsTheModeCan) {
  sendA(textBlock("whole"));
  wire.aToB.ended = true;
  const Received received = receiveB(100, 1000);
  EXPECT_EQ(got(received), textBlock("whole"));
  // Base mode can't know; hard mode knows that the end is missing.
  EXPECT_EQ(received.status, hard() ? Status::Broken : Status::Closed);
  EXPECT_EQ(received.fault, hard() ? std::optional(R::Truncated) : std::nullopt);
}

TEST_P(AnEndpoint, TellsAWireThatFailed) {
  sendA(textBlock("whole"));
  wire.aToB.failed = true;
  wire.bToA.failed = true;
  const Received received = receiveB(100, 1000);
  EXPECT_EQ(received.fault, R::TransportError);
  EXPECT_EQ(got(received), textBlock("whole"));
  EXPECT_EQ(wire.b.send(textBlock("x"), CODE, 0).fault, R::TransportError);
  EXPECT_EQ(wire.b.send(textBlock("x"), CODE, 0).fault, R::TransportError);
}

TEST_P(AnEndpoint, ThatSendsReadsWhatComesSoThatBothCanSendAtOnce) {
  // Either side's wire takes a thousandth of what it wants to send; the other answers only by being in send itself.
  Conversation both(GetParam(), 100000, 100000);
  both.aToB.capacity = both.bToA.capacity = 100;
  int depth = 0;
  Sent sentB;
  both.wireA.whileWaiting = [&] {
    if (depth++ == 0) sentB = both.b.send(pattern(100000), 2, 1);
    if (depth > 1) sentB = both.b.flush(1);
  };
  const Sent sentA = both.a.send(pattern(100000), 1, 1000000);
  EXPECT_EQ(sentA.status, Status::Ok);
  Block in(100000);
  EXPECT_EQ(both.b.receive(in, 0).status, Status::Ok);
  EXPECT_EQ(in, pattern(100000));
  in.assign(100000, std::byte{});
  both.wireA.whileWaiting = [&] { both.b.flush(1); };
  EXPECT_EQ(both.a.receive(in, 1000000).status, Status::Ok);
  EXPECT_EQ(in, pattern(100000));
}

TEST(TwoEndpoints, ThatSendTheLargestFramesAtOnceOverARealWireDontWaitForEachOther) {
  constexpr uint32_t FRAME_BYTES = 3 << 20;  // far more than the sockets hold
  std::array<int, 2> sockets;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.data()), 0);
  const auto run = [](int fd, PeerParty own, bool& good) {
    const Keys keys{.maxFrameBytes = FRAME_BYTES};
    FrameCipher cipher;
    DescriptorTransport io(fd, fd);
    Endpoint endpoint(keys.sealer(PeerMode::Hard, own, 0), keys.opener(PeerMode::Hard, otherParty(own), 0), cipher, io,
                      FRAME_BYTES);
    const Block text(FRAME_BYTES, static_cast<std::byte>(own));
    const Sent sent = endpoint.send(text, 1, 60000);
    Block in(FRAME_BYTES);
    const Received received = endpoint.receive(in, 60000);
    good = sent.status == Status::Ok && received.status == Status::Ok && received.frames == 1 &&
           in == Block(FRAME_BYTES, static_cast<std::byte>(otherParty(own)));
  };
  bool goodA = false;
  bool goodB = false;
  std::thread other([&] { run(sockets[1], PeerParty::B, goodB); });
  run(sockets[0], PeerParty::A, goodA);
  other.join();
  for (const int fd : sockets) close(fd);
  EXPECT_TRUE(goodA);
  EXPECT_TRUE(goodB);
}

TEST(AnEndpointInHardMode, KnowsAnAuthenticatedEnd) {
  Conversation wire(PeerMode::Hard);
  ASSERT_EQ(wire.a.sendOpen(0).status, Status::Ok);
  ASSERT_EQ(wire.a.send(textBlock("last"), 1, 0).status, Status::Ok);
  ASSERT_EQ(wire.a.sendEnd(0).status, Status::Ok);
  wire.aToB.ended = true;
  Block in(100);
  const Received received = wire.b.receive(in, 1000);
  EXPECT_EQ(received.status, Status::Ended);
  EXPECT_EQ(received.bytes, 4u);
  EXPECT_EQ(wire.b.receive(in, 1000).status, Status::Ended);
  // The other direction goes on.
  ASSERT_EQ(wire.b.send(textBlock("bye"), 1, 0).status, Status::Ok);
  Block bye(3);
  EXPECT_EQ(wire.a.receive(bye, 0).status, Status::Ok);
  EXPECT_EQ(wire.a.send(textBlock("more"), 1, 0).fault, R::AfterEnd);
  EXPECT_EQ(wire.a.sendEnd(0).fault, R::AfterEnd);
}

TEST(AnEndpointInHardMode, RefusesWhatComesAfterTheEnd) {
  Conversation wire(PeerMode::Hard);
  FrameSealer sealer = wire.keys.sealer(PeerMode::Hard, PeerParty::A, 0);
  for (const auto& frame : {sealFrame(sealer, wire.cipher, {}, wire::PEER_CODE_CONTROL),
                            sealFrame(sealer, wire.cipher, textBlock("more"), 1)})
    wire.aToB.bytes.insert(wire.aToB.bytes.end(), frame.begin(), frame.end());
  Block in(100);
  EXPECT_EQ(wire.b.receive(in, 0).fault, R::AfterEnd);
  EXPECT_EQ(wire.b.receive(in, 0).fault, R::AfterEnd);
}

TEST(AReceiver, HoldsNothingMoreOfABrokenStream) {
  const Keys keys{};
  FrameCipher cipher;
  Receiver receiver(keys.opener(PeerMode::Hard, PeerParty::A, 0), 0);
  const Block garbage(5000);
  receiver.arrived(garbage);
  EXPECT_EQ(receiver.heldBytes(), garbage.size());
  Received received;
  EXPECT_TRUE(receiver.gather(cipher, {}, received));
  EXPECT_EQ(received.fault, R::BadChecksum);
  EXPECT_EQ(receiver.heldBytes(), 0u);
  EXPECT_EQ(receiver.roomBytes(), 0u);
  EXPECT_TRUE(receiver.room().empty());
}

TEST(AnEndpointInHardMode, LendsTheReservedCodeToNobody) {
  for (const std::string_view word : {"x", "opem", "open-"}) {
    Conversation wire(PeerMode::Hard);
    EXPECT_EQ(wire.a.send(textBlock(word), wire::PEER_CODE_CONTROL, 0).fault, R::ReservedCode);
    EXPECT_EQ(wire.a.send({}, wire::PEER_CODE_CONTROL, 0).fault, R::ReservedCode);
    EXPECT_TRUE(wire.aToB.bytes.empty());
    EXPECT_EQ(wire.a.send(textBlock("x"), wire::PEER_CODE_CONTROL - 1, 0).status, Status::Ok);
    // From a peer that sends anything else under it.
    FrameSealer sealer = wire.keys.sealer(PeerMode::Hard, PeerParty::A, 0);
    sealFrame(sealer, wire.cipher, textBlock("x"), wire::PEER_CODE_CONTROL - 1);
    const Block frame = sealFrame(sealer, wire.cipher, textBlock(word), wire::PEER_CODE_CONTROL);
    wire.aToB.bytes.insert(wire.aToB.bytes.end(), frame.begin(), frame.end());
    Block in(100);
    const Received received = wire.b.receive(in, 0);
    EXPECT_EQ(received.fault, R::ReservedCode) << word;
    EXPECT_EQ(received.bytes, 1u);
  }
}

TEST(AnEndpointInBaseMode, LeavesAllCodesToTheCaller) {
  Conversation wire(PeerMode::Base);
  ASSERT_EQ(wire.a.send(textBlock("x"), wire::PEER_CODE_CONTROL, 0).status, Status::Ok);
  Block in(1);
  const Received received = wire.b.receive(in, 0);
  EXPECT_EQ(received.status, Status::Ok);
  EXPECT_EQ(received.code, wire::PEER_CODE_CONTROL);
}

using AnEndpointDeathTest = testing::Test;
TEST(AnEndpointDeathTest, IsUsedByOneThreadAlone) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Conversation wire(PeerMode::Hard);
        std::thread([&] { wire.a.flush(0); }).join();
      },
      "get_id");
}

TEST(AnEndpointDeathTest, IsNotEnteredTwice) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Conversation wire(PeerMode::Hard);
        wire.wireA.whileWaiting = [&] { wire.a.flush(0); };
        Block in(1);
        wire.a.receive(in, 100);
      },
      "inCall");
}

}  // namespace
}  // namespace sallyport::peer
