// event_loop.h - the one loop of every daemon: epoll, timers, and KJ's promises riding on top. Part of: common (any
// process).
//
// Why not kj::setupAsyncIo(): its streams cost a heap-allocated promise per read and write, an eventfd and a signalfd,
// and the system calls of all of them widen every sandbox. Here file descriptors report straight to a Watcher (an
// epoll_wait and an indirect call), and after each batch of events KJ's queue is run until it is empty. So sans-IO
// machines and sockets pay nothing for promises, RPC works unchanged (common/link.h is our own MessageStream), and a
// daemon that serves needs just epoll_wait, epoll_ctl, read, write and close.
//
// One loop per thread, one thread per process. Everything happens on it. Nothing here may run before sandbox::lockDown
// has returned except construction and add().
#pragma once

#include <sys/epoll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <kj/async.h>
#include <kj/timer.h>

namespace sallyport {

class EventLoop {
 public:
  // Gets the events of one file descriptor. Must outlive its registration: call remove() before it dies.
  class Watcher {
   public:
    virtual void onEvents(uint32_t epollEvents) = 0;

   protected:
    ~Watcher() = default;
  };

  EventLoop();
  ~EventLoop() noexcept(false);
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // `events` is a set of EPOLLIN, EPOLLOUT, ... ; level-triggered unless it holds EPOLLET. Throws kj::Exception on
  // failure.
  void add(int fd, uint32_t events, Watcher& watcher);
  void modify(int fd, uint32_t events, Watcher& watcher);
  // After this no event of the batch at hand reaches the watcher any more. The descriptor stays open.
  void remove(int fd, Watcher& watcher);

  // Runs `work` once, after the events and promises of this turn and before the loop sleeps.
  void defer(std::function<void()> work);

  // Runs `work` once after the events of the batch at hand, or of the next: for work that could go on for ever and must
  // let others in. What is yielded by yielded work waits for another batch.
  void yield(std::function<void()> work);

  // Monotonic time as of this turn: cheap, and the same for all that happens in the turn.
  kj::TimePoint now() const { return now_; }
  uint64_t nowMs() const;
  // Promise timers, e.g. loop.timer().afterDelay(5 * kj::SECONDS).
  kj::Timer& timer() { return timer_; }

  // One turn: promises, deferred work, then at most one epoll_wait that sleeps no longer than `maxSleepMs` (-1: until
  // something happens).
  void turn(int maxSleepMs = -1);
  // Turns until stop().
  void run();
  void stop() { stopped_ = true; }

  // Turns until the promise is done; for programs (CLI, tests), never inside a callback.
  template <typename T>
  T await(kj::Promise<T> promise) {
    std::optional<T> result;
    kj::Maybe<kj::Exception> failure;
    bool done = false;
    auto task = promise
                    .then(
                        [&](T&& value) {
                          result = kj::mv(value);
                          done = true;
                        },
                        [&](kj::Exception&& e) {
                          failure = kj::mv(e);
                          done = true;
                        })
                    .eagerlyEvaluate(nullptr);
    runQueues();  // what needs no event is done before the first sleep
    while (!done) turn();
    KJ_IF_MAYBE (e, failure) { kj::throwFatalException(kj::mv(*e)); }
    return kj::mv(*result);
  }
  void await(kj::Promise<void> promise);

 private:
  void runQueues();

  int epollFd_;
  kj::EventLoop kjLoop_;
  kj::WaitScope waitScope_;
  kj::TimePoint now_;
  kj::TimerImpl timer_;
  std::vector<std::function<void()>> deferred_;
  std::vector<std::function<void()>> yielded_;
  std::vector<epoll_event> batch_;
  size_t batchSize_ = 0;
  size_t batchNext_ = 0;
  bool stopped_ = false;
};

// Signals as events: blocks them for the process and reports each through `onSignal`. Construct before lock-down.
class SignalWatcher final : EventLoop::Watcher {
 public:
  SignalWatcher(EventLoop& loop, std::vector<int> signals, std::function<void(int)> onSignal);
  ~SignalWatcher();

 private:
  void onEvents(uint32_t events) override;

  EventLoop& loop_;
  int fd_;
  std::function<void(int)> onSignal_;
};

}  // namespace sallyport
