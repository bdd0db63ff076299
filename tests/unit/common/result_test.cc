// Goal: a Result is either a value or a refusal, and asking for the one that isn't there ends the process.
// Method: both kinds with values, move-only values and no value at all; the wrong question in a death test.
#include "common/result.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace sallyport {
namespace {

Result<int, std::string> half(int number) {
  if (number % 2 != 0) return refuse("odd");
  return number / 2;
}

Result<void, int> check(bool good) {
  if (!good) return refuse(7);
  return {};
}

TEST(AResult, HoldsAValueOrTheReasonWhyNot) {
  ASSERT_TRUE(half(4).has_value());
  EXPECT_EQ(*half(4), 2);
  ASSERT_FALSE(half(5));
  EXPECT_EQ(half(5).error(), "odd");
}

TEST(AResult, OfAReasonThatIsAlsoAValueKeepsThemApart) {
  Result<int, int> value = 3;
  Result<int, int> reason = refuse(3);
  EXPECT_TRUE(value.has_value());
  EXPECT_FALSE(reason.has_value());
  EXPECT_EQ(reason.error(), 3);
}

TEST(AResult, GivesAwayAMoveOnlyValue) {
  Result<std::unique_ptr<int>, int> result = std::make_unique<int>(5);
  ASSERT_TRUE(result);
  const std::unique_ptr<int> taken = *std::move(result);
  EXPECT_EQ(*taken, 5);
}

TEST(AResult, OfNothingIsDoneOrRefused) {
  EXPECT_TRUE(check(true).has_value());
  EXPECT_FALSE(check(false));
  EXPECT_EQ(check(false).error(), 7);
}

TEST(AResultDeathTest, DoesNotMakeUpAValue) {
  auto refused = half(1);
  const auto& constant = refused;
  EXPECT_DEATH(static_cast<void>(*refused), "invariant broken");
  EXPECT_DEATH(static_cast<void>(*constant), "invariant broken");
  EXPECT_DEATH(static_cast<void>(half(3).value()), "invariant broken");
}

TEST(AResultDeathTest, DoesNotMakeUpAReason) {
  EXPECT_DEATH(static_cast<void>(half(2).error()), "invariant broken");
  EXPECT_DEATH(static_cast<void>(check(true).error()), "invariant broken");
}

}  // namespace
}  // namespace sallyport
