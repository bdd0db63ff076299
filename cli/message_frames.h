// message_frames.h - how `sallyport pipe --messages` frames: be32 length, then the bytes. Part of: cli. Pure.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace sallyport::cli {

inline constexpr size_t FRAME_LENGTH_BYTES = 4;
// The longest message that [net] socket carries either way (proto/net.capnp: 2 MiB less 4 KiB), whatever the channel.
inline constexpr size_t MAX_FRAMED_BYTES = (2 << 20) - 4096;

// The length in front of a message.
std::array<std::byte, FRAME_LENGTH_BYTES> frameHeader(size_t messageBytes);

// Takes bytes as they come and gives whole messages. Memory is bounded by what is appended between two calls of next(),
// and one message.
class FrameReader {
 public:
  // `maxMessageBytes`: of the channel.
  explicit FrameReader(size_t maxMessageBytes) : maxMessageBytes_(maxMessageBytes) {}
  void append(ByteSpan bytes);
  // The next whole message, valid until the next append(); none: more bytes are needed, or tooLong() isn't 0.
  std::optional<ByteSpan> next();
  // The length of a frame that is more than the channel takes. Nothing after it is read.
  size_t tooLong() const { return tooLong_; }
  // Bytes of a frame that isn't whole.
  size_t pending() const { return bytes_.size() - start_; }

 private:
  size_t maxMessageBytes_;
  std::vector<std::byte> bytes_;
  size_t start_ = 0;
  size_t tooLong_ = 0;
};

}  // namespace sallyport::cli
