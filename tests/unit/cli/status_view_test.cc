// Goal: status shows what both daemons tell, also when one doesn't, and nothing of theirs moves the terminal.
// Method: answers built here.
#include "cli/status_view.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

namespace sallyport::cli {
namespace {

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

class StatusView : public ::testing::Test {
 protected:
  StatusView() {
    auto vault = vaultMessage_->initRoot<proto::VaultStatus>();
    vault.setVersion("0.1.0");
    vault.setPid(12);
    vault.setUptimeSeconds(61);
    vault.setSandboxVerdict("degraded");
    vault.setMemory("memfd_secret");
    auto layers = vault.initSandbox(3);
    setLayer(layers[0], "seccomp", "active", "ok");
    setLayer(layers[1], "landlock", "unavailable", "not in this kernel");
    setLayer(layers[2], "namespaces", "unavailable", "not in this kernel");
    auto key = vault.initKeys(1)[0];
    key.setName("ser\x1bver");
    key.setState("active");
    const kj::byte bytes[32] = {1};
    key.setPublicKey(kj::arrayPtr(bytes, 32));
    auto counters = vault.initCounters(2);
    counters[0].setName("cookies_sealed");
    counters[0].setValue(7);
    counters[1].setName("never");

    auto net = netMessage_->initRoot<proto::NetStatus>();
    net.setVault("connected");
    net.initWorkers(2);
    auto entry = net.initEntries(1)[0];
    entry.setName("db");
    entry.setProblem("address in use");
    auto drop = net.initDrops(1)[0];
    drop.setName("bad_box");
    drop.setValue(3);

    both_.vault = vault.asReader();
    both_.net = net.asReader();
  }

  proto::EntryStatus::Builder netEntry() { return netMessage_->getRoot<proto::NetStatus>().getEntries()[0]; }
  proto::KeyStatus::Builder vaultKey() { return vaultMessage_->getRoot<proto::VaultStatus>().getKeys()[0]; }
  static void setLayer(proto::SandboxLayer::Builder layer, const char* name, const char* state, const char* detail) {
    layer.setName(name);
    layer.setState(state);
    layer.setDetail(detail);
  }

  // Behind pointers: their destructors may throw, and a fixture's may not.
  std::unique_ptr<capnp::MallocMessageBuilder> vaultMessage_ = std::make_unique<capnp::MallocMessageBuilder>();
  std::unique_ptr<capnp::MallocMessageBuilder> netMessage_ = std::make_unique<capnp::MallocMessageBuilder>();
  BothStatus both_;
};

TEST_F(StatusView, ShowsProcessesKeysEntriesAndCounters) {
  const auto text = statusText(both_);
  for (const auto* part : {"vaultd 0.1.0, pid 12, up 1 min 1 s, sandbox degraded", "AQAAAAAA", "cookies_sealed  7",
                           "worker 1", "address in use", "bad_box  3"}) {
    EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
  }
  EXPECT_FALSE(contains(text, "never"));
}

TEST_F(StatusView, TellsAReasonOnceForAllLayersThatShareIt) {
  EXPECT_TRUE(contains(statusText(both_), "  landlock, namespaces (vaultd): not in this kernel\n"));
}

TEST_F(StatusView, TellsOfTokensAndOfKeysThatWaitForThem) {
  EXPECT_EQ(tokensText(*both_.vault), "");
  auto token = vaultMessage_->getRoot<proto::VaultStatus>().initTokens(1)[0];
  token.setName("hsm1");
  token.setState("down");
  token.setWhy("its process\x1b[2J ended");
  token.setPresence("always");
  token.setRestarts(3);
  token.setPage("locked memory");
  token.setDenials(2);
  token.setLastDenied("socket");
  auto counters = token.initCounters(1);
  counters[0].setName("derived");
  counters[0].setValue(41);
  auto keys = token.initKeys(2);
  keys[0].setProblem("token hsm1: it has no such key");
  vaultKey().setState("unavailable");
  vaultKey().setProblem("token hsm1 is down");
  vaultKey().setName("server");
  netEntry().setKey("server");
  netEntry().setProblem("");
  const auto text = statusText(both_);
  for (const auto* part :
       {"hsm1", "always", "token hsm1: its process", "it has no such key", "proved", "2 (last socket)", "41",
        "memory that root can read", "key `server` is unavailable: token hsm1 is down"}) {
    EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
  }
  EXPECT_FALSE(contains(text, "\x1b"));
  const auto json = statusJson(both_);
  EXPECT_TRUE(contains(json, "\"tokens\"")) << json;
  EXPECT_TRUE(contains(json, "\"restarts\"")) << json;
}

TEST_F(StatusView, CountsForEachEntry) {
  auto entry = netEntry();
  entry.setDirection("listen");
  entry.setProblem("");
  entry.setKey("server");
  entry.setAccepted(12);
  entry.setHandshakes(9);
  entry.setDrops(3);
  vaultKey().setName("server");
  EXPECT_TRUE(contains(statusText(both_), "ACCEPTED  HANDSHAKES  DROPS  STATE"));
  EXPECT_TRUE(contains(statusText(both_), " 12        9           3      ready\n")) << statusText(both_);
  EXPECT_TRUE(contains(statusJson(both_), "\"accepted\": 12,\n        \"handshakes\": 9,\n        \"drops\": 3"));
  EXPECT_FALSE(contains(statusJson(both_), "refused"));
}

TEST_F(StatusView, ShowsEachLimitWithWhatThereIsAndWhatWasDroppedForIt) {
  auto net = netMessage_->getRoot<proto::NetStatus>();
  const auto fill = [](auto list, std::initializer_list<std::pair<const char*, uint64_t>> values) {
    unsigned i = 0;
    for (const auto& [name, value] : values) {
      list[i].setName(name);
      list[i++].setValue(value);
    }
  };
  fill(net.initLimits(5), {{"half_open", 1000},
                           {"connections", 2000},
                           {"half_open_per_source", 64},
                           {"connections_per_source", 128},
                           {"dial_timeout_ms", 5000}});
  fill(net.initCounters(4),
       {{"half_open", 0}, {"connections", 30}, {"busiest_source_half_open", 7}, {"busiest_source_connections", 8}});
  fill(net.initDrops(3), {{"half_open_limit", 0}, {"connection_limit", 4}, {"source_limit", 5}});
  auto vault = vaultMessage_->getRoot<proto::VaultStatus>();
  EXPECT_FALSE(contains(statusText(both_), "HANDSHAKES A SECOND")) << "a vault that doesn't tell";
  fill(vault.initLimits(1), {{"handshakes_per_second", 900}});
  vaultKey().setName("server");
  vaultKey().setHandshakesPerSecond(450);
  vaultKey().setRateLimited(6);

  const auto text = statusText(both_);
  for (const auto* part :
       {"  server  450                  900    6 rate_limited\n",
        "  half_open               1000  0    0 half_open_limit\n",
        "  connections             2000  30   4 connection_limit\n",
        "  half_open_per_source    64    7    0 half_open_limit\n",
        "  connections_per_source  128   8    5 source_limit\n", "  dial_timeout_ms         5000  -    -\n"}) {
    EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
  }
  const auto json = statusJson(both_);
  for (const auto* part :
       {"\"handshakes_per_second\": 900", "\"handshakesPerSecond\": 450", "\"rateLimited\": 6",
        "\"connections_per_source\": 128", "\"busiest_source_connections\": 8", "\"source_limit\": 5"}) {
    EXPECT_TRUE(contains(json, part)) << part << "\n" << json;
  }
}

TEST_F(StatusView, SaysWhichProtocolAnEntrySpeaks) {
  auto entry = netEntry();
  entry.setDirection("listen");
  entry.setAddress("127.0.0.1:7001");
  entry.setProtocol("peer base");
  EXPECT_TRUE(contains(statusText(both_), "DIRECTION  PROTOCOL   ADDRESS")) << statusText(both_);
  EXPECT_TRUE(contains(statusText(both_), "listen     peer base  127.0.0.1:7001")) << statusText(both_);
  EXPECT_TRUE(contains(statusJson(both_), "\"direction\": \"listen\",\n        \"protocol\": \"peer base\""));
}

TEST_F(StatusView, AnEntryOfBaseModeIsReadyAsLongAsItsBlockIsUnused) {
  auto entry = netEntry();
  entry.setKey("once");
  entry.setProblem("");
  entry.setProtocol("peer base");
  vaultKey().setName("once");
  vaultKey().setParty("B");
  vaultKey().setBaseMode("unused");
  EXPECT_TRUE(contains(statusText(both_), "  ready\n")) << statusText(both_);
  const std::vector<std::pair<const char*, std::string>> told = {
      {"used",
       "the block of `once` is used, and in base mode one serves one connection: pair anew, or import one with "
       "--unused"},
      {"its file is damaged", "the block of `once` can't be used in base mode: its file is damaged"}};
  for (const auto& [past, problem] : told) {
    vaultKey().setBaseMode(past);
    EXPECT_TRUE(contains(statusText(both_), "  " + problem + "\n")) << statusText(both_);
    EXPECT_FALSE(contains(statusText(both_), "ready"));
    EXPECT_TRUE(contains(statusJson(both_), "\"problem\": \"" + problem + "\"")) << statusJson(both_);
  }
  // Hard mode uses a block as often as it likes.
  entry.setProtocol("peer hard");
  EXPECT_TRUE(contains(statusText(both_), "  ready\n")) << statusText(both_);
}

TEST_F(StatusView, NothingIsSaidOfBaseModeWhileABlockIsPending) {
  vaultKey().setParty("B");
  EXPECT_TRUE(contains(statusText(both_), "party B"));
  EXPECT_FALSE(contains(statusText(both_), "base mode")) << statusText(both_);
  vaultKey().setBaseMode("unused");
  EXPECT_TRUE(contains(statusText(both_), "party B, base mode: unused")) << statusText(both_);
  EXPECT_TRUE(contains(statusJson(both_), "\"baseMode\": \"unused\"")) << statusJson(both_);
}

TEST_F(StatusView, NamesTheRefusedKeyAndHowToLetItIn) {
  constexpr auto KEY = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  const kj::byte bytes[32] = {2};
  netEntry().setRefusedKey(kj::arrayPtr(bytes, 32));
  netEntry().setRefusedSecondsAgo(61);
  EXPECT_TRUE(contains(statusText(both_), std::string("db refused ") + KEY +
                                              " 1 min 1 s ago; to let it in, if you know whose it is: " +
                                              "`sallyport peer add NAME " + KEY + "`, then NAME into `allow`\n"))
      << statusText(both_);
  EXPECT_TRUE(
      contains(statusJson(both_), std::string("\"publicKey\": \"") + KEY + "\",\n          \"secondsAgo\": 61"));
  both_.peers.emplace(PublicKey(std::as_bytes(std::span(bytes))), "bob");
  EXPECT_TRUE(contains(statusText(both_), "db refused peer bob, ")) << statusText(both_);
  EXPECT_TRUE(contains(statusText(both_), "if you know whose it is: bob into `allow`\n")) << statusText(both_);
}

TEST_F(StatusView, AnEntryWithoutItsKeyIsNotReady) {
  auto entry = netEntry();
  entry.setProblem("");
  entry.setKey("fresh");
  EXPECT_TRUE(contains(statusText(both_), "key `fresh` is not loaded: restart vaultd\n")) << statusText(both_);
  EXPECT_TRUE(contains(statusJson(both_), "\"problem\": \"key `fresh` is not loaded: restart vaultd\""));
  vaultKey().setName("fresh");
  EXPECT_TRUE(contains(statusText(both_), "ready\n"));
  vaultKey().setState("unusable");
  EXPECT_TRUE(contains(statusText(both_), "key `fresh` is unusable\n"));
  both_.vault.reset();  // who doesn't answer is told of at the top
  EXPECT_FALSE(contains(statusText(both_), "key `fresh`"));
}

TEST_F(StatusView, PrintsNothingRaw) {
  EXPECT_FALSE(contains(statusText(both_), "\x1b"));
  EXPECT_FALSE(contains(statusJson(both_), "\x1b"));
}

TEST_F(StatusView, JsonHoldsEveryCounterByName) {
  const auto text = statusJson(both_);
  for (const auto* part : {"\"vaultd\": {", "\"netd\": {", "\"cookies_sealed\": 7", "\"never\": 0",
                           "\"drops\": {\n      \"bad_box\": 3", "\"state\": \"unavailable\"", "\"draining\": false"}) {
    EXPECT_TRUE(contains(text, part)) << part << "\n" << text;
  }
}

TEST_F(StatusView, ADaemonThatDoesNotAnswerIsAnError) {
  both_.net.reset();
  both_.netProblem = "is not running";
  EXPECT_TRUE(contains(statusText(both_), "\nnetd is not running\n"));
  EXPECT_TRUE(contains(statusJson(both_), "\"netd\": {\n    \"error\": \"is not running\"\n  }"));
}

}  // namespace
}  // namespace sallyport::cli
