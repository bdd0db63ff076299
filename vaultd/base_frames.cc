#include "vaultd/base_frames.h"

#include <algorithm>
#include <cstring>

namespace sallyport::vaultd {

using wire::DropReason;
using wire::PEER_HEADER_BYTES;
using wire::PEER_TAG_BYTES;

namespace {

uint32_t be32(ByteSpan bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint32_t>(bytes[i]);
  return value;
}

void append(MutableByteSpan out, size_t& bytes, ByteSpan more) {
  CHECK(more.size() <= out.size() - bytes);
  std::memcpy(out.data() + bytes, more.data(), more.size());
  bytes += more.size();
}

// Moves bytes of `in` to `held` until there are `wanted`.
bool holdIn(std::array<std::byte, PEER_HEADER_BYTES>& held, size_t& heldBytes, ByteSpan& in, size_t wanted) {
  const size_t piece = std::min(in.size(), wanted - heldBytes);
  if (piece > 0) std::memcpy(held.data() + heldBytes, in.data(), piece);
  heldBytes += piece;
  in = in.subspan(piece);
  if (heldBytes < wanted) return false;
  heldBytes = 0;
  return true;
}

}  // namespace

Result<size_t, DropReason> BaseSealing::seal(peer::FrameCipher& cipher, ByteSpan in, MutableByteSpan out) {
  size_t bytes = 0;
  const auto die = [&](DropReason reason) {
    if (!dead_) dead_ = reason;
    wipe(out.first(bytes));
    return refuse(*dead_);
  };
  if (dead_) return die(*dead_);
  while (true) {
    if (part_ == Part::Header) {
      if (!holdIn(held_, heldBytes_, in, PEER_HEADER_BYTES)) return bytes;
      left_ = be32(held_);
      if (left_ > maxFrameBytes_) return die(DropReason::FrameTooLarge);
      const auto header = sealer_.begin(cipher, run_.emplace(), left_, be32(ByteSpan(held_).subspan(4)));
      if (!header) return die(header.error());
      append(out, bytes, *header);
      part_ = Part::Payload;
    } else if (part_ == Part::Payload) {
      if (left_ != 0 && in.empty()) return bytes;
      const ByteSpan piece = in.first(std::min<size_t>(in.size(), left_));
      const size_t at = bytes;
      append(out, bytes, piece);
      sealer_.update(cipher, *run_, out.subspan(at, piece.size()));
      in = in.subspan(piece.size());
      left_ -= static_cast<uint32_t>(piece.size());
      if (left_ == 0) part_ = Part::Tag;
    } else {
      if (!holdIn(held_, heldBytes_, in, PEER_TAG_BYTES)) return bytes;
      append(out, bytes, sealer_.finish(cipher, *run_));
      run_.reset();
      part_ = Part::Header;
    }
  }
}

bool BaseOpening::hold(ByteSpan& in, size_t wanted) { return holdIn(held_, heldBytes_, in, wanted); }

bool BaseOpening::takeHeader(peer::FrameCipher& cipher, MutableByteSpan out, Opened& result) {
  const auto header = opener_.openHeader(cipher, held_);
  if (!header) {
    result.fault = header.error();
    return false;
  }
  left_ = header->length;
  opener_.begin(cipher, run_.emplace());
  wire::PeerHeaderBytes plain;
  wire::writePeerHeaderFields(std::span(plain).first<wire::PEER_HEADER_FIELDS_BYTES>(), *header);
  wire::writePeerChecksum(plain, {});
  append(out, result.bytes, plain);
  part_ = Part::Payload;
  return true;
}

void BaseOpening::takePayload(peer::FrameCipher& cipher, ByteSpan& in, MutableByteSpan out, Opened& result) {
  const ByteSpan piece = in.first(std::min<size_t>(in.size(), left_));
  const size_t at = result.bytes;
  append(out, result.bytes, piece);
  opener_.update(cipher, *run_, out.subspan(at, piece.size()));
  in = in.subspan(piece.size());
  left_ -= static_cast<uint32_t>(piece.size());
  if (left_ == 0) part_ = Part::Tag;
}

bool BaseOpening::takeTag(peer::FrameCipher& cipher, MutableByteSpan out, Opened& result) {
  wire::PeerTag tag;
  std::memcpy(tag.data(), held_.data(), tag.size());
  result.fault = opener_.finish(cipher, *run_, tag);
  run_.reset();
  if (result.fault) {
    // Of the frame that turned out bad nothing more is given out than earlier answers held.
    result.bytes = result.sanctified;
    return false;
  }
  append(out, result.bytes, wire::PeerTag{});  // it was good: nobody needs it
  result.sanctified = result.bytes;
  part_ = Part::Header;
  return true;
}

}  // namespace sallyport::vaultd
