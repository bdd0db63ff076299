// message_frames.cc - see message_frames.h.
#include "cli/message_frames.h"

#include <cstdint>

namespace sallyport::cli {

std::array<std::byte, FRAME_LENGTH_BYTES> frameHeader(size_t messageBytes) {
  CHECK(messageBytes <= UINT32_MAX);
  std::array<std::byte, FRAME_LENGTH_BYTES> header{};
  for (size_t i = 0; i < header.size(); ++i) header[i] = static_cast<std::byte>(messageBytes >> (8 * (3 - i)));
  return header;
}

void FrameReader::append(ByteSpan bytes) {
  bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(start_));
  start_ = 0;
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::optional<ByteSpan> FrameReader::next() {
  const ByteSpan rest = ByteSpan(bytes_).subspan(start_);
  if (tooLong_ != 0 || rest.size() < FRAME_LENGTH_BYTES) return std::nullopt;
  size_t length = 0;
  for (const auto byte : rest.first(FRAME_LENGTH_BYTES)) length = length << 8 | static_cast<size_t>(byte);
  if (length > maxMessageBytes_) {
    tooLong_ = length;
    return std::nullopt;
  }
  if (rest.size() < FRAME_LENGTH_BYTES + length) return std::nullopt;
  start_ += FRAME_LENGTH_BYTES + length;
  return rest.subspan(FRAME_LENGTH_BYTES, length);
}

}  // namespace sallyport::cli
