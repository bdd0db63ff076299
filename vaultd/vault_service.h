// vault_service.h - what netd may ask (Net). Process: vaultd alone. See proto/vault.capnp. (Programs: app_service.h.)
// Every method goes through guarded(): no exception text leaves the vault. Refusals are data and counted. The methods
// only unpack, ask policy and rate, and call one step of box.h; they hold no secret.
#pragma once

#include "proto/vault.capnp.h"
#include "vaultd/token_batch.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

class NetService final : public proto::Net::Server {
 public:
  explicit NetService(VaultState& state) : state_(state) {}

 protected:
  kj::Promise<void> sealCookies(SealCookiesContext context) override;
  kj::Promise<void> verifyVouches(VerifyVouchesContext context) override;
  kj::Promise<void> makeVouches(MakeVouchesContext context) override;
  kj::Promise<void> ping(PingContext context) override;
  // peer_service.cc
  kj::Promise<void> peerSalts(PeerSaltsContext context) override;
  kj::Promise<void> peerKeys(PeerKeysContext context) override;
  kj::Promise<void> peerAccept(PeerAcceptContext context) override;
  kj::Promise<void> peerSession(PeerSessionContext context) override;

 private:
  // `paid`: the rate was, in the first look at a batch that needs a token.
  Result<void, Refusal> sealCookie(proto::Hello::Reader hello, proto::CookieOutcome::Builder outcome,
                                   NonceBatch& nonces, bool paid);
  Result<void, Refusal> verifyVouch(proto::Vouch::Reader vouch, proto::VouchOutcome::Builder outcome, bool paid);
  Result<void, Refusal> makeVouch(proto::VouchRequest::Reader request, proto::MadeVouchOutcome::Builder outcome,
                                  NonceBatch& nonces, bool paid);
  Result<void, Refusal> drawSalt(proto::PeerEntry::Reader entry, proto::PeerSaltOutcome::Builder outcome);
  Result<void, Refusal> deriveKeys(proto::PeerKeysRequest::Reader request, proto::PeerKeysOutcome::Builder outcome);
  Result<void, Refusal> acceptPeer(proto::PeerAcceptRequest::Reader request, proto::PeerAcceptOutcome::Builder outcome);
  Result<void, Refusal> beginSession(proto::PeerEntry::Reader entry, ByteSpan first,
                                     proto::PeerSessionOutcome::Builder outcome);
  // The first look: `rate` of the entry's key, and then `need` what it takes. Nothing for what is refused anyway.
  template <typename Need>
  void admit(VaultKey* key, TokenBucket VaultKey::*rate, unsigned place, Need& need,
             void (TokenBatch::*what)(VaultKey&, const PublicKey&), const std::optional<PublicKey>& peer);

  VaultState& state_;
};

}  // namespace sallyport::vaultd
