#include "vaultd/key_version.h"

namespace sallyport::vaultd {

std::string_view describe(KeyKind kind) {
  switch (kind) {
    case KeyKind::X25519: return "x25519";
    case KeyKind::Ed25519: return "ed25519";
    case KeyKind::PeerBlock: return "peer-block";
  }
  return "unknown";
}

std::optional<KeyKind> keyKindOf(std::string_view word) {
  for (const KeyKind kind : {KeyKind::X25519, KeyKind::Ed25519, KeyKind::PeerBlock}) {
    if (word == describe(kind)) return kind;
  }
  return std::nullopt;
}

std::string_view describe(wire::PeerParty party) { return party == wire::PeerParty::A ? "A" : "B"; }

std::optional<wire::PeerParty> partyOf(std::string_view word) {
  for (const auto party : {wire::PeerParty::A, wire::PeerParty::B}) {
    if (word == describe(party)) return party;
  }
  return std::nullopt;
}

VersionState stateOf(const KeyVersion& version, int64_t nowUnix) {
  const auto passed = [nowUnix](int64_t time) { return time != 0 && nowUnix >= time; };
  if (passed(version.destroyAt)) return VersionState::Destroyed;
  if (passed(version.deletedFrom) || passed(version.retiredFrom)) return VersionState::Retired;
  if (passed(version.openOnlyFrom)) return VersionState::OpenOnly;
  return nowUnix < version.activeFrom ? VersionState::Pending : VersionState::Active;
}

bool awaitsConfirmation(const KeyVersion& version, int64_t nowUnix) {
  return version.activeFrom == AWAITS_CONFIRMATION && stateOf(version, nowUnix) == VersionState::Pending;
}

bool isOfUse(const KeyVersion& version, int64_t nowUnix) {
  const VersionState state = stateOf(version, nowUnix);
  return state == VersionState::Pending || state == VersionState::Active || state == VersionState::OpenOnly;
}

std::string_view describe(VersionState state) {
  switch (state) {
    case VersionState::Pending: return "pending";
    case VersionState::Active: return "active";
    case VersionState::OpenOnly: return "open-only";
    case VersionState::Retired: return "retired";
    case VersionState::Destroyed: return "destroyed";
  }
  return "unknown";
}

}  // namespace sallyport::vaultd
