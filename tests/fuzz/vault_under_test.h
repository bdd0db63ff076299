// vault_under_test.h - a vault's services behind link and libcapnp, with two keys, two blocks, one entry of each kind
// and a grant of everything. Part of: tests/fuzz.
#pragma once

#include <stdlib.h>

#include "common/quiet_kj.h"
#include "common/rpc.h"
#include "tests/fuzz/socket_peer.h"
#include "vaultd/nonce_ledger.h"
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

[[listen]]
name = "in"
address = "127.0.0.1:7002"
protocol = "peer"
key = "hard"
service = "echo"

[[connect]]
name = "peer-out"
address = "127.0.0.1:7002"
protocol = "peer"
key = "hard"

[[listen]]
name = "base"
address = "127.0.0.1:7003"
protocol = "peer"
mode = "base"
key = "base"
max_frame_bytes = 1000
service = "echo"

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

// A file of claims with room for one.
struct ClaimsDisk final : vaultd::NonceDisk {
  ClaimsDisk() { image.resize(image.size() + vaultd::BlockClaims::RECORD_BYTES); }
  ssize_t read(size_t offset, MutableByteSpan out) override {
    std::memcpy(out.data(), image.data() + offset, out.size());
    return static_cast<ssize_t>(out.size());
  }
  ssize_t write(size_t offset, ByteSpan in) override {
    std::memcpy(image.data() + offset, in.data(), in.size());
    return static_cast<ssize_t>(in.size());
  }
  int sync() override { return 0; }
  std::vector<std::byte> image = vaultd::BlockClaims::newImage({}, {}, 1);
};

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
    for (const char* name : {"hard", "base"})
      CHECK(vaultd::generateKey(folder / "keys", name, {},
                                {.kind = vaultd::KeyKind::PeerBlock, .party = wire::PeerParty::B})
                .has_value());
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

  // The block of base mode serves one connection in its life: each input gets a life of its own.
  void forgetClaims() {
    state->base = nullptr;
    base.reset();
    auto disk = std::make_unique<ClaimsDisk>();
    const size_t bytes = disk->image.size();
    auto opened = vaultd::BlockClaims::open(std::move(disk), {}, bytes);
    CHECK(opened.has_value());
    claims = std::move(*opened);
    baseArena = std::move(*vaultd::SecretArena::create(131072, vaultd::SecretArena::Want::LockedMemory));
    base.emplace(*baseArena, *claims);
    state->base = &*base;
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
  std::unique_ptr<vaultd::BlockClaims> claims;
  std::unique_ptr<vaultd::SecretArena> baseArena;
  std::optional<vaultd::BaseSessions> base;
  std::optional<RpcServer> server;
};

}  // namespace sallyport::fuzz
