// curve_link.h - curve_tun 1.0 as tunnels, echoes and channels see it (link.h). Part of: netd-worker.
// docs/protocol.md §2, §5. An empty message ends a stream; a channel has no end but the wire's own.
#pragma once

#include "netd/ciphers.h"
#include "netd/frame_reader.h"
#include "netd/link.h"
#include "netd/session.h"

namespace sallyport::netd {

class CurveLink {
 public:
  static constexpr size_t HEAD_BYTES = MESSAGE_TEXT_OFFSET;
  static constexpr size_t AROUND_BYTES = HEAD_BYTES;  // nothing behind the text
  static constexpr size_t MAX_TEXT_BYTES = wire::MAX_MESSAGE_BYTES;
  static constexpr size_t FRAMES_PER_TURN = FRAMES_PER_READ;
  // The end of the wire is the only goodbye of a channel.
  static constexpr bool CHANNELS_END = false;
  static constexpr bool DIALLER_SPEAKS_FIRST = false;  // the handshake has said who it is

  explicit CurveLink(Session session) : session_(std::move(session)) {}

  static std::optional<uint32_t> blockVersion() { return std::nullopt; }

  // `frame` is room for the head, then the text.
  std::optional<wire::DropReason> seal(Ciphers& ciphers, MutableByteSpan frame, uint32_t) {
    return session_.seal(ciphers.message, frame);
  }
  // `frame` is AROUND_BYTES of room.
  std::optional<wire::DropReason> sealEnd(Ciphers& ciphers, MutableByteSpan frame) {
    return session_.seal(ciphers.message, frame);
  }

  // One read of the socket, at most as much as `maxFrames` of our own. `untilEof`: a hang-up was reported, so a short
  // read does not mean that nothing is left.
  WireRead read(int fd, std::span<std::byte, SCRATCH_BYTES> scratch, size_t maxFrames, bool untilEof,
                BufferBudget& budget) {
    return reader_.read(fd, scratch, maxFrames, untilEof, budget);
  }
  // Opens each frame that was read and calls `use` with it, until that returns a reason to stop.
  template <typename Use>
  std::optional<wire::DropReason> openEach(Ciphers& ciphers, const WireRead& read, BufferBudget&, Use&& use) {
    return forEachPacket(read.bytes, [&](MutableByteSpan packet) -> std::optional<wire::DropReason> {
      auto text = session_.open(ciphers.message, packet);
      if (!text) return text.error();
      return use(
          OpenedFrame{.text = *text,
                      .frame = {packet.data() - wire::FRAME_HEADER_BYTES, packet.size() + wire::FRAME_HEADER_BYTES},
                      .end = text->empty()});
    });
  }

  void done(BufferBudget&) {}

  // The beginning of a frame is held.
  bool partial() const { return partialBytes() > 0; }
  size_t partialBytes() const { return reader_.partialBytes(); }
  size_t held() const { return reader_.held(); }
  void clear(BufferBudget& budget) { reader_.clear(budget); }

 private:
  Session session_;
  FrameReader reader_;
};

}  // namespace sallyport::netd
