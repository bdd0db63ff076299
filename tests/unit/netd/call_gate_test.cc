// call_gate_test.cc - Goal: however many connections ask, a bounded number of calls is with the vault, each that is
// still wanted gets its turn in order, and those that aren't cost nothing.
#include "netd/call_gate.h"

#include <gtest/gtest.h>

#include <vector>

#include "common/link.h"

namespace sallyport::netd {
namespace {

TEST(CallGate, HasFewerUnderWayThanTheVaultAllows) {
  static_assert(CallGate::MOST + 64 < LinkLimits{}.maxOpenQuestions);
  CallGate gate;
  const auto wanted = std::make_shared<bool>();
  std::vector<size_t> started;
  for (size_t i = 0; i < 1000; ++i) gate.enter(wanted, [&started, i] { started.push_back(i); });
  EXPECT_EQ(started.size(), CallGate::MOST);
  for (size_t i = 0; i < 1000; ++i) {
    EXPECT_LE(gate.underWay(), CallGate::MOST);
    gate.leave();
  }
  ASSERT_EQ(started.size(), 1000u);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(started[i], i);
  EXPECT_EQ(gate.underWay(), 0u);
}

TEST(CallGate, DoesNotStartWhatNobodyWantsAnyMore) {
  CallGate gate;
  const auto wanted = std::make_shared<bool>();
  for (size_t i = 0; i < CallGate::MOST; ++i) gate.enter(wanted, [] {});
  auto gone = std::make_shared<bool>();
  int started = 0;
  gate.enter(gone, [&started] { started += 100; });
  gate.enter(wanted, [&started] { ++started; });
  gone.reset();
  gate.leave();
  EXPECT_EQ(started, 1);
}

TEST(CallGate, DoesNotCollectThoseOfConnectionsThatAreGone) {
  CallGate gate;
  const auto wanted = std::make_shared<bool>();
  for (size_t i = 0; i < CallGate::MOST; ++i) gate.enter(wanted, [] {});
  for (int i = 0; i < 100'000; ++i) gate.enter(std::make_shared<bool>(), [] {});
  EXPECT_LT(gate.waiting(), 1000u);
}

}  // namespace
}  // namespace sallyport::netd
