// Goal: no bytes of a program that is granted everything break the vault or leave anything of its connection behind.
// Method: raw bytes into real App and Key services (vault_under_test.h).
#include "tests/fuzz/vault_under_test.h"
#include "vaultd/app_service.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  static auto* vault = new fuzz::VaultUnderTest([](vaultd::VaultState& state) {
    return capnp::Capability::Client(kj::heap<vaultd::AppService>(state, Caller{"main", 1, {}}));
  });
  fuzz::converse(vault->loop, vault->socket, fuzz::Input(data, size), [] {});
  CHECK(vault->server->stats().connected <= 1);
  return 0;
}
