// Goal: what happens in a turn is one write; what is refused can't flood; without a record no answer leaves.
// Method: the trail on a loop and files in memory; answers in messages of their own.
#include "vaultd/audit_trail.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include "proto/vault.capnp.h"
#include "tests/unit/vaultd/memory_audit.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/recorded.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

class Trail : public testing::Test {
 protected:
  EventLoop loop;
  test::MemoryFolder folder;
  AuditConfig config;
  Caller caller{"main", 1001, {}, 1002};
  std::optional<AuditTrail> trail;

  ~Trail() noexcept override {}

  void begin() {
    trail.emplace(loop, std::move(*test::openLog(folder)), config, [] { return int64_t{1000}; });
  }
  bool use(std::optional<Refusal> refused = {}, size_t bytes = 10) {
    UseRecord record{caller, 42, "backup", Verb::Sign};
    record.version = 1;
    record.bytes = bytes;
    record.refused = refused;
    return trail->record(record);
  }
  // Without waiting for anything.
  void turn() { loop.turn(0); }
  // Until the trail has looked again.
  template <typename Condition>
  void turnUntil(Condition&& condition) {
    for (int i = 0; i < 100 && !condition(); ++i) loop.turn(100);
    ASSERT_TRUE(condition());
  }
  std::vector<AuditRecord> records() {
    auto found = test::readBack(folder);
    CHECK(found.has_value());
    return *found;
  }
};

TEST_F(Trail, EqualUsesOfATurnAreOneLine) {
  begin();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(use());
  turn();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(use());
  turn();
  const auto all = records();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].items, 5u);
  EXPECT_EQ(all[0].bytes, 50u);
  EXPECT_EQ(all[0].verb, "sign");
  EXPECT_EQ(all[0].caller, (AuditCaller{"main", 1001, 1002, 42}));
  EXPECT_EQ(all[1].items, 2u);
}

TEST_F(Trail, RefusedUsesAndStepsAreSummedUp) {
  begin();
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(use(Refusal::NOT_PERMITTED));
    trail->step({"seal_cookie", "db"});
    trail->step({"seal_cookie", "db", {}, Refusal::BAD_BOX});
    turn();
  }
  turnUntil([&] { return trail->log().head().seq >= 3; });
  trail->stop();
  uint64_t items = 0;
  const auto all = records();
  for (const auto& record : all) items += record.items;
  EXPECT_EQ(items, 3000u);
  EXPECT_LT(all.size(), 300u);
  EXPECT_EQ(all.back().verb, "stop");
}

TEST_F(Trail, HandshakesAreALineEachWhereAskedFor) {
  config.handshakes = true;
  begin();
  trail->step({"verify_vouch", "db", "alice"});
  trail->step({"verify_vouch", "db", "alice"});
  turn();
  ASSERT_EQ(records().size(), 2u);
  EXPECT_EQ(records()[0].peer, "alice");
}

TEST_F(Trail, WithoutRequiredNothingWaitsAndNothingIsRefused) {
  begin();
  folder.failAllWith = ENOSPC;
  for (int i = 0; i < 5000; ++i) {
    caller.uid = static_cast<uint32_t>(i);
    EXPECT_TRUE(use());
    KJ_IF_MAYBE (waiting, trail->settled()) { FAIL(); }
    turn();
  }
  EXPECT_GT(trail->log().lost(), 0u);
  folder.failAllWith = 0;
  turnUntil([&] { return trail->log().problem().empty(); });
  turn();
  uint64_t lost = 0;
  for (const auto& record : records()) lost += record.verb == "lost" ? record.items : 0;
  EXPECT_EQ(lost, trail->log().lost());
}

TEST_F(Trail, WithRequiredAnAnswerWaitsForItsRecord) {
  config.required = true;
  begin();
  EXPECT_TRUE(use());
  bool answered = false;
  auto first = KJ_ASSERT_NONNULL(trail->settled()).then([&](bool good) { answered = good; }).eagerlyEvaluate(nullptr);
  auto second = KJ_ASSERT_NONNULL(trail->settled());
  EXPECT_EQ(trail->log().head().seq, 0u);
  EXPECT_TRUE(loop.await(kj::mv(second)));
  EXPECT_TRUE(answered);
  EXPECT_EQ(trail->log().head().seq, 1u);
}

TEST_F(Trail, WithRequiredAndAFullDiskEverythingIsRefusedUntilThereIsRoom) {
  config.required = true;
  begin();
  folder.failAllWith = ENOSPC;
  EXPECT_TRUE(use());  // nobody knows yet
  EXPECT_FALSE(loop.await(KJ_ASSERT_NONNULL(trail->settled())));
  EXPECT_FALSE(trail->admits());
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(use());
  trail->step({"seal_cookie", "db", {}, Refusal::NOT_RECORDED});
  folder.failAllWith = 0;
  turnUntil([&] { return trail->admits(); });
  EXPECT_TRUE(use());
  EXPECT_TRUE(loop.await(KJ_ASSERT_NONNULL(trail->settled())));
  uint64_t withheld = 0;
  for (const auto& record : records()) withheld += record.verb == "withheld" ? record.items : 0;
  EXPECT_EQ(withheld, 5u);
}

TEST_F(Trail, AlwaysIsDurableWhenTheAnswerLeaves) {
  config.required = config.syncAlways = true;
  begin();
  folder.failSyncWith = EIO;
  EXPECT_TRUE(use());
  EXPECT_FALSE(loop.await(KJ_ASSERT_NONNULL(trail->settled())));
  EXPECT_FALSE(trail->admits());
  folder.failSyncWith = 0;
  turnUntil([&] { return trail->admits(); });
  EXPECT_TRUE(use());
  EXPECT_TRUE(loop.await(KJ_ASSERT_NONNULL(trail->settled())));
  EXPECT_EQ(folder.files[0].durable, folder.files[0].cached);
}

TEST(TakeBack, LeavesNothingOfTheAnswerInTheMessage) {
  const std::string secret = "an opened text that must not leave";
  capnp::MallocMessageBuilder message;
  auto outcomes = message.initRoot<proto::Key::OpenResults>().initOutcomes(3);
  for (unsigned i = 0; i < 2; ++i) {
    auto opened = outcomes[i].initOpened();
    opened.setText(kj::arrayPtr(reinterpret_cast<const kj::byte*>(secret.data()), secret.size()));
    opened.setVersion(7);
  }
  outcomes[2].setRefused(Refusal::BAD_BOX);
  Counters counters;
  takeBackAll(counters, message.getRoot<proto::Key::OpenResults>());
  for (auto outcome : message.getRoot<proto::Key::OpenResults>().getOutcomes()) {
    ASSERT_TRUE(outcome.isRefused());
    EXPECT_EQ(outcome.getRefused(), Refusal::NOT_RECORDED);
  }
  for (const auto segment : message.getSegmentsForOutput()) {
    const auto bytes = segment.asBytes();
    EXPECT_FALSE(contains({reinterpret_cast<const char*>(bytes.begin()), bytes.size()}, secret.substr(0, 8)));
  }
  EXPECT_EQ(counters.refusals(Refusal::NOT_RECORDED), 3u);
}

}  // namespace
}  // namespace sallyport::vaultd
