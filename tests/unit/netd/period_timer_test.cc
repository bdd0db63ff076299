// Goal: no period is lost, also when nobody could listen for a while, as in a machine that sleeps.
// Method: the kernel's own word for the clock; a loop that doesn't turn.
#include "netd/period_timer.h"

#include <gtest/gtest.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace sallyport::netd {
namespace {

TEST(APeriodTimer, ReportsPeriodsThatPassedWhileNobodyListened) {
  EventLoop loop;
  uint64_t periods = 0;
  int calls = 0;
  const PeriodTimer timer(loop, 10, [&](uint64_t passed) {
    periods += passed;
    ++calls;
  });
  const timespec nap{.tv_sec = 0, .tv_nsec = 50'000'000};
  nanosleep(&nap, nullptr);
  loop.turn(0);
  EXPECT_EQ(calls, 1);
  EXPECT_GE(periods, 5u);
  while (calls < 3) loop.turn();  // and it goes on
}

TEST(APeriodTimer, CountsTheTimeThatTheMachineSleeps) {
  EventLoop loop;
  const PeriodTimer timer(loop, 1000, [](uint64_t) {});
  std::string clocks;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    if (const size_t at = text.str().find("clockid: "); at != std::string::npos) clocks += text.str().substr(at, 10);
  }
  EXPECT_EQ(clocks, "clockid: " + std::to_string(CLOCK_BOOTTIME));
}

}  // namespace
}  // namespace sallyport::netd
