// guard.cc - see guard.h. Part of: hsmd (token-guard).
#include "hsmd/guard.h"

#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>

#include "common/log.h"
#include "hsmd/program.h"
#include "hsmd/restart_plan.h"
#include "sandbox/sandbox.h"

namespace sallyport::hsmd {

namespace {

uint64_t nowMs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// True if the client is gone. What it has to say is its keeper's to read, and so is not waited for.
bool clientLeaves(int control, uint32_t withinMs) {
  pollfd client{.fd = control, .events = 0, .revents = 0};
  return poll(&client, 1, static_cast<int>(withinMs)) > 0;
}

int waitStatusOf(pid_t pid, int flags) {
  int status = 0;
  while (waitpid(pid, &status, flags) < 0) {
    if (errno != EINTR) return -1;
  }
  return status;
}

// Who loses its parent becomes ours: a keeper and a worker, which the kernel kills with the launcher, and what a module
// has hidden. None of them may live to see the next worker's secrets in the client's page. False if the client leaves
// meanwhile.
bool endTheRest(int control) {
  constexpr int ROUNDS_WITHOUT_PROC = 200;
  constexpr uint32_t PAUSE_MS = 5;
  for (int round = 0;; ++round) {
    pid_t pid = 0;
    while ((pid = waitpid(-1, nullptr, WNOHANG)) > 0) continue;
    if (pid < 0 && errno != EINTR) return true;  // no child is left
    std::ifstream children("/proc/thread-self/children");
    if (!children && round == ROUNDS_WITHOUT_PROC) return true;  // nobody tells us who it is
    for (pid_t child = 0; children >> child;) kill(child, SIGKILL);
    if (clientLeaves(control, PAUSE_MS)) return false;
  }
}

pid_t start(const GuardOptions& options) {
  std::vector<char*> arguments;
  for (const std::string& word : options.arguments) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) becomeProgram(options.program, options.childFds, arguments.data(), environ);
  return pid;
}

}  // namespace

int guard(const GuardOptions& options) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  RestartPlan plan;
  while (true) {
    plan.cameUp(nowMs());
    const pid_t launcher = start(options);
    std::string how;
    if (launcher < 0) {
      how = std::string("can't be started: ") + std::strerror(errno);
    } else {
      int status = waitStatusOf(launcher, WUNTRACED);
      const bool stopped = WIFSTOPPED(status);
      if (stopped) {
        kill(launcher, SIGKILL);
        status = waitStatusOf(launcher, 0);
      } else if (WIFEXITED(status)) {
        return WEXITSTATUS(status);
      }
      how = stopped ? "was stopped, and is ended for that" : sandbox::explainExit(status, launcher);
      if (!endTheRest(options.control)) return 0;
    }
    const uint32_t delayMs = plan.ended(nowMs(), false);
    logError("token=" + options.token + " its hsmd " + how + ": starting it again in " + std::to_string(delayMs) +
             " ms");
    if (clientLeaves(options.control, delayMs)) return 0;
  }
}

}  // namespace sallyport::hsmd
