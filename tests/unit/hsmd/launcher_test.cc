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
    _exit(launch(options));
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

}  // namespace
}  // namespace sallyport::hsmd
