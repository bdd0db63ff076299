// peer_frame.h - frame header and preamble of the peer protocol, as values. Part of: proto/wire (pure; any process).
// docs/protocol.md §13. Everything here is about plain bytes: nothing encrypts, keeps state or allocates. A header is
// believed only when its checksum is right, and in hard mode that is keyed: then no length is taken from a stranger.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "common/bytes.h"
#include "common/result.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::wire {

// --- frames --------------------------------------------------------------------------------------------------------
inline constexpr size_t PEER_HEADER_BYTES = 16;  // be32 length, be32 code, be32 sequence, 4 of checksum
inline constexpr size_t PEER_TAG_BYTES = 8;
inline constexpr size_t PEER_OVERHEAD_BYTES = PEER_HEADER_BYTES + PEER_TAG_BYTES;
inline constexpr size_t PEER_CIPHER_BLOCK_BYTES = 16;
static_assert(PEER_HEADER_BYTES == PEER_CIPHER_BLOCK_BYTES, "a header can be read as soon as one block is there");
inline constexpr uint32_t PEER_MAX_LENGTH = UINT32_MAX;                      // what the field can say
inline constexpr uint32_t PEER_DEFAULT_MAX_FRAME_BYTES = 16u * 1024 * 1024;  // of payload
inline constexpr uint64_t PEER_LAST_NUMBER = UINT64_MAX;                     // never used
inline constexpr uint32_t PEER_DEFAULT_ROTATE_FRAMES = 65536;                // hard mode

// --- secrets and salts ---------------------------------------------------------------------------------------------
inline constexpr size_t PEER_BLOCK_BYTES = 128;  // the shared secret: A sends with the first half, B with the second
inline constexpr size_t PEER_HALF_BYTES = 64;
inline constexpr size_t PEER_SALT_BYTES = 32;
inline constexpr size_t PEER_SECRET_BYTES = 32;  // S of hard mode

// --- codes ---------------------------------------------------------------------------------------------------------
inline constexpr uint32_t PEER_CODE_DATA = 0;  // what a tunnel sends its bytes under
// In hard mode reserved for what a stream says of itself. Empty: the authenticated end of this direction. The text:
// "I hold the block", from a dialling side whose program has nothing to say yet. Anything else is a fault.
inline constexpr uint32_t PEER_CODE_CONTROL = 0xFFFFFFFF;
inline constexpr std::string_view PEER_OPEN_TEXT = "open";
enum class PeerControl : uint8_t { End, Open };
// Whether a control frame may have a payload of that length: what is longer isn't waited for.
constexpr bool isPeerControlLength(uint32_t length) { return length == 0 || length == PEER_OPEN_TEXT.size(); }
std::optional<PeerControl> peerControl(ByteSpan payload);

enum class PeerMode : uint8_t { Base, Hard };
enum class PeerParty : uint8_t { A = 'A', B = 'B' };
constexpr PeerParty otherParty(PeerParty party) { return party == PeerParty::A ? PeerParty::B : PeerParty::A; }

struct PeerHeader {
  uint32_t length;  // of the payload alone
  uint32_t code;
  uint32_t sequence;
};
using PeerHeaderBytes = std::array<std::byte, PEER_HEADER_BYTES>;
using PeerTag = std::array<std::byte, PEER_TAG_BYTES>;
// What hard mode's key adds to the checksum; all zero in base mode.
using PeerChecksumMask = std::array<std::byte, 4>;

// The first 12 bytes, which the mask is computed over.
inline constexpr size_t PEER_HEADER_FIELDS_BYTES = 12;
void writePeerHeaderFields(std::span<std::byte, PEER_HEADER_FIELDS_BYTES> out, const PeerHeader& header);
// The xor of the three fields and of the mask, behind them.
void writePeerChecksum(PeerHeaderBytes& header, const PeerChecksumMask& mask);
// In this order: BadChecksum, BadCounter, FrameTooLarge.
Result<PeerHeader, DropReason> parsePeerHeader(const PeerHeaderBytes& header, const PeerChecksumMask& mask,
                                               uint32_t expectedSequence, uint32_t maxLength);

constexpr uint64_t peerFrameBytes(uint64_t length) { return length + PEER_OVERHEAD_BYTES; }
// How many counter values a frame uses up: the next frame begins with a fresh one.
constexpr uint64_t peerFrameBlocks(uint64_t length) {
  return (peerFrameBytes(length) + PEER_CIPHER_BLOCK_BYTES - 1) / PEER_CIPHER_BLOCK_BYTES;
}

// --- preamble of hard mode: "p2pf" 01 01 party 00 salt --------------------------------------------------------------
inline constexpr size_t PEER_PREAMBLE_BYTES = 8 + PEER_SALT_BYTES;
struct PeerSaltTag;
using PeerSalt = Bytes<PeerSaltTag, PEER_SALT_BYTES>;
using PeerPreambleBytes = std::array<std::byte, PEER_PREAMBLE_BYTES>;

PeerPreambleBytes writePeerPreamble(PeerParty own, const PeerSalt& salt);
// Judges the beginning of a preamble, 0 to PEER_PREAMBLE_BYTES bytes: garbage is told by its first byte. BadPreamble or
// SameParty; nothing if it is right as far as it goes.
std::optional<DropReason> checkPeerPreamble(ByteSpan beginning, PeerParty own);
// A whole one.
Result<PeerSalt, DropReason> parsePeerPreamble(const PeerPreambleBytes& bytes, PeerParty own);

}  // namespace sallyport::wire
