// drop_reason.h - every reason for which this program ends a connection or refuses one.
// Part of: proto/wire (pure; any process). Used by logs, metrics, status and tests; see docs/protocol.md §4.
// The peer never learns a reason: on the wire all of them are the same silent close.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace sallyport::wire {

// X(enumerator, name in logs and metrics, what happened)
#define SALLYPORT_DROP_REASONS(X) \
  /* bytes that are not the protocol */ \
  X(BadLength, "bad_length", "a packet of a length that this state doesn't take") \
  X(BadMagic, "bad_magic", "a packet that doesn't begin with the magic of this state") \
  X(BadCounter, "bad_counter", "a counter that is not exactly the next one") \
  X(BadBox, "bad_box", "a box that doesn't open") \
  X(BadContent, "bad_content", "a box that opens on something the protocol doesn't allow") \
  X(LowOrderKey, "low_order_key", "a public key that gives an all-zero shared secret") \
  X(CounterExhausted, "counter_exhausted", "a direction has used all its counters") \
  /* bytes that are not the peer protocol */ \
  X(BadPreamble, "bad_preamble", "a preamble of another protocol, version or mode") \
  X(SameParty, "same_party", "a peer that claims our own half of the block: equal roles, or our bytes reflected") \
  X(BadChecksum, "bad_checksum", "a frame header that isn't genuine: changed, lost or repeated bytes, another block") \
  X(FrameTooLarge, "frame_too_large", "a frame longer than the entry's limit") \
  X(BadTag, "bad_tag", "a frame whose tag isn't that of its bytes and of all frames before") \
  X(ReservedCode, "reserved_code", "data under the code that is reserved for the ends of a stream") \
  /* handshake */ \
  X(UnknownCookie, "unknown_cookie", "a cookie that was not issued to this connection") \
  X(ExpiredCookie, "expired_cookie", "a cookie older than the cookie keys kept") \
  X(BadVouch, "bad_vouch", "a vouch that doesn't open or names another ephemeral key") \
  X(PeerNotAllowed, "peer_not_allowed", "a client key that the entry doesn't allow") \
  X(HandshakeTimeout, "handshake_timeout", "no valid handshake within the deadline") \
  X(ClosedInHandshake, "closed_in_handshake", "the peer closed before the handshake ended") \
  /* vault */ \
  X(VaultUnavailable, "vault_unavailable", "the vault can't be reached or didn't answer in time") \
  X(VaultRefused, "vault_refused", "the vault refused: unknown key or entry, locked, not permitted") \
  X(NonceUnavailable, "nonce_unavailable", "the vault can't make a provably fresh nonce") \
  X(HsmUnavailable, "hsm_unavailable", "the key's token is away or doesn't answer") \
  X(BlockUsed, "block_used", "base mode: a connection was opened with this block before") \
  X(RateLimited, "rate_limited", "more handshakes than the key's limit per second") \
  /* limits */ \
  X(HalfOpenLimit, "half_open_limit", "dropped as the oldest half-open connection, to make room") \
  X(ConnectionLimit, "connection_limit", "no room for another connection") \
  X(SourceLimit, "source_limit", "no room for another connection from this address") \
  X(IdleTimeout, "idle_timeout", "no traffic for the configured time") \
  X(MemoryLimit, "memory_limit", "the worker's buffers are used up") \
  /* ends of a session */ \
  X(Truncated, "truncated", "the wire ended without the authenticated end of the stream") \
  X(AfterEnd, "after_end", "a message after the authenticated end of its direction") \
  X(TransportError, "transport_error", "the wire connection failed: reset, time-out, unreachable") \
  X(LocalError, "local_error", "the local side failed: reset, write error") \
  X(TargetUnavailable, "target_unavailable", "the configured service or host can't be reached") \
  X(NoAcceptor, "no_acceptor", "no local program accepts channels of this name in time") \
  X(PeerRevoked, "peer_revoked", "a reload took the peer, the key or the entry away") \
  X(ShuttingDown, "shutting_down", "the daemon is stopping and the drain time is over")

enum class DropReason : uint8_t {
#define X(name, text, what) name,
  SALLYPORT_DROP_REASONS(X)
#undef X
};

#define X(name, text, what) +1
inline constexpr size_t DROP_REASON_COUNT = 0 SALLYPORT_DROP_REASONS(X);
#undef X

// The stable name used in logs, metrics and status, e.g. "bad_box".
std::string_view name(DropReason reason);
// The reason of that name; nothing if none has it.
std::optional<DropReason> dropReasonNamed(std::string_view name);
// One sentence fragment for people.
std::string_view describe(DropReason reason);

}  // namespace sallyport::wire
