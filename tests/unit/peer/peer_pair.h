// peer_pair.h - both ends of the peer protocol, for the tests of peer/: keys from one block, frames as plain vectors.
#pragma once

#include "peer/block_keys.h"
#include "tests/unit/peer/peer_vectors.h"

namespace sallyport::peer::test {

using Block = std::vector<std::byte>;
using R = wire::DropReason;
using wire::PeerMode;
using wire::PeerParty;

inline Block vec(ByteSpan bytes) { return {bytes.begin(), bytes.end()}; }
inline Block textBlock(std::string_view text) { return vec(asBytes(text)); }
inline PeerBlockView blockView(const Block& block) { return PeerBlockView(block.data(), wire::PEER_BLOCK_BYTES); }

// The block and salts of the vectors, or others of one's choice.
struct Keys {
  Block block = peerVectors().block;
  wire::PeerSalt saltA = wire::PeerSalt(peerVectors().saltA);
  wire::PeerSalt saltB = wire::PeerSalt(peerVectors().saltB);
  uint32_t maxFrameBytes = wire::PEER_DEFAULT_MAX_FRAME_BYTES;

  const wire::PeerSalt& salt(PeerParty party) const { return party == PeerParty::A ? saltA : saltB; }
  FrameSealer sealer(PeerMode mode, PeerParty own, uint32_t rotate) const {
    if (mode == PeerMode::Base) return baseSealer(blockView(block), own, rotate);
    return hardSealer(hardSendSecret(blockView(block), own, salt(own), salt(otherParty(own))), own, rotate);
  }
  // Reads what `sender` sends.
  FrameOpener opener(PeerMode mode, PeerParty sender, uint32_t rotate) const {
    const PeerParty own = otherParty(sender);
    if (mode == PeerMode::Base) return baseOpener(blockView(block), own, maxFrameBytes, rotate);
    return hardOpener(hardReceiveSecret(blockView(block), own, salt(own), salt(sender)), own, maxFrameBytes, rotate);
  }
};

inline Block sealFrame(FrameSealer& sealer, FrameCipher& cipher, ByteSpan payload, uint32_t code) {
  Block frame(payload.size() + wire::PEER_OVERHEAD_BYTES);
  std::ranges::copy(payload, frame.begin() + wire::PEER_HEADER_BYTES);
  const auto refusal = sealer.seal(cipher, frame, code);
  CHECK(!refusal);
  return frame;
}

struct Opened {
  uint32_t code = 0;
  Block payload;
  std::optional<R> fault;
};
// A frame that is wholly there. A fault tells what the body holds afterwards.
inline Opened openFrame(FrameOpener& opener, FrameCipher& cipher, Block frame) {
  CHECK(frame.size() >= wire::PEER_OVERHEAD_BYTES);
  const auto header = opener.openHeader(cipher, ByteSpan(frame).first<wire::PEER_HEADER_BYTES>());
  if (!header) return {0, {}, header.error()};
  CHECK(frame.size() == wire::peerFrameBytes(header->length));
  const auto body = MutableByteSpan(frame).subspan(wire::PEER_HEADER_BYTES);
  const auto fault = opener.openBody(cipher, body);
  return {header->code, vec(body.first(header->length)), fault};
}

}  // namespace sallyport::peer::test
