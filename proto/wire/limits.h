// limits.h - every size, count and time of curve_tun 1.0 and of our use of it, in one place.
// Part of: proto/wire (pure; any process). See docs/protocol.md §1 and §2.
// Units are in the names: BYTES, MS, or a plain count.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sallyport::wire {

// --- primitives ------------------------------------------------------------------------------------------------
inline constexpr size_t KEY_BYTES = 32;        // X25519 public or secret key, secretbox key
inline constexpr size_t BOX_TAG_BYTES = 16;    // Poly1305 tag in front of every box
inline constexpr size_t BOX_NONCE_BYTES = 24;  // the whole NaCl nonce
inline constexpr size_t LONG_NONCE_BYTES =
    16;  // the part of a long-term nonce that travels; 8 bytes of prefix are implied
inline constexpr size_t MAGIC_BYTES = 8;
inline constexpr size_t COUNTER_BYTES = 8;  // big-endian

// --- framing: be16 length, then the packet -----------------------------------------------------------------------
inline constexpr size_t FRAME_HEADER_BYTES = 2;
inline constexpr size_t MAX_PACKET_BYTES = 65535;
inline constexpr size_t MAX_FRAME_BYTES = FRAME_HEADER_BYTES + MAX_PACKET_BYTES;

// --- packets (sizes without the frame header) --------------------------------------------------------------------
inline constexpr size_t HELLO_ZERO_BYTES = 64;
inline constexpr size_t HELLO_BOX_BYTES = BOX_TAG_BYTES + HELLO_ZERO_BYTES;
inline constexpr size_t HELLO_BYTES = MAGIC_BYTES + KEY_BYTES + COUNTER_BYTES + HELLO_BOX_BYTES;

inline constexpr size_t COOKIE_BOX_BYTES = BOX_TAG_BYTES + 2 * KEY_BYTES;    // secretbox of EC, ESs
inline constexpr size_t COOKIE_BYTES = LONG_NONCE_BYTES + COOKIE_BOX_BYTES;  // "K": opaque to the client
inline constexpr size_t COOKIE_PACKET_BOX_BYTES = BOX_TAG_BYTES + KEY_BYTES + COOKIE_BYTES;
inline constexpr size_t COOKIE_PACKET_BYTES = MAGIC_BYTES + LONG_NONCE_BYTES + COOKIE_PACKET_BOX_BYTES;

inline constexpr size_t VOUCH_BYTES = BOX_TAG_BYTES + KEY_BYTES;  // "V": box of EC from C to S
inline constexpr size_t INITIATE_BOX_BYTES = BOX_TAG_BYTES + KEY_BYTES + LONG_NONCE_BYTES + VOUCH_BYTES;
inline constexpr size_t INITIATE_BYTES = MAGIC_BYTES + COOKIE_BYTES + COUNTER_BYTES + INITIATE_BOX_BYTES;

inline constexpr size_t MESSAGE_OVERHEAD_BYTES = MAGIC_BYTES + COUNTER_BYTES + BOX_TAG_BYTES;
inline constexpr size_t MAX_MESSAGE_BYTES = MAX_PACKET_BYTES - MESSAGE_OVERHEAD_BYTES;

static_assert(HELLO_BYTES == 128 && COOKIE_PACKET_BYTES == 168 && INITIATE_BYTES == 224);
static_assert(COOKIE_BYTES == 96 && VOUCH_BYTES == 48);
static_assert(MESSAGE_OVERHEAD_BYTES == 32 && MAX_MESSAGE_BYTES == 65503);

// --- counters ------------------------------------------------------------------------------------------------------
inline constexpr uint64_t HELLO_COUNTER = 0;
inline constexpr uint64_t INITIATE_COUNTER = 1;
inline constexpr uint64_t FIRST_MESSAGE_COUNTER = 2;  // in each direction
inline constexpr uint64_t LAST_COUNTER = UINT64_MAX;  // reaching it ends the connection: it is never used

// --- time ----------------------------------------------------------------------------------------------------------
inline constexpr uint32_t DEFAULT_HANDSHAKE_TIMEOUT_MS = 5000;  // from accept to a valid Initiate
inline constexpr uint32_t COOKIE_KEY_PERIOD_MS = 60000;         // two keys are kept: a cookie lives 60..120 s

}  // namespace sallyport::wire
