// Goal: every question is answered once or withdrawn, at most 64 a call, and a vault that comes back is asked again.
// Method: a vault of the test's own behind a real socket (vault_client_fixture.h).
#include "tests/unit/netd/vault_client_fixture.h"

namespace sallyport::netd::test {
namespace {

TEST_F(AVaultClient, GetsItsAnswers) {
  serve();
  connect();
  std::optional<Result<SealedCookie, R>> cookie;
  std::optional<Result<VerifiedVouch, R>> verdict;
  std::optional<Result<MadeVouch, R>> made;
  const auto a = client->sealCookie(entryOf("db"), {}, [&](auto answer) { cookie = std::move(answer); });
  const auto b = client->verifyVouch(entryOf("db"), {}, [&](auto answer) { verdict = std::move(answer); });
  const auto c = client->makeVouch(entryOf("db"), {}, [&](auto answer) { made = std::move(answer); });
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
  for (int i = 0; i < 300; ++i) questions.push_back(askCookie(i, entryOf("entry-" + std::to_string(i))));
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

// What the vault keeps of a call until its Finish counts for its client.
TEST_F(AVaultClient, LetsAnswersGoWithTheNextCallOrSoonAfter) {
  serve();
  connect();
  turns();
  const auto wait = [this](int ms) {
    for (const auto until = loop.nowMs() + static_cast<uint64_t>(ms); loop.nowMs() < until;) loop.turn(1);
  };
  const size_t idle = budget.held();
  const auto ask = [this](int number) {
    const auto question = askCookie(number);
    while (!answers.contains(number)) loop.turn(1);
  };
  ask(0);
  const size_t one = budget.held();
  EXPECT_GT(one, idle + 2000);
  // However many come one after the other.
  for (int i = 1; i < 100; ++i) ask(i);
  EXPECT_EQ(budget.held(), one);
  wait(100);
  EXPECT_EQ(budget.held(), idle);
  ask(100);
  wait(100);
  EXPECT_EQ(budget.held(), idle);
  EXPECT_EQ(lost, 0);
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
    questions.push_back(client->sealCookie(entryOf("e"), {}, [&](auto) {
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
}  // namespace sallyport::netd::test
