#include "vaultd/keyring.h"

#include <algorithm>
#include <set>

namespace sallyport::vaultd {

VersionSecret::VersionSecret(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, KeyKind kind,
                             const LongTermSecret& secret, NonceLedger& ledger)
    : ledger_(ledger),
      cookieNonces(ledger, secret.expose()),
      vouchNonces(ledger, secret.expose()),
      appNonces(ledger, secret.expose()) {
  if (kind == KeyKind::X25519) {
    box_.emplace(arena, cache, id, secret);
  } else {
    signer_.emplace(arena, secret);
  }
}

std::span<const std::byte, 32> VersionSecret::secretForNonceKeys() const {
  return box_ ? box_->secretForNonceKeys() : signer_->secretForNonceKeys();
}

DomainNonces& VersionSecret::domainNonces(const NonceDomain& domain) {
  return domainNonces_.try_emplace(domain, ledger_, secretForNonceKeys(), domain).first->second;
}

VaultKey::VaultKey(KeyHeader keyHeader, KeyKind keyKind, std::unique_ptr<NonceLedger> nonceLedger,
                   uint32_t handshakesPerSecond, uint64_t nowMs)
    : header(std::move(keyHeader)),
      kind(keyKind),
      ledger(std::move(nonceLedger)),
      sealRate(handshakesPerSecond, nowMs),
      verifyRate(handshakesPerSecond, nowMs),
      makeRate(handshakesPerSecond, nowMs) {}

void VaultKey::setRate(uint32_t handshakesPerSecond) {
  sealRate.setRate(handshakesPerSecond);
  verifyRate.setRate(handshakesPerSecond);
  makeRate.setRate(handshakesPerSecond);
}

const KeyVersion* VaultKey::activeFacts(int64_t nowUnix) const {
  for (const VaultVersion& version : versions) {
    if (stateOf(version.facts, nowUnix) == VersionState::Active) return &version.facts;
  }
  return nullptr;
}

Result<VaultVersion*, Refusal> VaultKey::active(int64_t nowUnix) {
  if (locked) return refuse(Refusal::LOCKED);
  for (VaultVersion& version : versions) {
    if (stateOf(version.facts, nowUnix) == VersionState::Active) return &version;
  }
  return refuse(Refusal::WRONG_VERSION);
}

void VaultKey::lock(SharedKeyCache& cache) {
  for (VaultVersion& version : versions) version.secret.reset();
  cache.retain([this](SharedKeyCache::KeyId own, const PublicKey&) {
    return std::ranges::find(versions, own, &VaultVersion::id) == versions.end();
  });
  locked = true;
}

Result<void, Problem> Keyring::addVersions(VaultKey& key, OpenedKey opened) {
  if (arena_->freeBytes() < VersionSecret::arenaBytes(key.kind)) {
    return refuse(Problem{"more keys than the secret memory holds", {}});
  }
  VaultVersion version{KeyVersion{1, opened.header.publicKey, 1, 0, 0, 0}, nextId_++, nullptr};
  version.secret = std::make_unique<VersionSecret>(*arena_, *cache_, version.id, key.kind, opened.secret, *key.ledger);
  key.versions.push_back(std::move(version));
  return {};
}

Result<Keyring, Problem> Keyring::load(const Config& config, SecretArena& arena, SharedKeyCache& cache,
                                       const Unlocker& unlock, const FileOwners& owners, uint64_t nowMs,
                                       std::vector<Problem>& warnings) {
  Keyring ring;
  ring.arena_ = &arena;
  ring.cache_ = &cache;
  for (const std::string& name : keysUsed(config)) {
    auto opened = loadKey(config.vault.keys, name, unlock, owners);
    if (!opened) return refuse(opened.error());
    if (opened->header.seal == SealKind::Plain) {
      warnings.push_back({keyPath(config.vault.keys, name).string() + " is not sealed: who reads the disk has the key",
                          "seal it with `sallyport key passphrase " + name + "`"});
    }

    const std::filesystem::path path = noncePath(config.vault.keys, name);
    auto ledger = openNonceFile(path, opened->header.publicKey, owners);
    bool usable = true;
    if (!ledger) {
      // Two vaults on one state would use the same nonces: not even the other keys may start.
      if (ledger.error().kind == NonceFileProblem::Kind::InUse) return refuse(ledger.error().problem);
      warnings.push_back(ledger.error().problem);
      usable = false;
      ledger = NonceLedger::unusable(ledger.error().problem.message);
    } else if (!(*ledger)->ready()) {
      warnings.push_back({"key " + name + " makes no nonces: " + (*ledger)->describe(),
                          "handshakes with it are refused until a restart"});
    } else if (!(*ledger)->renewed().empty()) {
      warnings.push_back({path.string() + ": made a fresh nonce key: " + (*ledger)->renewed(), {}});
    }
    auto key = std::make_unique<VaultKey>(opened->header, KeyKind::X25519, std::move(*ledger),
                                          config.vault.handshakesPerSecond, nowMs);
    key->usable = usable;
    if (auto added = ring.addVersions(*key, std::move(*opened)); !added) return refuse(added.error());
    ring.keys_.emplace(name, std::move(key));
  }
  wipeDeadStack();  // what opening and deriving have left behind
  return ring;
}

VaultKey* Keyring::find(std::string_view name) const {
  const auto found = keys_.find(name);
  return found == keys_.end() ? nullptr : found->second.get();
}

void Keyring::setRate(uint32_t handshakesPerSecond) {
  for (auto& [name, key] : keys_) key->setRate(handshakesPerSecond);
}

bool Keyring::noneUsable() const {
  for (const auto& [name, key] : keys_) {
    if (key->usable) return false;
  }
  return !keys_.empty();
}

std::vector<std::string> keysUsed(const Config& config) {
  std::set<std::string> names;
  for (const ListenEntry& entry : config.listens) names.insert(entry.key);
  for (const ConnectEntry& entry : config.connects) names.insert(entry.key);
  for (const GrantEntry& grant : config.grants) names.insert(grant.keys.begin(), grant.keys.end());
  return {names.begin(), names.end()};
}

}  // namespace sallyport::vaultd
