#include "tests/sim/fake_vault.h"

namespace sallyport::sim {

using vaultd::BoxRole;
using wire::DropReason;

namespace {

vaultd::LongTermSecret randomSecret() { return vaultd::LongTermSecret::random(); }

// As netd/vault_client.cc translates them.
DropReason reasonOf(vaultd::Refusal refusal) {
  switch (refusal) {
    case vaultd::Refusal::PEER_NOT_ALLOWED: return DropReason::PeerNotAllowed;
    case vaultd::Refusal::BAD_BOX: return DropReason::BadBox;
    case vaultd::Refusal::LOW_ORDER_KEY: return DropReason::LowOrderKey;
    case vaultd::Refusal::NONCE_UNAVAILABLE: return DropReason::NonceUnavailable;
    case vaultd::Refusal::HSM_UNAVAILABLE: return DropReason::HsmUnavailable;
    default: return DropReason::VaultRefused;
  }
}

}  // namespace

FakeVault::FakeVault(vaultd::SecretArena& arena, vaultd::SharedKeyCache& cache, uint32_t id,
                     const uint64_t& wallSeconds, Canary canary)
    : wallSeconds_(wallSeconds), canary_(canary), box_(arena, cache, id, randomSecret()) {
  disk_.image = vaultd::NonceLedger::newImage({}, canary_ == Canary::StaleNonces ? 0 : wallSeconds_);
  restart();
}

void FakeVault::restart() {
  const auto before = disk_.image;
  const auto clock = [this] { return canary_ == Canary::StaleNonces ? uint64_t{0} : wallSeconds_; };
  auto opened = vaultd::NonceLedger::open(std::make_unique<vaultd::test::MemoryDisk>(disk_), {}, clock);
  require(opened.has_value(), Invariant::Completion, "a nonce state that was written whole doesn't open");
  ledger_ = std::move(*opened);
  cookieNonces_ = std::make_unique<vaultd::NonceSource<BoxRole::Cookie>>(*ledger_, box_.secretForNonceKeys());
  vouchNonces_ = std::make_unique<vaultd::NonceSource<BoxRole::Vouch>>(*ledger_, box_.secretForNonceKeys());
  if (canary_ == Canary::StaleNonces) disk_.image = before;
}

vaultd::NonceLedger::Image FakeVault::backup() const { return disk_.image; }

void FakeVault::restore(const vaultd::NonceLedger::Image& backup) {
  disk_.image = backup;
  restart();
}

void FakeVault::noteNonce(BoxRole role, const LongNonceBytes& nonce) {
  require(nonces_.insert(nonce).second, Invariant::Nonce, "a long-term nonce came twice");
  const auto key = vaultd::deriveNonceKey(box_.secretForNonceKeys(), role, ledger_->instance());
  const uint64_t counter = vaultd::test::counterOf(nonce, key);
  require(counters_.emplace(role, ledger_->instance(), counter).second, Invariant::Nonce,
          "counter " + std::to_string(counter) + " came twice under one nonce key");
}

Result<netd::SealedCookie, DropReason> FakeVault::sealCookie(const netd::SealCookieRequest& request) {
  netd::SealedCookie sealed{};
  vaultd::NonceBatch batch;
  auto nonce = box_.sealCookie({request.clientEphemeral, request.box, request.serverEphemeral, request.cookie},
                               *cookieNonces_, batch, sealed.packet.box);
  if (!nonce) return refuse(reasonOf(nonce.error()));
  noteNonce(BoxRole::Cookie, *nonce);
  sealed.packet.nonce = *nonce;
  answered_.insert(asPoint(request.clientEphemeral));
  return sealed;
}

Result<netd::VerifiedVouch, DropReason> FakeVault::verifyVouch(const netd::VerifyVouchRequest& request) {
  bool cached = false;
  const auto verdict = box_.verifyVouch({request.client, request.nonce, request.box, request.clientEphemeral},
                                        allows(request.client), cached);
  if (!verdict) {
    return refuse(verdict.error() == vaultd::Refusal::BAD_BOX ? DropReason::BadVouch : reasonOf(verdict.error()));
  }
  const auto peer = allowed_.find(request.client);
  if (peer == allowed_.end()) return refuse(DropReason::PeerNotAllowed);
  return netd::VerifiedVouch{peer->second};
}

Result<netd::MadeVouch, DropReason> FakeVault::makeVouch(const PublicKey& server,
                                                         const netd::MakeVouchRequest& request) {
  netd::MadeVouch made{};
  bool cached = false;
  vaultd::NonceBatch batch;
  auto nonce = box_.makeVouch(server, request.clientEphemeral, *vouchNonces_, batch, made.box, cached);
  if (!nonce) return refuse(reasonOf(nonce.error()));
  noteNonce(BoxRole::Vouch, *nonce);
  made.client = publicKey();
  made.nonce = *nonce;
  return made;
}

}  // namespace sallyport::sim
