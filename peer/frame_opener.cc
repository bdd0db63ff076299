// frame_opener.cc - see frame_opener.h.
#include "peer/frame_opener.h"

#include <algorithm>
#include <cstring>

namespace sallyport::peer {

using wire::DropReason;
using wire::PEER_HEADER_BYTES;
using wire::PEER_TAG_BYTES;

Result<wire::PeerHeader, DropReason> FrameOpener::openHeader(FrameCipher& cipher,
                                                             std::span<const std::byte, PEER_HEADER_BYTES> bytes) {
  CHECK(!header_);
  if (const auto refusal = direction_.refusal()) return refuse(*refusal);
  std::memcpy(plainHeader_.data(), bytes.data(), PEER_HEADER_BYTES);
  use_ = direction_.beginCipher(cipher, 0);
  cipher.crypt(plainHeader_);
  const auto mask = direction_.checksumMask(std::span(plainHeader_).first<wire::PEER_HEADER_FIELDS_BYTES>());
  const auto parsed =
      wire::parsePeerHeader(plainHeader_, mask, static_cast<uint32_t>(direction_.number()), maxFrameBytes_);
  if (!parsed) return refuse(direction_.die(parsed.error()));
  header_ = *parsed;
  return *parsed;
}

void FrameOpener::begin(FrameCipher& cipher, FrameRun& run) {
  CHECK(header_ && !inside_ && !direction_.dead());
  inside_ = true;
  direction_.startHash(run.hash);
  run.hash.update(plainHeader_);
  run.offset = PEER_HEADER_BYTES;
  run.end = PEER_HEADER_BYTES + uint64_t{header_->length};
  // Mostly the header was the last thing that was decrypted, and its key stream goes on here.
  run.use = use_;
}

void FrameOpener::update(FrameCipher& cipher, FrameRun& run, MutableByteSpan piece) {
  CHECK(inside_ && piece.size() <= run.end - run.offset);
  if (cipher.current() != run.use) run.use = direction_.beginCipher(cipher, run.offset);
  run.offset += piece.size();
  while (!piece.empty()) {
    const MutableByteSpan part = piece.first(std::min(piece.size(), PASS_BYTES));
    cipher.crypt(part);
    run.hash.update(part);
    piece = piece.subspan(part.size());
  }
}

std::optional<DropReason> FrameOpener::finish(FrameCipher& cipher, FrameRun& run, wire::PeerTag tag) {
  CHECK(inside_ && run.offset == run.end);
  if (cipher.current() != run.use) direction_.beginCipher(cipher, run.offset);
  cipher.crypt(tag);
  return judge(run, tag);
}

// `tag` is plain now.
std::optional<DropReason> FrameOpener::judge(FrameRun& run, const wire::PeerTag& tag) {
  inside_ = false;
  const auto expected = direction_.finishHash(run.hash);
  const uint32_t length = header_->length;
  header_ = std::nullopt;
  if (!reveal(equalsConstantTime(tag, expected))) return direction_.die(DropReason::BadTag);
  direction_.nextFrame(length);
  return std::nullopt;
}

std::optional<DropReason> FrameOpener::openBody(FrameCipher& cipher, MutableByteSpan body) {
  if (direction_.dead()) return direction_.dead();
  CHECK(header_ && body.size() == uint64_t{header_->length} + PEER_TAG_BYTES);
  FrameRun run;
  begin(cipher, run);
  // All but the last piece; that one goes with the tag, which lies behind it.
  const size_t last = header_->length % PASS_BYTES;
  update(cipher, run, body.first(header_->length - last));
  if (cipher.current() != run.use) direction_.beginCipher(cipher, run.offset);
  const MutableByteSpan rest = body.last(last + PEER_TAG_BYTES);
  cipher.crypt(rest);
  run.hash.update(rest.first(last));
  wire::PeerTag tag;
  std::memcpy(tag.data(), body.last(PEER_TAG_BYTES).data(), PEER_TAG_BYTES);
  const auto fault = judge(run, tag);
  if (fault) wipe(body);
  return fault;
}

}  // namespace sallyport::peer
