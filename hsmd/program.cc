// program.cc - see program.h. Part of: hsmd (guard and launcher).
#include "hsmd/program.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace sallyport::hsmd {

namespace {

constexpr int HIGH = 64;
constexpr int CANT_BE_RUN = 126;

}  // namespace

void becomeProgram(int program, std::span<const int> fds, char* const* arguments, char* const* environment) {
  int next = FIRST_CHILD_FD;
  for (const int fd : fds) {
    if (dup2(fd, next++) < 0) _exit(CANT_BE_RUN);
  }
  if (dup3(program, next, O_CLOEXEC) < 0) _exit(CANT_BE_RUN);
  close_range(static_cast<unsigned>(next) + 1, ~0U, 0);
  syscall(SYS_execveat, next, "", arguments, environment, AT_EMPTY_PATH);
  _exit(CANT_BE_RUN);
}

int highCopy(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, HIGH); }

void closeAllBut(std::vector<int> kept) {
  std::ranges::sort(kept);
  unsigned first = STDERR_FILENO + 1;
  for (const int fd : kept) {
    if (static_cast<unsigned>(fd) > first) close_range(first, static_cast<unsigned>(fd) - 1, 0);
    first = static_cast<unsigned>(fd) + 1;
  }
  close_range(first, ~0U, 0);
}

}  // namespace sallyport::hsmd
