// service_fixture.h - the vault's services over real RPC, client and server on one loop, for keys in a folder. (Of
// programs with versions and grants: app_fixture.h.)
#pragma once

#include <unistd.h>

#include <optional>
#include <set>

#include "tests/unit/vaultd/support.h"
#include "vaultd/admin_service.h"
#include "vaultd/listeners.h"
#include "vaultd/vault_service.h"

namespace sallyport::vaultd::test {

inline capnp::Data::Reader rawData(ByteSpan bytes) { return {uchars(bytes), bytes.size()}; }
inline std::vector<std::byte> bytesOf(capnp::Data::Reader data) {
  const auto* begin = reinterpret_cast<const std::byte*>(data.begin());
  return {begin, begin + data.size()};
}

class ServiceTest : public testing::Test {
 protected:
  explicit ServiceTest(size_t arenaBytes) : arena(std::move(*SecretArena::create(arenaBytes))) {}
  ~ServiceTest() noexcept override {}  // gtest's is, KJ's members are not

  // Keys, policy and state as this configuration says; then serve().
  void load(std::string_view text) {
    const Config config = parse(text);
    std::vector<Problem> warnings;
    auto ring = Keyring::load(config, *arena, cache, {}, {}, nowMs, warnings);
    ASSERT_TRUE(ring.has_value()) << ring.error().message;
    keys.emplace(std::move(*ring));
    state.emplace(VaultState{cache, *keys, Policy(config, *keys), {}, [this] { return nowMs; }});
    facts.configFile = config.file;
  }
  void serve() {
    const std::set<uid_t> us = {geteuid()};
    netServer.emplace(loop, listenUnix(path("net"), 0600),
                      admit("net", us, [this] { return kj::heap<NetService>(*state); }), LinkLimits());
    appServer.emplace(loop, listenUnix(path("app"), 0600), admitPrograms(*state, "main", us), LinkLimits());
    adminServer.emplace(loop, listenUnix(path("admin"), 0600),
                        admit("admin", us, [this] { return kj::heap<AdminService>(*state, facts); }), LinkLimits());
    facts.servers = {&*netServer, &*appServer, &*adminServer};
    netClient.emplace(loop, connectUnix(path("net")), LinkLimits(), [] {});
    appClient.emplace(loop, connectUnix(path("app")), LinkLimits(), [] {});
    adminClient.emplace(loop, connectUnix(path("admin")), LinkLimits(), [] {});
  }

  // Before members of a derived class that services use go away.
  void stop() {
    for (auto* client : {&netClient, &appClient, &adminClient}) client->reset();
    for (auto* server : {&netServer, &appServer, &adminServer}) server->reset();
  }

  Config parse(std::string_view text) {
    auto config = parseConfig(text, temporary.path() / "sallyport.toml");
    EXPECT_TRUE(config.has_value()) << (config ? "" : config.error().message);
    return std::move(*config);
  }
  std::filesystem::path folder() { return temporary.path() / "keys"; }
  std::filesystem::path path(const char* name) { return temporary.path() / (std::string(name) + ".sock"); }
  proto::Net::Client net() { return netClient->bootstrap().castAs<proto::Net>(); }
  proto::App::Client app() { return appClient->bootstrap().castAs<proto::App>(); }
  proto::Admin::Client admin() { return adminClient->bootstrap().castAs<proto::Admin>(); }

  TemporaryFolder temporary;
  EventLoop loop;
  std::unique_ptr<SecretArena> arena;
  SharedKeyCache cache{*arena, 64};
  uint64_t nowMs = 1000000;
  std::optional<Keyring> keys;
  std::optional<VaultState> state;
  AdminFacts facts;
  std::optional<RpcServer> netServer, appServer, adminServer;
  std::optional<RpcClient> netClient, appClient, adminClient;
};

}  // namespace sallyport::vaultd::test
