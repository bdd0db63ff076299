// frame_sealer.h - makes the frames of one direction, in place. Part of: peer (netd-worker, vaultd; sans-IO).
// docs/protocol.md §13. A frame is sealed whole, or in pieces where its bytes aren't in one place or not there yet.
#pragma once

#include "common/result.h"
#include "peer/direction.h"

namespace sallyport::peer {

class FrameSealer {
 public:
  explicit FrameSealer(Direction direction) : direction_(std::move(direction)) {}

  // `frame` is 16 bytes of room, the payload, 8 bytes of room: becomes the frame to send. At most 2^32-1 bytes of
  // payload; that the peer takes so much is the caller's to know.
  std::optional<wire::DropReason> seal(FrameCipher& cipher, MutableByteSpan frame, uint32_t code);

  // The same in pieces: the header to send first, then all of the payload through update(), in pieces of any size, then
  // the tag. No other frame may be begun before. `run` is a fresh one.
  Result<wire::PeerHeaderBytes, wire::DropReason> begin(FrameCipher& cipher, FrameRun& run, uint32_t length,
                                                        uint32_t code);
  void update(FrameCipher& cipher, FrameRun& run, MutableByteSpan piece);
  wire::PeerTag finish(FrameCipher& cipher, FrameRun& run);

  // How many frames were made, and why no more are.
  uint64_t sealed() const { return direction_.number() - 1; }
  const std::optional<wire::DropReason>& dead() const { return direction_.dead(); }
  wire::PeerMode mode() const { return direction_.mode(); }
  void skipToNumber(uint64_t number) { direction_.skipToNumber(number); }  // for tests

 private:
  wire::PeerHeaderBytes plainHeader(uint32_t length, uint32_t code) const;

  Direction direction_;
  bool inside_ = false;  // a frame in pieces is not finished
};

}  // namespace sallyport::peer
