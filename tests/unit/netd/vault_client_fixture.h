// vault_client_fixture.h - a worker's client of the vault, and a vault of the test's own behind a real socket: it holds
// its answers back, refuses, lies, dies. Part of: tests/unit/netd.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include <kj/debug.h>
#include <kj/io.h>

#include "common/capnp_bytes.h"
#include "netd/vault_client.h"
#include "tests/unit/netd/test_vault.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::netd::test {

namespace fs = std::filesystem;

// What the vault does, and what it saw. Outlives its connections.
struct Script {
  std::vector<size_t> batches;  // items of each call, in order
  std::vector<std::string> calls;
  std::vector<std::string> entries;
  std::vector<std::string> first;  // entry of each call
  bool hold = false;
  std::set<std::string> hanging;  // entries whose calls are held, and no others
  std::vector<kj::Own<kj::PromiseFulfiller<void>>> held;
  std::optional<proto::Refusal> refusal;
  bool throws = false;
  bool answersTooFew = false;
  size_t nonceBytes = 16;
  unsigned salts = 0;  // so many were drawn
  std::string peer = "alice";
};

class ScriptedVault final : public proto::Net::Server {
 public:
  explicit ScriptedVault(Script& script) : script_(script) {}

  kj::Promise<void> sealCookies(SealCookiesContext context) override {
    const auto asked = context.getParams().getHellos();
    for (const auto item : asked) script_.entries.push_back(item.getEntry());
    return answer("sealCookies", asked[0].getEntry(), asked.size(), [this, context](uint count) mutable {
      auto outcomes = context.getResults().initOutcomes(count);
      for (uint i = 0; i < count; ++i) {
        if (script_.refusal) {
          outcomes[i].setRefused(*script_.refusal);
        } else {
          auto sealed = outcomes[i].initSealed();
          sealed.setNonce(toData(std::vector<std::byte>(script_.nonceBytes, std::byte{7})));
          sealed.setBox(toData(std::vector<std::byte>(wire::COOKIE_PACKET_BOX_BYTES, std::byte{8})));
        }
      }
    });
  }
  kj::Promise<void> verifyVouches(VerifyVouchesContext context) override {
    const auto asked = context.getParams().getVouches();
    return answer("verifyVouches", asked[0].getEntry(), asked.size(), [this, context](uint count) mutable {
      auto outcomes = context.getResults().initOutcomes(count);
      for (uint i = 0; i < count; ++i) {
        if (script_.refusal)
          outcomes[i].setRefused(*script_.refusal);
        else
          outcomes[i].setPeer(script_.peer);
      }
    });
  }
  kj::Promise<void> makeVouches(MakeVouchesContext context) override {
    const auto asked = context.getParams().getRequests();
    return answer("makeVouches", asked[0].getEntry(), asked.size(), [this, context](uint count) mutable {
      auto outcomes = context.getResults().initOutcomes(count);
      for (uint i = 0; i < count; ++i) {
        if (script_.refusal) {
          outcomes[i].setRefused(*script_.refusal);
        } else {
          auto made = outcomes[i].initMade();
          made.setClient(toData(std::vector<std::byte>(32, std::byte{1})));
          made.setNonce(toData(std::vector<std::byte>(script_.nonceBytes, std::byte{2})));
          made.setBox(toData(std::vector<std::byte>(48, std::byte{3})));
        }
      }
    });
  }
  kj::Promise<void> peerSalts(PeerSaltsContext context) override {
    const auto asked = context.getParams().getEntries();
    for (const auto item : asked) {
      EXPECT_FALSE(item.getListen());
      script_.entries.push_back(item.getName());
    }
    return answer("peerSalts", asked[0].getName(), asked.size(), [this, context](uint count) mutable {
      auto outcomes = context.getResults().initOutcomes(count);
      for (uint i = 0; i < count; ++i) {
        if (script_.refusal) {
          outcomes[i].setRefused(*script_.refusal);
        } else {
          auto drawn = outcomes[i].initDrawn();
          drawn.setParty(proto::PeerParty::A);
          drawn.setSalt(toData(std::vector<std::byte>(32, static_cast<std::byte>(++script_.salts))));
        }
      }
    });
  }

 private:
  template <typename Fill>
  kj::Promise<void> answer(const char* name, const std::string& entry, uint items, Fill fill) {
    script_.batches.push_back(items);
    script_.calls.push_back(name);
    script_.first.push_back(entry);
    if (script_.throws) return KJ_EXCEPTION(FAILED, "the vault is confused");
    const uint count = script_.answersTooFew ? items - 1 : items;
    if (!script_.hold && !script_.hanging.contains(entry)) {
      fill(count);
      return kj::READY_NOW;
    }
    auto paf = kj::newPromiseAndFulfiller<void>();
    script_.held.push_back(kj::mv(paf.fulfiller));
    return paf.promise.then([fill = kj::mv(fill), count]() mutable { fill(count); });
  }
  Script& script_;
};

class AVaultClient : public testing::Test {
 protected:
  AVaultClient() {
    client.emplace(loop, stats, [this] { ++lost; });
  }
  ~AVaultClient() noexcept override {
    client.reset();
    script.held.clear();
    server.reset();
  }

  void serve() {
    server.reset();
    server.emplace(
        loop, listenUnix(folder / "v.sock", 0600),
        [this](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
          return capnp::Capability::Client(kj::heap<ScriptedVault>(script));
        },
        LinkLimits{}, 256, &budget);
  }
  void connect() { client->connect(connectUnix(folder / "v.sock")); }
  void turns(int count = 10) {
    for (int i = 0; i < count; ++i) loop.turn(1);
  }
  void release() {
    auto held = kj::mv(script.held);
    script.held.clear();
    for (auto& fulfiller : held) fulfiller->fulfill();
    turns();
  }

  template <typename Answer>
  auto note(int number = 0) {
    return [this, number](Result<Answer, R> answer) {
      EXPECT_FALSE(asking) << "answered inside the call";
      EXPECT_FALSE(answers.contains(number)) << "answered twice";
      answers[number] = answer ? std::nullopt : std::optional(answer.error());
    };
  }
  static Entry entryOf(const std::string& name, const std::string& key = "server") {
    Entry entry;
    entry.name = name;
    entry.vaultKey = key;
    return entry;
  }
  [[nodiscard]] std::unique_ptr<VaultClient::Question> askCookie(int number = 0, const Entry& entry = entryOf("db")) {
    asking = true;
    auto question = client->sealCookie(entry, {}, note<SealedCookie>(number));
    asking = false;
    return question;
  }
  // What each kind of question comes to.
  std::vector<std::optional<R>> askAll(const Entry& entry = entryOf("e")) {
    answers.clear();
    const auto a = client->sealCookie(entry, {}, note<SealedCookie>(0));
    const auto b = client->verifyVouch(entry, {}, note<VerifiedVouch>(1));
    const auto c = client->makeVouch(entry, {}, note<MadeVouch>(2));
    turns();
    EXPECT_EQ(answers.size(), 3u);
    return {answers[0], answers[1], answers[2]};
  }

  EventLoop loop;
  Stats stats{};
  Script script;
  sallyport::test::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  LinkBudget budget{loop, 64 << 20};  // the vault's
  std::optional<RpcServer> server;
  std::optional<VaultClient> client;
  std::map<int, std::optional<R>> answers;  // by question: a refusal, or nothing when it was granted
  bool asking = false;
  int lost = 0;
};

}  // namespace sallyport::netd::test
