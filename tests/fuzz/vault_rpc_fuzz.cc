// Goal: no bytes of a taken-over netd break the vault or make it answer anything that it shouldn't.
// Method: raw bytes into a real NetService (vault_under_test.h).
#include "tests/fuzz/vault_under_test.h"
#include "vaultd/vault_service.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  static auto* vault = new fuzz::VaultUnderTest(
      [](vaultd::VaultState& state) { return capnp::Capability::Client(kj::heap<vaultd::NetService>(state)); });
  vault->forgetClaims();
  fuzz::converse(vault->loop, vault->socket, fuzz::Input(data, size), [] {});
  CHECK(vault->server->stats().connected <= 1);
  return 0;
}
