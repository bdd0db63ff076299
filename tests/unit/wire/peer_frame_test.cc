// Goal: headers and preambles of the peer protocol are the bytes of docs/protocol.md §13, and nothing else is taken for
// one. Method: written bytes by hand; every prefix of a preamble, every byte of it changed.
#include "proto/wire/peer_frame.h"

#include <gtest/gtest.h>

#include "tests/unit/wire/vectors.h"

namespace sallyport::wire {
namespace {

using R = DropReason;
using sallyport::test::hex;
using sallyport::test::vec;

PeerHeaderBytes headerOf(const PeerHeader& header, const PeerChecksumMask& mask = {}) {
  PeerHeaderBytes bytes;
  writePeerHeaderFields(std::span(bytes).first<PEER_HEADER_FIELDS_BYTES>(), header);
  writePeerChecksum(bytes, mask);
  return bytes;
}

TEST(APeerHeader, IsThreeBigEndianFieldsAndTheirXor) {
  const PeerHeaderBytes bytes = headerOf({0x01020304, 0xa0b0c0d0, 0xfffffffe});
  EXPECT_EQ(vec(bytes), hex("01020304a0b0c0d0fffffffe5e4d3c2a"));
  const auto parsed = parsePeerHeader(bytes, {}, 0xfffffffe, PEER_MAX_LENGTH);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->length, 0x01020304u);
  EXPECT_EQ(parsed->code, 0xa0b0c0d0u);
  EXPECT_EQ(parsed->sequence, 0xfffffffeu);
}

TEST(APeerHeader, WithAnyBitFlippedHasABadChecksum) {
  const PeerHeaderBytes good = headerOf({5, 6, 7});
  for (size_t bit = 0; bit < 8 * PEER_HEADER_BYTES; ++bit) {
    PeerHeaderBytes bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_EQ(parsePeerHeader(bad, {}, 7, 100).error(), R::BadChecksum) << bit;
  }
}

TEST(APeerHeader, UnderAnotherMaskHasABadChecksum) {
  const PeerChecksumMask mask = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  const PeerHeaderBytes keyed = headerOf({5, 6, 7}, mask);
  EXPECT_TRUE(parsePeerHeader(keyed, mask, 7, 100));
  EXPECT_EQ(parsePeerHeader(keyed, {}, 7, 100).error(), R::BadChecksum);
  EXPECT_EQ(parsePeerHeader(headerOf({5, 6, 7}), mask, 7, 100).error(), R::BadChecksum);
}

TEST(APeerHeader, OfAnotherSequenceIsABadCounterWhateverItsLength) {
  EXPECT_EQ(parsePeerHeader(headerOf({5, 6, 7}), {}, 8, 100).error(), R::BadCounter);
  EXPECT_EQ(parsePeerHeader(headerOf({101, 6, 7}), {}, 6, 100).error(), R::BadCounter);
}

TEST(APeerHeader, IsTooLargeBeyondTheLimitAndUpToFourGibibytes) {
  EXPECT_TRUE(parsePeerHeader(headerOf({100, 6, 7}), {}, 7, 100));
  EXPECT_EQ(parsePeerHeader(headerOf({101, 6, 7}), {}, 7, 100).error(), R::FrameTooLarge);
  EXPECT_EQ(parsePeerHeader(headerOf({PEER_MAX_LENGTH, 6, 7}), {}, 7, PEER_DEFAULT_MAX_FRAME_BYTES).error(),
            R::FrameTooLarge);
  EXPECT_TRUE(parsePeerHeader(headerOf({PEER_MAX_LENGTH, 6, 7}), {}, 7, PEER_MAX_LENGTH));
}

TEST(APeerFrame, UsesUpWholeCounterBlocks) {
  EXPECT_EQ(peerFrameBlocks(0), 2u);
  EXPECT_EQ(peerFrameBlocks(8), 2u);
  EXPECT_EQ(peerFrameBlocks(9), 3u);
  EXPECT_EQ(peerFrameBlocks(PEER_MAX_LENGTH), 0x10000001u + 1u);
}

const PeerSalt SALT(hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));

TEST(APreamble, IsItsFortyBytes) {
  EXPECT_EQ(vec(writePeerPreamble(PeerParty::B, SALT)),
            hex("7032706601014200000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));
  const auto salt = parsePeerPreamble(writePeerPreamble(PeerParty::B, SALT), PeerParty::A);
  ASSERT_TRUE(salt);
  EXPECT_EQ(*salt, SALT);
}

TEST(APreamble, OfOurOwnPartyIsRefusedAsSuch) {
  EXPECT_EQ(parsePeerPreamble(writePeerPreamble(PeerParty::B, SALT), PeerParty::B).error(), R::SameParty);
  EXPECT_EQ(parsePeerPreamble(writePeerPreamble(PeerParty::A, SALT), PeerParty::A).error(), R::SameParty);
}

TEST(APreamble, IsRightAsFarAsItGoes) {
  const auto whole = writePeerPreamble(PeerParty::A, SALT);
  for (size_t bytes = 0; bytes <= whole.size(); ++bytes)
    EXPECT_FALSE(checkPeerPreamble(ByteSpan(whole).first(bytes), PeerParty::B)) << bytes;
}

TEST(APreamble, WithAChangedByteBeforeTheSaltIsToldByThatByte) {
  for (size_t at = 0; at < PEER_PREAMBLE_BYTES - PEER_SALT_BYTES; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      auto bad = writePeerPreamble(PeerParty::A, SALT);
      bad[at] ^= static_cast<std::byte>(1 << bit);
      EXPECT_FALSE(checkPeerPreamble(ByteSpan(bad).first(at), PeerParty::B));
      EXPECT_EQ(checkPeerPreamble(ByteSpan(bad).first(at + 1), PeerParty::B), R::BadPreamble) << at;
      EXPECT_EQ(parsePeerPreamble(bad, PeerParty::B).error(), R::BadPreamble);
    }
  }
}

}  // namespace
}  // namespace sallyport::wire
