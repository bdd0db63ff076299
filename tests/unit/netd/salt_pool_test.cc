// Goal: salts that were drawn ahead are given out once each, while they are young, and as many are kept as are used.
// Method: numbers in place of salts, a clock by hand.
#include "netd/salt_pool.h"

#include <gtest/gtest.h>

#include <set>

namespace sallyport::netd {
namespace {

constexpr uint64_t LIFE_MS = 1000;

class ASaltPool : public testing::Test {
 protected:
  // The vault answers all that is missing. How many that were.
  size_t fill() {
    const size_t missing = pool.missing();
    for (size_t i = 0; i < missing; ++i) pool.asked();
    for (size_t i = 0; i < missing; ++i) pool.answered(next++, nowMs);
    return missing;
  }
  std::optional<int> take() { return pool.take(nowMs, LIFE_MS); }

  SaltPool<int> pool;
  uint64_t nowMs = 5000;
  int next = 0;
};

TEST_F(ASaltPool, WantsNothingBeforeItsFirstUse) {
  EXPECT_EQ(pool.missing(), 0u);
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(pool.missing(), 1u);
}

TEST_F(ASaltPool, GivesEachOutOnceAndTheOldestFirst) {
  std::set<int> seen;
  int last = -1;
  for (int i = 0; i < 500; ++i) {
    if (const auto salt = take()) {
      EXPECT_TRUE(seen.insert(*salt).second);
      EXPECT_GT(*salt, last);
      last = *salt;
    }
    fill();
  }
  EXPECT_GE(seen.size(), 490u);
}

TEST_F(ASaltPool, GrowsWhenItWasEmptyAndNotBeyondItsBound) {
  std::vector<size_t> asked;
  for (int i = 0; i < 8; ++i) {
    while (take()) {}
    asked.push_back(fill());
  }
  EXPECT_EQ(asked, (std::vector<size_t>{1, 2, 4, 8, 16, 32, 32, 32}));
}

TEST_F(ASaltPool, AsksInBatches) {
  for (int i = 0; i < 8; ++i) {
    while (take()) {}
    fill();
  }
  ASSERT_EQ(pool.size(), SaltPool<int>::MAX_AHEAD);
  for (int i = 0; i < 15; ++i) {
    ASSERT_TRUE(take());
    EXPECT_EQ(pool.missing(), 0u) << i;
  }
  ASSERT_TRUE(take());
  EXPECT_EQ(pool.missing(), 16u);
}

TEST_F(ASaltPool, DoesNotAskAgainForWhatIsOnItsWay) {
  EXPECT_EQ(take(), std::nullopt);
  pool.asked();
  EXPECT_EQ(pool.missing(), 0u);
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(pool.missing(), 1u) << "two are wanted now";
}

TEST_F(ASaltPool, GivesOutNoneThatIsOld) {
  EXPECT_EQ(take(), std::nullopt);
  fill();
  nowMs += LIFE_MS;
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(pool.size(), 0u);
}

TEST_F(ASaltPool, AgeCountsFromWhenItWasAskedFor) {
  EXPECT_EQ(take(), std::nullopt);
  pool.asked();
  nowMs += LIFE_MS - 1;
  pool.answered(1, nowMs - (LIFE_MS - 1));
  nowMs += 1;
  EXPECT_EQ(take(), std::nullopt);
}

TEST_F(ASaltPool, ShrinksWhenSaltsGrowOldInIt) {
  for (int i = 0; i < 8; ++i) {
    while (take()) {}
    fill();
  }
  nowMs += LIFE_MS;
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(pool.missing(), 1u) << "as at the first use";
}

TEST_F(ASaltPool, WantsNoMoreWhenTheVaultRefuses) {
  while (take()) {}
  fill();
  EXPECT_TRUE(take());
  ASSERT_EQ(pool.missing(), 1u);
  pool.asked();
  pool.answered(std::nullopt, nowMs);
  EXPECT_EQ(pool.missing(), 0u);
  EXPECT_EQ(take(), std::nullopt);
  EXPECT_EQ(pool.missing(), 1u) << "until the next use";
}

}  // namespace
}  // namespace sallyport::netd
