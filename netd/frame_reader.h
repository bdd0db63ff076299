// frame_reader.h - frames out of a socket, opened in place in the worker's scratch memory. Part of: netd-worker.
// docs/protocol.md §1. Keeps nothing between turns but the beginning of an unfinished frame.
#pragma once

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "netd/link.h"
#include "netd/session.h"

namespace sallyport::netd {

class FrameReader {
 public:
  // One read: whole frames, headers included. They must be dealt with before the scratch memory is used again.
  // `untilEof`: a hang-up was reported, so a short read does not mean that nothing is left.
  WireRead read(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, size_t maxFrames, bool untilEof,
                BufferBudget& budget) {
    // What is held of a frame goes in front of it when the rest is there, and not before: its length, at most, is
    // needed.
    const ByteSpan held = partial_.rest();
    size_t have = held.size();
    std::ranges::copy(held.first(std::min(have, wire::FRAME_HEADER_BYTES)), scratch.begin());
    const size_t room = std::min(maxFrames * wire::MAX_FRAME_BYTES, scratch.size() - have);
    ssize_t got;
    do got = recv(fd, scratch.data() + have, room, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    WireRead outcome;
    if (got <= 0) {
      if (got == 0)
        outcome.state = have == 0 ? ReadState::Eof : ReadState::EofInside;
      else
        outcome.state = errno == EAGAIN ? ReadState::Drained : ReadState::Failed;
      return outcome;
    }
    outcome.state = static_cast<size_t>(got) == room || untilEof ? ReadState::More : ReadState::Drained;
    have += static_cast<size_t>(got);
    if (!held.empty()) {
      if (have < frameBytes(scratch)) {
        const ByteSpan more = scratch.subspan(held.size(), static_cast<size_t>(got));
        std::ranges::copy(more, partial_.extend(budget, more.size()).begin());
        return outcome;
      }
      std::ranges::copy(held, scratch.begin());
      partial_.clear(budget);
    }
    size_t whole = 0;
    while (have - whole >= wire::FRAME_HEADER_BYTES) {
      const size_t frame = frameBytes(scratch.subspan(whole));
      if (have - whole < frame) break;
      whole += frame;
    }
    if (have > whole) partial_.set(budget, ByteSpan(scratch).subspan(whole, have - whole));
    outcome.bytes = MutableByteSpan(scratch).first(whole);
    return outcome;
  }

  // Of the beginning of a frame that is held.
  size_t partialBytes() const { return partial_.rest().size(); }
  size_t held() const { return partial_.held(); }
  void clear(BufferBudget& budget) { partial_.clear(budget); }

 private:
  // Of the frame that begins here, with its header.
  static size_t frameBytes(ByteSpan bytes) {
    return wire::FRAME_HEADER_BYTES + wire::readFrameLength(bytes.first<wire::FRAME_HEADER_BYTES>());
  }

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
