// vault_under_test.h - a vault's services behind link and libcapnp, with two keys, one entry of each kind and a grant
// of everything. Part of: tests/fuzz.
#pragma once

#include <stdlib.h>

#include "common/quiet_kj.h"
#include "common/rpc.h"
#include "tests/fuzz/socket_peer.h"
#include "vaultd/vault_state.h"

namespace sallyport::fuzz {

inline constexpr std::string_view VAULT_CONFIG = R"(
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

[[grant]]
name = "all"
users = ["*"]
keys = ["server", "alice"]
verbs = ["box", "open", "sign", "fresh_nonce"]
peers = ["*"]
domains = ["minute-k"]

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
server = "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="
)";

struct VaultUnderTest {
  static std::filesystem::path makeFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sallyport-fuzz-XXXXXX").string();
    CHECK(mkdtemp(pattern.data()) != nullptr);
    return pattern;
  }

  using Bootstrap = std::function<capnp::Capability::Client(vaultd::VaultState&)>;

  explicit VaultUnderTest(Bootstrap bootstrap) : folder(makeFolder()) {
    for (const char* name : {"server", "alice"})
      CHECK(vaultd::importKey(folder / "keys", name, vaultd::LongTermSecret::random(), {}).has_value());
    const auto config = parseConfig(VAULT_CONFIG, folder / "sallyport.toml");
    CHECK(config.has_value());
    std::vector<vaultd::Problem> warnings;
    auto ring = vaultd::Keyring::load(*config, *arena, cache, {}, {}, 0, warnings);
    CHECK(ring.has_value());
    keys.emplace(std::move(*ring));
    // The nonce files are open: their names aren't needed any more.
    std::filesystem::remove_all(folder);
    state.emplace(vaultd::VaultState{cache, *keys, {}, {}, [this] { return nowMs += 100; }});
    auto grants = Grants::resolve(*config, {});
    CHECK(grants.has_value());
    state->apply(*config, std::move(*grants));
    server.emplace(
        loop, socket.listener(),
        [this, bootstrap = std::move(bootstrap)](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
          return bootstrap(*state);
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

}  // namespace sallyport::fuzz
