// frame_sealer.cc - see frame_sealer.h.
#include "peer/frame_sealer.h"

#include <algorithm>
#include <cstring>

namespace sallyport::peer {

using wire::DropReason;
using wire::PEER_HEADER_BYTES;
using wire::PEER_TAG_BYTES;

wire::PeerHeaderBytes FrameSealer::plainHeader(uint32_t length, uint32_t code) const {
  wire::PeerHeaderBytes header;
  const auto fields = std::span(header).first<wire::PEER_HEADER_FIELDS_BYTES>();
  wire::writePeerHeaderFields(fields, {length, code, static_cast<uint32_t>(direction_.number())});
  wire::writePeerChecksum(header, direction_.checksumMask(fields));
  return header;
}

std::optional<DropReason> FrameSealer::seal(FrameCipher& cipher, MutableByteSpan frame, uint32_t code) {
  CHECK(frame.size() >= wire::PEER_OVERHEAD_BYTES && !inside_);
  const size_t length = frame.size() - wire::PEER_OVERHEAD_BYTES;
  CHECK(length <= wire::PEER_MAX_LENGTH);
  if (const auto refusal = direction_.refusal()) return refusal;
  const auto header = plainHeader(static_cast<uint32_t>(length), code);
  std::memcpy(frame.data(), header.data(), PEER_HEADER_BYTES);

  Hash hash;
  direction_.startHash(hash);
  direction_.beginCipher(cipher, 0);
  MutableByteSpan rest = frame.first(PEER_HEADER_BYTES + length);
  while (rest.size() > PASS_BYTES) {
    hash.update(rest.first(PASS_BYTES));
    cipher.crypt(rest.first(PASS_BYTES));
    rest = rest.subspan(PASS_BYTES);
  }
  hash.update(rest);
  const auto tag = direction_.finishHash(hash);
  std::memcpy(frame.last(PEER_TAG_BYTES).data(), tag.data(), PEER_TAG_BYTES);
  cipher.crypt(frame.last(rest.size() + PEER_TAG_BYTES));
  direction_.nextFrame(static_cast<uint32_t>(length));
  return std::nullopt;
}

Result<wire::PeerHeaderBytes, DropReason> FrameSealer::begin(FrameCipher& cipher, FrameRun& run, uint32_t length,
                                                             uint32_t code) {
  CHECK(!inside_);
  if (const auto refusal = direction_.refusal()) return refuse(*refusal);
  inside_ = true;
  auto header = plainHeader(length, code);
  direction_.startHash(run.hash);
  run.hash.update(header);
  run.use = direction_.beginCipher(cipher, 0);
  cipher.crypt(header);
  run.offset = PEER_HEADER_BYTES;
  run.end = PEER_HEADER_BYTES + uint64_t{length};
  return header;
}

void FrameSealer::update(FrameCipher& cipher, FrameRun& run, MutableByteSpan piece) {
  CHECK(inside_ && piece.size() <= run.end - run.offset);
  if (cipher.current() != run.use) run.use = direction_.beginCipher(cipher, run.offset);
  run.offset += piece.size();
  while (!piece.empty()) {
    const MutableByteSpan part = piece.first(std::min(piece.size(), PASS_BYTES));
    run.hash.update(part);
    cipher.crypt(part);
    piece = piece.subspan(part.size());
  }
}

wire::PeerTag FrameSealer::finish(FrameCipher& cipher, FrameRun& run) {
  CHECK(inside_ && run.offset == run.end);
  inside_ = false;
  if (cipher.current() != run.use) direction_.beginCipher(cipher, run.offset);
  auto tag = direction_.finishHash(run.hash);
  cipher.crypt(tag);
  direction_.nextFrame(static_cast<uint32_t>(run.end - PEER_HEADER_BYTES));
  return tag;
}

}  // namespace sallyport::peer
