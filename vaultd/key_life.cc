#include "vaultd/key_life.h"

#include <algorithm>

namespace sallyport::vaultd {

namespace {

// A change of the header is a change of what is handed to a vault too.
void publish(OpenedKey& key) {
  for (OpenedVersion& opened : key.versions) {
    const auto same = std::ranges::find(key.header.versions, opened.version.number, &KeyVersion::number);
    CHECK(same != key.header.versions.end());
    opened.version = *same;
  }
}

KeyVersion* findVersion(KeyHeader& header, uint32_t number) {
  const auto found = std::ranges::find(header.versions, number, &KeyVersion::number);
  return found == header.versions.end() ? nullptr : &*found;
}

template <typename Header>
auto* findState(Header& header, VersionState state, int64_t nowUnix) {
  const auto found = std::ranges::find_if(
      header.versions, [&](const KeyVersion& version) { return stateOf(version, nowUnix) == state; });
  return found == header.versions.end() ? nullptr : &*found;
}

std::string titled(const KeyHeader& header, uint32_t number) {
  return "version " + std::to_string(number) + " of `" + header.name + "`";
}

Unexpected<Problem> noVersion(const KeyHeader& header, uint32_t number) {
  return refuse(Problem{"`" + header.name + "` has no version " + std::to_string(number),
                        "`sallyport key show " + header.name + " --versions` lists them"});
}

// Room for one more: the oldest destroyed version goes, its number is never used again.
bool makeRoom(KeyHeader& header, int64_t nowUnix) {
  if (header.versions.size() < MAX_VERSIONS) return true;
  const auto oldest = std::ranges::find_if(
      header.versions, [&](const KeyVersion& version) { return stateOf(version, nowUnix) == VersionState::Destroyed; });
  if (oldest == header.versions.end()) return false;
  header.versions.erase(oldest);
  return true;
}

}  // namespace

Result<void, Problem> mayRotate(const KeyHeader& header, int64_t nowUnix) {
  if (const auto* waiting = findState(header, VersionState::Pending, nowUnix)) {
    return refuse(Problem{titled(header, waiting->number) + " is pending already",
                          "wait until it is active, or take it back with `sallyport key retire " + header.name + " " +
                              std::to_string(waiting->number) + "`"});
  }
  if (findState(header, VersionState::Active, nowUnix) == nullptr) {
    return refuse(Problem{"`" + header.name + "` has no active version to rotate",
                          "`sallyport key undelete " + header.name + "` if it is being deleted; or make a new key"});
  }
  const bool room =
      header.versions.size() < MAX_VERSIONS || findState(header, VersionState::Destroyed, nowUnix) != nullptr;
  if (!room) {
    return refuse(Problem{"`" + header.name + "` has " + std::to_string(MAX_VERSIONS) + " versions, as many as fit",
                          "delete retired ones with `sallyport key delete " + header.name + " VERSION`"});
  }
  return {};
}

namespace {

// `added` has what is its own: the public key, and where the secret is if it isn't here.
Result<void, Problem> addVersion(OpenedKey& key, KeyVersion added, LongTermSecret secret, const Rotation& rotation,
                                 int64_t nowUnix) {
  CHECK(rotation.activateIn >= 0 && rotation.grace >= 0);
  KeyHeader& header = key.header;
  if (auto may = mayRotate(header, nowUnix); !may) return refuse(may.error());
  dropDestroyed(key, nowUnix);
  CHECK(makeRoom(header, nowUnix));
  added.number = header.versions.back().number + 1;
  CHECK(secret.size() == (header.token.empty() ? secretBytes(header.kind) : LongTermSecret::SIZE));
  added.unused = rotation.unused;
  added.activeFrom = nowUnix + rotation.activateIn;
  auto* active = findState(header, VersionState::Active, nowUnix);
  active->openOnlyFrom = added.activeFrom;
  active->retiredFrom = added.activeFrom + rotation.grace;
  header.versions.push_back(added);
  key.versions.push_back({added, std::move(secret)});
  publish(key);
  return {};
}

}  // namespace

Result<void, Problem> rotate(OpenedKey& key, LongTermSecret secret, const Rotation& rotation, int64_t nowUnix) {
  if (!key.header.token.empty())
    return refuse(
        Problem{"`" + key.header.name + "` lives in token " + key.header.token, "let the token make a version"});
  KeyVersion added;
  added.publicKey = publicKeyOf(secret, key.header.kind);
  return addVersion(key, std::move(added), std::move(secret), rotation, nowUnix);
}

Result<void, Problem> rotateInToken(OpenedKey& key, const TokenKey& made, const Rotation& rotation, int64_t nowUnix) {
  CHECK(!key.header.token.empty() && !made.id.empty() && made.id.size() <= MAX_TOKEN_ID_BYTES &&
        isSpelling(made.spelling));
  KeyVersion added;
  added.publicKey = made.publicKey;
  added.tokenId = made.id;
  added.spelling = made.spelling;
  return addVersion(key, std::move(added), LongTermSecret::random(), rotation, nowUnix);
}

namespace {

// Versions that were never used here go, and nothing is lost with them.
template <typename Which>
void forget(OpenedKey& key, Which&& which) {
  std::vector<uint32_t> numbers;
  for (const KeyVersion& version : key.header.versions) {
    if (which(version)) numbers.push_back(version.number);
  }
  const auto gone = [&](const KeyVersion& version) { return std::ranges::count(numbers, version.number) > 0; };
  std::erase_if(key.versions, [&](const OpenedVersion& opened) { return gone(opened.version); });
  std::erase_if(key.header.versions, gone);
}

// The version that is active gives way to another one.
void succeed(KeyHeader& header, int64_t grace, int64_t nowUnix) {
  if (auto* active = findState(header, VersionState::Active, nowUnix)) {
    active->openOnlyFrom = nowUnix;
    active->retiredFrom = nowUnix + grace;
  }
}

}  // namespace

Result<void, Problem> addBlock(OpenedKey& key, LongTermSecret block, int64_t grace, bool awaits, int64_t nowUnix) {
  KeyHeader& header = key.header;
  CHECK(header.kind == KeyKind::PeerBlock && block.size() == secretBytes(header.kind));
  dropDestroyed(key, nowUnix);
  KeyVersion added;
  added.number = header.versions.back().number + 1;
  added.publicKey = publicKeyOf(block, header.kind);
  added.activeFrom = awaits ? AWAITS_CONFIRMATION : nowUnix;
  added.unused = true;
  // Of those that wait: one that was taken back is used by nobody.
  forget(key, [&](const KeyVersion& version) {
    return version.activeFrom == AWAITS_CONFIRMATION && !awaitsConfirmation(version, nowUnix);
  });
  const auto waits = [&](const KeyVersion& version) { return awaitsConfirmation(version, nowUnix); };
  if (awaits) {
    const auto waiting = static_cast<size_t>(std::ranges::count_if(header.versions, waits));
    size_t tooMany = waiting < MAX_WAITING_BLOCKS ? 0 : waiting + 1 - MAX_WAITING_BLOCKS;
    forget(key, [&](const KeyVersion& version) { return tooMany > 0 && waits(version) && tooMany-- > 0; });
  } else if (grace == 0) {
    forget(key, waits);
  } else {
    for (KeyVersion& version : header.versions) {
      if (!waits(version)) continue;
      version.activeFrom = version.openOnlyFrom = nowUnix;
      version.retiredFrom = nowUnix + grace;
    }
  }
  if (!makeRoom(header, nowUnix)) {
    return refuse(Problem{"`" + header.name + "` has " + std::to_string(MAX_VERSIONS) + " versions, as many as fit",
                          "delete retired ones with `sallyport key delete " + header.name + " VERSION`"});
  }
  if (!awaits) succeed(header, grace, nowUnix);
  header.versions.push_back(added);
  key.versions.push_back({added, std::move(block)});
  publish(key);
  return {};
}

Result<void, Problem> confirmBlock(OpenedKey& key, const PublicKey& fingerprint, int64_t grace, int64_t nowUnix) {
  KeyHeader& header = key.header;
  const auto found = std::ranges::find(header.versions, fingerprint, &KeyVersion::publicKey);
  if (found == header.versions.end() || !awaitsConfirmation(*found, nowUnix)) {
    return refuse(Problem{found == header.versions.end()
                              ? "`" + header.name + "` has no block with this fingerprint"
                              : titled(header, found->number) + " doesn't wait for a confirmation",
                          "`sallyport key show " + header.name + " --versions` lists them"});
  }
  const uint32_t number = found->number;
  succeed(header, grace, nowUnix);
  findVersion(header, number)->activeFrom = nowUnix;
  forget(key,
         [&](const KeyVersion& version) { return version.number < number && awaitsConfirmation(version, nowUnix); });
  publish(key);
  return {};
}

bool rotationDue(const KeyHeader& header, int64_t every, int64_t nowUnix) {
  const KeyVersion* active = activeVersion(header, nowUnix);
  // A successor is planned already when the active version has an end.
  return active != nullptr && active->openOnlyFrom == 0 && nowUnix - active->activeFrom >= every;
}

Result<void, Problem> retire(OpenedKey& key, uint32_t number, int64_t nowUnix) {
  KeyHeader& header = key.header;
  KeyVersion* version = findVersion(header, number);
  if (version == nullptr) return noVersion(header, number);
  switch (stateOf(*version, nowUnix)) {
    case VersionState::Active:
      return refuse(Problem{titled(header, number) + " is the active one",
                            "rotate first, without grace: `sallyport key rotate " + header.name + " --grace 0s`"});
    case VersionState::Retired:
    case VersionState::Destroyed:
      return refuse(Problem{
          titled(header, number) + " is " + std::string(describe(stateOf(*version, nowUnix))) + " already", {}});
    case VersionState::Pending:
      // It never was active: the one that was to make room for it stays.
      for (KeyVersion& other : header.versions) {
        if (other.openOnlyFrom == version->activeFrom && other.number < number)
          other.openOnlyFrom = other.retiredFrom = 0;
      }
      [[fallthrough]];
    case VersionState::OpenOnly: version->retiredFrom = nowUnix; break;
  }
  publish(key);
  return {};
}

Result<void, Problem> markDeleted(OpenedKey& key, std::optional<uint32_t> number, int64_t window, int64_t nowUnix) {
  CHECK(window >= 0);
  KeyHeader& header = key.header;
  if (number) {
    const KeyVersion* version = findVersion(header, *number);
    if (version == nullptr) return noVersion(header, *number);
    const VersionState state = stateOf(*version, nowUnix);
    if (state == VersionState::Active || state == VersionState::Pending) {
      return refuse(
          Problem{titled(header, *number) + " is " + std::string(describe(state)),
                  state == VersionState::Pending
                      ? "take it back first: `sallyport key retire " + header.name + " " + std::to_string(*number) + "`"
                      : "rotate first, or delete the whole key without naming a version"});
    }
  }
  bool any = false;
  for (KeyVersion& version : header.versions) {
    if (number && version.number != *number) continue;
    if (version.destroyAt != 0) continue;  // a window that runs is neither prolonged nor cut
    version.deletedFrom = nowUnix;
    version.destroyAt = nowUnix + window;
    any = true;
  }
  if (!any)
    return refuse(Problem{"`" + header.name + "`: nothing is left to delete",
                          "`sallyport key show " + header.name + " --versions` tells the states"});
  dropDestroyed(key, nowUnix);
  publish(key);
  return {};
}

Result<void, Problem> undelete(OpenedKey& key, std::optional<uint32_t> number, int64_t nowUnix) {
  KeyHeader& header = key.header;
  if (number && findVersion(header, *number) == nullptr) return noVersion(header, *number);
  bool any = false;
  for (KeyVersion& version : header.versions) {
    const bool open = version.destroyAt != 0 && nowUnix < version.destroyAt;
    if ((number && version.number != *number) || !open) continue;
    version.deletedFrom = 0;
    version.destroyAt = 0;
    any = true;
  }
  if (!any) {
    return refuse(Problem{"`" + header.name + "`: nothing of it is in its deletion window",
                          "what is destroyed can't come back, but from a backup: `sallyport key restore`"});
  }
  publish(key);
  return {};
}

size_t dropDestroyed(OpenedKey& key, int64_t nowUnix) {
  return std::erase_if(key.versions, [&](const OpenedVersion& opened) {
    return stateOf(opened.version, nowUnix) == VersionState::Destroyed ||
           stateOf(*findVersion(key.header, opened.version.number), nowUnix) == VersionState::Destroyed;
  });
}

}  // namespace sallyport::vaultd
