// event_loop.cc - see event_loop.h.
#include "common/event_loop.h"

#include <signal.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include <kj/debug.h>
#include <kj/exception.h>

namespace sallyport {

namespace {

constexpr size_t BATCH_EVENTS = 256;

kj::TimePoint monotonicNow() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return kj::origin<kj::TimePoint>() + now.tv_sec * kj::SECONDS + now.tv_nsec * kj::NANOSECONDS;
}

}  // namespace

EventLoop::EventLoop() : waitScope_(kjLoop_), now_(monotonicNow()), timer_(now_), batch_(BATCH_EVENTS) {
  KJ_SYSCALL(epollFd_ = epoll_create1(EPOLL_CLOEXEC));
}

EventLoop::~EventLoop() noexcept(false) { close(epollFd_); }

void EventLoop::add(int fd, uint32_t events, Watcher& watcher) {
  epoll_event event{.events = events, .data = {.ptr = &watcher}};
  KJ_SYSCALL(epoll_ctl(epollFd_, EPOLL_CTL_ADD, fd, &event));
}

void EventLoop::modify(int fd, uint32_t events, Watcher& watcher) {
  epoll_event event{.events = events, .data = {.ptr = &watcher}};
  KJ_SYSCALL(epoll_ctl(epollFd_, EPOLL_CTL_MOD, fd, &event));
}

void EventLoop::remove(int fd, Watcher& watcher) {
  epoll_ctl(epollFd_, EPOLL_CTL_DEL, fd, nullptr);
  for (size_t i = batchNext_; i < batchSize_; ++i) {
    if (batch_[i].data.ptr == &watcher) batch_[i].data.ptr = nullptr;
  }
}

void EventLoop::defer(std::function<void()> work) { deferred_.push_back(std::move(work)); }

void EventLoop::yield(std::function<void()> work) { yielded_.push_back(std::move(work)); }

uint64_t EventLoop::nowMs() const {
  return static_cast<uint64_t>((now_ - kj::origin<kj::TimePoint>()) / kj::MILLISECONDS);
}

void EventLoop::runQueues() {
  // Work may make promises runnable, and promises may defer work: until both are empty.
  for (;;) {
    if (kjLoop_.isRunnable()) kjLoop_.run();
    if (deferred_.empty()) return;
    std::vector<std::function<void()>> work;
    work.swap(deferred_);
    for (auto& item : work) item();
  }
}

void EventLoop::turn(int maxSleepMs) {
  runQueues();
  int sleepMs = maxSleepMs;
  if (stopped_ || !yielded_.empty()) sleepMs = 0;
  KJ_IF_MAYBE (next, timer_.nextEvent()) {
    // Rounded up: a timer that fires early would spin.
    auto wait = *next > now_ ? *next - now_ : 0 * kj::MILLISECONDS;
    auto ms = static_cast<int64_t>((wait + 999999 * kj::NANOSECONDS) / kj::MILLISECONDS);
    int capped = static_cast<int>(std::min<int64_t>(ms, 3600 * 1000));
    sleepMs = sleepMs < 0 ? capped : std::min(sleepMs, capped);
  }
  int count = epoll_wait(epollFd_, batch_.data(), static_cast<int>(batch_.size()), sleepMs);
  if (count < 0) {
    KJ_REQUIRE(errno == EINTR, "epoll_wait failed");
    count = 0;
  }
  now_ = monotonicNow();
  // Before the events: a delay that a watcher asks for counts from now, not from before the sleep.
  timer_.advanceTo(now_);
  batchSize_ = static_cast<size_t>(count);
  for (batchNext_ = 0; batchNext_ < batchSize_;) {
    const epoll_event event = batch_[batchNext_++];
    if (event.data.ptr != nullptr) static_cast<Watcher*>(event.data.ptr)->onEvents(event.events);
  }
  batchSize_ = 0;
  std::vector<std::function<void()>> yielded;
  yielded.swap(yielded_);
  for (auto& work : yielded) work();
  runQueues();
}

void EventLoop::run() {
  stopped_ = false;
  while (!stopped_) turn();
}

void EventLoop::await(kj::Promise<void> promise) {
  await(promise.then([] { return true; }));
}

SignalWatcher::SignalWatcher(EventLoop& loop, std::vector<int> signals, std::function<void(int)> onSignal)
    : loop_(loop), onSignal_(std::move(onSignal)) {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : signals) sigaddset(&set, signal);
  KJ_SYSCALL(sigprocmask(SIG_BLOCK, &set, nullptr));
  KJ_SYSCALL(fd_ = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
  loop_.add(fd_, EPOLLIN, *this);
}

SignalWatcher::~SignalWatcher() {
  loop_.remove(fd_, *this);
  close(fd_);
}

void SignalWatcher::onEvents(uint32_t) {
  signalfd_siginfo info;
  while (read(fd_, &info, sizeof info) == sizeof info) onSignal_(static_cast<int>(info.ssi_signo));
}

}  // namespace sallyport
