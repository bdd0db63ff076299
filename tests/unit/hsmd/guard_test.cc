// Goal: whatever signal ends an hsmd, another one has its descriptors, and nothing of the one before is left; one that
// ends by itself isn't replaced, and nothing is started for a client that is gone.
// Method: the guard in a process of its own; its hsmd is the shell with a script that knows how often it was run.
#include "hsmd/guard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <sstream>
#include <utility>

#include "hsmd/program.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::hsmd {
namespace {

constexpr int DONE = 7;

class GuardTest : public testing::Test {
 protected:
  test::TemporaryFolder folder;
  int client = -1;
  int log = -1;
  pid_t guardPid = 0;

  ~GuardTest() override {
    if (guardPid > 0) {
      kill(guardPid, SIGKILL);
      waitpid(guardPid, nullptr, 0);
    }
    for (const int fd : {client, log}) close(fd);
  }

  // `script` finds in $run that it is the first, the second, ...
  void start(const std::string& script) {
    std::ofstream(folder.path() / "script") << "echo $$ >> runs; run=$(wc -l < runs)\n" << script;
    std::array<int, 2> control, errors;
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control.data()), 0);
    ASSERT_EQ(pipe2(errors.data(), O_CLOEXEC), 0);
    client = control[0];
    log = errors[0];
    guardPid = fork();
    ASSERT_GE(guardPid, 0);
    if (guardPid == 0) {
      close(client);
      if (chdir(folder.path().c_str()) != 0 || dup2(errors[1], STDERR_FILENO) < 0) _exit(99);
      GuardOptions options;
      options.token = "hsm1";
      options.control = highCopy(control[1]);
      options.program = highCopy(open("/bin/sh", O_PATH | O_CLOEXEC));
      options.arguments = {"sh", "script"};
      options.childFds = {options.control};
      _exit(guard(options));
    }
    close(control[1]);
    close(errors[1]);
  }
  int exitStatus() {
    int status = 0;
    EXPECT_GT(waitpid(std::exchange(guardPid, 0), &status, 0), 0);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
  }
  // Up to a line with `end`, or all of it.
  std::string logged(const std::string& end = "\1") {
    std::string text;
    char byte = 0;
    while (text.find(end) == text.npos && read(log, &byte, 1) == 1) text += byte;
    return text;
  }
  std::string written(const char* name) {
    std::ifstream in(folder.path() / name);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  size_t runs() {
    const std::string text = written("runs");
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  static bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }
};

TEST_F(GuardTest, OneThatIsKilledIsReplacedOnTheSameDescriptors) {
  start(
      "readlink /proc/$$/fd/3 >> sockets\n"
      "case $run in 1) kill -KILL $$;; 2) kill -SEGV $$;; esac\n"
      "head -c 5 <&3 > heard; exit 7\n");
  // Waits for who can read it: it ends nothing, and the guard doesn't take it.
  ASSERT_EQ(send(client, "hello", 5, 0), 5);
  EXPECT_EQ(exitStatus(), DONE);
  EXPECT_EQ(runs(), 3u);
  EXPECT_EQ(written("heard"), "hello");
  const std::string sockets = written("sockets");
  const std::string socket = sockets.substr(0, sockets.find('\n') + 1);
  EXPECT_TRUE(has(socket, "socket:["));
  EXPECT_EQ(sockets, socket + socket + socket);
  const std::string text = logged();
  EXPECT_TRUE(has(text, "token=hsm1 its hsmd was killed by SIGKILL: starting it again in 100 ms")) << text;
  EXPECT_TRUE(has(text, "its hsmd was killed by SIGSEGV: starting it again in 200 ms")) << text;
}

TEST_F(GuardTest, OneThatEndsByItselfIsNotReplaced) {
  start("exit 7\n");
  EXPECT_EQ(exitStatus(), DONE);
  EXPECT_EQ(runs(), 1u);
  char byte;
  EXPECT_EQ(recv(client, &byte, 1, 0), 0) << "the client sees the end of its socket";
}

TEST_F(GuardTest, OneThatIsStoppedCountsAsDead) {
  start("case $run in 1) kill -STOP $$;; esac\nexit 7\n");
  EXPECT_EQ(exitStatus(), DONE);
  EXPECT_EQ(runs(), 2u);
  EXPECT_TRUE(has(logged(), "its hsmd was stopped"));
}

TEST_F(GuardTest, NothingOfTheOneBeforeIsLeftWhenTheNextBegins) {
  start(
      "case $run in 1) setsid sh -c 'echo $$ > stray; sleep 60 & wait' & while [ ! -s stray ]; do sleep 0.01; done\n"
      "  kill -KILL $$;; esac\n"
      "kill -0 $(cat stray) 2> /dev/null && exit 1\nexit 7\n");
  EXPECT_EQ(exitStatus(), DONE) << "a process that it had started lives on";
}

TEST_F(GuardTest, NothingIsStartedForAClientThatIsGone) {
  start("kill -KILL $$\n");
  logged("in 1600 ms");
  const size_t before = runs();
  close(std::exchange(client, -1));
  EXPECT_EQ(exitStatus(), 0);
  EXPECT_EQ(runs(), before);
}

TEST_F(GuardTest, ItsOwnEndChangesNothingForTheOthers) {
  start("echo up >&2; head -c 5 <&3 > heard; echo heard >&2; exec sleep 60\n");
  logged("up\n");
  kill(guardPid, SIGKILL);
  waitpid(std::exchange(guardPid, 0), nullptr, 0);
  ASSERT_EQ(send(client, "hello", 5, 0), 5);
  EXPECT_EQ(logged("heard\n"), "heard\n");
  EXPECT_EQ(written("heard"), "hello");
  kill(static_cast<pid_t>(std::stol(written("runs"))), SIGKILL);
}

}  // namespace
}  // namespace sallyport::hsmd
