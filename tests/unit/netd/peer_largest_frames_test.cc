// Goal: under the default limit a frame of exactly 16 MiB goes through PeerChannel whole, and so does a send of that
// size, in both modes; one byte more is refused by its name, or is one more frame; and whatever a peer sends, the
// memory that is held for it is bounded by the limit. docs/protocol.md §13.4. Method: a whole worker in the test's
// loop, as peer_programs_test.cc; the buffer's counter is looked at between turns.
#include "common/config.h"
#include "tests/unit/netd/peer_program_fixture.h"

namespace sallyport::netd::test {
namespace {

constexpr size_t LIMIT = DEFAULT_MAX_FRAME_BYTES;
static_assert(LIMIT == 16u << 20);
// Beside frames: pieces that are with the vault, scratch memory's worth of what was read.
constexpr size_t SLACK = 1 << 20;

class UnderTheDefaultLimit : public PeerProgramTest {
 protected:
  void SetUp() override {
    serve({.maxFrameBytes = DEFAULT_MAX_FRAME_BYTES});
    connectBoth();
  }
  void look() { mostHeld = std::max<size_t>(mostHeld, stats.get(Counter::BufferBytes)); }
  // Writes as far as the worker takes it: what is left when it reads no more.
  ByteSpan pour(ByteSpan bytes) {
    for (int idle = 0; !bytes.empty() && idle < 20;) {
      const ssize_t sent = ::send(party.socket, bytes.data(), std::min<size_t>(bytes.size(), 256 * 1024), MSG_NOSIGNAL);
      if (sent > 0) bytes = bytes.subspan(static_cast<size_t>(sent));
      idle = sent > 0 ? 0 : idle + 1;
      loop.turn(1);
      look();
    }
    return bytes;
  }
  // In calls, as a client splits what no message of the RPC holds.
  size_t sendAndHear(const std::string& data, uint32_t code) {
    constexpr size_t CALL_BYTES = 1 << 20;
    std::string heard;
    for (size_t at = 0; at < data.size(); at += CALL_BYTES) {
      const std::string_view piece = std::string_view(data).substr(at, CALL_BYTES);
      auto sending = sendRequest(piece, code).send();
      heard += hearAll(piece.size(), code);
      look();
      EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
    }
    EXPECT_TRUE(heard == data);
    return framesHeard;
  }
  std::array<std::byte, wire::PEER_HEADER_BYTES> headerOf(uint32_t length) {
    peer::FrameRun run;
    const auto header = party.sealer->begin(frameCipher, run, length, 0);
    EXPECT_TRUE(header);
    return *header;
  }

  size_t mostHeld = 0;
};
INSTANTIATE_TEST_SUITE_P(InEachMode, UnderTheDefaultLimit, testing::Values(PeerMode::Hard, PeerMode::Base), modeName);

TEST_P(UnderTheDefaultLimit, AFrameOfExactly16MebibytesArrivesWhole) {
  const std::string data = many(LIMIT, 'a');
  const auto whole = frame(party, data, 3);
  auto receiving = receiveRequest(LIMIT).send();
  EXPECT_TRUE(pour(whole).empty());
  EXPECT_LE(mostHeld, LIMIT + SLACK);
  const Got got = receiveTheRest(gotFrom(answer(kj::mv(receiving))->getReceived()), LIMIT);
  EXPECT_EQ(got.status, Status::COMPLETE);
  EXPECT_EQ(got.code, 3u);
  EXPECT_TRUE(got.data == data);
  EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
}

TEST_P(UnderTheDefaultLimit, IsToldOf16MebibytesThatDontFitAndLosesNoneOfThem) {
  const std::string data = many(LIMIT, 'b');
  EXPECT_TRUE(pour(frame(party, data)).empty());
  const Got tooBig = receive(LIMIT - 1);
  EXPECT_EQ(tooBig.status, Status::TOO_BIG);
  EXPECT_EQ(tooBig.needed, LIMIT);
  EXPECT_TRUE(receive(LIMIT).data == data);
}

// The claim is genuine: it comes from who has the block.
TEST_P(UnderTheDefaultLimit, OneByteMoreIsRefusedByNameBeforeAnyMemoryIsTaken) {
  say(party, "good");
  writeTo(party, headerOf(LIMIT + 1));
  const Got got = receive(100);
  EXPECT_EQ(got.data, "good");
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "frame_too_large");
  EXPECT_TRUE(dropped(R::FrameTooLarge));
  EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
}

// And a claim of the limit itself takes what has arrived, not what it says.
TEST_P(UnderTheDefaultLimit, AClaimOf16MebibytesTakesNoMoreThanHasArrived) {
  auto bytes = frame(party, std::string(LIMIT, 'c'));
  bytes.resize(100'000);
  writeTo(party, bytes);
  turns();
  EXPECT_GT(stats.get(Counter::BufferBytes), 0u);
  EXPECT_LE(stats.get(Counter::BufferBytes), SLACK);
  EXPECT_EQ(receive(LIMIT, 50).status, Status::SLOW_PEER);
}

TEST_P(UnderTheDefaultLimit, ASendOf16MebibytesIsDividedIntoFramesAndOneByteMoreIsOneFrameMore) {
  const size_t frames = sendAndHear(many(LIMIT, 'd'), 4);
  EXPECT_LE(longestHeard, 64u * 1024);
  framesHeard = 0;
  EXPECT_EQ(sendAndHear(many(LIMIT, 'd') + "x", 4), frames + 1);
  EXPECT_LE(mostHeld, 2 * SLACK);
  EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
}

// protocol §13.4: while a send waits, at least one frame of the largest size is read.
TEST_P(UnderTheDefaultLimit, ASendThatWaitsReadsALargestFrameMeanwhile) {
  const std::string ours = many(1'500'000, 'e'), theirs = many(LIMIT, 'f');
  auto sending = sendRequest(ours).send();
  turns();
  EXPECT_TRUE(pour(frame(party, theirs)).empty());
  EXPECT_TRUE(hearAll(ours.size()) == ours);
  EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
  EXPECT_TRUE(receive(LIMIT).data == theirs);
}

TEST_P(UnderTheDefaultLimit, APeerThatIsNotReadIsHeldUpAndAllOfItArrives) {
  constexpr int FRAMES = 4;
  std::vector<std::byte> all;
  for (int i = 0; i < FRAMES; ++i) {
    const auto one = frame(party, many(LIMIT, static_cast<char>('a' + i)));
    all.insert(all.end(), one.begin(), one.end());
  }
  ByteSpan rest = pour(all);
  EXPECT_GT(rest.size(), LIMIT) << "all was read, and nobody asked for it";
  EXPECT_LE(mostHeld, 2 * LIMIT + SLACK);
  for (int i = 0; i < FRAMES; ++i) {
    EXPECT_TRUE(receive(LIMIT).data == many(LIMIT, static_cast<char>('a' + i))) << i;
    rest = pour(rest);
  }
  EXPECT_TRUE(rest.empty());
  EXPECT_LE(mostHeld, 2 * LIMIT + SLACK);
}

}  // namespace
}  // namespace sallyport::netd::test
