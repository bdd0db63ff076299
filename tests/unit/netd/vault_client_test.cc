// Goal: every question is answered once or withdrawn, at most 64 a call, and a vault that comes back is asked again.
// Method: a vault of the test's own behind a real socket: it holds its answers back, refuses, lies, dies.
#include "netd/vault_client.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <set>

#include <kj/debug.h>
#include <kj/io.h>

#include "common/capnp_bytes.h"
#include "tests/unit/netd/test_vault.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::netd {
namespace {

namespace fs = std::filesystem;
using R = wire::DropReason;

// What the vault does, and what it saw. Outlives its connections.
struct Script {
  std::vector<size_t> batches;  // items of each call, in order
  std::vector<std::string> calls;
  std::vector<std::string> entries;
  bool hold = false;
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
    return answer("sealCookies", asked.size(), [this, context](uint count) mutable {
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
    return answer("verifyVouches", context.getParams().getVouches().size(), [this, context](uint count) mutable {
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
    return answer("makeVouches", context.getParams().getRequests().size(), [this, context](uint count) mutable {
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
    return answer("peerSalts", asked.size(), [this, context](uint count) mutable {
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
  kj::Promise<void> answer(const char* name, uint items, Fill fill) {
    script_.batches.push_back(items);
    script_.calls.push_back(name);
    if (script_.throws) return KJ_EXCEPTION(FAILED, "the vault is confused");
    const uint count = script_.answersTooFew ? items - 1 : items;
    if (!script_.hold) {
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
        LinkLimits{});
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
  [[nodiscard]] std::unique_ptr<VaultClient::Question> askCookie(int number = 0, const std::string& entry = "db") {
    asking = true;
    auto question = client->sealCookie(entry, {}, note<SealedCookie>(number));
    asking = false;
    return question;
  }
  // What each kind of question comes to.
  std::vector<std::optional<R>> askAll() {
    answers.clear();
    const auto a = client->sealCookie("e", {}, note<SealedCookie>(0));
    const auto b = client->verifyVouch("e", {}, note<VerifiedVouch>(1));
    const auto c = client->makeVouch("e", {}, note<MadeVouch>(2));
    turns();
    EXPECT_EQ(answers.size(), 3u);
    return {answers[0], answers[1], answers[2]};
  }

  EventLoop loop;
  Stats stats{};
  Script script;
  sallyport::test::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  std::optional<RpcServer> server;
  std::optional<VaultClient> client;
  std::map<int, std::optional<R>> answers;  // by question: a refusal, or nothing when it was granted
  bool asking = false;
  int lost = 0;
};

TEST_F(AVaultClient, GetsItsAnswers) {
  serve();
  connect();
  std::optional<Result<SealedCookie, R>> cookie;
  std::optional<Result<VerifiedVouch, R>> verdict;
  std::optional<Result<MadeVouch, R>> made;
  const auto a = client->sealCookie("db", {}, [&](auto answer) { cookie = std::move(answer); });
  const auto b = client->verifyVouch("db", {}, [&](auto answer) { verdict = std::move(answer); });
  const auto c = client->makeVouch("db", {}, [&](auto answer) { made = std::move(answer); });
  turns();
  ASSERT_TRUE(cookie && *cookie && verdict && *verdict && made && *made);
  EXPECT_EQ((*cookie)->packet.nonce.span()[0], std::byte{7});
  EXPECT_EQ((*cookie)->packet.box[143], std::byte{8});
  EXPECT_EQ((*verdict)->peer, "alice");
  EXPECT_EQ((*made)->client.span()[31], std::byte{1});
  EXPECT_EQ((*made)->nonce.span()[15], std::byte{2});
  EXPECT_EQ((*made)->box[47], std::byte{3});
  // Who is nearly in comes first.
  EXPECT_EQ(script.calls, (std::vector<std::string>{"verifyVouches", "makeVouches", "sealCookies"}));
}

TEST_F(AVaultClient, SendsTheQuestionsOfATurnTogetherAndAtMost64ACall) {
  serve();
  connect();
  script.hold = true;
  std::vector<std::unique_ptr<VaultClient::Question>> questions;
  for (int i = 0; i < 300; ++i) questions.push_back(askCookie(i, "entry-" + std::to_string(i)));
  turns();
  EXPECT_EQ(script.batches, (std::vector<size_t>{64, 64}));  // two under way, no more
  script.hold = false;
  release();
  EXPECT_EQ(script.batches, (std::vector<size_t>{64, 64, 64, 64, 44}));
  EXPECT_EQ(answers.size(), 300u);
  for (int i = 0; i < 300; ++i) EXPECT_EQ(script.entries[static_cast<size_t>(i)], "entry-" + std::to_string(i));
  EXPECT_EQ(stats.get(Counter::VaultCalls), 5u);
  EXPECT_EQ(stats.get(Counter::VaultItems), 300u);
}

TEST_F(AVaultClient, GathersQuestionsWhileTwoCallsAreUnderWay) {
  serve();
  connect();
  script.hold = true;
  std::vector<std::unique_ptr<VaultClient::Question>> questions;
  for (int i = 0; i < 5; ++i) {
    questions.push_back(askCookie(i));
    turns(3);
  }
  EXPECT_EQ(script.batches, (std::vector<size_t>{1, 1}));
  script.hold = false;
  release();
  EXPECT_EQ(script.batches, (std::vector<size_t>{1, 1, 3}));
  EXPECT_EQ(answers.size(), 5u);
}

TEST_F(AVaultClient, DoesNotAskWhatWasWithdrawnBefore) {
  serve();
  connect();
  { const auto withdrawn = askCookie(0); }
  const auto kept = askCookie(1);
  turns();
  EXPECT_EQ(script.batches, (std::vector<size_t>{1}));
  EXPECT_FALSE(answers.contains(0));
  EXPECT_TRUE(answers.contains(1));
}

// A stranger asks by a Hello and leaves, as often as he likes, while the vault is away or hangs.
TEST_F(AVaultClient, ForgetsWithdrawnQuestionsAlsoWhenNobodyTakesThem) {
  const auto flood = [this] {
    std::vector<std::unique_ptr<VaultClient::Question>> kept;
    for (int i = 0; i < 100; ++i) kept.push_back(askCookie(i));
    for (int i = 0; i < 5000; ++i) {
      const auto withdrawn = askCookie(1000 + i);
      turns(i % 100 == 0 ? 1 : 0);
    }
    EXPECT_LE(client->waiting(), 400u);
    EXPECT_GE(client->waiting(), 1u);
    while (!kept.empty()) kept.pop_back();
    EXPECT_LE(client->waiting(), 128u);
  };
  flood();
  serve();
  connect();
  turns();
  EXPECT_EQ(client->waiting(), 0u);
  script.hold = true;  // it hangs
  flood();
  release();
  EXPECT_TRUE(answers.empty());
}

TEST_F(AVaultClient, ThrowsAwayTheAnswerToAWithdrawnQuestion) {
  serve();
  connect();
  script.hold = true;
  auto withdrawn = askCookie(0);
  const auto kept = askCookie(1);
  turns();
  withdrawn = nullptr;
  script.hold = false;
  release();
  EXPECT_EQ(script.batches, (std::vector<size_t>{2}));
  EXPECT_FALSE(answers.contains(0));
  EXPECT_TRUE(answers.contains(1));
}

TEST_F(AVaultClient, LetsAnAnswerWithdrawTheOthers) {
  serve();
  connect();
  std::vector<std::unique_ptr<VaultClient::Question>> questions;
  int granted = 0;
  for (int i = 0; i < 3; ++i) {
    questions.push_back(client->sealCookie("e", {}, [&](auto) {
      ++granted;
      questions.clear();  // a connection that dies may take others with it
    }));
  }
  turns();
  EXPECT_EQ(granted, 1);
}

TEST_F(AVaultClient, WaitsForAVaultThatIsNotThereYet) {
  const auto question = askCookie();
  turns();
  EXPECT_TRUE(answers.empty());
  EXPECT_FALSE(client->connected());
  serve();
  connect();
  turns();
  EXPECT_EQ(answers.size(), 1u);
}

TEST_F(AVaultClient, AsksAgainWhenTheVaultWasLostInTheMiddle) {
  serve();
  connect();
  script.hold = true;
  std::vector<std::unique_ptr<VaultClient::Question>> questions;
  for (int i = 0; i < 70; ++i) questions.push_back(askCookie(i));
  turns();
  questions[3] = nullptr;
  script.held.clear();
  server.reset();
  turns();
  EXPECT_EQ(lost, 1);
  EXPECT_FALSE(client->connected());
  EXPECT_TRUE(answers.empty());
  script.hold = false;
  script.batches.clear();
  serve();
  connect();
  turns();
  EXPECT_EQ(answers.size(), 69u);
  for (const auto& [number, refusal] : answers) EXPECT_EQ(refusal, std::nullopt) << number;
  EXPECT_EQ(lost, 1);
}

TEST_F(AVaultClient, ReplacesAConnectionThatIsStillThere) {
  serve();
  connect();
  script.hold = true;
  const auto first = askCookie(0);
  turns();
  script.hold = false;
  connect();
  turns();
  const auto second = askCookie(1);
  turns();
  release();
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(lost, 0);
  EXPECT_TRUE(client->connected());
}

TEST_F(AVaultClient, MayDieWithQuestionsUnderWay) {
  serve();
  connect();
  script.hold = true;
  auto question = askCookie();
  turns();
  client.reset();
  release();
  question = nullptr;
  EXPECT_TRUE(answers.empty());
}

TEST_F(AVaultClient, KnowsARefusalByItsReason) {
  serve();
  connect();
  const struct {
    proto::Refusal refusal;
    R reason;
    R ofVouch;
  } table[] = {{proto::Refusal::PEER_NOT_ALLOWED, R::PeerNotAllowed, R::PeerNotAllowed},
               {proto::Refusal::BAD_BOX, R::BadBox, R::BadVouch},
               {proto::Refusal::LOW_ORDER_KEY, R::LowOrderKey, R::LowOrderKey},
               {proto::Refusal::RATE_LIMITED, R::RateLimited, R::RateLimited},
               {proto::Refusal::NONCE_UNAVAILABLE, R::NonceUnavailable, R::NonceUnavailable},
               {proto::Refusal::HSM_UNAVAILABLE, R::HsmUnavailable, R::HsmUnavailable},
               {proto::Refusal::UNSPECIFIED, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::UNKNOWN_ENTRY, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::UNKNOWN_KEY, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::BAD_SIZE, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::LOCKED, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::TOO_MANY, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::NOT_PERMITTED, R::VaultRefused, R::VaultRefused},
               {proto::Refusal::BAD_CONFIG, R::VaultRefused, R::VaultRefused},
               {static_cast<proto::Refusal>(999), R::VaultRefused, R::VaultRefused}};
  for (const auto& row : table) {
    script.refusal = row.refusal;
    EXPECT_EQ(askAll(), (std::vector<std::optional<R>>{row.reason, row.ofVouch, row.reason}))
        << static_cast<int>(row.refusal);
  }
}

// --- salts that are drawn ahead ---

TEST_F(AVaultClient, DrawsSaltsAheadInOneCall) {
  serve();
  connect();
  std::set<std::byte> seen;
  constexpr int ROUNDS = 25;
  for (int i = 0; i < 4 * ROUNDS; ++i) {
    if (const auto salt = client->takePeerSalt("out", 5000)) {
      EXPECT_EQ(salt->party, wire::PeerParty::A);
      EXPECT_TRUE(seen.insert(salt->salt.span()[0]).second) << "twice";
    }
    if (i % 4 == 3) turns(3);
  }
  EXPECT_EQ(seen.size(), 4u * (ROUNDS - 1)) << "only the first round finds none";
  EXPECT_LE(script.batches.size(), size_t{ROUNDS});
  for (const auto& entry : script.entries) EXPECT_EQ(entry, "out");
  EXPECT_EQ(client->takePeerSalt("another", 5000), std::nullopt) << "each entry has its own";
}

TEST_F(AVaultClient, HasNoSaltsAheadWithoutAVault) {
  EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
  EXPECT_EQ(client->waiting(), 0u);
}

TEST_F(AVaultClient, ForgetsItsSaltsWithTheVaultThatDrewThem) {
  serve();
  connect();
  EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
  turns();
  server.reset();
  turns();
  serve();
  connect();
  EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
  turns();
  EXPECT_TRUE(client->takePeerSalt("out", 5000));
}

TEST_F(AVaultClient, ForgetsItsSaltsWhenToldAndThoseUnderWay) {
  serve();
  connect();
  EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
  turns();
  client->forgetPeerSalts();
  script.hold = true;
  EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
  turns();
  client->forgetPeerSalts();
  script.hold = false;
  release();
  EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
}

TEST_F(AVaultClient, DrawsNoMoreAheadWhileTheVaultRefuses) {
  serve();
  connect();
  script.refusal = proto::Refusal::RATE_LIMITED;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(client->takePeerSalt("out", 5000), std::nullopt);
    turns(3);
  }
  for (const size_t items : script.batches) EXPECT_EQ(items, 1u);
}

TEST_F(AVaultClient, TakesFieldsOfTheWrongLengthForARefusal) {
  serve();
  connect();
  for (const size_t bytes : {size_t{0}, size_t{15}, size_t{17}}) {
    script.nonceBytes = bytes;
    EXPECT_EQ(askAll(), (std::vector<std::optional<R>>{R::VaultRefused, std::nullopt, R::VaultRefused})) << bytes;
  }
}

TEST_F(AVaultClient, TakesAMissingAnswerForARefusal) {
  serve();
  connect();
  script.answersTooFew = true;
  EXPECT_EQ(askAll(), std::vector<std::optional<R>>(3, R::VaultRefused));
}

TEST_F(AVaultClient, TakesAnExceptionForARefusalAndGoesOn) {
  serve();
  connect();
  script.throws = true;
  EXPECT_EQ(askAll(), std::vector<std::optional<R>>(3, R::VaultRefused));
  script.throws = false;
  EXPECT_EQ(askAll(), std::vector<std::optional<R>>(3, std::nullopt));
  EXPECT_TRUE(client->connected());
}

}  // namespace
}  // namespace sallyport::netd
