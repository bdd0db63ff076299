// peer_frame.cc - see peer_frame.h.
#include "proto/wire/peer_frame.h"

#include <algorithm>

namespace sallyport::wire {

namespace {

void putBe32(std::byte* out, uint32_t value) {
  for (int i = 0; i < 4; ++i) out[i] = static_cast<std::byte>(value >> (24 - 8 * i));
}
uint32_t getBe32(const std::byte* bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint32_t>(bytes[i]);
  return value;
}

constexpr std::array<std::byte, 6> PREAMBLE_BEGINNING = {std::byte{'p'}, std::byte{'2'}, std::byte{'p'},
                                                         std::byte{'f'}, std::byte{1},   std::byte{1}};
constexpr size_t PARTY_OFFSET = PREAMBLE_BEGINNING.size();
constexpr size_t ZERO_OFFSET = PARTY_OFFSET + 1;
constexpr size_t SALT_OFFSET = ZERO_OFFSET + 1;

}  // namespace

void writePeerHeaderFields(std::span<std::byte, PEER_HEADER_FIELDS_BYTES> out, const PeerHeader& header) {
  putBe32(&out[0], header.length);
  putBe32(&out[4], header.code);
  putBe32(&out[8], header.sequence);
}

void writePeerChecksum(PeerHeaderBytes& header, const PeerChecksumMask& mask) {
  for (size_t i = 0; i < mask.size(); ++i) header[12 + i] = header[i] ^ header[4 + i] ^ header[8 + i] ^ mask[i];
}

Result<PeerHeader, DropReason> parsePeerHeader(const PeerHeaderBytes& header, const PeerChecksumMask& mask,
                                               uint32_t expectedSequence, uint32_t maxLength) {
  const PeerHeader fields{getBe32(&header[0]), getBe32(&header[4]), getBe32(&header[8])};
  // One comparison of whole words: in hard mode its time must not tell how much of a guess was right.
  const uint32_t checksum = fields.length ^ fields.code ^ fields.sequence ^ getBe32(mask.data());
  if (checksum != getBe32(&header[12])) return refuse(DropReason::BadChecksum);
  if (fields.sequence != expectedSequence) return refuse(DropReason::BadCounter);
  if (fields.length > maxLength) return refuse(DropReason::FrameTooLarge);
  return fields;
}

std::optional<PeerControl> peerControl(ByteSpan payload) {
  if (payload.empty()) return PeerControl::End;
  if (std::ranges::equal(payload, asBytes(PEER_OPEN_TEXT))) return PeerControl::Open;
  return std::nullopt;
}

PeerPreambleBytes writePeerPreamble(PeerParty own, const PeerSalt& salt) {
  PeerPreambleBytes bytes{};
  std::ranges::copy(PREAMBLE_BEGINNING, bytes.begin());
  bytes[PARTY_OFFSET] = static_cast<std::byte>(own);
  std::ranges::copy(salt.span(), bytes.begin() + SALT_OFFSET);
  return bytes;
}

std::optional<DropReason> checkPeerPreamble(ByteSpan beginning, PeerParty own) {
  const size_t known = std::min(beginning.size(), PREAMBLE_BEGINNING.size());
  if (!std::equal(beginning.begin(), beginning.begin() + static_cast<ptrdiff_t>(known), PREAMBLE_BEGINNING.begin()))
    return DropReason::BadPreamble;
  if (beginning.size() > PARTY_OFFSET) {
    if (beginning[PARTY_OFFSET] == static_cast<std::byte>(own)) return DropReason::SameParty;
    if (beginning[PARTY_OFFSET] != static_cast<std::byte>(otherParty(own))) return DropReason::BadPreamble;
  }
  if (beginning.size() > ZERO_OFFSET && beginning[ZERO_OFFSET] != std::byte{0}) return DropReason::BadPreamble;
  return std::nullopt;
}

Result<PeerSalt, DropReason> parsePeerPreamble(const PeerPreambleBytes& bytes, PeerParty own) {
  if (auto fault = checkPeerPreamble(bytes, own)) return refuse(*fault);
  return PeerSalt(ByteSpan(bytes).subspan(SALT_OFFSET));
}

}  // namespace sallyport::wire
