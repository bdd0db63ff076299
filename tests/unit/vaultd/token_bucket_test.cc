// Goal: never more than the rate, whatever the clock does.
// Method: times by hand.
#include "vaultd/token_bucket.h"

#include <gtest/gtest.h>

namespace sallyport::vaultd {
namespace {

int takeAll(TokenBucket& bucket, uint64_t nowMs) {
  int taken = 0;
  while (bucket.take(nowMs)) ++taken;
  return taken;
}

TEST(TokenBucket, StartsWithASecondsWorth) {
  TokenBucket bucket(100, 5000);
  EXPECT_EQ(takeAll(bucket, 5000), 100);
  EXPECT_FALSE(bucket.take(5000));
}

TEST(TokenBucket, FillsInProportionToTime) {
  TokenBucket bucket(100, 0);
  takeAll(bucket, 0);
  EXPECT_EQ(takeAll(bucket, 9), 0);
  EXPECT_EQ(takeAll(bucket, 10), 1);
  EXPECT_EQ(takeAll(bucket, 260), 25);
}

TEST(TokenBucket, NeverHoldsMoreThanASecondsWorth) {
  TokenBucket bucket(100, 0);
  takeAll(bucket, 0);
  EXPECT_EQ(takeAll(bucket, UINT64_MAX / 2), 100);
}

TEST(TokenBucket, TimeThatStandsStillOrGoesBackGivesNothing) {
  TokenBucket bucket(10, 1000);
  takeAll(bucket, 1000);
  EXPECT_EQ(takeAll(bucket, 1000), 0);
  EXPECT_EQ(takeAll(bucket, 0), 0);
}

TEST(TokenBucket, TellsWhatTheLastWholeSecondTook) {
  TokenBucket bucket(5, 10'000);
  EXPECT_EQ(bucket.lastSecond(10'000), 0u);
  EXPECT_TRUE(bucket.take(10'000, 2));
  EXPECT_TRUE(bucket.take(10'999));
  EXPECT_EQ(bucket.lastSecond(10'999), 0u) << "this second isn't over";
  EXPECT_EQ(bucket.lastSecond(11'000), 3u);
  EXPECT_EQ(takeAll(bucket, 11'500), 5) << "what is refused isn't taken";
  EXPECT_EQ(bucket.lastSecond(11'999), 3u);
  EXPECT_EQ(bucket.lastSecond(12'000), 5u);
  EXPECT_EQ(bucket.lastSecond(13'000), 0u);
  EXPECT_TRUE(bucket.take(20'000));
  EXPECT_EQ(bucket.lastSecond(20'500), 0u) << "an older second is forgotten";
}

TEST(TokenBucket, ALowerRateTakesEffectAtOnce) {
  TokenBucket bucket(1000, 0);
  bucket.setRate(2);
  EXPECT_EQ(takeAll(bucket, 0), 2);
  EXPECT_EQ(takeAll(bucket, 1000), 2);
}

TEST(TokenBucket, TheHighestRateDoesNotOverflow) {
  TokenBucket bucket(UINT32_MAX, 0);
  EXPECT_TRUE(bucket.take(UINT64_MAX));
}

}  // namespace
}  // namespace sallyport::vaultd
