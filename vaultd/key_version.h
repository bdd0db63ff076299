// key_version.h - the life of one version of a key: its times, and the state that follows from them and the clock.
// Part of: vaultd's key library. docs/protocol.md §9 tells the same for readers of other programs.
// Pure. A state is never stored: a running vault carries out a rotation on time without writing anything.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "proto/wire/peer_frame.h"

namespace sallyport::vaultd {

// What the secret is: an X25519 scalar (tunnels, boxes), an Ed25519 seed (signatures), or the block that two hosts
// share for the peer protocol.
enum class KeyKind : uint8_t { X25519, Ed25519, PeerBlock };
std::string_view describe(KeyKind kind);  // "x25519", "ed25519", "peer-block": as in files, arguments and RPC
std::optional<KeyKind> keyKindOf(std::string_view word);
inline constexpr std::string_view KEY_KIND_RULE = "x25519, ed25519 or peer-block";
constexpr size_t secretBytes(KeyKind kind) { return kind == KeyKind::PeerBlock ? wire::PEER_BLOCK_BYTES : 32; }

std::string_view describe(wire::PeerParty party);  // "A", "B"
std::optional<wire::PeerParty> partyOf(std::string_view word);

// `activeFrom` of a block that waits until the other host has it too (`sallyport pair`). No clock comes so far.
inline constexpr int64_t AWAITS_CONFIRMATION = std::numeric_limits<int64_t>::max();

// All times are Unix seconds; 0: never, or not set. They are authenticated by the file's seal.
struct KeyVersion {
  uint32_t number = 1;  // 1..n, never used again
  PublicKey publicKey;  // of a block: its fingerprint
  int64_t activeFrom = 0;
  int64_t openOnlyFrom = 0;  // when the next version becomes active
  int64_t retiredFrom = 0;   // openOnlyFrom and the grace period, or when `key retire` was called
  int64_t deletedFrom = 0;   // `key delete` was called: not used any more; `key undelete` takes it back until destroyAt
  int64_t destroyAt = 0;
  // Of a block: no connection in base mode was opened with it before it came here. Not of one that was restored.
  bool unused = false;
  // Of a key that lives in a token (docs/hsm.md): the object's CKA_ID, and how the token spells its curve. The file
  // holds no secret of it then.
  std::vector<std::byte> tokenId{};
  std::string spelling{};

  bool operator==(const KeyVersion&) const = default;
};

enum class VersionState : uint8_t {
  Pending,   // made, waits for activeFrom
  Active,    // boxes, signs, opens, vouches
  OpenOnly,  // opens what others still send to it
  Retired,   // kept, not used
  Destroyed  // the secret is gone, at the latest with the next write of the file
};
VersionState stateOf(const KeyVersion& version, int64_t nowUnix);
// Of a block: it waits for the other host, and hasn't been taken back meanwhile (`key retire`, `key delete`).
bool awaitsConfirmation(const KeyVersion& version, int64_t nowUnix);
// Its secret has a use, now or later.
bool isOfUse(const KeyVersion& version, int64_t nowUnix);
std::string_view describe(VersionState state);  // "pending", "active", "open-only", "retired", "destroyed"

}  // namespace sallyport::vaultd
