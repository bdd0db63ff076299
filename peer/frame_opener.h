// frame_opener.h - reads the frames of one direction, in place. Part of: peer (netd-worker, vaultd; sans-IO).
// docs/protocol.md §13. First the header, as soon as its 16 bytes are there; it says how much follows. Then payload and
// tag, whole or in pieces. After a fault the direction is dead: every further call repeats the reason. Never here: a
// length believed before its checksum; a payload left readable whose tag is wrong.
#pragma once

#include "common/result.h"
#include "peer/direction.h"

namespace sallyport::peer {

class FrameOpener {
 public:
  FrameOpener(Direction direction, uint32_t maxFrameBytes)
      : direction_(std::move(direction)), maxFrameBytes_(maxFrameBytes) {}

  // BadChecksum, BadCounter, FrameTooLarge. The header is kept, decoded, until its frame is opened.
  Result<wire::PeerHeader, wire::DropReason> openHeader(FrameCipher& cipher,
                                                        std::span<const std::byte, wire::PEER_HEADER_BYTES> bytes);
  // The header whose frame is still to be opened.
  const std::optional<wire::PeerHeader>& header() const { return header_; }

  // `body` is header()->length bytes of payload and the tag: the payload becomes plain. BadTag wipes it.
  std::optional<wire::DropReason> openBody(FrameCipher& cipher, MutableByteSpan body);

  // The same in pieces. What update() made plain is *not* to be shown to anybody before finish() has said that it is
  // genuine, and is the caller's to wipe otherwise. `run` is a fresh one.
  void begin(FrameCipher& cipher, FrameRun& run);
  void update(FrameCipher& cipher, FrameRun& run, MutableByteSpan piece);
  std::optional<wire::DropReason> finish(FrameCipher& cipher, FrameRun& run, wire::PeerTag tag);

  // How many frames were opened, and why no more are.
  uint64_t opened() const { return direction_.number() - 1; }
  const std::optional<wire::DropReason>& dead() const { return direction_.dead(); }
  wire::PeerMode mode() const { return direction_.mode(); }
  uint32_t maxFrameBytes() const { return maxFrameBytes_; }
  // A fault that was found outside, e.g. a code that the stream doesn't take.
  wire::DropReason die(wire::DropReason reason) { return direction_.die(reason); }
  void skipToNumber(uint64_t number) { direction_.skipToNumber(number); }  // for tests

 private:
  std::optional<wire::DropReason> judge(FrameRun& run, const wire::PeerTag& tag);

  Direction direction_;
  uint32_t maxFrameBytes_;
  std::optional<wire::PeerHeader> header_;
  wire::PeerHeaderBytes plainHeader_{};
  uint64_t use_ = 0;     // FrameCipher::begin's answer for the header
  bool inside_ = false;  // a frame in pieces is not finished
};

}  // namespace sallyport::peer
