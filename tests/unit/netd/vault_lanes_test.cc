// Goal: a key whose questions nobody answers keeps no other key waiting, however many there are like it, and what all
// of them have with the vault stays far below what it allows. Method: a vault of the test's own behind a real socket,
// which holds back what it is told to (vault_client_fixture.h).
#include <malloc.h>

#include <algorithm>
#include <numeric>

#include "netd/call_gate.h"
#include "netd/call_room.h"
#include "tests/unit/netd/vault_client_fixture.h"

namespace sallyport::netd::test {
namespace {

constexpr size_t MAX_BATCH = 64;
constexpr size_t CALLS_A_KEY = 6;  // two of each of the three kinds that are asked here

class VaultLanes : public AVaultClient {
 protected:
  // An entry with a key of its own.
  static Entry alone(int number) {
    const auto name = "entry-" + std::to_string(number);
    return entryOf(name, "key-" + name);
  }
  // `count` of each kind.
  void askMany(const Entry& entry, int count) {
    for (int i = 0; i < count; ++i) {
      questions.push_back(client->sealCookie(entry, {}, note<SealedCookie>(asked++)));
      questions.push_back(client->verifyVouch(entry, {}, note<VerifiedVouch>(asked++)));
      questions.push_back(client->makeVouch(entry, {}, note<MadeVouch>(asked++)));
    }
  }
  void hang(int entries) {
    for (int i = 0; i < entries; ++i) script.hanging.insert(alone(i).name);
  }
  size_t itemsOfAllCalls() const { return std::accumulate(script.batches.begin(), script.batches.end(), size_t{0}); }
  // Until nothing happens any more.
  void settle() {
    for (int quiet = 0; quiet < 10; ++quiet) {
      const std::pair before(script.calls.size(), answers.size());
      turns(2);
      if (before != std::pair(script.calls.size(), answers.size())) quiet = 0;
    }
  }
  // Answers what is held, and what comes after it.
  void answerAll() {
    script.hold = false;
    script.hanging.clear();
    release();
    settle();
  }
  void expectAllGranted() {
    EXPECT_EQ(answers.size(), static_cast<size_t>(asked));
    for (const auto& [number, refusal] : answers) EXPECT_EQ(refusal, std::nullopt) << number;
  }

  std::vector<std::unique_ptr<VaultClient::Question>> questions;
  int asked = 0;
};

TEST_F(VaultLanes, AKeyThatHangsKeepsNoOtherWaiting) {
  serve();
  connect();
  script.hanging = {"slow"};
  const auto slow = entryOf("slow", "in-a-token");
  for (int i = 0; i < 5; ++i) {
    askMany(slow, 100);
    turns(2);
  }
  settle();
  EXPECT_EQ(script.held.size(), CALLS_A_KEY);
  EXPECT_TRUE(answers.empty());
  for (int i = 0; i < 50; ++i) {
    const std::vector<std::optional<R>> granted(3, std::nullopt);
    EXPECT_EQ(askAll(entryOf("fast", "in-a-file")), granted) << i;
  }
  answers.clear();
  EXPECT_EQ(script.held.size(), CALLS_A_KEY) << "no more of the slow one than of any";
  answerAll();
  expectAllGranted();
}

TEST_F(VaultLanes, ACallIsAboutOneKeyAndAllItsEntries) {
  serve();
  connect();
  const auto a = askCookie(0, entryOf("a", "shared"));
  const auto b = askCookie(1, entryOf("b", "other"));
  const auto c = askCookie(2, entryOf("c", "shared"));
  turns();
  EXPECT_EQ(answers.size(), 3u);
  EXPECT_EQ(script.batches, (std::vector<size_t>{1, 2}));
  EXPECT_EQ(script.entries, (std::vector<std::string>{"b", "a", "c"}));
}

TEST_F(VaultLanes, WhoIsNearlyInComesFirstWhateverTheKey) {
  serve();
  connect();
  askMany(alone(0), 1);
  askMany(alone(1), 1);
  turns();
  EXPECT_EQ(script.calls, (std::vector<std::string>{"verifyVouches", "verifyVouches", "makeVouches", "makeVouches",
                                                    "sealCookies", "sealCookies"}));
}

TEST_F(VaultLanes, HasFewerCallsUnderWayThanTheVaultAllows) {
  static_assert(CallGate::MOST + CallRoom::MOST_CALLS <= LinkLimits{}.maxOpenQuestions / 2);
  serve();
  connect();
  script.hold = true;
  for (int i = 0; i < 200; ++i) askMany(alone(i), 2);
  settle();
  EXPECT_EQ(script.held.size(), CallRoom::MOST_CALLS);
  for (int i = 0; i < 100 && !script.held.empty(); ++i) {
    release();
    settle();
    EXPECT_LE(script.held.size(), CallRoom::MOST_CALLS);
  }
  expectAllGranted();
}

// The vault reads nothing more while calls of one client take 512 KiB.
TEST_F(VaultLanes, HasFewerQuestionsUnderWayThanTheVaultAllows) {
  static_assert((CallRoom::MOST_ITEMS + MAX_BATCH) * 352 < 512 * 1024);
  serve();
  connect();
  script.hold = true;
  for (int i = 0; i < 40; ++i) askMany(alone(i), 100);
  settle();
  EXPECT_GE(itemsOfAllCalls(), CallRoom::MOST_ITEMS);
  EXPECT_LT(itemsOfAllCalls(), CallRoom::MOST_ITEMS + MAX_BATCH);
  answerAll();
  expectAllGranted();
}

TEST_F(VaultLanes, ManyKeysThatHangLeaveRoomForAnother) {
  serve();
  connect();
  constexpr int HANGING = 12;
  hang(HANGING);
  for (int i = 0; i < HANGING; ++i) askMany(alone(i), 100);
  settle();
  EXPECT_GE(script.held.size(), size_t{HANGING});
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(askAll(entryOf("fast", "in-a-file")), std::vector<std::optional<R>>(3, std::nullopt)) << i;
}

TEST_F(VaultLanes, ManyKeysThatHangWithFewQuestionsLeaveRoomForAnother) {
  serve();
  connect();
  constexpr int HANGING = 40;
  hang(HANGING);
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < HANGING; ++i) askMany(alone(i), 1);
    settle();
  }
  EXPECT_GE(script.held.size(), size_t{HANGING});
  for (int i = 0; i < 20; ++i)
    EXPECT_EQ(askAll(entryOf("fast", "in-a-file")), std::vector<std::optional<R>>(3, std::nullopt)) << i;
}

TEST_F(VaultLanes, TakeTurnsWhenThereIsNotRoomForAll) {
  serve();
  connect();
  script.hold = true;
  constexpr int KEYS = 60;
  for (int i = 0; i < KEYS; ++i) {
    for (int n = 0; n < 300; ++n) questions.push_back(askCookie(asked++, alone(i)));
  }
  settle();
  while (script.first.size() < KEYS && !script.held.empty()) {
    script.held.front()->fulfill();
    script.held.erase(script.held.begin());
    settle();
  }
  ASSERT_GE(script.first.size(), size_t{KEYS});
  const std::set<std::string> served(script.first.begin(), script.first.begin() + KEYS);
  EXPECT_EQ(served.size(), size_t{KEYS}) << "one had a second turn before another its first";
  answerAll();
  expectAllGranted();
}

TEST_F(VaultLanes, AreAskedAgainWhenTheVaultWasLostInTheMiddle) {
  serve();
  connect();
  script.hold = true;
  for (int i = 0; i < 100; ++i) askMany(alone(i), 2);
  for (int round = 0; round < 3; ++round) {
    settle();
    EXPECT_EQ(script.held.size(), CallRoom::MOST_CALLS) << "calls of a vault that is gone take no room";
    script.held.clear();
    server.reset();
    turns();
    serve();
    connect();
  }
  settle();
  connect();  // and once without its loss
  settle();
  answerAll();
  expectAllGranted();
  EXPECT_EQ(client->waiting(), 0u);
}

TEST_F(VaultLanes, QuestionsThatWereWithdrawnTakeNoTurn) {
  serve();
  connect();
  script.hold = true;
  askMany(alone(0), 3);
  questions.clear();
  const auto kept = askCookie(asked++, alone(1));
  turns();
  EXPECT_EQ(script.batches, (std::vector<size_t>{1}));
  EXPECT_EQ(client->waiting(), 0u);
}

// A reload may bring others, again and again.
TEST_F(VaultLanes, NothingIsKeptOfKeysThatHadTheirAnswers) {
  serve();
  connect();
  const auto askOnce = [this](int from, int count) {
    for (int i = from; i < from + count; ++i) {
      questions.push_back(client->sealCookie(alone(i), {}, [](auto) {}));
      if (i % 20 != 0) continue;
      turns(3);
      questions.clear();
    }
    turns();
    script = {};
    return mallinfo2().uordblks;
  };
  const size_t before = askOnce(0, 200);
  EXPECT_LT(askOnce(1000, 4000), before + (64 << 10));
}

}  // namespace
}  // namespace sallyport::netd::test
