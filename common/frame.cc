// frame.cc - see frame.h.
#include "common/frame.h"

#include <endian.h>

#include <algorithm>
#include <cstring>

#include "common/secret_bytes.h"

namespace sallyport {

namespace {

constexpr size_t WORD = sizeof(capnp::word);

uint32_t le32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return le32toh(value);
}

}  // namespace

FrameHeader parseFrameHeader(ByteSpan bytes, size_t maxMessageBytes, unsigned maxSegments) {
  FrameHeader header;
  if (bytes.size() < 4) return header;
  // Checked before the +1: 0xFFFFFFFF would wrap.
  const uint32_t last = le32(bytes.data());
  if (last >= maxSegments) {
    header.state = FrameHeader::State::Bad;
    return header;
  }
  header.segments = last + 1;
  header.headerBytes = (4 + 4 * size_t{header.segments} + WORD - 1) / WORD * WORD;
  if (bytes.size() < header.headerBytes) return header;
  size_t words = 0;
  for (unsigned i = 0; i < header.segments; ++i) {
    const size_t size = le32(bytes.data() + 4 + 4 * size_t{i});
    if (size > maxMessageBytes / WORD || words + size > maxMessageBytes / WORD) {
      header.state = FrameHeader::State::TooBig;
      return header;
    }
    words += size;
  }
  header.messageBytes = header.headerBytes + words * WORD;
  header.state = FrameHeader::State::Complete;
  return header;
}

OwnedMessage::OwnedMessage(ByteSpan bytes, const FrameHeader& header, capnp::ReaderOptions limits)
    : capnp::MessageReader(limits),
      words_((header.messageBytes - header.headerBytes) / WORD),
      segments_(header.segments) {
  if (!words_.empty()) std::memcpy(words_.data(), bytes.data() + header.headerBytes, words_.size() * WORD);
  size_t offset = 0;
  for (unsigned i = 0; i < header.segments; ++i) {
    const size_t size = le32(bytes.data() + 4 + 4 * size_t{i});
    segments_[i] = {reinterpret_cast<const capnp::word*>(words_.data()) + offset, size};
    offset += size;
  }
}

OwnedMessage::~OwnedMessage() noexcept(false) { wipe(std::as_writable_bytes(std::span(words_))); }

kj::ArrayPtr<const capnp::word> OwnedMessage::getSegment(uint id) {
  if (id >= segments_.size()) return nullptr;
  return kj::arrayPtr(segments_[id].data, segments_[id].size);
}

void appendFrame(std::vector<std::byte>& out, kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  const size_t headerBytes = (4 + 4 * segments.size() + WORD - 1) / WORD * WORD;
  size_t bytes = headerBytes;
  for (auto& segment : segments) bytes += segment.size() * WORD;
  const size_t at = out.size();
  if (out.capacity() < at + bytes) {
    std::vector<std::byte> larger;
    larger.reserve(std::max(out.capacity() * 2, at + bytes));
    larger.assign(out.begin(), out.end());
    wipe(out);
    out = std::move(larger);
  }
  out.resize(at + bytes);
  std::byte* to = out.data() + at;
  std::memset(to, 0, headerBytes);
  const uint32_t last = htole32(static_cast<uint32_t>(segments.size() - 1));
  std::memcpy(to, &last, 4);
  size_t offset = headerBytes;
  for (size_t i = 0; i < segments.size(); ++i) {
    const uint32_t words = htole32(static_cast<uint32_t>(segments[i].size()));
    std::memcpy(to + 4 + 4 * i, &words, 4);
    std::memcpy(to + offset, segments[i].begin(), segments[i].size() * WORD);
    offset += segments[i].size() * WORD;
  }
}

}  // namespace sallyport
