// Goal: what docs/protocol.md §13.3 says of base mode is true, and none of it holds in hard mode: who knows a plain
// text, and no key, puts another in its place; who knows nothing makes the receiver believe a wrong length. Method: the
// attack, as somebody on the path carries it out, who knows the public part of the protocol alone (hash.h).
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/peer/peer_pair.h"

namespace sallyport::peer {
namespace {

using namespace test;

// All that the attacker has: the cipher text, and plain texts (with their codes) that he knows or guesses.
class Attacker {
 public:
  // Puts `wanted`, of the same length, in the place of frame `number`, whose text and all texts before he knows.
  Block forge(const Block& cipherText, ByteSpan known, ByteSpan wanted, uint32_t code, uint32_t number) {
    CHECK(known.size() == wanted.size() && cipherText.size() == wire::peerFrameBytes(known.size()));
    const Block genuine = plainFrame(known, code, number, genuineChain_);
    const Block forged = plainFrame(wanted, code, number, receiverChain_);
    Block out = cipherText;
    for (size_t i = 0; i < out.size(); ++i) out[i] ^= genuine[i] ^ forged[i];
    return out;
  }

 private:
  // protocol §13.3: nothing here depends on a key.
  static Block plainFrame(ByteSpan payload, uint32_t code, uint32_t number, Digest& chain) {
    wire::PeerHeaderBytes header;
    wire::writePeerHeaderFields(std::span(header).first<wire::PEER_HEADER_FIELDS_BYTES>(),
                                {static_cast<uint32_t>(payload.size()), code, number});
    wire::writePeerChecksum(header, {});
    Hash hash;
    hash.startFrom(chain.expose());
    hash.update(header);
    hash.update(payload);
    hash.finish(chain.exposeMutable());
    Block plain(wire::peerFrameBytes(payload.size()));
    std::ranges::copy(header, plain.begin());
    std::ranges::copy(payload, plain.begin() + wire::PEER_HEADER_BYTES);
    std::ranges::copy(chain.expose().first<wire::PEER_TAG_BYTES>(), plain.end() - wire::PEER_TAG_BYTES);
    return plain;
  }

  Digest genuineChain_ = initialDigest();
  Digest receiverChain_ = initialDigest();
};

struct Path {
  explicit Path(PeerMode mode)
      : sealer(keys.sealer(mode, PeerParty::A, 0)), opener(keys.opener(mode, PeerParty::A, 0)) {}
  Block send(const Block& text) { return sealFrame(sealer, cipher, text, 1); }
  Opened arrive(const Block& frame) { return openFrame(opener, cipher, frame); }
  const Keys keys{};
  FrameCipher cipher;
  FrameSealer sealer;
  FrameOpener opener;
};

const Block GENUINE = textBlock("pay 10 to alice");
const Block WANTED = textBlock("pay 99 to mally");

TEST(TheForgery, SucceedsInBaseModeAndTheNextKnownFrameIsMended) {
  Path path(PeerMode::Base);
  Attacker attacker;
  const Opened first = path.arrive(attacker.forge(path.send(GENUINE), GENUINE, WANTED, 1, 1));
  ASSERT_FALSE(first.fault);
  EXPECT_EQ(first.payload, WANTED);
  // The receiver's chain is another one now: a later frame must be changed as well, and can be while its text is known.
  const Opened second = path.arrive(attacker.forge(path.send(GENUINE), GENUINE, GENUINE, 1, 2));
  ASSERT_FALSE(second.fault);
  EXPECT_EQ(second.payload, GENUINE);
  // After the damage: a frame whose text nobody on the path knows.
  EXPECT_EQ(path.arrive(path.send(textBlock("unknown"))).fault, R::BadTag);
}

TEST(TheForgery, FailsInHardMode) {
  Path path(PeerMode::Hard);
  Attacker attacker;
  const Opened opened = path.arrive(attacker.forge(path.send(GENUINE), GENUINE, WANTED, 1, 1));
  EXPECT_EQ(opened.fault, R::BadTag);
  EXPECT_EQ(opened.payload, Block(WANTED.size()));
  EXPECT_EQ(path.arrive(path.send(GENUINE)).fault, R::BadTag);
}

TEST(TheForgery, OfALengthSucceedsInBaseModeWithoutKnowingAnything) {
  Path path(PeerMode::Base);
  Block frame = path.send(GENUINE);
  frame[2] ^= std::byte{1};   // 256 more
  frame[14] ^= std::byte{1};  // and the checksum with it
  const auto header = path.opener.openHeader(path.cipher, ByteSpan(frame).first<wire::PEER_HEADER_BYTES>());
  ASSERT_TRUE(header);
  EXPECT_EQ(header->length, GENUINE.size() + 256);
}

TEST(TheForgery, OfALengthFailsInHardMode) {
  Path path(PeerMode::Hard);
  Block frame = path.send(GENUINE);
  frame[2] ^= std::byte{1};
  frame[14] ^= std::byte{1};
  EXPECT_EQ(path.arrive(frame).fault, R::BadChecksum);
}

TEST(TheForgery, OfACodeIsFoundByTheTagInBaseModeAndByTheHeaderInHardMode) {
  for (const PeerMode mode : {PeerMode::Base, PeerMode::Hard}) {
    Path path(mode);
    Block frame = path.send(GENUINE);
    frame[7] ^= std::byte{1};
    frame[15] ^= std::byte{1};
    const Opened opened = path.arrive(frame);
    EXPECT_EQ(opened.fault, mode == PeerMode::Base ? R::BadTag : R::BadChecksum);
  }
}

TEST(TheForgery, OfASequenceIsABadCounterInBaseMode) {
  Path path(PeerMode::Base);
  Block frame = path.send(GENUINE);
  frame[11] ^= std::byte{3};
  frame[15] ^= std::byte{3};
  EXPECT_EQ(path.arrive(frame).fault, R::BadCounter);
}

}  // namespace
}  // namespace sallyport::peer
