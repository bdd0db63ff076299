// key_version.h - the versions of a key and their states. Part of: vaultd's key library. Pure. See docs/protocol.md §9.
#pragma once

#include <cstdint>

#include "common/bytes.h"

namespace sallyport::vaultd {

enum class KeyKind : uint8_t { X25519, Ed25519 };
inline const char* nameOf(KeyKind kind) { return kind == KeyKind::X25519 ? "x25519" : "ed25519"; }

struct KeyVersion {
  uint32_t number = 0;
  PublicKey publicKey;
  int64_t activeFrom = 0;  // unix seconds; 0: never
  int64_t openOnlyFrom = 0;
  int64_t retiredFrom = 0;
  int64_t destroyAt = 0;
};

enum class VersionState : uint8_t { Pending, Active, OpenOnly, Retired, Destroyed };

inline VersionState stateOf(const KeyVersion& version, int64_t nowUnix) {
  const auto passed = [nowUnix](int64_t when) { return when != 0 && when <= nowUnix; };
  if (passed(version.destroyAt)) return VersionState::Destroyed;
  if (passed(version.retiredFrom)) return VersionState::Retired;
  if (passed(version.openOnlyFrom)) return VersionState::OpenOnly;
  return passed(version.activeFrom) ? VersionState::Active : VersionState::Pending;
}

}  // namespace sallyport::vaultd
