// Goal: when the launcher says that a worker has ended, nothing of it is left: not even what hid outside its group.
// Method: the launcher in a process of its own; its worker is the shell, which finds a script called `serve`.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "hsmd/launcher.h"
#include "hsmd/pin_page.h"
#include "hsmd/settings.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::hsmd {
namespace {

TEST(LauncherTest, WhatAModuleLeavesBehindEndsWithIt) {
  test::TemporaryFolder folder;
  std::ofstream(folder.path() / "serve") << "/usr/bin/setsid /bin/sleep 60 &\necho $! > stray\n/bin/sleep 0.2\n";
  std::array<int, 2> ends;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
  const pid_t launcher = fork();
  ASSERT_GE(launcher, 0);
  if (launcher == 0) {
    close(ends[0]);
    if (chdir(folder.path().c_str()) != 0) _exit(1);
    LauncherOptions options;
    options.socket = fcntl(ends[1], F_DUPFD_CLOEXEC, 64);
    options.program = fcntl(open("/bin/sh", O_PATH | O_CLOEXEC), F_DUPFD_CLOEXEC, 64);
    options.childFds = {STDERR_FILENO};
    uint32_t lastEpoch = 0;
    options.lastEpoch = &lastEpoch;
    launch(options);
    _exit(0);
  }
  close(ends[1]);
  const LauncherOrder order{.order = Order::Serve, .epoch = 1};
  ASSERT_EQ(send(ends[0], &order, sizeof order, 0), static_cast<ssize_t>(sizeof order));
  LauncherEvent event{};
  do {
    ASSERT_EQ(recv(ends[0], &event, sizeof event, 0), static_cast<ssize_t>(sizeof event));
  } while (event.event == Event::Started);
  EXPECT_EQ(event.event, Event::Ended);
  pid_t stray = 0;
  std::ifstream(folder.path() / "stray") >> stray;
  ASSERT_GT(stray, 0);
  EXPECT_EQ(kill(stray, 0), -1);
  kill(stray, SIGKILL);
  close(ends[0]);
  int status = -1;
  EXPECT_EQ(waitpid(launcher, &status, 0), launcher);
  EXPECT_EQ(status, 0);
}

// A keeper that says `order` and then ends as it does in `end`; what the launcher makes of it.
struct Seen : Launched {
  uint32_t lastEpoch = 0;
};
template <typename End>
Seen launchedBy(const LauncherOrder& order, End&& end) {
  std::array<int, 2> sockets, results;
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets.data()), 0);
  EXPECT_EQ(pipe2(results.data(), O_CLOEXEC), 0);
  const int epochs = SharedMemory::createPlain("epochs", LAST_EPOCH_BYTES);
  const pid_t launcher = fork();
  if (launcher == 0) {
    const pid_t keeper = fork();
    if (keeper == 0) {
      close(sockets[1]);
      if (send(sockets[0], &order, sizeof order, 0) != static_cast<ssize_t>(sizeof order)) _exit(99);
      end(sockets[0]);
      _exit(98);
    }
    close(sockets[0]);
    LauncherOptions options;
    options.socket = fcntl(sockets[1], F_DUPFD_CLOEXEC, 64);
    options.program = fcntl(open("/bin/sleep", O_PATH | O_CLOEXEC), F_DUPFD_CLOEXEC, 64);
    options.childFds = {STDERR_FILENO};
    options.keeper = keeper;
    auto lastEpoch = SharedMemory::map(epochs, LAST_EPOCH_BYTES);
    options.lastEpoch = &lastEpoch->as<uint32_t>();
    const Launched launched = launch(options);
    _exit(write(results[1], &launched, sizeof launched) == static_cast<ssize_t>(sizeof launched) ? 0 : 1);
  }
  for (const int fd : {sockets[0], sockets[1], results[1]}) close(fd);
  Launched launched;
  EXPECT_EQ(read(results[0], &launched, sizeof launched), static_cast<ssize_t>(sizeof launched));
  EXPECT_EQ(waitpid(launcher, nullptr, 0), launcher);
  const Seen seen{launched, SharedMemory::map(epochs, LAST_EPOCH_BYTES)->as<uint32_t>()};
  close(results[0]);
  close(epochs);
  return seen;
}

TEST(LauncherTest, TellsHowItsKeeperEndedAndWhereItWas) {
  const LauncherOrder order{.order = Order::Kill, .epoch = 5};
  const Seen exited = launchedBy(order, [](int) { _exit(3); });
  EXPECT_TRUE(WIFEXITED(exited.keeperStatus));
  EXPECT_EQ(WEXITSTATUS(exited.keeperStatus), 3);
  EXPECT_EQ(exited.lastEpoch, 5u);
  const Seen killed = launchedBy(order, [](int) { raise(SIGKILL); });
  EXPECT_TRUE(WIFSIGNALED(killed.keeperStatus));
  EXPECT_EQ(WTERMSIG(killed.keeperStatus), SIGKILL);
}

TEST(LauncherTest, AKeeperThatIsStoppedIsEndedAsIfItWereDead) {
  const LauncherOrder order{.order = Order::Kill, .epoch = 5};
  const auto stop = [](int) {
    for (;;) raise(SIGSTOP);
  };
  const Seen stopped = launchedBy(order, stop);
  EXPECT_TRUE(stopped.keeperStopped);
  EXPECT_TRUE(WIFSIGNALED(stopped.keeperStatus));
  EXPECT_EQ(WTERMSIG(stopped.keeperStatus), SIGKILL);
  EXPECT_FALSE(launchedBy(order, [](int) { raise(SIGKILL); }).keeperStopped);
}

TEST(LauncherTest, AKeeperThatClosesItsSocketIsEndedAndSoIsItsWorker) {
  const Seen launched = launchedBy({.order = Order::Serve, .epoch = 1}, [](int socket) {
    close(socket);
    for (;;) pause();
  });
  EXPECT_TRUE(WIFSIGNALED(launched.keeperStatus));
  EXPECT_EQ(launched.lastEpoch, 1u);
}

}  // namespace
}  // namespace sallyport::hsmd
