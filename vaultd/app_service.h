// app_service.h - what any local program may ask (App), and how it comes to a key. Process: vaultd alone. See
// proto/vault.capnp and docs/protocol.md §8. One object a connection: it knows who is at the other end.
#pragma once

#include "vaultd/key_service.h"

namespace sallyport::vaultd {

class AppService final : public proto::App::Server {
 public:
  // `charge`: where the capabilities that it gives are counted.
  AppService(VaultState& state, Caller caller, pid_t pid = 0, std::shared_ptr<LinkCharge> charge = nullptr);

 protected:
  kj::Promise<void> publicKey(PublicKeyContext context) override;
  kj::Promise<void> ping(PingContext context) override;
  kj::Promise<void> key(KeyContext context) override;
  kj::Promise<void> keys(KeysContext context) override;
  kj::Promise<void> verify(VerifyContext context) override;

 private:
  struct ListedKey;

  Result<void, Refusal> giveKey(proto::App::KeyParams::Reader params, proto::KeyOutcome::Builder outcome);
  Result<void, Refusal> verifyOne(proto::VerifyItem::Reader item, proto::VerifyOutcome::Builder outcome);

  VaultState& state_;
  std::shared_ptr<AppSession> session_;
  // The self-test costs two multiplications: at most once a second, or a program could slow down handshakes with it.
  uint64_t testedAtMs_ = 0;
  bool tested_ = false;
  bool testResult_ = false;
};

}  // namespace sallyport::vaultd
