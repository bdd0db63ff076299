// guard.h - starts a token's hsmd, and starts it again when it was killed. Part of: hsmd (token-guard, the process that
// the client started).
// The client, a locked vault, can't start a program. So this process keeps everything that an hsmd is given, and there
// is nothing by which it could be brought down but a signal: it reads no socket, has no memory of the client's or of
// the PIN's mapped, and does nothing but fork, exec, wait and kill. It has no filter of system calls, which workers
// would inherit (launcher.h).
#pragma once

#include <string>
#include <vector>

namespace sallyport::hsmd {

constexpr const char* GUARD_NAME = "token-guard";

struct GuardOptions {
  std::string token;
  int control = -1;  // the client's: nothing is read there, but its end is ours
  int program = -1;  // hsmd, O_PATH
  std::vector<std::string> arguments = {"hsmd"};
  std::vector<int> childFds;  // become 3, 4, ... in the child
};

// Until an hsmd ends by itself, or the client is gone: the exit status. One that was killed by a signal is replaced,
// later each time; one that is stopped is killed for that. Nothing of what it had started is left when the next begins.
int guard(const GuardOptions& options);

}  // namespace sallyport::hsmd
