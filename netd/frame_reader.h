// frame_reader.h - frames out of a socket, opened in place in the worker's scratch memory. Part of: netd-worker.
// docs/protocol.md §1. Keeps nothing between turns but the beginning of an unfinished frame.
#pragma once

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "netd/session.h"
#include "netd/wire_io.h"

namespace sallyport::netd {

enum class ReadState : uint8_t {
  Drained,    // nothing more for now
  More,       // there may be more: come again
  Eof,        // the wire ended at a frame's boundary
  EofInside,  // the wire ended inside a frame
  Failed,     // the wire failed
};

class FrameReader {
 public:
  struct Outcome {
    ReadState state = ReadState::Drained;
    MutableByteSpan frames;  // whole frames, in the scratch memory, headers included; may be empty
  };

  // One read. The frames must be dealt with before the scratch memory is used again. `untilEof`: a hang-up was
  // reported, so a short read does not mean that nothing is left.
  Outcome read(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, size_t maxFrames, bool untilEof,
               BufferBudget& budget) {
    size_t have = 0;
    if (!partial_.empty()) {
      const ByteSpan rest = partial_.rest();
      std::memcpy(scratch.data(), rest.data(), rest.size());
      have = rest.size();
      partial_.clear(budget);
    }
    const size_t room = std::min(maxFrames * wire::MAX_FRAME_BYTES, scratch.size() - have);
    ssize_t got;
    do got = recv(fd, scratch.data() + have, room, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    Outcome outcome;
    if (got > 0) {
      have += static_cast<size_t>(got);
      outcome.state = static_cast<size_t>(got) == room || untilEof ? ReadState::More : ReadState::Drained;
    } else if (got == 0) {
      outcome.state = have == 0 ? ReadState::Eof : ReadState::EofInside;
    } else {
      outcome.state = errno == EAGAIN ? ReadState::Drained : ReadState::Failed;
    }
    size_t whole = 0;
    while (have - whole >= wire::FRAME_HEADER_BYTES) {
      const size_t frame =
          wire::FRAME_HEADER_BYTES + wire::readFrameLength(std::span<const std::byte, wire::FRAME_HEADER_BYTES>(
                                         scratch.data() + whole, wire::FRAME_HEADER_BYTES));
      if (have - whole < frame) break;
      whole += frame;
    }
    if (have > whole) partial_.set(budget, ByteSpan(scratch).subspan(whole, have - whole));
    outcome.frames = MutableByteSpan(scratch).first(whole);
    return outcome;
  }

  // The beginning of a frame is held.
  bool partial() const { return !partial_.empty(); }
  void clear(BufferBudget& budget) { partial_.clear(budget); }

 private:
  Stash partial_;
};

// Calls `use` with the packet of each frame until it returns a reason to stop.
template <typename Use>
std::optional<wire::DropReason> forEachPacket(MutableByteSpan frames, Use&& use) {
  while (!frames.empty()) {
    const size_t packet = wire::readFrameLength(frames.first<wire::FRAME_HEADER_BYTES>());
    if (auto stop = use(frames.subspan(wire::FRAME_HEADER_BYTES, packet))) return stop;
    frames = frames.subspan(wire::FRAME_HEADER_BYTES + packet);
  }
  return std::nullopt;
}

}  // namespace sallyport::netd
