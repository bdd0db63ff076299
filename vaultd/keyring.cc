#include "vaultd/keyring.h"

#include <algorithm>
#include <ctime>
#include <set>

namespace sallyport::vaultd {

namespace {

SecretSlot slotWith(SecretArena& arena, const LongTermSecret& secret) {
  SecretSlot slot = arena.takeSlot();
  std::ranges::copy(secret.expose(), slot.exposeMutable<32>().begin());
  return slot;
}

}  // namespace

VersionSecret::VersionSecret(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, KeyKind kind,
                             const LongTermSecret& secret, NonceLedger& ledger)
    : ledger_(ledger),
      box_(kind != KeyKind::X25519 ? std::nullopt
                                   : std::optional<LongTermBox>(std::in_place, arena, cache, id, secret)),
      signer_(kind != KeyKind::Ed25519 ? std::nullopt : std::optional<LongTermSigner>(std::in_place, arena, secret)),
      block_(kind != KeyKind::PeerBlock ? std::nullopt : std::optional<SharedBlock>(std::in_place, arena, secret)),
      cookieNonces(ledger, secretForNonceKeys()),
      vouchNonces(ledger, secretForNonceKeys()),
      appNonces(ledger, secretForNonceKeys()) {}

VersionSecret::VersionSecret(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, KeyKind kind,
                             const PublicKey& publicKey, const TokenResults& results, const LongTermSecret& seed,
                             NonceLedger& ledger)
    : ledger_(ledger),
      seed_(slotWith(arena, seed)),
      cookieNonces(ledger, secretForNonceKeys()),
      vouchNonces(ledger, secretForNonceKeys()),
      appNonces(ledger, secretForNonceKeys()) {
  if (kind == KeyKind::X25519) {
    box_.emplace(arena, cache, id, results, publicKey);
  } else {
    signer_.emplace(id, results, publicKey);
  }
}

std::span<const std::byte, 32> VersionSecret::secretForNonceKeys() const {
  // A block draws no nonces: its ledger gives out none.
  static constexpr std::array<std::byte, 32> NONE{};
  if (block_) return NONE;
  if (seed_) return seed_->expose<32>();
  return box_ ? box_->secretForNonceKeys() : signer_->secretForNonceKeys();
}

DomainNonces& VersionSecret::domainNonces(const NonceDomain& domain) {
  return domainNonces_.try_emplace(domain, ledger_, secretForNonceKeys(), domain).first->second;
}

VaultKey::VaultKey(KeyHeader keyHeader, std::unique_ptr<NonceLedger> nonceLedger, uint32_t handshakesPerSecond,
                   uint64_t nowMs)
    : header(std::move(keyHeader)),
      ledger(std::move(nonceLedger)),
      sealRate(handshakesPerSecond, nowMs),
      verifyRate(handshakesPerSecond, nowMs),
      makeRate(handshakesPerSecond, nowMs),
      peerRate(handshakesPerSecond, nowMs) {}

void VaultKey::setRate(uint32_t handshakesPerSecond) {
  sealRate.setRate(handshakesPerSecond);
  verifyRate.setRate(handshakesPerSecond);
  makeRate.setRate(handshakesPerSecond);
  peerRate.setRate(handshakesPerSecond);
}

bool VaultKey::takeRate(TokenBucket VaultKey::*verb, uint64_t nowMs) {
  if ((this->*verb).take(nowMs)) return true;
  ++rateLimited;
  return false;
}

uint64_t VaultKey::busiestRate(uint64_t nowMs) {
  return std::max({sealRate.lastSecond(nowMs), verifyRate.lastSecond(nowMs), makeRate.lastSecond(nowMs),
                   peerRate.lastSecond(nowMs)});
}

Result<VaultVersion*, Refusal> VaultKey::active(int64_t nowUnix) {
  if (locked) return refuse(whyLocked());
  for (VaultVersion& version : versions) {
    if (version.secret && stateOf(version.facts, nowUnix) == VersionState::Active) return &version;
  }
  return refuse(Refusal::WRONG_VERSION);
}

void VaultKey::lock(SharedKeyCache& cache) {
  awaitsToken = false;
  for (VaultVersion& version : versions) version.secret.reset();
  cache.retain([this](SharedKeyCache::KeyId own, const PublicKey&) {
    return std::ranges::find(versions, own, &VaultVersion::id) == versions.end();
  });
  locked = true;
}

Result<void, Problem> Keyring::give(VaultKey& key, OpenedKey opened, int64_t nowUnix) {
  std::vector<VaultVersion> versions;
  size_t needed = 0;
  for (const KeyVersion& facts : opened.header.versions) versions.push_back({facts, nextId_++, nullptr});
  for (const OpenedVersion& each : opened.versions) needed += isOfUse(each.version, nowUnix) ? 1 : 0;
  needed *= VersionSecret::arenaBytes(opened.header.kind);
  const bool pairs = opened.header.kind == KeyKind::PeerBlock;
  if ((pairs ? arena_->freePairBytes() : arena_->freeBytes()) < needed)
    return refuse(Problem{"more keys than the secret memory holds", {}});
  for (OpenedVersion& each : opened.versions) {
    if (!isOfUse(each.version, nowUnix)) continue;
    const auto version =
        std::ranges::find(versions, each.version.number, [](const VaultVersion& own) { return own.facts.number; });
    CHECK(version != versions.end());
    version->secret =
        opened.header.token.empty()
            ? std::make_unique<VersionSecret>(*arena_, *cache_, version->id, opened.header.kind, each.secret,
                                              *key.ledger)
            : std::make_unique<VersionSecret>(*arena_, *cache_, version->id, opened.header.kind, each.version.publicKey,
                                              *results_, each.secret, *key.ledger);
  }
  std::ranges::reverse(versions);
  key.header = std::move(opened.header);
  key.versions = std::move(versions);
  key.locked = false;
  wipeDeadStack();  // what opening and deriving have left behind
  return {};
}

namespace {

Problem inFile(const std::filesystem::path& folder, const std::string& name, const Problem& problem) {
  return {keyPath(folder, name).string() + ": " + problem.message, problem.hint};
}

struct LoadedKey {
  std::unique_ptr<SealedKey> sealed;
  std::optional<OpenedKey> opened;  // none: a token is to open it
};

// A key that a token opens doesn't keep the others from being served while the token isn't there.
Result<LoadedKey, Problem> readAndOpen(const std::filesystem::path& folder, const std::string& name,
                                       const Unlocker& unlock, const FileOwners& owners) {
  auto sealed = readKeyFile(folder, name, owners);
  if (!sealed) return refuse(sealed.error());
  LoadedKey loaded;
  loaded.sealed = std::make_unique<SealedKey>(std::move(*sealed));
  if (hasTokenSlot(loaded.sealed->header)) return loaded;
  SlotSecret secret;
  if (loaded.sealed->header.seal != SealKind::Plain) {
    auto given = unlock(loaded.sealed->header);
    if (!given) return refuse(inFile(folder, name, given.error()));
    secret = std::move(*given);
  }
  auto opened = openSealed(*loaded.sealed, secret);
  if (!opened) return refuse(inFile(folder, name, opened.error()));
  loaded.opened = std::move(*opened);
  return loaded;
}

// The nonces of a key: `usable` is false if none can be drawn ever, which is no reason to refuse the other keys.
Result<std::unique_ptr<NonceLedger>, Problem> openLedger(const std::filesystem::path& folder, const KeyHeader& header,
                                                         const FileOwners& owners, std::vector<Problem>& warnings,
                                                         bool& usable) {
  if (header.kind == KeyKind::PeerBlock) return NonceLedger::unusable("draws none");
  const std::filesystem::path path = noncePath(folder, header.name);
  auto ledger = openNonceFile(path, header.ledgerId, owners);
  if (!ledger) {
    // Two vaults on one state would use the same nonces: not even the other keys may start.
    if (ledger.error().kind == NonceFileProblem::Kind::InUse) return refuse(ledger.error().problem);
    warnings.push_back(ledger.error().problem);
    usable = false;
    return NonceLedger::unusable(ledger.error().problem.message);
  }
  if (!(*ledger)->ready()) {
    warnings.push_back({"key " + header.name + " makes no nonces: " + (*ledger)->describe(),
                        "handshakes with it are refused until a restart"});
  } else if (!(*ledger)->renewed().empty()) {
    warnings.push_back({path.string() + ": made a fresh nonce key: " + (*ledger)->renewed(), {}});
  }
  return std::move(*ledger);
}

}  // namespace

Result<Keyring, Problem> Keyring::load(const Config& config, SecretArena& arena, SharedKeyCache& cache,
                                       const Unlocker& unlock, const FileOwners& owners, uint64_t nowMs,
                                       std::vector<Problem>& warnings) {
  const auto nowUnix = static_cast<int64_t>(::time(nullptr));
  Keyring ring(arena, cache);
  for (const std::string& name : keysUsed(config)) {
    auto loaded = readAndOpen(config.vault.keys, name, unlock, owners);
    if (!loaded) return refuse(loaded.error());
    const KeyHeader header = loaded->sealed->header;
    // What lives in a token is no secret of the file.
    if (header.seal == SealKind::Plain && header.token.empty()) {
      warnings.push_back({keyPath(config.vault.keys, name).string() + " is not sealed: who reads the disk has the key",
                          "seal it with `sallyport key passphrase " + name + "`"});
    }
    bool usable = true;
    auto ledger = openLedger(config.vault.keys, header, owners, warnings, usable);
    if (!ledger) return refuse(ledger.error());
    VaultKey* key = nullptr;
    if (loaded->opened) {
      auto added =
          ring.add(std::move(*loaded->opened), std::move(*ledger), config.vault.handshakesPerSecond, nowMs, nowUnix);
      if (!added) return refuse(added.error());
      key = *added;
    } else {
      key = ring.addLocked(header, std::move(*ledger), config.vault.handshakesPerSecond, nowMs);
      key->awaitsToken = true;
      key->sealed = std::move(loaded->sealed);
    }
    key->usable = usable;
  }
  return ring;
}

Result<void, Problem> Keyring::openWithoutToken(const std::filesystem::path& folder, const Unlocker& unlock,
                                                int64_t nowUnix, std::vector<Problem>& warnings) {
  for (const auto& [name, key] : keys_) {
    if (!key->locked || !key->awaitsToken) continue;
    const auto secret = unlock(key->sealed->header);
    if (!secret) {
      warnings.push_back({"key " + name + " is locked: " + secret.error().message, secret.error().hint});
      continue;
    }
    auto opened = openSealed(*key->sealed, *secret);
    if (!opened) return refuse(inFile(folder, name, opened.error()));
    if (auto done = this->unlock(*key, std::move(*opened), nowUnix); !done)
      return refuse(inFile(folder, name, done.error()));
  }
  return {};
}

Result<VaultKey*, Problem> Keyring::add(OpenedKey opened, std::unique_ptr<NonceLedger> ledger,
                                        uint32_t handshakesPerSecond, uint64_t nowMs, int64_t nowUnix) {
  const std::string name = opened.header.name;
  auto key = std::make_unique<VaultKey>(opened.header, std::move(ledger), handshakesPerSecond, nowMs);
  if (auto given = give(*key, std::move(opened), nowUnix); !given) return refuse(given.error());
  return keys_.insert_or_assign(name, std::move(key)).first->second.get();
}

VaultKey* Keyring::addLocked(const KeyHeader& header, std::unique_ptr<NonceLedger> ledger, uint32_t handshakesPerSecond,
                             uint64_t nowMs) {
  auto key = std::make_unique<VaultKey>(header, std::move(ledger), handshakesPerSecond, nowMs);
  for (auto facts = header.versions.rbegin(); facts != header.versions.rend(); ++facts)
    key->versions.push_back({*facts, nextId_++, nullptr});
  key->locked = true;
  return keys_.insert_or_assign(header.name, std::move(key)).first->second.get();
}

void Keyring::panic() {
  arena_->wipeAll();
  cache_->retain([](SharedKeyCache::KeyId, const PublicKey&) { return false; });  // once, not for each key
  for (auto& [name, key] : keys_) lock(*key);
}

Result<void, Problem> Keyring::unlock(VaultKey& key, OpenedKey opened, int64_t nowUnix) {
  if (opened.header.kind != key.header.kind) {
    return refuse(Problem{"the file holds an " + std::string(describe(opened.header.kind)) + " key, the vault an " +
                              std::string(describe(key.header.kind)) + " key",
                          "restart vaultd"});
  }
  if (opened.header.party != key.header.party)
    return refuse(Problem{"in the file this host is the other party than in the vault", "restart vaultd"});
  if (opened.header.ledgerId != key.header.ledgerId) {
    return refuse(Problem{"the file is another key's than the one that vaultd was started with", "restart vaultd"});
  }
  lock(key);
  return give(key, std::move(opened), nowUnix);
}

VaultKey* Keyring::find(std::string_view name) const {
  const auto found = keys_.find(name);
  return found == keys_.end() ? nullptr : found->second.get();
}

void Keyring::setRate(uint32_t handshakesPerSecond) {
  handshakesPerSecond_ = handshakesPerSecond;
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
  names.insert(config.honeyKeys.begin(), config.honeyKeys.end());
  return {names.begin(), names.end()};
}

}  // namespace sallyport::vaultd
