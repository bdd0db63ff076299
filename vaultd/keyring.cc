#include "vaultd/keyring.h"

#include <set>

namespace sallyport::vaultd {

VaultKey::VaultKey(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId keyId, OpenedKey opened,
                   std::unique_ptr<NonceLedger> nonceLedger, uint32_t handshakesPerSecond, uint64_t nowMs)
    : id(keyId),
      header(std::move(opened.header)),
      box(arena, cache, keyId, opened.versions[0].secret),
      ledger(std::move(nonceLedger)),
      cookieNonces(*ledger, box.secretForNonceKeys()),
      vouchNonces(*ledger, box.secretForNonceKeys()),
      sealRate(handshakesPerSecond, nowMs),
      verifyRate(handshakesPerSecond, nowMs),
      makeRate(handshakesPerSecond, nowMs) {}

void VaultKey::setRate(uint32_t handshakesPerSecond) {
  sealRate.setRate(handshakesPerSecond);
  verifyRate.setRate(handshakesPerSecond);
  makeRate.setRate(handshakesPerSecond);
}

Result<Keyring, Problem> Keyring::load(const Config& config, SecretArena& arena, SharedKeyCache& cache,
                                       const Unlocker& unlock, const FileOwners& owners, uint64_t nowMs,
                                       std::vector<Problem>& warnings) {
  Keyring ring;
  for (const std::string& name : keysUsed(config)) {
    // Two slots a key; what remains is the cache's and was taken before.
    if (arena.freeBytes() < 2 * SecretSlot::SLOT_BYTES)
      return refuse(Problem{"more keys than the secret memory holds", {}});
    auto opened = loadKey(config.vault.keys, name, unlock, owners);
    if (!opened) return refuse(opened.error());
    if (opened->header.seal == SealKind::Plain) {
      warnings.push_back({keyPath(config.vault.keys, name).string() + " is not sealed: who reads the disk has the key",
                          "seal it with `sallyport key passphrase " + name + "`"});
    }

    const std::filesystem::path path = noncePath(config.vault.keys, name);
    auto ledger = openNonceFile(path, opened->header.ledgerId, owners);
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
    const auto id = static_cast<SharedKeyCache::KeyId>(ring.keys_.size());
    auto key = std::make_unique<VaultKey>(arena, cache, id, std::move(*opened), std::move(*ledger),
                                          config.vault.handshakesPerSecond, nowMs);
    key->usable = usable;
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
  return {names.begin(), names.end()};
}

}  // namespace sallyport::vaultd
