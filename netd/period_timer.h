// period_timer.h - a period that goes on while the machine sleeps. Part of: netd (monitor).
// Keys that must be gone after a time must be gone when a suspended machine wakes up; the loop's own timers stand still
// with CLOCK_MONOTONIC.
#pragma once

#include <cstdint>
#include <functional>

#include <kj/io.h>

#include "common/event_loop.h"

namespace sallyport::netd {

class PeriodTimer final : EventLoop::Watcher {
 public:
  // `onPeriods` hears how many have passed since the last time: after a sleep more than one. Construct before
  // lock-down. Throws kj::Exception.
  PeriodTimer(EventLoop& loop, uint32_t periodMs, std::function<void(uint64_t)> onPeriods);
  ~PeriodTimer();

 private:
  void onEvents(uint32_t events) override;

  EventLoop& loop_;
  kj::AutoCloseFd fd_;
  std::function<void(uint64_t)> onPeriods_;
};

}  // namespace sallyport::netd
