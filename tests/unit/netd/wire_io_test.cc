// Goal: not a byte is lost, doubled or kept longer than needed, however the socket divides the stream.
// Method: socketpairs with tiny buffers, and one stream of frames cut at every place.
#include "netd/wire_io.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <set>

#include <kj/io.h>

#include "netd/frame_reader.h"
#include "tests/unit/wire/vectors.h"

namespace sallyport::netd {
namespace {

using Bytes = std::vector<std::byte>;

Bytes pattern(size_t bytes) {
  Bytes result(bytes);
  for (size_t i = 0; i < bytes; ++i) result[i] = static_cast<std::byte>(i * 131 + i / 256);
  return result;
}

class WireIo : public testing::Test {
 protected:
  WireIo() { reopen(); }
  ~WireIo() noexcept override { stash.clear(budget); }

  void reopen(int bufferBytes = 0) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    near = kj::AutoCloseFd(ends[0]);
    far = kj::AutoCloseFd(ends[1]);
    if (bufferBytes != 0) setsockopt(near, SOL_SOCKET, SO_SNDBUF, &bufferBytes, sizeof bufferBytes);
  }
  Bytes farReads() {
    Bytes all;
    Bytes some(65536);
    for (ssize_t got; (got = recv(far, some.data(), some.size(), 0)) > 0;)
      all.insert(all.end(), some.begin(), some.begin() + got);
    return all;
  }
  IoState sendParts(const Bytes& bytes, std::vector<size_t> cuts = {}) {
    std::vector<iovec> parts;
    size_t at = 0;
    cuts.push_back(bytes.size());
    for (const size_t cut : cuts) {
      parts.push_back({.iov_base = const_cast<std::byte*>(bytes.data()) + at, .iov_len = cut - at});
      at = cut;
    }
    return sendAll(near, parts, stash, budget);
  }
  uint64_t held() const { return stats.get(Counter::BufferBytes); }

  Stats stats{};
  BufferBudget budget{stats};
  Stash stash;
  kj::AutoCloseFd near, far;
};

TEST_F(WireIo, AHandshakeReadsWhatItExpectsAndNoByteBeyond) {
  Bytes room(5);
  size_t have = 0;
  EXPECT_EQ(receiveInto(far, room, have), Received::NothingYet);
  const Bytes bytes = pattern(8);
  ASSERT_EQ(write(near, bytes.data(), 2), 2);
  EXPECT_EQ(receiveInto(far, room, have), Received::Some);
  EXPECT_EQ(have, 2u);
  ASSERT_EQ(write(near, bytes.data() + 2, 6), 6);
  EXPECT_EQ(receiveInto(far, room, have), Received::Some);
  EXPECT_EQ(have, 5u);
  EXPECT_EQ(room, Bytes(bytes.begin(), bytes.begin() + 5));
  EXPECT_EQ(farReads(), Bytes(bytes.begin() + 5, bytes.end()));
}

TEST_F(WireIo, AHandshakesConnectionThatIsOverIsClosedHoweverItEnded) {
  Bytes room(5);
  size_t have = 0;
  near = nullptr;
  EXPECT_EQ(receiveInto(far, room, have), Received::Closed);
  EXPECT_EQ(receiveInto(-1, room, have), Received::Closed);
  EXPECT_EQ(have, 0u);
}

TEST_F(WireIo, SendsWhatFitsAndHoldsNothing) {
  const Bytes bytes = pattern(1000);
  EXPECT_EQ(sendParts(bytes, {0, 1, 500}), IoState::Done);
  EXPECT_TRUE(stash.empty());
  EXPECT_EQ(held(), 0u);
  EXPECT_EQ(farReads(), bytes);
}

TEST_F(WireIo, SetsAsideExactlyWhatDidNotFit) {
  reopen(4096);
  const Bytes bytes = pattern(300000);
  ASSERT_EQ(sendParts(bytes, {7, 100, 100, 65536, 200001}), IoState::Blocked);
  Bytes got = farReads();
  EXPECT_GT(got.size(), 0u);
  EXPECT_EQ(held(), bytes.size() - got.size());
  EXPECT_EQ(test::vec(stash.rest()), Bytes(bytes.begin() + static_cast<ptrdiff_t>(got.size()), bytes.end()));
  int rounds = 0;
  while (flushStash(near, stash, budget) == IoState::Blocked) {
    const Bytes more = farReads();
    got.insert(got.end(), more.begin(), more.end());
    ASSERT_LT(++rounds, 10000);
  }
  const Bytes last = farReads();
  got.insert(got.end(), last.begin(), last.end());
  EXPECT_EQ(got, bytes);
  EXPECT_TRUE(stash.empty());
  EXPECT_EQ(held(), 0u);
}

TEST_F(WireIo, SetsEverythingAsideWhenNothingFits) {
  reopen(4096);
  ASSERT_EQ(sendParts(pattern(100000)), IoState::Blocked);
  Stash second;
  const Bytes more = pattern(50);
  iovec part{.iov_base = const_cast<std::byte*>(more.data()), .iov_len = more.size()};
  EXPECT_EQ(sendAll(near, std::span(&part, 1), second, budget), IoState::Blocked);
  EXPECT_EQ(test::vec(second.rest()), more);
  second.clear(budget);
}

TEST_F(WireIo, FailsWithoutASignalWhenTheOtherSideIsGone) {
  far = nullptr;
  EXPECT_EQ(sendParts(pattern(10)), IoState::Failed);
  EXPECT_TRUE(stash.empty());
  stash.set(budget, pattern(10));
  EXPECT_EQ(flushStash(near, stash, budget), IoState::Failed);
}

TEST_F(WireIo, CountsWhatIsHeldAgainstTheBudget) {
  budget.setLimit(100);
  stash.set(budget, pattern(100));
  EXPECT_FALSE(budget.exceeded());
  Stash second;
  second.set(budget, pattern(1));
  EXPECT_TRUE(budget.exceeded());
  EXPECT_EQ(held(), 101u);
  second.clear(budget);
  second.clear(budget);
  EXPECT_FALSE(budget.exceeded());
  EXPECT_EQ(held(), 100u);
}

using WireIoDeathTest = WireIo;
TEST_F(WireIo, SendsWhatWasAddedBehindWhatWaited) {
  reopen(4096);
  const Bytes first = pattern(50'000);
  EXPECT_EQ(sendParts(first), IoState::Blocked);
  const size_t waiting = stash.rest().size();
  const Bytes second = pattern(3'000);
  const MutableByteSpan room = stash.extend(budget, second.size());
  ASSERT_EQ(room.size(), second.size());
  std::copy(second.begin(), second.end(), room.begin());
  EXPECT_GE(held(), waiting + second.size());
  Bytes got = farReads();
  while (flushStash(near, stash, budget) == IoState::Blocked) {
    const Bytes more = farReads();
    got.insert(got.end(), more.begin(), more.end());
  }
  const Bytes last = farReads();
  got.insert(got.end(), last.begin(), last.end());
  Bytes all = first;
  all.insert(all.end(), second.begin(), second.end());
  EXPECT_EQ(got, all);
  EXPECT_EQ(held(), 0u);
}

TEST_F(WireIoDeathTest, HoldsOneThingAtATime) {
  stash.set(budget, pattern(5));
  EXPECT_DEATH(stash.set(budget, pattern(5)), "invariant broken");
  const Bytes more = pattern(5);
  EXPECT_DEATH(sendParts(more), "invariant broken");
}

TEST_F(WireIoDeathTest, NeverForgetsToGiveItsBytesBack) {
  EXPECT_DEATH(
      {
        Stash lost;
        lost.set(budget, pattern(5));
      },
      "invariant broken");
}

// --- frames ----------------------------------------------------------------------------------------------------------

Bytes frameOf(const Bytes& packet) {
  Bytes frame(2 + packet.size());
  wire::writeFrameLength(std::span(frame).first<2>(), packet.size());
  std::ranges::copy(packet, frame.begin() + 2);
  return frame;
}

class Frames : public WireIo {
 protected:
  ~Frames() noexcept override { reader.clear(budget); }

  // One read; its packets are added to `packets`.
  ReadState read(size_t maxFrames = FRAMES_PER_READ, bool untilEof = false) {
    const auto outcome = reader.read(near, std::span<std::byte, SCRATCH_BYTES>(scratch), maxFrames, untilEof, budget);
    const auto fault = forEachPacket(outcome.bytes, [&](MutableByteSpan packet) -> std::optional<wire::DropReason> {
      packets.push_back(test::vec(packet));
      return std::nullopt;
    });
    EXPECT_EQ(fault, std::nullopt);
    std::ranges::fill(scratch, std::byte{0xdd});  // nobody may count on what was there
    return outcome.state;
  }
  void write(ByteSpan bytes) {
    ASSERT_EQ(::send(far, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  Bytes scratch = Bytes(SCRATCH_BYTES);
  FrameReader reader;
  std::vector<Bytes> packets;
};

TEST_F(Frames, AreTheSameHoweverTheStreamIsCut) {
  const std::vector<Bytes> sent = {pattern(5), {}, pattern(300), pattern(1), {}, pattern(33)};
  Bytes stream;
  for (const Bytes& packet : sent) {
    const Bytes frame = frameOf(packet);
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    packets.clear();
    write(ByteSpan(stream).first(cut));
    read();
    write(ByteSpan(stream).subspan(cut));
    read();
    ASSERT_EQ(packets, sent) << cut;
    ASSERT_EQ(held(), 0u) << cut;
  }
  packets.clear();
  for (const std::byte& byte : stream) {
    write({&byte, 1});
    EXPECT_EQ(read(), ReadState::Drained);
  }
  EXPECT_EQ(packets, sent);
}

TEST_F(Frames, KeepTheBeginningOfAnUnfinishedOneAndNoMore) {
  const Bytes frame = frameOf(pattern(200));
  write(frame);
  for (size_t part = 1; part < frame.size(); part += 50) {
    write(ByteSpan(frame).first(part));
    read();
    EXPECT_EQ(held(), part);
    write(ByteSpan(frame).subspan(part));
    read();
    EXPECT_EQ(held(), 0u);
  }
}

// A peer may send a frame in as many segments as it likes: each must not cost what the whole frame costs.
TEST_F(Frames, ThatComeByteByByteAreNotCopiedForEachByte) {
  const std::vector<Bytes> sent = {pattern(65535), pattern(1), pattern(40000)};
  std::set<uint64_t> blocks;  // their sizes: a new one is a copy of all that was there
  for (const Bytes& packet : sent) {
    for (const std::byte& byte : frameOf(packet)) {
      write({&byte, 1});
      ASSERT_EQ(read(), ReadState::Drained);
      blocks.insert(held());
      ASSERT_LE(held(), 2 * wire::MAX_FRAME_BYTES);
    }
    ASSERT_EQ(held(), 0u);
  }
  EXPECT_EQ(packets, sent);
  EXPECT_LE(blocks.size(), 20u);
}

TEST_F(WireIo, GrowsBehindWhatWasNotSentYet) {
  const Bytes bytes = pattern(500);
  stash.set(budget, ByteSpan(bytes).first(100));
  stash.consume(30);
  for (size_t at = 100; at < bytes.size(); at += 50)
    std::ranges::copy(ByteSpan(bytes).subspan(at, 50), stash.extend(budget, 50).begin());
  EXPECT_EQ(test::vec(stash.rest()), Bytes(bytes.begin() + 30, bytes.end()));
  EXPECT_GE(held(), 470u);
  stash.clear(budget);
  EXPECT_EQ(held(), 0u);
}

TEST_F(Frames, OfFullSizeComeThroughASmallSocket) {
  int small = 4096;
  setsockopt(far, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  const std::vector<Bytes> sent = {pattern(65535), pattern(65535), pattern(0), pattern(65535)};
  Bytes stream;
  for (const Bytes& packet : sent) {
    const Bytes frame = frameOf(packet);
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  size_t at = 0;
  for (int round = 0; round < 100000 && packets.size() < sent.size(); ++round) {
    const ssize_t written = ::send(far, stream.data() + at, stream.size() - at, MSG_NOSIGNAL);
    if (written > 0) at += static_cast<size_t>(written);
    read(1);
    ASSERT_LT(held(), 2 * wire::MAX_FRAME_BYTES);
  }
  EXPECT_EQ(packets, sent);
}

TEST_F(Frames, SayThatThereMayBeMoreOnlyWhenTheReadWasFull) {
  EXPECT_EQ(read(), ReadState::Drained);
  write(frameOf(pattern(5)));
  EXPECT_EQ(read(), ReadState::Drained);
  write(frameOf(pattern(5)));
  EXPECT_EQ(read(FRAMES_PER_READ, true), ReadState::More);  // a hang-up was reported
  EXPECT_EQ(read(FRAMES_PER_READ, true), ReadState::Drained);
  write(Bytes(wire::MAX_FRAME_BYTES));
  EXPECT_EQ(read(1), ReadState::More);
}

TEST_F(Frames, EndAtABoundaryOrInside) {
  write(frameOf(pattern(5)));
  shutdown(far, SHUT_WR);
  EXPECT_EQ(read(), ReadState::Drained);
  EXPECT_EQ(read(), ReadState::Eof);
  for (const size_t length : {size_t{1}, size_t{2}, size_t{6}}) {
    reopen();
    write(ByteSpan(frameOf(pattern(5))).first(length));
    shutdown(far, SHUT_WR);
    EXPECT_EQ(read(), ReadState::Drained) << length;
    EXPECT_EQ(read(), ReadState::EofInside) << length;
    reader.clear(budget);
  }
  EXPECT_EQ(packets.size(), 1u);
}

TEST_F(Frames, FailWithTheSocket) {
  write(pattern(3));
  ASSERT_EQ(::send(near, "unread", 6, 0), 6);
  far = nullptr;  // with bytes unread: a reset
  EXPECT_EQ(read(), ReadState::Drained);
  EXPECT_EQ(read(), ReadState::Failed);
}

TEST_F(Frames, StopAtTheFirstFault) {
  Bytes frames = frameOf(pattern(3));
  const Bytes second = frameOf(pattern(4));
  frames.insert(frames.end(), second.begin(), second.end());
  int calls = 0;
  const auto fault = forEachPacket(frames, [&](MutableByteSpan) -> std::optional<wire::DropReason> {
    ++calls;
    return wire::DropReason::BadBox;
  });
  EXPECT_EQ(fault, wire::DropReason::BadBox);
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace sallyport::netd
