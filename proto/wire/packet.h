// packet.h - the four packets of curve_tun 1.0 and their framing, as values. Part of: proto/wire (pure; any process).
// docs/protocol.md §1 and §2. Parsing takes the payload of one frame and returns a value or the reason to drop; nothing
// here opens a box, keeps state or allocates. Writers fill a buffer of the exact size, frame header included.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/bytes.h"
#include "common/result.h"
#include "proto/wire/drop_reason.h"
#include "proto/wire/limits.h"

namespace sallyport::wire {

template <size_t N>
using Block = std::array<std::byte, N>;

// be16, the length of the packet that follows.
size_t readFrameLength(std::span<const std::byte, FRAME_HEADER_BYTES> header);
void writeFrameLength(std::span<std::byte, FRAME_HEADER_BYTES> header, size_t packetBytes);

struct Hello {
  PublicKey clientEphemeral;   // EC
  Block<HELLO_BOX_BYTES> box;  // 64 zero bytes, from EC to S
};
struct CookiePacket {
  LongNonceBytes nonce;                // R
  Block<COOKIE_PACKET_BOX_BYTES> box;  // ES, K from S to EC
};
struct Initiate {
  Block<COOKIE_BYTES> cookie;     // K
  Block<INITIATE_BOX_BYTES> box;  // C, R2, V from EC to ES
};
// What the Initiate's box holds.
struct InitiateContent {
  PublicKey client;           // C
  LongNonceBytes vouchNonce;  // R2
  Block<VOUCH_BYTES> vouch;   // V
};

Result<Hello, DropReason> parseHello(ByteSpan packet);
Result<CookiePacket, DropReason> parseCookiePacket(ByteSpan packet);
Result<Initiate, DropReason> parseInitiate(ByteSpan packet);
InitiateContent parseInitiateContent(std::span<const std::byte, KEY_BYTES + LONG_NONCE_BYTES + VOUCH_BYTES> content);

using HelloFrame = Block<FRAME_HEADER_BYTES + HELLO_BYTES>;
using CookieFrame = Block<FRAME_HEADER_BYTES + COOKIE_PACKET_BYTES>;
using InitiateFrame = Block<FRAME_HEADER_BYTES + INITIATE_BYTES>;

HelloFrame writeHello(const Hello& hello);
CookieFrame writeCookiePacket(const CookiePacket& cookie);
InitiateFrame writeInitiate(const Initiate& initiate);

// A message's packet: magic, be64 counter, box. The box begins at MESSAGE_BOX_OFFSET of the packet.
inline constexpr size_t MESSAGE_BOX_OFFSET = MAGIC_BYTES + COUNTER_BYTES;
// Checks length, magic and that the counter is exactly `expected`.
std::optional<DropReason> checkMessage(ByteSpan packet, uint64_t expected);
// Writes frame length, magic and counter in front of a message of `messageBytes`.
void writeMessageHeader(std::span<std::byte, FRAME_HEADER_BYTES + MESSAGE_BOX_OFFSET> header, uint64_t counter,
                        size_t messageBytes);

uint64_t readBe64(std::span<const std::byte, 8> bytes);
void writeBe64(std::span<std::byte, 8> bytes, uint64_t value);

}  // namespace sallyport::wire
