// direction.cc - see direction.h.
#include "peer/direction.h"

#include <algorithm>
#include <cstring>

namespace sallyport::peer {

using wire::DropReason;
using wire::PeerMode;

namespace {

std::array<std::byte, 8> be64(uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (56 - 8 * i));
  return bytes;
}

}  // namespace

Direction::Direction(PeerMode mode, std::unique_ptr<KeySchedule> schedule, uint32_t rotateFrames)
    : mode_(mode), rotateFrames_(rotateFrames), schedule_(std::move(schedule)) {
  CHECK(nextKeys());
  // What would make further keys is not kept.
  if (rotateFrames_ == 0 && mode_ == PeerMode::Hard) schedule_ = nullptr;
}

bool Direction::nextKeys() {
  keys_.stream.renew();
  return schedule_->next(keys_);
}

DropReason Direction::die(DropReason reason) {
  if (!dead_) dead_ = reason;
  return *dead_;
}

std::optional<DropReason> Direction::refusal() {
  // protocol §13: the last number is never used, so none is ever used twice.
  if (!dead_ && number_ == wire::PEER_LAST_NUMBER) die(DropReason::CounterExhausted);
  return dead_;
}

wire::PeerChecksumMask Direction::checksumMask(
    std::span<const std::byte, wire::PEER_HEADER_FIELDS_BYTES> fields) const {
  wire::PeerChecksumMask mask{};
  if (mode_ == PeerMode::Base) return mask;
  const auto number = be64(number_);
  Digest digest;
  keys_.header.mac(digest.exposeMutable(), {asBytes("H"), number, fields});
  std::memcpy(mask.data(), digest.expose().data(), mask.size());
  return mask;
}

uint64_t Direction::beginCipher(FrameCipher& cipher, uint64_t offset) const {
  if (mode_ == PeerMode::Hard) return cipher.begin(keys_.stream, blocks_, offset);
  StreamKey key;
  schedule_->fetch(key);
  key.id = keys_.stream.id;
  return cipher.begin(key, blocks_, offset);
}

wire::PeerTag Direction::finishHash(Hash& hash) {
  hash.finish(chain_.exposeMutable());
  wire::PeerTag tag;
  if (mode_ == PeerMode::Base) {
    std::memcpy(tag.data(), chain_.expose().data(), tag.size());
    return tag;
  }
  const auto number = be64(number_);
  Digest digest;
  keys_.tag.mac(digest.exposeMutable(), {asBytes("T"), number, chain_.expose()});
  std::memcpy(tag.data(), digest.expose().data(), tag.size());
  return tag;
}

void Direction::nextFrame(uint32_t length) {
  ++number_;
  blocks_ += wire::peerFrameBlocks(length);
  if (rotateFrames_ == 0 || (number_ - 1) % rotateFrames_ != 0) return;
  // At once, not with the next frame: what sealed the past doesn't wait in memory.
  if (!nextKeys()) die(DropReason::CounterExhausted);
  blocks_ = 0;
}

void Direction::skipToNumber(uint64_t number) {
  CHECK(number >= number_);
  number_ = number;
}

}  // namespace sallyport::peer
