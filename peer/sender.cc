// sender.cc - see sender.h.
#include "peer/sender.h"

#include <algorithm>

namespace sallyport::peer {

Result<size_t, wire::DropReason> Sender::put(FrameCipher& cipher, ByteSpan data, uint32_t code) {
  CHECK(!insideFrame());
  if (dead()) return refuse(*dead());
  const size_t bytes = std::min<size_t>(data.size(), frameBytes_);
  frame_.resize(wire::peerFrameBytes(bytes));
  std::ranges::copy(data.first(bytes), frame_.begin() + wire::PEER_HEADER_BYTES);
  if (const auto refusal = sealer_.seal(cipher, frame_, code)) {
    wipe(frame_);
    frame_.clear();
    written_ = 0;
    return refuse(*refusal);
  }
  written_ = 0;
  return bytes;
}

void Sender::wrote(size_t bytes) {
  CHECK(bytes <= frame_.size() - written_);
  written_ += bytes;
}

}  // namespace sallyport::peer
