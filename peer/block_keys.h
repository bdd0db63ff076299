// block_keys.h - what is made of the 128-byte block itself. Part of: peer (vaultd; netd never has a block, and
// tests/lint/boundaries.toml keeps it from naming this). docs/protocol.md §13.
#pragma once

#include "peer/hard_keys.h"

namespace sallyport::peer {

using PeerBlockView = std::span<const std::byte, wire::PEER_BLOCK_BYTES>;

// Hard mode: S of both directions, for the connection that these two salts belong to.
SendSecret hardSendSecret(PeerBlockView block, wire::PeerParty own, const wire::PeerSalt& ownSalt,
                          const wire::PeerSalt& peerSalt);
ReceiveSecret hardReceiveSecret(PeerBlockView block, wire::PeerParty own, const wire::PeerSalt& ownSalt,
                                const wire::PeerSalt& peerSalt);

// Base mode: frames under the block itself, so one pair of them in the life of a block. They look at `block` where it
// lies, for each frame, and keep no key of it: it must outlive them. FrameCipher::forget() when a batch is done.
FrameSealer baseSealer(PeerBlockView block, wire::PeerParty own, uint32_t rotateFrames = 0);
FrameOpener baseOpener(PeerBlockView block, wire::PeerParty own, uint32_t maxFrameBytes, uint32_t rotateFrames = 0);

}  // namespace sallyport::peer
