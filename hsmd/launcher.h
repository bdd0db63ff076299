// launcher.h - starts and ends the processes that load a module. Part of: hsmd (its first process; guard.h starts it).
// A system call filter is inherited over exec, and what a module needs while it loads can't be foreseen: so the process
// that execs has none, and does nothing else. It has dropped root, capabilities and the way to new ones; it believes a
// command of eight bytes and parses nothing of others. The keeper, which thinks, is another process and has a filter
// that kills.
#pragma once

#include <sys/types.h>

#include <array>
#include <string>
#include <vector>

namespace sallyport::hsmd {

// What `ps` sees; the program is hsmd for both.
constexpr const char* LAUNCHER_NAME = "token-launcher";
constexpr const char* KEEPER_NAME = "hsmd";

enum class Order : uint8_t { Serve = 1, Probe, Kill };
enum class Event : uint8_t { Started = 1, NotStarted, Ended };

struct LauncherOrder {
  Order order;
  uint32_t epoch;
};
struct LauncherEvent {
  Event event;
  int32_t value;  // Started: the pid; NotStarted: errno; Ended: the wait status
};

struct LauncherOptions {
  int socket = -1;                       // to the keeper
  int program = -1;                      // hsmd-worker, O_PATH
  pid_t keeper = 0;                      // its end is ours: whoever called launch() may start another
  std::vector<int> childFds;             // become 3, 4, ... in the child
  std::vector<std::string> environment;  // NAME=value: all that a child has
  // That of each order is written here, in memory that outlives this process: whoever takes its place goes on behind
  // it.
  uint32_t* lastEpoch = nullptr;
};

struct Launched {
  int keeperStatus = 0;        // of waitpid
  bool keeperStopped = false;  // and that is why it was killed
};
// Until the keeper is gone; one that is stopped is killed: nobody would end the workers of a module that hangs. Nothing
// of what it has started is left when it returns, and no keeper.
Launched launch(const LauncherOptions& options);

}  // namespace sallyport::hsmd
