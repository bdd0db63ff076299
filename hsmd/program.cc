// program.cc - see program.h. Part of: hsmd (guard and launcher).
#include "hsmd/program.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

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

}  // namespace sallyport::hsmd
