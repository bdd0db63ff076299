// Goal: too many failed opens in a window stop that caller's opens for the pause, nobody else's, in bounded memory.
// Method: time comes in.
#include "vaultd/breaker.h"

#include <gtest/gtest.h>

namespace sallyport::vaultd {
namespace {

const Caller A{"main", 1, {}};
const Caller B{"main", 2, {}};
const Caller ELSEWHERE{"side", 1, {}};

TEST(Breakers, OpenAtTheLimitForThePauseAndForThatCallerAlone) {
  Breakers breakers;
  breakers.setRule({3, 1000, 5000});
  EXPECT_FALSE(breakers.failed(A, 0));
  EXPECT_FALSE(breakers.failed(A, 1));
  EXPECT_FALSE(breakers.isOpen(A, 1));
  EXPECT_TRUE(breakers.failed(A, 2));
  EXPECT_TRUE(breakers.isOpen(A, 2));
  EXPECT_FALSE(breakers.isOpen(B, 2));
  EXPECT_FALSE(breakers.isOpen(ELSEWHERE, 2));
  EXPECT_EQ(breakers.openNow(2), 1u);
  EXPECT_TRUE(breakers.isOpen(A, 5001));
  EXPECT_FALSE(breakers.isOpen(A, 5002));
  EXPECT_FALSE(breakers.failed(A, 5003)) << "it counts from the beginning";
}

TEST(Breakers, AWindowForgets) {
  Breakers breakers;
  breakers.setRule({3, 1000, 5000});
  for (uint64_t now = 0; now < 20000; now += 600) EXPECT_FALSE(breakers.failed(A, now));
}

TEST(Breakers, ZeroMeansNone) {
  Breakers breakers;
  breakers.setRule({0, 1000, 5000});
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(breakers.failed(A, 1));
}

TEST(Breakers, RememberAsManyCallersAsTheyMayAndKeepThoseThatAreOpen) {
  Breakers breakers;
  breakers.setRule({2, 1000, 500000});
  breakers.failed(A, 0);
  EXPECT_TRUE(breakers.failed(A, 0));
  for (uid_t uid = 10; uid < 10 + 3 * Breakers::MAX_CALLERS; ++uid) breakers.failed({"main", uid, {}}, uid);
  EXPECT_TRUE(breakers.isOpen(A, 4000));
}

}  // namespace
}  // namespace sallyport::vaultd
