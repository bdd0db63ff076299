// hard_keys.h - a connection's keys in hard mode, from the two secrets that the vault made for it.
// Part of: peer (netd-worker). docs/protocol.md §13. The vault is asked once; from there netd goes from epoch to epoch
// itself, one way, so sessions outlive the vault and rotation costs no call.
#pragma once

#include "peer/frame_opener.h"
#include "peer/frame_sealer.h"

namespace sallyport::peer {

// S of epoch 0, of the direction in which we send or receive.
struct SendSecretTag;
using SendSecret = SecretBytes<SendSecretTag, wire::PEER_SECRET_BYTES>;
struct ReceiveSecretTag;
using ReceiveSecret = SecretBytes<ReceiveSecretTag, wire::PEER_SECRET_BYTES>;

FrameSealer hardSealer(SendSecret secret, wire::PeerParty own,
                       uint32_t rotateFrames = wire::PEER_DEFAULT_ROTATE_FRAMES);
FrameOpener hardOpener(ReceiveSecret secret, wire::PeerParty own, uint32_t maxFrameBytes,
                       uint32_t rotateFrames = wire::PEER_DEFAULT_ROTATE_FRAMES);

}  // namespace sallyport::peer
