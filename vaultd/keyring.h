// keyring.h - the vault's keys: each configured one loaded once, with its box, its nonces and its rates. Process:
// vaultd alone. Filled before lock-down; never grows afterwards. A key that no entry names is not loaded.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "vaultd/box.h"
#include "vaultd/key_file.h"
#include "vaultd/nonce_file.h"
#include "vaultd/token_bucket.h"

namespace sallyport::vaultd {

struct VaultKey {
  VaultKey(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, OpenedKey opened,
           std::unique_ptr<NonceLedger> nonceLedger, uint32_t handshakesPerSecond, uint64_t nowMs);
  VaultKey(const VaultKey&) = delete;

  void setRate(uint32_t handshakesPerSecond);

  const SharedKeyCache::KeyId id;
  const KeyHeader header;
  LongTermBox box;
  const std::unique_ptr<NonceLedger> ledger;
  NonceSource<BoxRole::Cookie> cookieNonces;
  NonceSource<BoxRole::Vouch> vouchNonces;
  // One bucket a verb, so that a flood of Hellos doesn't stop our own side from connecting.
  TokenBucket sealRate;
  TokenBucket verifyRate;
  TokenBucket makeRate;
  bool usable = true;  // false: the nonce file can't be used at all
};

class Keyring {
 public:
  Keyring() = default;
  Keyring(Keyring&&) = default;
  Keyring& operator=(Keyring&&) = default;

  // Loads every key that an entry of `config` names. `warnings` gets what an operator should read though we start.
  // A problem ends the start: a key file that is missing or can't be opened, or a nonce file that another vault has.
  static Result<Keyring, Problem> load(const Config& config, SecretArena& arena, SharedKeyCache& cache,
                                       const Unlocker& unlock, const FileOwners& owners, uint64_t nowMs,
                                       std::vector<Problem>& warnings);

  // Null if no such key is loaded. Stays valid for the life of the ring.
  VaultKey* find(std::string_view name) const;
  const std::map<std::string, std::unique_ptr<VaultKey>, std::less<>>& all() const { return keys_; }
  void setRate(uint32_t handshakesPerSecond);
  // There are keys, and the nonce file of each of them can't be used.
  bool noneUsable() const;

 private:
  std::map<std::string, std::unique_ptr<VaultKey>, std::less<>> keys_;
};

// The names of the keys that the entries of `config` use, each once.
std::vector<std::string> keysUsed(const Config& config);

}  // namespace sallyport::vaultd
