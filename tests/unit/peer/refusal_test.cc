// Goal: whatever happens to frames on their way is refused under its name, the direction is dead from then on, and of a
// refused frame no plain byte is left. docs/protocol.md §13 and §4.
// Method: known frames changed in every bit, left out, repeated, swapped, reflected, sent again.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/peer/peer_pair.h"

namespace sallyport::peer {
namespace {

using namespace test;

constexpr PeerMode BOTH_MODES[] = {PeerMode::Base, PeerMode::Hard};
constexpr uint32_t CODE = 5;

class AReceivingEnd : public testing::TestWithParam<PeerMode> {
 protected:
  Block sealed(std::string_view text) { return sealFrame(sealer, cipher, asBytes(text), CODE); }
  Opened open(const Block& frame) { return openFrame(opener, cipher, frame); }
  // Dead is dead: genuine frames don't help, and the reason stays.
  void expectDead(R reason) {
    EXPECT_EQ(opener.dead(), reason);
    const Block genuine = sealed("later");
    EXPECT_EQ(opener.openHeader(cipher, ByteSpan(genuine).first<wire::PEER_HEADER_BYTES>()).error(), reason);
    Block body(genuine.begin() + wire::PEER_HEADER_BYTES, genuine.end());
    EXPECT_EQ(opener.openBody(cipher, body), reason);
  }

  const Keys keys{};
  FrameCipher cipher;
  FrameSealer sealer = keys.sealer(GetParam(), PeerParty::A, 0);
  FrameOpener opener = keys.opener(GetParam(), PeerParty::A, 0);
};
INSTANTIATE_TEST_SUITE_P(InEachMode, AReceivingEnd, testing::ValuesIn(BOTH_MODES),
                         [](const auto& mode) { return mode.param == PeerMode::Base ? "Base" : "Hard"; });

TEST_P(AReceivingEnd, CatchesEverySingleFlippedBitOfEveryFrame) {
  size_t flips = 0;
  for (const auto& direction : peerVectors().directions) {
    if (direction.mode != GetParam()) continue;
    for (size_t bad = 0; bad < direction.frames.size(); ++bad) {
      const Block& frame = direction.frames[bad].frame;
      for (size_t bit = 0; bit < 8 * frame.size(); ++bit, ++flips) {
        FrameOpener reader = keys.opener(direction.mode, direction.side, direction.rotateFrames);
        reader.skipToNumber(direction.firstNumber);
        for (size_t good = 0; good < bad; ++good)
          ASSERT_FALSE(openFrame(reader, cipher, direction.frames[good].frame).fault);
        Block changed = frame;
        changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
        const Opened opened = openFrame(reader, cipher, changed);
        ASSERT_EQ(opened.fault, bit / 8 < wire::PEER_HEADER_BYTES ? R::BadChecksum : R::BadTag) << bit;
        ASSERT_EQ(std::ranges::count(opened.payload, std::byte{0}), static_cast<ptrdiff_t>(opened.payload.size()));
        ASSERT_EQ(reader.dead(), opened.fault);
      }
      if (bad >= 3) break;  // longer ones are quadratic work for the same code
    }
  }
  EXPECT_GT(flips, 1000u);
}

TEST_P(AReceivingEnd, CatchesEverySingleFlippedBitOfALongFrame) {
  const Block frame = sealed(std::string(3 * PASS_BYTES / 2, 'x'));
  for (size_t bit = 8 * wire::PEER_HEADER_BYTES; bit < 8 * frame.size(); bit += bit < 2000 ? 1 : 977) {
    FrameOpener reader = keys.opener(GetParam(), PeerParty::A, 0);
    Block changed = frame;
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const Opened opened = openFrame(reader, cipher, changed);
    ASSERT_EQ(opened.fault, R::BadTag) << bit;
    ASSERT_EQ(opened.payload, Block(3 * PASS_BYTES / 2));
  }
}

TEST_P(AReceivingEnd, NoticesAFrameLeftOut) {
  sealed("lost");
  EXPECT_EQ(open(sealed("next")).fault, R::BadChecksum);
  expectDead(R::BadChecksum);
}

TEST_P(AReceivingEnd, NoticesARepeatedFrame) {
  ASSERT_FALSE(open(sealed("first")).fault);
  const Block repeated = sealed("again");
  ASSERT_FALSE(open(repeated).fault);
  EXPECT_EQ(open(repeated).fault, R::BadChecksum);
  expectDead(R::BadChecksum);
}

TEST_P(AReceivingEnd, NoticesSwappedFrames) {
  const Block first = sealed("first");
  const Block second = sealed("second");
  EXPECT_EQ(open(second).fault, R::BadChecksum);
  EXPECT_EQ(open(first).fault, R::BadChecksum);
}

TEST_P(AReceivingEnd, NoticesItsOwnFramesReflected) {
  FrameSealer own = keys.sealer(GetParam(), PeerParty::B, 0);
  EXPECT_EQ(open(sealFrame(own, cipher, textBlock("mine"), CODE)).fault, R::BadChecksum);
  expectDead(R::BadChecksum);
}

TEST_P(AReceivingEnd, NoticesAnotherBlock) {
  Keys other;
  other.block[0] ^= std::byte{1};
  FrameSealer stranger = other.sealer(GetParam(), PeerParty::A, 0);
  EXPECT_EQ(open(sealFrame(stranger, cipher, textBlock("x"), CODE)).fault, R::BadChecksum);
}

TEST_P(AReceivingEnd, RefusesALengthBeyondItsLimitWithTheHeader) {
  Keys strict;
  strict.maxFrameBytes = 100;
  FrameOpener reader = strict.opener(GetParam(), PeerParty::A, 0);
  ASSERT_FALSE(openFrame(reader, cipher, sealed(std::string(100, 'x'))).fault);
  const Block large = sealed(std::string(101, 'x'));
  EXPECT_EQ(reader.openHeader(cipher, ByteSpan(large).first<wire::PEER_HEADER_BYTES>()).error(), R::FrameTooLarge);
  EXPECT_EQ(reader.dead(), R::FrameTooLarge);
  EXPECT_FALSE(reader.header());
}

TEST_P(AReceivingEnd, RefusesAClaimOfFourGibibytesWithTheHeader) {
  FrameRun run;  // the payload is never made: its header is all that is ever sent of it
  const auto header = sealer.begin(cipher, run, wire::PEER_MAX_LENGTH, CODE);
  ASSERT_TRUE(header);
  EXPECT_EQ(opener.openHeader(cipher, *header).error(), R::FrameTooLarge);
}

TEST_P(AReceivingEnd, KeepsTheFirstReason) {
  EXPECT_EQ(opener.die(R::ReservedCode), R::ReservedCode);
  EXPECT_EQ(opener.die(R::BadTag), R::ReservedCode);
  EXPECT_EQ(open(sealed("x")).fault, R::ReservedCode);
}

TEST(HardMode, TellsARecordedConnectionByTheSalt) {
  FrameCipher cipher;
  const Keys keys{};
  FrameSealer sealer = keys.sealer(PeerMode::Hard, PeerParty::A, 0);
  const Block recorded = sealFrame(sealer, cipher, textBlock("pay"), CODE);
  for (const PeerParty fresh : {PeerParty::A, PeerParty::B}) {
    Keys later;
    (fresh == PeerParty::A ? later.saltA : later.saltB).mutableSpan()[31] ^= std::byte{1};
    FrameOpener reader = later.opener(PeerMode::Hard, PeerParty::A, 0);
    EXPECT_EQ(openFrame(reader, cipher, recorded).fault, R::BadChecksum);
  }
}

TEST(BaseMode, IsReplayedUnderTheSameBlock) {
  // Why a block serves one connection only (docs/protocol.md §13.3).
  FrameCipher cipher;
  const Keys keys{};
  FrameSealer sealer = keys.sealer(PeerMode::Base, PeerParty::A, 0);
  const Block recorded = sealFrame(sealer, cipher, textBlock("pay"), CODE);
  FrameOpener later = keys.opener(PeerMode::Base, PeerParty::A, 0);
  EXPECT_EQ(openFrame(later, cipher, recorded).payload, textBlock("pay"));
}

TEST(TheTwoModes, DontTakeEachOthersFrames) {
  FrameCipher cipher;
  const Keys keys{};
  for (const PeerMode mode : BOTH_MODES) {
    FrameSealer sealer = keys.sealer(mode, PeerParty::A, 0);
    FrameOpener other = keys.opener(mode == PeerMode::Base ? PeerMode::Hard : PeerMode::Base, PeerParty::A, 0);
    EXPECT_EQ(openFrame(other, cipher, sealFrame(sealer, cipher, textBlock("x"), CODE)).fault, R::BadChecksum);
  }
}

}  // namespace
}  // namespace sallyport::peer
