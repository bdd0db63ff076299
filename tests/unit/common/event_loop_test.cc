// Goal: the loop keeps its promises: no event for who has left, nothing starves, no timer fires early, no turn is lost.
// Method: pipes and timers, and callbacks that remove, defer, yield, stop and throw.
#include "common/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <string>

#include <kj/debug.h>
#include <kj/io.h>

namespace sallyport {
namespace {

// A descriptor that is readable until it is read.
struct Bell final : EventLoop::Watcher {
  explicit Bell(std::function<void(uint32_t)> work) : onRing(std::move(work)) {}
  void onEvents(uint32_t events) override { onRing(events); }
  void ring() { EXPECT_EQ(eventfd_write(fd, 1), 0); }
  void read() {
    eventfd_t value;
    eventfd_read(fd, &value);
  }

  kj::AutoCloseFd fd{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  std::function<void(uint32_t)> onRing;
};

TEST(TheLoop, GivesNoEventOfTheBatchToAWatcherThatWasRemoved) {
  EventLoop loop;
  int calls = 0;
  Bell* bells[2];
  const auto removeTheOther = [&](size_t self) {
    ++calls;
    loop.remove(bells[1 - self]->fd, *bells[1 - self]);
    bells[self]->read();
  };
  Bell a([&](uint32_t) { removeTheOther(0); });
  Bell b([&](uint32_t) { removeTheOther(1); });
  bells[0] = &a;
  bells[1] = &b;
  loop.add(a.fd, EPOLLIN, a);
  loop.add(b.fd, EPOLLIN, b);
  a.ring();
  b.ring();
  loop.turn(0);
  EXPECT_EQ(calls, 1);
  loop.turn(0);
  EXPECT_EQ(calls, 1);
}

TEST(TheLoop, GivesNoEventToAWatcherThatRemovesItself) {
  EventLoop loop;
  int calls = 0;
  Bell bell([&](uint32_t) {
    ++calls;
    loop.remove(bell.fd, bell);
  });
  loop.add(bell.fd, EPOLLIN, bell);
  bell.ring();
  loop.turn(0);
  loop.turn(0);
  EXPECT_EQ(calls, 1);
}

TEST(TheLoop, RemovesADescriptorThatIsAlreadyClosed) {
  EventLoop loop;
  Bell bell([](uint32_t) { ADD_FAILURE(); });
  loop.add(bell.fd, EPOLLIN, bell);
  const int number = bell.fd;
  bell.fd = nullptr;
  loop.remove(number, bell);
  loop.turn(0);
}

TEST(TheLoop, RepeatsALevelAndTellsAnEdgeOnce) {
  EventLoop loop;
  int level = 0, edge = 0;
  Bell a([&](uint32_t) { ++level; });
  Bell b([&](uint32_t) { ++edge; });
  loop.add(a.fd, EPOLLIN, a);
  loop.add(b.fd, EPOLLIN | EPOLLET, b);
  a.ring();
  b.ring();
  for (int i = 0; i < 3; ++i) loop.turn(0);
  EXPECT_EQ(level, 3);
  EXPECT_EQ(edge, 1);
  loop.modify(a.fd, 0, a);
  loop.turn(0);
  EXPECT_EQ(level, 3);
}

TEST(TheLoop, TakesNoDescriptorTwiceAndNoneThatIsClosed) {
  EventLoop loop;
  Bell bell([](uint32_t) {});
  loop.add(bell.fd, EPOLLIN, bell);
  EXPECT_THROW(loop.add(bell.fd, EPOLLIN, bell), kj::Exception);
  EXPECT_THROW(loop.add(-1, EPOLLIN, bell), kj::Exception);
  EXPECT_THROW(loop.modify(-1, EPOLLIN, bell), kj::Exception);
}

TEST(TheLoop, RunsDeferredWorkInOrderAndBeforeItSleeps) {
  EventLoop loop;
  std::string order;
  Bell bell([&](uint32_t) {
    bell.read();
    order += 'e';
    loop.defer([&] {
      order += '1';
      loop.defer([&] { order += '3'; });
    });
    loop.defer([&] { order += '2'; });
  });
  loop.add(bell.fd, EPOLLIN, bell);
  bell.ring();
  loop.turn(0);
  EXPECT_EQ(order, "e123");
}

TEST(TheLoop, RunsDeferredWorkAndPromisesUntilNeitherIsLeft) {
  EventLoop loop;
  std::string order;
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto waiting = paf.promise
                     .then([&] {
                       order += 'p';
                       loop.defer([&] { order += 'd'; });
                     })
                     .eagerlyEvaluate(nullptr);
  loop.defer([&] { paf.fulfiller->fulfill(); });
  loop.turn(0);
  EXPECT_EQ(order, "pd");
}

TEST(TheLoop, LetsEventsInBetweenWorkThatYieldsAgainAndAgain) {
  EventLoop loop;
  std::string order;
  Bell bell([&](uint32_t) {
    bell.read();
    order += 'e';
  });
  loop.add(bell.fd, EPOLLIN, bell);
  int left = 3;
  std::function<void()> work = [&] {
    order += 'y';
    bell.ring();
    if (--left > 0) loop.yield(work);
  };
  loop.yield(work);
  for (int i = 0; i < 4; ++i) loop.turn(0);
  EXPECT_EQ(order, "yeyeye");
}

TEST(TheLoop, DoesNotSleepWhileYieldedWorkWaits) {
  EventLoop loop;
  bool ran = false;
  loop.yield([&] { ran = true; });
  loop.turn(-1);  // would hang otherwise
  EXPECT_TRUE(ran);
}

TEST(TheLoop, FiresNoTimerEarlyAndAllInOrder) {
  EventLoop loop;
  std::string order;
  const auto start = std::chrono::steady_clock::now();
  auto late = loop.timer().afterDelay(30 * kj::MILLISECONDS).then([&] { order += '2'; }).eagerlyEvaluate(nullptr);
  auto soon = loop.timer().afterDelay(5 * kj::MILLISECONDS).then([&] { order += '1'; }).eagerlyEvaluate(nullptr);
  int turns = 0;
  while (order.size() < 2 && turns < 100) {
    loop.turn();
    ++turns;
  }
  EXPECT_EQ(order, "12");
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(30));
  EXPECT_LT(turns, 10);  // it slept, it didn't spin
}

TEST(TheLoop, ForgetsATimerWhosePromiseIsGone) {
  EventLoop loop;
  bool fired = false;
  {
    auto timer = loop.timer().afterDelay(1 * kj::MILLISECONDS).then([&] { fired = true; }).eagerlyEvaluate(nullptr);
  }
  loop.await(loop.timer().afterDelay(10 * kj::MILLISECONDS));
  EXPECT_FALSE(fired);
}

TEST(TheLoop, CountsADelayFromTheEventThatAskedForIt) {
  EventLoop loop;
  kj::TimePoint asked = loop.now(), fired = asked;
  kj::Promise<void> timer = nullptr;
  Bell bell([&](uint32_t) {
    bell.read();
    asked = loop.now();
    timer = loop.timer().afterDelay(20 * kj::MILLISECONDS).then([&] { fired = loop.now(); }).eagerlyEvaluate(nullptr);
  });
  loop.add(bell.fd, EPOLLIN, bell);
  usleep(30000);  // the loop's last idea of the time is old when the event comes
  bell.ring();
  for (int i = 0; i < 20 && fired <= asked; ++i) loop.turn(100);
  EXPECT_GE(fired - asked, 20 * kj::MILLISECONDS);
}

TEST(TheLoop, AwaitsAValueAndThrowsAFailure) {
  EventLoop loop;
  EXPECT_EQ(loop.await(kj::Promise<int>(5)), 5);
  EXPECT_EQ(loop.await(loop.timer().afterDelay(1 * kj::MILLISECONDS).then([] { return 6; })), 6);
  loop.await(kj::Promise<void>(kj::READY_NOW));
  EXPECT_THROW(loop.await(kj::Promise<int>(KJ_EXCEPTION(FAILED, "no"))), kj::Exception);
  EXPECT_THROW(loop.await(kj::Promise<void>(KJ_EXCEPTION(FAILED, "no"))), kj::Exception);
  EXPECT_THROW(loop.await(kj::evalLater([]() -> int { KJ_FAIL_REQUIRE("later"); })), kj::Exception);
}

TEST(TheLoop, RunsUntilItIsStopped) {
  EventLoop loop;
  int turns = 0;
  std::function<void()> again = [&] {
    if (++turns == 3) return loop.stop();
    loop.yield(again);
  };
  loop.yield(again);
  loop.run();
  EXPECT_EQ(turns, 3);
  loop.defer([&] { loop.stop(); });
  loop.run();  // a stop is not remembered
}

TEST(SignalsAsEvents, ArriveInTheLoopAndNowhereElse) {
  EventLoop loop;
  int got = 0;
  {
    SignalWatcher watcher(loop, {SIGUSR1, SIGUSR2}, [&](int signal) { got = signal; });
    raise(SIGUSR2);
    EXPECT_EQ(got, 0);
    loop.turn(0);
    EXPECT_EQ(got, SIGUSR2);
    raise(SIGUSR1);
    loop.turn(0);
    EXPECT_EQ(got, SIGUSR1);
  }
  got = 0;
  loop.turn(0);
  EXPECT_EQ(got, 0);
}

}  // namespace
}  // namespace sallyport
