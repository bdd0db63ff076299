// Goal: base mode's frames come out of the vault as an independent implementation makes them, however the streams are
// cut, and nothing comes out after a fault.
// Method: the known answers of tests/vectors/peer_frame.json through both streams, cut at every size; each single bit.
#include "vaultd/base_frames.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/unit/peer/peer_pair.h"

namespace sallyport::vaultd {
namespace {

using peer::test::Keys;
using peer::test::peerVectors;
using peer::test::vec;
using wire::DropReason;
using wire::PeerMode;
using wire::PeerParty;
using Stream = std::vector<std::byte>;

void appendFrame(Stream& stream, uint32_t code, ByteSpan payload) {
  wire::PeerHeaderBytes header{};
  wire::writePeerHeaderFields(std::span(header).first<12>(), {static_cast<uint32_t>(payload.size()), code, 0});
  stream.insert(stream.end(), header.begin(), header.end());
  stream.insert(stream.end(), payload.begin(), payload.end());
  stream.insert(stream.end(), wire::PEER_TAG_BYTES, std::byte{});
}

struct Case {
  Stream plain, sealed;
  uint32_t rotate = 0;
  PeerParty sender = PeerParty::A;
};
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& direction : peerVectors().directions) {
    if (direction.mode != PeerMode::Base || direction.firstNumber != 1) continue;
    Case one;
    one.rotate = direction.rotateFrames;
    one.sender = direction.side;
    for (const auto& frame : direction.frames) {
      appendFrame(one.plain, frame.code, frame.payload);
      one.sealed.insert(one.sealed.end(), frame.frame.begin(), frame.frame.end());
    }
    all.push_back(std::move(one));
  }
  return all;
}

constexpr uint32_t MAX_FRAME = 1 << 20;

class BaseFrames : public testing::Test {
 protected:
  peer::FrameCipher cipher;
  Keys keys;  // outlives what is made of its block
  Stream room = Stream(1 << 16);

  BaseSealing sealing(const Case& c, uint32_t max = MAX_FRAME) {
    return BaseSealing(keys.sealer(PeerMode::Base, c.sender, c.rotate), max);
  }
  BaseOpening opening(const Case& c) { return BaseOpening(keys.opener(PeerMode::Base, c.sender, c.rotate)); }

  Stream sealAll(BaseSealing& sealing, ByteSpan plain, size_t piece) {
    Stream out;
    for (size_t at = 0; at < plain.size(); at += piece) {
      const auto bytes = sealing.seal(cipher, plain.subspan(at, std::min(piece, plain.size() - at)), room);
      CHECK(bytes.has_value());
      out.insert(out.end(), room.begin(), room.begin() + static_cast<ptrdiff_t>(*bytes));
      cipher.forget();  // as between two calls of netd
    }
    return out;
  }
  struct Result {
    Stream given;           // all bytes
    size_t sanctified = 0;  // of them
    std::optional<DropReason> fault;
  };
  Result openAll(BaseOpening& opening, ByteSpan sealed, size_t piece) {
    Result result;
    for (size_t at = 0; at < sealed.size() && !result.fault; at += piece) {
      const auto opened =
          opening.open(cipher, sealed.subspan(at, std::min(piece, sealed.size() - at)), room, [] { return true; });
      const size_t before = result.given.size();
      result.given.insert(result.given.end(), room.begin(), room.begin() + static_cast<ptrdiff_t>(opened.bytes));
      if (opened.sanctified != 0) result.sanctified = before + opened.sanctified;
      result.fault = opened.fault;
      cipher.forget();
    }
    return result;
  }
  // With SEQ and checksum zeroed, as the plain stream has them.
  static Stream withoutNumbers(Stream stream) {
    for (size_t at = 0; at < stream.size();) {
      uint32_t length = 0;
      for (size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<uint32_t>(stream[at + i]);
      std::fill_n(stream.begin() + static_cast<ptrdiff_t>(at) + 8, 8, std::byte{});
      at += wire::peerFrameBytes(length);
    }
    return stream;
  }
};

TEST_F(BaseFrames, AreThoseOfTheVectorsHoweverTheyAreCut) {
  ASSERT_GE(cases().size(), 2u);
  for (const Case& c : cases()) {
    for (const size_t piece : {1u, 2u, 7u, 15u, 16u, 17u, 24u, 100u, 65000u}) {
      auto seals = sealing(c);
      EXPECT_EQ(sealAll(seals, c.plain, piece), c.sealed) << piece;
      auto opens = opening(c);
      const Result result = openAll(opens, c.sealed, piece);
      EXPECT_FALSE(result.fault) << piece;
      EXPECT_EQ(result.sanctified, c.plain.size());
      EXPECT_EQ(withoutNumbers(result.given), c.plain) << piece;
    }
  }
}

TEST_F(BaseFrames, HoldAtMostFifteenBytesBack) {
  const Case c = cases()[0];
  auto seals = sealing(c);
  size_t in = 0, out = 0;
  for (const std::byte each : c.plain) {
    ++in;
    out += *seals.seal(cipher, ByteSpan(&each, 1), room);
    EXPECT_LE(in - out, MAX_HELD);
  }
  EXPECT_EQ(in, out);
}

TEST_F(BaseFrames, AnyChangedBitOfAFrameWithTextEndsTheDirection) {
  Case c = cases()[0];
  for (size_t bit = 0; bit < c.sealed.size() * 8; bit += 3) {
    Stream changed = c.sealed;
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    auto opens = opening(c);
    const Result result = openAll(opens, changed, 65000);
    ASSERT_TRUE(result.fault || result.sanctified < c.plain.size()) << bit;  // a longer length waits for more
    EXPECT_EQ(
        withoutNumbers(Stream(result.given.begin(), result.given.begin() + static_cast<ptrdiff_t>(result.sanctified))),
        Stream(c.plain.begin(), c.plain.begin() + static_cast<ptrdiff_t>(result.sanctified)));
    if (result.fault) { EXPECT_EQ(result.given.size(), result.sanctified) << "nothing of the bad frame"; }
  }
}

TEST_F(BaseFrames, NothingComesOutAfterAFault) {
  const Case c = cases()[0];
  Stream changed = c.sealed;
  changed[4] ^= std::byte{1};
  auto opens = opening(c);
  EXPECT_EQ(openAll(opens, changed, 65000).fault, DropReason::BadChecksum);
  const auto more = opens.open(cipher, c.sealed, room, [] { return true; });
  EXPECT_EQ(more.fault, DropReason::BadChecksum);
  EXPECT_EQ(more.bytes, 0u);
}

TEST_F(BaseFrames, RepeatedSwappedReflectedAndForeignOnesAreRefused) {
  const Case c = cases()[0];
  const size_t first = wire::peerFrameBytes(peerVectors().directions[0].frames[0].payload.size());
  Stream repeated(c.sealed.begin(), c.sealed.begin() + static_cast<ptrdiff_t>(first));
  repeated.insert(repeated.end(), repeated.begin(), repeated.end());
  auto opens = opening(c);
  const Result result = openAll(opens, repeated, 65000);
  EXPECT_TRUE(result.fault);
  EXPECT_EQ(result.sanctified, first);
  Case reflected = c;
  reflected.sender = wire::otherParty(c.sender);
  auto other = opening(reflected);
  EXPECT_TRUE(openAll(other, c.sealed, 65000).fault);
  keys.block[100] ^= std::byte{1};
  keys.block[0] ^= std::byte{1};
  auto foreign = opening(c);
  EXPECT_TRUE(openAll(foreign, c.sealed, 65000).fault);
}

TEST_F(BaseFrames, AFrameThatIsTooLongIsNotSealed) {
  const Case c = cases()[0];
  auto seals = sealing(c, 64);
  Stream plain;
  appendFrame(plain, 1, Stream(65));
  const auto refused = seals.seal(cipher, plain, room);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error(), DropReason::FrameTooLarge);
  EXPECT_FALSE(seals.seal(cipher, c.plain, room).has_value()) << "the direction is dead";
}

TEST_F(BaseFrames, AreOpenedOnlyByLeaveAndWithTheFirstHeader) {
  const Case c = cases()[0];
  int asked = 0;
  const auto ask = [&] { return ++asked, true; };
  auto opens = opening(c);
  (void)opens.open(cipher, ByteSpan(c.sealed).first(15), room, ask);
  EXPECT_EQ(asked, 0);
  (void)opens.open(cipher, ByteSpan(c.sealed).subspan(15), room, ask);
  EXPECT_EQ(asked, 1) << "once for all frames";

  auto garbage = opening(c);
  const auto refused = garbage.open(cipher, Stream(100, std::byte{7}), room, ask);
  EXPECT_TRUE(refused.fault);
  EXPECT_EQ(asked, 1) << "a stranger's bytes ask nobody";

  auto forbidden = opening(c);
  const auto none = forbidden.open(cipher, c.sealed, room, [] { return false; });
  EXPECT_TRUE(none.fault && none.bytes == 0);
  EXPECT_EQ(ByteSpan(room).first(64).size(), 64u);
  EXPECT_TRUE(std::ranges::all_of(room, [](std::byte each) { return each == std::byte{}; })) << "and all is wiped";
}

}  // namespace
}  // namespace sallyport::vaultd
