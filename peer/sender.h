// sender.h - what send(any size) makes: one frame after the other, each complete before the next begins.
// Part of: peer (sans-IO). docs/protocol.md §13.4. Holds one frame at most.
#pragma once

#include <vector>

#include "peer/frame_sealer.h"

namespace sallyport::peer {

class Sender {
 public:
  // `frameBytes` of payload, at most, go into a frame.
  Sender(FrameSealer sealer, uint32_t frameBytes) : sealer_(std::move(sealer)), frameBytes_(frameBytes) {
    CHECK(frameBytes > 0);
  }

  // Makes the next frame of `data`'s beginning; only when nothing waits. How many bytes went into it: all or
  // `frameBytes`.
  Result<size_t, wire::DropReason> put(FrameCipher& cipher, ByteSpan data, uint32_t code);
  // What waits to be written.
  ByteSpan pending() const { return ByteSpan(frame_).subspan(written_); }
  void wrote(size_t bytes);

  // SEND or WAIT of the document.
  bool insideFrame() const { return written_ < frame_.size(); }
  const std::optional<wire::DropReason>& dead() const { return sealer_.dead(); }
  wire::PeerMode mode() const { return sealer_.mode(); }

 private:
  FrameSealer sealer_;
  uint32_t frameBytes_;
  std::vector<std::byte> frame_;  // holds cipher text alone
  size_t written_ = 0;
};

}  // namespace sallyport::peer
