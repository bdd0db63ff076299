// hsmd - keeps one token's PKCS#11 module at work for the vault, or for an operator's command: see hsmd(8),
// proto/hsm/frames.h and docs/protocol.md §12. Started by token-guard, which has prepared everything and starts it
// again (guard.h). This process starts and ends workers (launcher.h), and its child, the keeper, locks itself down and
// decides about them (keeper.h). A keeper that dies takes its worker along, and is started again: it needs nothing that
// this process hasn't kept.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <sodium.h>

#include "common/log.h"
#include "hsmd/keeper.h"
#include "hsmd/program.h"
#include "hsmd/settings.h"
#include "sandbox/sandbox.h"

namespace sallyport::hsmd {
namespace {

constexpr const char* HELP =
    "usage: hsmd\n"
    "\n"
    "Runs a token's PKCS#11 module for the vault. Started by token-guard, with all that it needs.\n"
    "\n"
    "  --version  print the version\n"
    "  --help     this\n"
    "\n"
    "See hsmd(8) and sallyport.toml(5).\n";

int fail(const std::string& message, const std::string& hint = {}, int status = 1) {
  std::fprintf(stderr, "sallyport: error: %s\n", message.c_str());
  if (!hint.empty()) std::fprintf(stderr, "sallyport: hint: %s\n", hint.c_str());
  return status;
}

struct Pair {
  int ours = -1;
  int theirs = -1;
};
bool makePair(Pair& pair) {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return false;
  pair = {highCopy(ends[0]), highCopy(ends[1])};
  close(ends[0]);
  close(ends[1]);
  return pair.ours >= 0 && pair.theirs >= 0;
}

uint64_t nowMs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// The processes of one token: this one, the launcher, and the keeper that it starts. It does so again when the keeper
// dies: of that the client hears by the next one's first word, and its sockets, its page and the PIN are the same.
class Processes {
 public:
  Processes(const LauncherSettings& settings, int control, LauncherOptions launcher)
      : settings_(settings), control_(control), launcher_(std::move(launcher)) {}

  // Until a keeper ends by itself, or the client is gone: the exit status.
  int run() {
    while (true) {
      const Launched ended = startKeeperAndLaunch();
      if (WIFEXITED(ended.keeperStatus)) return WEXITSTATUS(ended.keeperStatus);
      const uint32_t delayMs = plan_.ended(nowMs(), false);
      const std::string how = ended.keeperStopped ? "was stopped, and is ended for that"
                                                  : sandbox::explainExit(ended.keeperStatus, launcher_.keeper);
      logError("token=" + settings_.token + " its keeper " + how + ": starting it again in " + std::to_string(delayMs) +
               " ms");
      // Not read: what the client has to say is the next keeper's.
      pollfd client{.fd = control_, .events = 0, .revents = 0};
      if (poll(&client, 1, static_cast<int>(delayMs)) > 0) return 0;
    }
  }

 private:
  static constexpr size_t BIRTH = BIRTH_FD - CALLS_FD;  // in childFds

  Launched startKeeperAndLaunch() {
    // New ones each time: nothing that was said to or by the dead one is heard by the next.
    Pair orders;
    Pair birth;
    if (!makePair(orders) || !makePair(birth)) return {.keeperStatus = W_EXITCODE(failed(), 0)};
    const pid_t self = getpid();
    const uint32_t lastEpoch = *launcher_.lastEpoch;  // the keeper doesn't have that page
    const pid_t keeper = fork();
    if (keeper < 0) return {.keeperStatus = W_EXITCODE(failed(), 0)};
    if (keeper == 0) _exit(keep({.control = control_, .launcher = orders.ours, .birth = birth.ours}, self, lastEpoch));
    close(orders.ours);
    close(birth.ours);
    plan_.cameUp(nowMs());
    launcher_.keeper = keeper;
    launcher_.socket = orders.theirs;
    launcher_.childFds[BIRTH] = birth.theirs;
    const Launched ended = launch(launcher_);
    close(orders.theirs);
    close(birth.theirs);
    return ended;
  }

  static int failed() {
    return fail(std::string("hsmd: ") + std::strerror(errno), "raise the limits of open files and processes");
  }

  int keep(Keeper::Sockets sockets, pid_t launcher, uint32_t lastEpoch) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) return 1;
    prctl(PR_SET_NAME, KEEPER_NAME);
    auto memory = SharedMemory::map(launcher_.childFds[BOARD_FD - CALLS_FD], BOARD_BYTES);
    if (!memory) return fail("hsmd: no memory");
    // The PIN, the client's page and its calls are no keeper's.
    closeAllBut({sockets.control, sockets.launcher, sockets.birth});
    Keeper keeper(sockets, std::move(*memory), settings_.token, settings_.stepMs, lastEpoch);
    sandbox::Options options;
    options.profile = sandbox::Profile::HsmKeeper;
    options.requirement = settings_.requirement;
    options.maxOpenFiles = 256;
    auto report = sandbox::Sandbox(options).lockDown();
    if (!report) return fail(report.error().message, report.error().hint);
    return keeper.run();
  }

  const LauncherSettings& settings_;
  const int control_;
  LauncherOptions launcher_;
  RestartPlan plan_;
};

int serve() {
  const auto settings = LauncherSettings::parse(readSettings(HELD_SETTINGS));
  auto lastEpoch = SharedMemory::map(HELD_LAST_EPOCH, LAST_EPOCH_BYTES);
  if (!settings || !lastEpoch) return fail("hsmd: the descriptors of token-guard aren't there");
  std::array<int, HELD_FD_END> held{};
  for (int fd = HELD_CONTROL; fd < HELD_FD_END; ++fd) {
    held[static_cast<size_t>(fd)] = highCopy(fd);
    close(fd);
    if (held[static_cast<size_t>(fd)] < 0)
      return fail(std::string("hsmd: ") + std::strerror(errno), "raise the limit of open files");
  }
  LauncherOptions launcher;
  launcher.program = held[HELD_PROGRAM];
  launcher.childFds = {
      held[HELD_CALLS],          held[HELD_PAGE], held[HELD_PIN], held[HELD_BOARD], /* birth: of each keeper */ -1,
      held[HELD_WORKER_SETTINGS]};
  launcher.environment = settings->environment;
  launcher.lastEpoch = &lastEpoch->as<uint32_t>();
  return Processes(*settings, held[HELD_CONTROL], std::move(launcher)).run();
}

bool isSocket(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

int run(int argc, char** argv) {
  const std::string_view argument = argc > 1 ? argv[1] : "";
  if (argument == "--help" || argument == "--version") {
    std::fputs(argument == "--help" ? HELP : "hsmd " SALLYPORT_VERSION "\n", stdout);
    return 0;
  }
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NAME, LAUNCHER_NAME);
  // As token-guard does: it ends when its client closes the control socket.
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGTSTP}) std::signal(signal, SIG_IGN);
  startLog("hsmd");
  CHECK(sodium_init() >= 0);
  if (argc != 1 || !isSocket(HELD_CONTROL))
    return fail("the descriptors aren't token-guard's", "hsmd is started by token-guard: see hsmd(8)", 2);
  return serve();
}

}  // namespace
}  // namespace sallyport::hsmd

int main(int argc, char** argv) {
  try {
    return sallyport::hsmd::run(argc, argv);
  } catch (const std::exception& e) { return sallyport::hsmd::fail(sallyport::sanitized(e.what())); }
}
