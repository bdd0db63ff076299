// Goal: a worker that was taken over can't harm the monitor, nor the workers beside it or after it: whatever it says,
// however often, dead or alive, and whatever it did to the sockets it was lent.
// Method: a whole monitor whose workers are puppets of the test.
#include "tests/unit/netd/monitor_fixture.h"

#include <sys/eventfd.h>
#include <sys/resource.h>

namespace sallyport::netd {
namespace {

using test::openDescriptors;
using test::Puppet;
using test::Told;

class AMonitor : public test::MonitorTest {
 protected:
  // After its end: the monitor takes note, and starts another.
  Puppet successorOf(const Puppet& puppet) {
    EXPECT_TRUE(ends(puppet));
    monitor->onChildExit();
    Puppet next = nextWorker();
    EXPECT_NE(next.pid, puppet.pid);
    return next;
  }
  static size_t countOf(const std::vector<Told>& told, ControlKind kind) {
    return static_cast<size_t>(std::ranges::count_if(told, [kind](const Told& t) { return t.record.kind == kind; }));
  }
  static int fdOf(const std::vector<Told>& told, ControlKind kind) {
    for (const Told& each : told) {
      if (each.record.kind == kind && !each.fds.empty()) return each.fds.front().get();
    }
    return -1;
  }
  static uint32_t targetOf(const std::vector<Told>& told, ControlKind kind) {
    const auto found = std::ranges::find_if(told, [kind](const Told& t) { return t.record.kind == kind; });
    return found == told.end() ? 0 : found->record.target;
  }
};

// Does its work in the loop's order of events, like a signal.
class Bell final : EventLoop::Watcher {
 public:
  Bell(EventLoop& loop, std::function<void()> work)
      : loop_(loop), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), work_(std::move(work)) {
    loop_.add(fd_, EPOLLIN, *this);
  }
  ~Bell() { loop_.remove(fd_, *this); }
  void ring() { eventfd_write(fd_, 1); }

 private:
  void onEvents(uint32_t) override {
    eventfd_t ignored;
    eventfd_read(fd_, &ignored);
    work_();
  }
  EventLoop& loop_;
  kj::AutoCloseFd fd_;
  std::function<void()> work_;
};

constexpr auto LISTENERS = {ControlKind::WireListener, ControlKind::PlainListener, ControlKind::NetListener,
                            ControlKind::MetricsListener};
constexpr auto NO_RECORD = ControlKind(4711);

TEST_F(AMonitor, EquipsEachWorkerWithWhatItNeeds) {
  start(2);
  std::vector<size_t> pages;
  for (int i = 0; i < 2; ++i) {
    const auto told = equip(nextWorker());
    EXPECT_EQ(countOf(told, ControlKind::Config), 1u);
    EXPECT_EQ(countOf(told, ControlKind::CookieKey), 1u);
    EXPECT_EQ(countOf(told, ControlKind::VaultLink), 1u);
    EXPECT_EQ(countOf(told, ControlKind::WireListener), 1u);
    EXPECT_EQ(countOf(told, ControlKind::PlainListener), 1u);
    EXPECT_EQ(countOf(told, ControlKind::NetListener), countOf(told, ControlKind::Stats));
    EXPECT_EQ(countOf(told, ControlKind::MetricsListener), countOf(told, ControlKind::Stats));
    pages.push_back(countOf(told, ControlKind::Stats));
  }
  std::ranges::sort(pages);
  EXPECT_EQ(pages, (std::vector<size_t>{0, 1}));  // one worker serves programs
}

TEST_F(AMonitor, IgnoresWhatADeadWorkerStillHadToSay) {
  start();
  const Puppet puppet = nextWorker();
  equip(puppet);
  Bell sigchld(loop, [this] { monitor->onChildExit(); });
  sigchld.ring();  // its turn comes first: then the process id is nobody's any more
  for (int i = 0; i < 100; ++i) puppet.say({.kind = NO_RECORD});
  endNow(puppet);
  turns();  // we live: no signal went to process 0
  equip(nextWorker());
}

TEST_F(AMonitor, EndsAWorkerThatSaysWhatNoWorkerMay) {
  start();
  for (const ControlKind kind : {NO_RECORD, ControlKind::Config, ControlKind::Drain, ControlKind::Caller}) {
    const Puppet puppet = nextWorker();
    equip(puppet);
    EXPECT_FALSE(hasEnded(puppet));
    EXPECT_TRUE(puppet.say({.kind = kind}));
    EXPECT_TRUE(ends(puppet));
    monitor->onChildExit();
  }
}

TEST_F(AMonitor, AnswersQuestionsOfProgramsForTheWorkerThatServesThemAlone) {
  start(2);
  for (int i = 0; i < 2; ++i) {
    const Puppet puppet = nextWorker();
    const bool first = countOf(equip(puppet), ControlKind::Stats) == 1;
    EXPECT_TRUE(puppet.say({.kind = ControlKind::StatusRequest, .request = 5}));
    turns();
    if (!first) {
      EXPECT_TRUE(ends(puppet));
      continue;
    }
    const auto answer = puppet.hear();
    ASSERT_EQ(answer.size(), 1u);
    EXPECT_EQ(answer[0].record.kind, ControlKind::StatusReport);
    EXPECT_EQ(answer[0].record.request, 5u);
    EXPECT_FALSE(hasEnded(puppet));
  }
}

TEST_F(AMonitor, NamesWhoCallsAWorkerAndGivesTheSocketBack) {
  start();
  const Puppet puppet = nextWorker();
  equip(puppet);
  const size_t before = openDescriptors();
  {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const kj::AutoCloseFd caller(ends[0]);
    EXPECT_TRUE(puppet.say({.kind = ControlKind::WhoCalls, .target = 7}, {}, kj::AutoCloseFd(ends[1])));
    turns();
    const auto answer = puppet.hear();
    ASSERT_EQ(answer.size(), 1u);
    EXPECT_EQ(answer[0].record.kind, ControlKind::Caller);
    EXPECT_EQ(answer[0].record.target, 7u);
    EXPECT_EQ(answer[0].record.value, geteuid());
    ASSERT_EQ(answer[0].fds.size(), 1u);
    ASSERT_EQ(send(answer[0].fds[0], "x", 1, MSG_NOSIGNAL), 1);
    char byte = 0;
    EXPECT_EQ(recv(caller, &byte, 1, MSG_DONTWAIT), 1);
  }
  EXPECT_EQ(openDescriptors(), before);
  EXPECT_TRUE(puppet.say({.kind = ControlKind::WhoCalls, .target = 7}));  // as if there was no room for the descriptor
  turns();
  const auto answer = puppet.hear();
  ASSERT_EQ(answer.size(), 1u);
  EXPECT_EQ(answer[0].record.kind, ControlKind::Caller);
  EXPECT_TRUE(answer[0].fds.empty());
  EXPECT_FALSE(hasEnded(puppet));
}

TEST_F(AMonitor, EndsAWorkerWhoseControlSocketIsClosed) {  // it would hear of no revocation any more
  start();
  Puppet puppet = nextWorker();
  equip(puppet);
  puppet.control = nullptr;
  EXPECT_TRUE(ends(puppet));
  equip(successorOf(puppet));
}

TEST_F(AMonitor, EndsAWorkerThatAsksAndAsksWithoutReading) {
  start();
  const Puppet puppet = nextWorker();
  const auto told = equip(puppet);
  const uint32_t out = targetOf(told, ControlKind::PlainListener);
  const size_t before = openDescriptors();
  size_t most = 0;
  uint64_t asked = 0;
  for (; asked < 60000 && !hasEnded(puppet); ++asked) {
    puppet.say({.kind = ControlKind::Dial, .target = out, .request = asked + 1});
    if (asked % 64 != 0) continue;
    loop.turn(0);
    most = std::max(most, openDescriptors());
  }
  EXPECT_TRUE(ends(puppet)) << asked << " dials";
  EXPECT_LE(most, before + 1100);
  equip(successorOf(puppet));
  EXPECT_LE(openDescriptors(), before + 16);  // what was meant for the dead one is closed
}

TEST_F(AMonitor, LogsANameThatDoesNotResolveOnceWhateverAWorkerSays) {
  start(1, "nobody.invalid");
  const Puppet puppet = nextWorker();
  const auto told = equip(puppet);
  const uint32_t out = targetOf(told, ControlKind::PlainListener);
  testing::internal::CaptureStderr();
  for (uint64_t asked = 1; asked <= 3; ++asked) {
    EXPECT_TRUE(puppet.say({.kind = ControlKind::Dial, .target = out, .request = asked}));
    nextWorker();  // the resolver: what it would write its answer to is closed at once
    std::vector<Told> answer;
    EXPECT_TRUE(until([&] { return !(answer = puppet.hear()).empty(); }));
    EXPECT_EQ(answer.at(0).record.kind, ControlKind::DialFailed);
    EXPECT_TRUE(puppet.say({.kind = ControlKind::DialOutcome, .target = out}));  // as if one had succeeded
    turns();
  }
  const std::string log = testing::internal::GetCapturedStderr();
  const auto first = log.find("nobody.invalid doesn't resolve");
  EXPECT_NE(first, log.npos) << log;
  EXPECT_EQ(log.find("nobody.invalid doesn't resolve", first + 1), log.npos) << log;
  EXPECT_FALSE(hasEnded(puppet));
}

TEST_F(AMonitor, OutlivesARequestThatItHasNoDescriptorFor) {
  start();
  const Puppet puppet = nextWorker();
  const auto told = equip(puppet);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 3;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  puppet.say({.kind = ControlKind::StatusRequest});
  turns();
  EXPECT_TRUE(hasEnded(puppet));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  equip(successorOf(puppet));
}

TEST_F(AMonitor, LendsAWorkerOneLinkToTheVaultAtATime) {
  start();
  const Puppet puppet = nextWorker();
  std::vector<Told> told = equip(puppet);
  std::vector<kj::AutoCloseFd> links;
  for (int round = 0; round < 20; ++round) {
    puppet.say({.kind = ControlKind::VaultLost});
    loop.await(loop.timer().afterDelay(20 * kj::MILLISECONDS));
    for (Told& each : puppet.hear()) told.push_back(kj::mv(each));  // kept open, as a bad worker would
    int fd;
    while ((fd = accept4(vault, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) links.emplace_back(fd);
  }
  EXPECT_GT(links.size(), 1u);
  EXPECT_EQ(links.size(), countOf(told, ControlKind::VaultLink));
  EXPECT_LE(links.size(), 10u);  // of 20 that were asked for
  std::byte byte;
  const auto open = std::ranges::count_if(links, [&](const auto& link) { return recv(link, &byte, 1, 0) < 0; });
  EXPECT_EQ(open, 1);
  EXPECT_FALSE(hasEnded(puppet));
}

TEST_F(AMonitor, BindsAnewWhatAWorkerHasShutDown) {
  start();
  const Puppet puppet = nextWorker();
  const auto lent = equip(puppet);
  for (const ControlKind kind : LISTENERS) {
    ASSERT_TRUE(test::accepts(fdOf(lent, kind))) << uint32_t(kind);
    ASSERT_EQ(shutdown(fdOf(lent, kind), SHUT_RDWR), 0);
  }
  endNow(puppet);
  const auto anew = equip(successorOf(puppet));
  for (const ControlKind kind : LISTENERS) {
    EXPECT_EQ(countOf(anew, kind), 1u) << uint32_t(kind);
    EXPECT_TRUE(test::accepts(fdOf(anew, kind))) << uint32_t(kind);
  }
  for (const char* socket : {"net.sock", "metrics.sock", "out.sock"}) {
    const kj::AutoCloseFd there(connectUnix(folder / socket));
  }
}

TEST_F(AMonitor, KeepsTheListenersOfAWorkerThatJustDied) {  // what waits in their queues waits for its successor
  start();
  const Puppet puppet = nextWorker();
  equip(puppet);
  const kj::AutoCloseFd caller(connectUnix(folder / "out.sock"));
  endNow(puppet);
  const auto lent = equip(successorOf(puppet));
  EXPECT_GE(accept4(fdOf(lent, ControlKind::PlainListener), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK), 0);
}

TEST_F(AMonitor, BindsAnewAlsoForTheWorkersBeside) {
  start(2);
  const Puppet bad = nextWorker();
  const Puppet good = nextWorker();
  const auto lent = equip(bad);
  const auto kept = equip(good);
  for (const ControlKind kind : {ControlKind::WireListener, ControlKind::PlainListener}) {
    ASSERT_EQ(shutdown(fdOf(lent, kind), SHUT_RDWR), 0);
  }
  endNow(bad);
  monitor->onChildExit();
  turns();
  const auto told = good.hear();
  EXPECT_EQ(countOf(told, ControlKind::RemoveListener), 2u);
  const auto anew = equip(nextWorker());
  for (const ControlKind kind : {ControlKind::WireListener, ControlKind::PlainListener}) {
    EXPECT_TRUE(test::accepts(fdOf(told, kind))) << uint32_t(kind);
    EXPECT_TRUE(test::accepts(fdOf(anew, kind))) << uint32_t(kind);
  }
}

// An entry goes from one service to another, whose sockets are for every worker or for the first alone. Its address, as
// it stands in the configuration.
class AMonitorThatReloads : public AMonitor {
 protected:
  AMonitorThatReloads() = default;
  ~AMonitorThatReloads() noexcept override = default;

  void begin() {
    start(2);
    for (int i = 0; i < 2; ++i) {
      Puppet puppet = nextWorker();
      const bool isFirst = countOf(equip(puppet), ControlKind::Stats) == 1;
      (isFirst ? worker0 : worker1) = kj::mv(puppet);
    }
  }
  void reload(const std::string& service) {
    const std::string old = "service = \"tcp:127.0.0.1:9\"";
    std::ifstream file(folder / "sallyport.toml");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    if (!address.empty()) {
      const auto at = text.find("address = \"") + 11;
      text.replace(at, text.find('"', at) - at, address);
    }
    text.replace(text.find(old), old.size(), "service = \"" + service + "\"");
    const auto done = monitor->reload(text);
    ASSERT_TRUE(done.has_value()) << done.error().text();
    first = worker0.hear();
    second = worker1.hear();
  }
  // A client that waits in each of the entry's queues: so many sockets as `told` has.
  std::vector<kj::AutoCloseFd> callEach(const std::vector<Told>& told) {
    std::vector<kj::AutoCloseFd> callers;
    EXPECT_TRUE(until([&] {
      callers.emplace_back(call(fdOf(told, ControlKind::WireListener)));
      return std::ranges::all_of(told, [](const Told& each) {
        return each.record.kind != ControlKind::WireListener || waits(each.fds.front());
      });
    }));
    return callers;
  }
  static size_t acceptAll(const std::vector<Told>& told) {
    size_t count = 0;
    for (const Told& each : told) {
      if (each.record.kind != ControlKind::WireListener) continue;
      while (waits(each.fds.front())) {
        const kj::AutoCloseFd accepted(accept4(each.fds.front(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (accepted.get() < 0) break;
        ++count;
      }
    }
    return count;
  }
  static std::vector<Told> merged(std::vector<Told> a, std::vector<Told>& b) {
    for (Told& each : b) a.push_back(kj::mv(each));
    return a;
  }

  std::string address;  // or what it is from the start
  Puppet worker0, worker1;
  std::vector<Told> first, second;  // what they were told by the last reload

 private:
  static bool waits(int socket) {
    pollfd end{.fd = socket, .events = POLLIN, .revents = 0};
    return poll(&end, 1, 0) == 1 && (end.revents & POLLIN) != 0;
  }
  static int call(int listener) {
    sockaddr_storage where{};
    socklen_t length = sizeof where;
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&where), &length), 0);
    const int fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&where), length), 0);
    return fd;
  }
};

TEST_F(AMonitorThatReloads, HandsEverySocketOfAChannelToTheFirstWorkerAndBack) {
  begin();
  for (int round = 0; round < 3; ++round) {
    reload("channel");
    EXPECT_EQ(countOf(first, ControlKind::RemoveListener), 1u);
    EXPECT_EQ(countOf(second, ControlKind::RemoveListener), 1u);
    EXPECT_EQ(countOf(first, ControlKind::WireListener), 2u);
    EXPECT_EQ(countOf(second, ControlKind::WireListener), 0u);
    const auto toChannel = callEach(first);
    reload("echo");
    EXPECT_EQ(countOf(first, ControlKind::RemoveListener), 1u);
    EXPECT_EQ(countOf(second, ControlKind::RemoveListener), 1u);
    EXPECT_EQ(countOf(first, ControlKind::WireListener), 1u);
    EXPECT_EQ(countOf(second, ControlKind::WireListener), 1u);
    const auto both = merged(kj::mv(first), second);
    EXPECT_EQ(acceptAll(both), toChannel.size());  // nobody who waited was lost
    const auto toEcho = callEach(both);
    reload("channel");
    EXPECT_EQ(acceptAll(first), toEcho.size());
    reload("echo");
  }
}

TEST_F(AMonitorThatReloads, KeepsTheOneSocketOfAUnixAddress) {
  begin();
  address = "unix:" + (folder / "wire.sock").string();
  reload("echo");
  for (const bool channel : {true, false, true}) {
    const auto callers = callEach(first);
    reload(channel ? "channel" : "echo");
    EXPECT_EQ(countOf(first, ControlKind::RemoveListener), 1u);
    EXPECT_EQ(countOf(second, ControlKind::RemoveListener), 1u);
    EXPECT_EQ(countOf(first, ControlKind::WireListener), 1u);
    EXPECT_EQ(countOf(second, ControlKind::WireListener), channel ? 0u : 1u);
    EXPECT_EQ(acceptAll(first), callers.size());
  }
}

TEST_F(AMonitorThatReloads, TellsNobodyOfASocketWhoseWorkersStay) {
  begin();
  reload("echo");
  EXPECT_EQ(countOf(first, ControlKind::RemoveListener), 0u);
  EXPECT_EQ(countOf(second, ControlKind::WireListener), 0u);
}

}  // namespace
}  // namespace sallyport::netd
