// Goal: no bytes of a taken-over netd break the vault or make it answer anything that it shouldn't.
// Method: raw bytes into a real NetService behind link and libcapnp, with two keys and one entry of each kind.
#include <stdlib.h>

#include "common/quiet_kj.h"
#include "common/rpc.h"
#include "tests/fuzz/socket_peer.h"
#include "vaultd/vault_service.h"

using namespace sallyport;

namespace {

constexpr std::string_view CONFIG = R"(
[vault]
keys = "keys"
handshakes_per_second = 1000000

[[listen]]
name = "db"
address = "127.0.0.1:7001"
key = "server"
allow = ["alice"]
service = "echo"

[[connect]]
name = "out"
address = "127.0.0.1:7001"
key = "alice"
peer = "server"

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
server = "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="
)";

struct Vault {
  static std::filesystem::path makeFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sallyport-fuzz-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    return pattern;
  }

  Vault() : folder(makeFolder()) {
    for (const char* name : {"server", "alice"})
      CHECK(vaultd::importKey(folder / "keys", name, vaultd::LongTermSecret::random(), {}).has_value());
    const auto config = parseConfig(CONFIG, folder / "sallyport.toml");
    CHECK(config.has_value());
    std::vector<vaultd::Problem> warnings;
    auto ring = vaultd::Keyring::load(*config, *arena, cache, {}, {}, 0, warnings);
    CHECK(ring.has_value());
    keys.emplace(std::move(*ring));
    // The nonce files are open: their names aren't needed any more.
    std::filesystem::remove_all(folder);
    state.emplace(
        vaultd::VaultState{cache, *keys, vaultd::Policy(*config, *keys), {}, [this] { return nowMs += 100; }});
    server.emplace(
        loop, socket.listener(),
        [this](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
          return capnp::Capability::Client(kj::heap<vaultd::NetService>(*state));
        },
        LinkLimits());
  }

  std::filesystem::path folder;
  EventLoop loop;
  fuzz::AbstractSocket socket;
  uint64_t nowMs = 1000;
  std::unique_ptr<vaultd::SecretArena> arena =
      std::move(*vaultd::SecretArena::create(65536, vaultd::SecretArena::Want::LockedMemory));
  vaultd::SharedKeyCache cache{*arena, 16};
  std::optional<vaultd::Keyring> keys;
  std::optional<vaultd::VaultState> state;
  std::optional<RpcServer> server;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  static auto* vault = new Vault;
  fuzz::converse(vault->loop, vault->socket, fuzz::Input(data, size), [] {});
  CHECK(vault->server->stats().connected <= 1);
  return 0;
}
