// Goal: links share bytes and turns by users: who takes too much is the one who loses, and nobody waits for a crowd.
// Method: holders without sockets on a real loop.
#include "common/link_budget.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>

namespace sallyport {
namespace {

constexpr uid_t ALICE = 1, MALLORY = 2;
constexpr size_t ROOM = 10 * LinkBudget::LINK_BYTES;

class Shared : public testing::Test {
 protected:
  ~Shared() noexcept override {}  // the loop's may throw, in theory

  struct Holder final : LinkBudget::Holder {
    explicit Holder(Shared& shared, uid_t uid) : test(shared) { test.budget.add(*this, uid); }
    ~Holder() { test.budget.remove(*this); }
    void overBudget() override { cutOff = true; }
    void yourTurn() override {
      ++handled;
      --messages;
      handle();
    }
    // As a link does: one message after the other, as long as it may.
    void handle() {
      while (messages > 0 && test.budget.takeTurn(*this)) {
        ++handled;
        --messages;
      }
    }
    Shared& test;
    bool cutOff = false;
    unsigned messages = 0;
    unsigned handled = 0;
  };
  Holder& holder(uid_t uid) { return holders.emplace_back(*this, uid); }

  EventLoop loop;
  LinkBudget budget{loop, ROOM};
  std::list<Holder> holders;
};

TEST_F(Shared, CountWhatALinkCostsAndHolds) {
  Holder& one = holder(ALICE);
  EXPECT_EQ(budget.held(), LinkBudget::LINK_BYTES);
  budget.holds(one, 100);
  EXPECT_EQ(budget.held(), LinkBudget::LINK_BYTES + 100);
  budget.holds(one, 40);
  EXPECT_EQ(budget.held(), LinkBudget::LINK_BYTES + 40);
  holders.clear();
  EXPECT_EQ(budget.held(), 0u);
}

TEST_F(Shared, TakeFromTheUserWhoHoldsMostAndNotFromTheLargestLink) {
  Holder& good = holder(ALICE);
  budget.holds(good, 2 * LinkBudget::LINK_BYTES);  // the largest of all
  std::vector<Holder*> bad;
  for (int i = 0; i < 8; ++i) bad.push_back(&holder(MALLORY));
  budget.holds(*bad[3], 100);
  EXPECT_FALSE(bad[3]->cutOff) << "not within the call that is one too much";
  loop.turn(0);
  EXPECT_FALSE(good.cutOff);
  EXPECT_TRUE(bad[3]->cutOff) << "its largest";
  EXPECT_EQ(std::ranges::count_if(bad, [](const Holder* each) { return each->cutOff; }), 1)
      << "and no more than needed";
  EXPECT_LE(budget.held(), ROOM);
}

TEST_F(Shared, TakeFromAUserAloneToo) {
  for (int i = 0; i < 15; ++i) holder(MALLORY);
  loop.turn(0);
  EXPECT_EQ(std::ranges::count_if(holders, [](const Holder& each) { return each.cutOff; }), 5);
}

TEST_F(Shared, GiveAUserItsTurnWhateverACrowdHasToSay) {
  std::vector<Holder*> crowd;
  for (int i = 0; i < 5; ++i) {
    crowd.push_back(&holder(MALLORY));
    crowd.back()->messages = 20;
    crowd.back()->handle();
  }
  const auto handled = [&] {
    unsigned count = 0;
    for (const Holder* each : crowd) count += each->handled;
    return count;
  };
  EXPECT_EQ(handled(), LinkBudget::TURN_MESSAGES);
  Holder& good = holder(ALICE);
  good.messages = 1;
  good.handle();
  EXPECT_EQ(good.handled, 1u) << "at once";
  unsigned turns = 0;
  for (unsigned before = handled(); before < 100; before = handled()) {
    loop.turn(0);
    ASSERT_LE(handled() - before, LinkBudget::TURN_MESSAGES);
    ASSERT_GT(handled(), before) << "nobody starves";
    ++turns;
  }
  EXPECT_GE(turns, 92 / LinkBudget::TURN_MESSAGES);
  for (const Holder* each : crowd) EXPECT_EQ(each->handled, 20u);
}

TEST_F(Shared, ForgetWhoLeavesWhileItWaits) {
  Holder& first = holder(MALLORY);
  first.messages = 20;
  first.handle();
  holder(MALLORY).messages = 20;
  holders.back().handle();
  holders.pop_back();
  for (int i = 0; i < 5; ++i) loop.turn(0);
  EXPECT_EQ(first.handled, 20u);
}

TEST_F(Shared, GiveMemoryBackToTheSystemWithoutEndingTheLoop) {
  budget.left();
  budget.left();
  loop.await(loop.timer().afterDelay(1200 * kj::MILLISECONDS));
  budget.left();
  loop.turn(0);
}

}  // namespace
}  // namespace sallyport
