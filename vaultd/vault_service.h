// vault_service.h - what netd (Net) and local programs (App) may ask. Process: vaultd alone. See proto/vault.capnp.
// Every method goes through guarded(): no exception text leaves the vault. Refusals are data and counted. The methods
// only unpack, ask policy and rate, and call one step of box.h; they hold no secret.
#pragma once

#include <functional>

#include "common/rpc.h"
#include "proto/vault.capnp.h"
#include "vaultd/counters.h"
#include "vaultd/keyring.h"
#include "vaultd/policy.h"

namespace sallyport::vaultd {

// What all services share: made before lock-down, lives as long as the process. `nowMs` is monotonic.
struct VaultState {
  SharedKeyCache& cache;
  Keyring& keys;
  Policy policy;
  Counters counters;
  std::function<uint64_t()> nowMs;
};

// The most items of one call; more is refused whole.
inline constexpr unsigned MAX_ITEMS = 64;

class NetService final : public proto::Net::Server {
 public:
  explicit NetService(VaultState& state) : state_(state) {}

 protected:
  kj::Promise<void> sealCookies(SealCookiesContext context) override;
  kj::Promise<void> verifyVouches(VerifyVouchesContext context) override;
  kj::Promise<void> makeVouches(MakeVouchesContext context) override;
  kj::Promise<void> ping(PingContext context) override;

 private:
  Result<void, Refusal> sealCookie(proto::Hello::Reader hello, proto::CookieOutcome::Builder outcome);
  Result<void, Refusal> verifyVouch(proto::Vouch::Reader vouch, proto::VouchOutcome::Builder outcome);
  Result<void, Refusal> makeVouch(proto::VouchRequest::Reader request, proto::MadeVouchOutcome::Builder outcome);

  VaultState& state_;
};

class AppService final : public proto::App::Server {
 public:
  explicit AppService(VaultState& state) : state_(state) {}

 protected:
  kj::Promise<void> publicKey(PublicKeyContext context) override;
  kj::Promise<void> ping(PingContext context) override;

 private:
  VaultState& state_;
  // The self-test costs two multiplications: at most once a second, or a program could slow down handshakes with it.
  uint64_t testedAtMs_ = 0;
  bool tested_ = false;
  bool testResult_ = false;
};

}  // namespace sallyport::vaultd
