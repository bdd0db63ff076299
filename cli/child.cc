// child.cc - see child.h.
#include "cli/child.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "sandbox/sandbox.h"

namespace sallyport::cli {
namespace {

// Between fork() and exec(): only calls that are safe there. What exec leaves to a program is put back to how programs
// expect to find it.
[[noreturn]] void runProgram(const char* program, const char* const* arguments, Terminal terminal,
                             Descriptors descriptors, pid_t parent, int errorFd) {
  if (terminal == Terminal::None) ::setpgid(0, 0);
  if (descriptors == Descriptors::StandardAlone)
    ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);  // of them errorFd is needed until exec
  for (int number = 1; number < NSIG; ++number) {
    if (number != SIGKILL && number != SIGSTOP) std::signal(number, SIG_DFL);
  }
  if (terminal == Terminal::ToAskOnly) std::signal(SIGINT, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() == parent) ::execv(program, const_cast<char* const*>(arguments));
  const int error = errno;
  [[maybe_unused]] const auto told = ::write(errorFd, &error, sizeof error);
  ::_exit(127);
}

}  // namespace

uint64_t BackOff::next(uint64_t ranMs) {
  pauseMs_ = pauseMs_ == 0 || ranMs >= GOOD_MS ? FIRST_MS : std::min(pauseMs_ * 2, MAX_MS);
  return pauseMs_;
}

Result<void, std::string> Child::start(uint64_t nowMs) {
  const auto file = configFile_.string();
  const char* const arguments[] = {name_.c_str(), "-c", file.c_str(), nullptr};
  // The pipe closes when exec succeeds, and tells errno when it doesn't.
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return refuse(std::string("no pipe: ") + std::strerror(errno));
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) runProgram(program_.c_str(), arguments, terminal_, descriptors_, parent, fds[1]);
  const int forkError = errno;
  ::close(fds[1]);
  int execError = 0;
  ssize_t got = 0;
  while (child > 0 && (got = ::read(fds[0], &execError, sizeof execError)) < 0 && errno == EINTR) {}
  ::close(fds[0]);
  if (child < 0) return refuse(std::string("can't fork: ") + std::strerror(forkError));
  // If it failed it is reaped as any other child; but nobody has to wait for that.
  pid_ = child;
  startedMs_ = nowMs;
  if (got > 0) return refuse(program_.string() + " can't be run: " + std::strerror(execError));
  return {};
}

void Child::signal(int number) const {
  if (running()) ::kill(pid_, number);
}

std::string Child::onExit(int waitStatus, uint64_t nowMs) {
  auto words = sandbox::explainExit(waitStatus, pid_);
  pid_ = -1;
  restartAtMs_ = nowMs + backOff_.next(nowMs - startedMs_);
  return words;
}

}  // namespace sallyport::cli
