// keyring.h - the vault's keys: each configured one with its versions, its nonces and its rates. Process: vaultd alone.
// Filled before lock-down; names are never added afterwards (their nonce files are open already), but secrets go when a
// key is locked and come back when it is unlocked. A key that nothing in the configuration names is not loaded.
//
// Which version does what follows from the clock: the active one boxes, signs and draws nonces; those that are
// open-only still open, after the active one. All versions of a key share its nonce ledger, and none shares a nonce
// key: that is derived from the version's own secret.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "vaultd/box.h"
#include "vaultd/key_file.h"
#include "vaultd/key_version.h"
#include "vaultd/nonce_file.h"
#include "vaultd/shared_block.h"
#include "vaultd/signer.h"
#include "vaultd/token_bucket.h"

namespace sallyport::vaultd {

// What the secret of one version makes possible. Lives in the arena; dies when the key is locked.
class VersionSecret {
 public:
  VersionSecret(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, KeyKind kind,
                const LongTermSecret& secret, NonceLedger& ledger);
  // Of a version that lives in a token: `seed` is what its nonce keys are derived from.
  VersionSecret(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, KeyKind kind,
                const PublicKey& publicKey, const TokenResults& results, const LongTermSecret& seed,
                NonceLedger& ledger);
  VersionSecret(const VersionSecret&) = delete;

  // Of an X25519 key; of an Ed25519 key; of a peer-block. The others are a bug of the caller.
  LongTermBox& box() { return *box_; }
  const LongTermSigner& signer() const { return *signer_; }
  const SharedBlock& block() const { return *block_; }
  // Those of a program's own domain, made at their first use.
  DomainNonces& domainNonces(const NonceDomain& domain);

  static size_t arenaBytes(KeyKind kind) { return (kind == KeyKind::Ed25519 ? 1 : 2) * SecretSlot::SLOT_BYTES; }

 private:
  std::span<const std::byte, 32> secretForNonceKeys() const;

  NonceLedger& ledger_;
  std::optional<LongTermBox> box_;
  std::optional<LongTermSigner> signer_;
  std::optional<SharedBlock> block_;
  std::optional<SecretSlot> seed_;  // of a version in a token

 public:
  NonceSource<BoxRole::Cookie> cookieNonces;
  NonceSource<BoxRole::Vouch> vouchNonces;
  NonceSource<BoxRole::Application> appNonces;

 private:
  std::map<NonceDomain, DomainNonces> domainNonces_;  // as many as grants list domains, for each configuration
};

struct VaultVersion {
  KeyVersion facts;
  SharedKeyCache::KeyId id;               // in the cache: no two versions of any key share one
  std::unique_ptr<VersionSecret> secret;  // null: locked, or of no use any more
};

class VaultKey {
 public:
  VaultKey(KeyHeader keyHeader, std::unique_ptr<NonceLedger> nonceLedger, uint32_t handshakesPerSecond, uint64_t nowMs);
  VaultKey(const VaultKey&) = delete;

  void setRate(uint32_t handshakesPerSecond);
  // Counts one use of the verb, or says, and counts, that there were too many.
  [[nodiscard]] bool takeRate(TokenBucket VaultKey::*verb, uint64_t nowMs);
  // The uses in the last whole second, of the verb that had the most.
  uint64_t busiestRate(uint64_t nowMs);

  // The version that boxes, signs and draws nonces now. Refuses as whyLocked(), wrongVersion.
  Result<VaultVersion*, Refusal> active(int64_t nowUnix);
  // The same by its public facts, locked or not; null if there is none.
  const KeyVersion* activeFacts(int64_t nowUnix) const { return activeVersion(header, nowUnix); }
  // Lets the active version try, then those that are open-only, newest first: the first answer that isn't badBox. If
  // all of them say so: badBox. Refuses as whyLocked(), and wrongVersion if no version may open.
  template <typename Attempt>
  Result<const VaultVersion*, Refusal> tryOpening(int64_t nowUnix, Attempt&& attempt) {
    if (locked) return refuse(whyLocked());
    Refusal last = Refusal::WRONG_VERSION;
    for (VaultVersion& version : versions) {
      const VersionState state = stateOf(version.facts, nowUnix);
      if (!version.secret || (state != VersionState::Active && state != VersionState::OpenOnly)) continue;
      const Result<void, Refusal> opened = attempt(version);
      if (opened) return &version;
      last = opened.error();
      if (last != Refusal::BAD_BOX) break;
    }
    return refuse(last);
  }
  // Wipes the secrets; with `cache`, the shared keys that they made.
  void lock(SharedKeyCache& cache);
  bool inToken() const { return !header.token.empty(); }
  // What its uses are refused as while it is locked: an operator's doing, or its token isn't there to open it.
  Refusal whyLocked() const { return awaitsToken ? Refusal::HSM_UNAVAILABLE : Refusal::LOCKED; }

  KeyHeader header;
  const std::unique_ptr<NonceLedger> ledger;
  std::vector<VaultVersion> versions;  // newest first
  bool locked = false;                 // no version has a secret
  // Of a file that a token can open: what to open when the token comes back, the token that has opened it, and whether
  // it is locked for want of a token, not by an operator.
  std::unique_ptr<SealedKey> sealed;
  std::string openedBy;
  bool awaitsToken = false;
  // One bucket a verb, so that a flood of Hellos doesn't stop our own side from connecting.
  TokenBucket sealRate;
  TokenBucket verifyRate;
  TokenBucket makeRate;
  TokenBucket peerRate;
  uint64_t rateLimited = 0;  // uses that were too many
  bool usable = true;        // false: the nonce file can't be used at all
};

class Keyring {
 public:
  Keyring() = default;
  // `arena` and `cache` must outlive this.
  Keyring(SecretArena& arena, SharedKeyCache& cache) : arena_(&arena), cache_(&cache) {}
  Keyring(Keyring&&) = default;
  Keyring& operator=(Keyring&&) = default;

  // Loads every key that `config` names. Those that a token can open stay locked, and await it. `warnings` gets what an
  // operator should read though we start. A problem ends the start: a key file that is missing or can't be opened, or a
  // nonce file that another vault has. `arena` and `cache` must outlive this.
  static Result<Keyring, Problem> load(const Config& config, SecretArena& arena, SharedKeyCache& cache,
                                       const Unlocker& unlock, const FileOwners& owners, uint64_t nowMs,
                                       std::vector<Problem>& warnings);

  // Of those that still await a token, opens each one for which `unlock` has another way; `warnings` gets why others
  // stay locked. A problem, as above: a file that was changed.
  Result<void, Problem> openWithoutToken(const std::filesystem::path& folder, const Unlocker& unlock, int64_t nowUnix,
                                         std::vector<Problem>& warnings);

  // One key that was opened already, with the ledger of its nonces. A problem: there is no memory for it.
  Result<VaultKey*, Problem> add(OpenedKey opened, std::unique_ptr<NonceLedger> ledger, uint32_t handshakesPerSecond,
                                 uint64_t nowMs, int64_t nowUnix);
  // One that nothing has opened yet.
  VaultKey* addLocked(const KeyHeader& header, std::unique_ptr<NonceLedger> ledger, uint32_t handshakesPerSecond,
                      uint64_t nowMs);

  // Null if no such key is loaded. Stays valid for the life of the ring.
  VaultKey* find(std::string_view name) const;
  const std::map<std::string, std::unique_ptr<VaultKey>, std::less<>>& all() const { return keys_; }
  void setRate(uint32_t handshakesPerSecond);
  uint32_t rate() const { return handshakesPerSecond_; }
  // Wipes the secrets of the key.
  void lock(VaultKey& key) { key.lock(*cache_); }
  // Wipes all secrets: first the memory, then what is left of them. None is used in between.
  void panic();
  // Loads the versions that an opened key file holds; the ones that were there are wiped. Refuses a file of another
  // kind or with another nonce ledger than the one that is open, and more versions than there is memory for: then the
  // key stays as it is, or locked.
  Result<void, Problem> unlock(VaultKey& key, OpenedKey opened, int64_t nowUnix);
  // What tokens have done for the batch at hand.
  TokenResults& tokenResults() { return *results_; }
  SecretArena& arena() { return *arena_; }
  // There are keys, and the nonce file of each of them can't be used.
  bool noneUsable() const;

 private:
  Result<void, Problem> give(VaultKey& key, OpenedKey opened, int64_t nowUnix);

  SecretArena* arena_ = nullptr;
  SharedKeyCache* cache_ = nullptr;
  std::unique_ptr<TokenResults> results_ = std::make_unique<TokenResults>();
  SharedKeyCache::KeyId nextId_ = 0;
  uint32_t handshakesPerSecond_ = 0;
  std::map<std::string, std::unique_ptr<VaultKey>, std::less<>> keys_;
};

// The names of the keys that the configuration uses, each once.
std::vector<std::string> keysUsed(const Config& config);

}  // namespace sallyport::vaultd
