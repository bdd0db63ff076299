// period_timer.cc - see period_timer.h.
#include "netd/period_timer.h"

#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <kj/debug.h>

namespace sallyport::netd {

PeriodTimer::PeriodTimer(EventLoop& loop, uint32_t periodMs, std::function<void(uint64_t)> onPeriods)
    : loop_(loop), onPeriods_(std::move(onPeriods)) {
  int fd;
  KJ_SYSCALL(fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC));
  fd_ = kj::AutoCloseFd(fd);
  const timespec period{.tv_sec = periodMs / 1000, .tv_nsec = static_cast<long>(periodMs % 1000) * 1'000'000};
  const itimerspec times{.it_interval = period, .it_value = period};
  KJ_SYSCALL(timerfd_settime(fd_, 0, &times, nullptr));
  loop_.add(fd_, EPOLLIN, *this);
}

PeriodTimer::~PeriodTimer() { loop_.remove(fd_, *this); }

void PeriodTimer::onEvents(uint32_t) {
  uint64_t periods = 0;
  if (read(fd_, &periods, sizeof periods) == sizeof periods) onPeriods_(periods);
}

}  // namespace sallyport::netd
