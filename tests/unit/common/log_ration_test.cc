// Goal: whoever causes lines of the log can't flood it, and none is lost without being counted. Method: times given.
#include "common/log_ration.h"

#include <gtest/gtest.h>

namespace sallyport {
namespace {

TEST(LogRation, TheFirstLineComesAtOnceAndNoOtherInItsPeriod) {
  LogRation ration;
  EXPECT_EQ(ration.take(5000), "");
  EXPECT_EQ(ration.take(5000), std::nullopt);
  EXPECT_EQ(ration.take(5999), std::nullopt);
}

TEST(LogRation, TheNextLineCountsThoseLeftOut) {
  LogRation ration;
  EXPECT_EQ(ration.take(0), "");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ration.take(static_cast<uint64_t>(i)), std::nullopt);
  EXPECT_EQ(ration.take(1000), " unlogged=100");
  EXPECT_EQ(ration.take(1500), std::nullopt);
  EXPECT_EQ(ration.take(90'000), " unlogged=1");
  EXPECT_EQ(ration.take(91'000), "");
}

}  // namespace
}  // namespace sallyport
