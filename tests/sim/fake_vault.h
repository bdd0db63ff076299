// fake_vault.h - a vault without its process: the real boxes, ledger and nonces, in memory. Part of: tests/sim.
// What is left out is what has tests of its own: RPC, files, policies, rate limits.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "netd/handshake.h"
#include "tests/sim/invariants.h"
#include "tests/unit/vaultd/memory_disk.h"
#include "vaultd/box.h"

namespace sallyport::sim {

class FakeVault {
 public:
  // `wallSeconds` must outlive this.
  FakeVault(vaultd::SecretArena& arena, vaultd::SharedKeyCache& cache, uint32_t id, const uint64_t& wallSeconds,
            Canary canary);
  FakeVault(const FakeVault&) = delete;
  FakeVault& operator=(const FakeVault&) = delete;

  const PublicKey& publicKey() const { return box_.publicKey(); }
  void allow(const PublicKey& peer, std::string name) { allowed_[peer] = std::move(name); }
  void revoke(const PublicKey& peer) { allowed_.erase(peer); }
  bool allows(const PublicKey& peer) const { return allowed_.contains(peer); }
  // Proves that this server answered that Hello.
  bool answered(const PublicKey& clientEphemeral) const { return answered_.contains(asPoint(clientEphemeral)); }

  void restart();
  // Everything since `backup` is forgotten, as when a disk is restored.
  vaultd::NonceLedger::Image backup() const;
  void restore(const vaultd::NonceLedger::Image& backup);
  void failDisk(bool failing) { disk_.failSyncWith = failing ? EIO : 0; }
  bool ready() const { return ledger_->ready(); }

  Result<netd::SealedCookie, wire::DropReason> sealCookie(const netd::SealCookieRequest& request);
  Result<netd::VerifiedVouch, wire::DropReason> verifyVouch(const netd::VerifyVouchRequest& request);
  Result<netd::MadeVouch, wire::DropReason> makeVouch(const PublicKey& server, const netd::MakeVouchRequest& request);

 private:
  // X25519 ignores a key's highest bit: with or without it, it is the same key.
  static PublicKey asPoint(PublicKey key) {
    key.mutableSpan()[31] &= std::byte{0x7f};
    return key;
  }
  void noteNonce(vaultd::BoxRole role, const LongNonceBytes& nonce);

  const uint64_t& wallSeconds_;
  Canary canary_;
  vaultd::test::DiskState disk_;
  vaultd::LongTermBox box_;
  std::unique_ptr<vaultd::NonceLedger> ledger_;
  std::unique_ptr<vaultd::NonceSource<vaultd::BoxRole::Cookie>> cookieNonces_;
  std::unique_ptr<vaultd::NonceSource<vaultd::BoxRole::Vouch>> vouchNonces_;
  std::map<PublicKey, std::string> allowed_;
  std::set<PublicKey> answered_;
  // Under one nonce key a counter must never come again: (role, instance, counter).
  std::set<std::tuple<vaultd::BoxRole, vaultd::InstanceId, uint64_t>> counters_;
  std::set<LongNonceBytes> nonces_;
};

}  // namespace sallyport::sim
