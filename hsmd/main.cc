// hsmd - keeps one token's PKCS#11 module at work for the vault, or for an operator's command: see hsmd(8),
// proto/hsm/frames.h and docs/protocol.md §12. Started by vaultd and sallyport, never by hand.
// Order: read the configuration and the PIN, make what is inherited, become the token's user; then this process starts
// and ends workers (launcher.h), and its child, the keeper, locks itself down and decides about them (keeper.h). A
// keeper that dies takes its worker along, and is started again: it needs nothing that this process hasn't kept.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <sodium.h>

#include "common/log.h"
#include "hsmd/keeper.h"
#include "hsmd/pin_source.h"
#include "hsmd/settings.h"
#include "sandbox/layers.h"
#include "sandbox/sandbox.h"

namespace sallyport::hsmd {
namespace {

constexpr const char* HELP =
    "usage: hsmd --config FILE --token NAME --calls-fd N --control-fd N --page-fd N [--operator]\n"
    "\n"
    "Runs the PKCS#11 module of [token.NAME] for the vault. Started by vaultd and by `sallyport hsm`.\n"
    "\n"
    "  --config FILE   the configuration\n"
    "  --token NAME    which [token.NAME] of it\n"
    "  --calls-fd N    socket of requests and replies (proto/hsm/frames.h)\n"
    "  --control-fd N  socket of the keeper; closing it ends all\n"
    "  --page-fd N     shared memory for secrets\n"
    "  --operator      try what the module can do, and allow keys to be made\n"
    "  --version       print the version\n"
    "  --help          this\n"
    "\n"
    "See hsmd(8) and sallyport.toml(5).\n";

struct Arguments {
  std::filesystem::path config;
  std::string token;
  int calls = -1;
  int control = -1;
  int page = -1;
  bool operatorMode = false;
  std::optional<int> exitNow;
};

int fail(const std::string& message, const std::string& hint = {}, int status = 1) {
  std::fprintf(stderr, "sallyport: error: %s\n", message.c_str());
  if (!hint.empty()) std::fprintf(stderr, "sallyport: hint: %s\n", hint.c_str());
  return status;
}

bool readFd(std::string_view text, int& fd) {
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), fd);
  return fault == std::errc() && end == text.data() + text.size() && fd > STDERR_FILENO;
}

Arguments parseArguments(int argc, char** argv) {
  Arguments arguments;
  const auto usage = [&arguments](const std::string& message) {
    arguments.exitNow = fail(message, "hsmd is started by vaultd and `sallyport hsm`: see hsmd(8)", 2);
    return arguments;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "--version") {
      std::fputs(argument == "--help" ? HELP : "hsmd " SALLYPORT_VERSION "\n", stdout);
      arguments.exitNow = 0;
      return arguments;
    }
    if (argument == "--operator") {
      arguments.operatorMode = true;
      continue;
    }
    if (i + 1 >= argc) return usage("`" + sanitized(argument) + "` is unknown, or lacks its value");
    const std::string_view value = argv[++i];
    bool good = true;
    if (argument == "--config") {
      arguments.config = value;
    } else if (argument == "--token") {
      arguments.token = value;
    } else if (argument == "--calls-fd") {
      good = readFd(value, arguments.calls);
    } else if (argument == "--control-fd") {
      good = readFd(value, arguments.control);
    } else if (argument == "--page-fd") {
      good = readFd(value, arguments.page);
    } else {
      good = false;
    }
    if (!good) return usage("`" + sanitized(argument) + " " + sanitized(value) + "` makes no sense");
  }
  if (arguments.config.empty() || arguments.token.empty() || arguments.calls < 0 || arguments.control < 0 ||
      arguments.page < 0)
    return usage("--config, --token, --calls-fd, --control-fd and --page-fd are all needed");
  return arguments;
}

bool isSocket(int fd) {
  int type = 0;
  socklen_t length = sizeof type;
  return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET;
}

bool isPage(int fd) {
  struct stat status {};
  return fstat(fd, &status) == 0 && status.st_size == static_cast<off_t>(hsm::PAGE_BYTES);
}

// Beside hsmd, or where packages put it.
int openWorker() {
  std::error_code fault;
  const auto folder = std::filesystem::read_symlink("/proc/self/exe", fault).parent_path();
  for (const auto& candidate : {folder / "hsmd-worker", folder / "../libexec/sallyport/hsmd-worker"}) {
    const int fd = open(candidate.c_str(), O_PATH | O_CLOEXEC);
    if (fd >= 0) return fd;
  }
  return -1;
}

// Far from the numbers that a child's descriptors get.
int highCopy(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 64); }

int settingsFile(const std::string& text) {
  const int fd = memfd_create("hsmd-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0 || write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) return -1;
  fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
  return fd;
}

// What the configuration says and nothing else; a sanitizer's runtime needs its options.
std::vector<std::string> environmentOf(const TokenConfig& token) {
  std::vector<std::string> environment;
  for (const auto& [name, value] : token.environment) environment.push_back(name + "=" + value);
  if (sandbox::SANITIZED) {
    for (const char* name : {"ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"}) {
      if (const char* value = std::getenv(name)) environment.push_back(std::string(name) + "=" + value);
    }
  }
  return environment;
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

// The PIN stays in its page, which no process of ours has mapped from here on until a worker does.
int pinPage(const TokenConfig& token, uid_t user) {
  bool secret = false;
  const int fd = SharedMemory::create("hsmd-pin", PIN_PAGE_BYTES, secret);
  if (fd < 0) return -1;
  if (!secret) logWarning("no memfd_secret here: the PIN is in ordinary memory");
  auto memory = SharedMemory::map(fd, PIN_PAGE_BYTES);
  if (!memory) return -1;
  const std::string problem = fetchPin(token.pin, user, memory->as<PinRecord>());
  if (!problem.empty()) logError("token=" + token.name + " has no PIN: " + sanitized(problem));
  return fd;
}

// A step is a few calls, each within the deadline.
uint64_t stepMs(const TokenConfig& token) { return std::max(hsm::LEAST_STEP_MS, uint64_t{3} * token.deadlineMs); }

// Standard input, output and error stay as well. The PIN, the client's page and its calls are no keeper's.
void closeAllBut(std::array<int, 3> kept) {
  std::ranges::sort(kept);
  unsigned first = STDERR_FILENO + 1;
  for (const int fd : kept) {
    if (static_cast<unsigned>(fd) > first) close_range(first, static_cast<unsigned>(fd) - 1, 0);
    first = static_cast<unsigned>(fd) + 1;
  }
  close_range(first, ~0U, 0);
}

uint64_t nowMs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

// The processes of one token: this one, the launcher, and the keeper that it starts. It does so again when the keeper
// dies: of that the client hears by the next one's first word, and its sockets, its page and the PIN are the same.
class Processes {
 public:
  Processes(sandbox::Sandbox& sandbox, const TokenConfig& token, uint64_t stepMs, int control, LauncherOptions launcher)
      : sandbox_(sandbox), token_(token), stepMs_(stepMs), control_(control), launcher_(std::move(launcher)) {}

  // Until a keeper ends by itself, or the client is gone: the exit status.
  int run() {
    while (true) {
      const Launched ended = startKeeperAndLaunch();
      if (WIFEXITED(ended.keeperStatus)) return WEXITSTATUS(ended.keeperStatus);
      if (ended.lastEpoch != 0) lastEpoch_ = ended.lastEpoch;
      const uint32_t delayMs = plan_.ended(nowMs(), false);
      const std::string how = ended.keeperStopped ? "was stopped, and is ended for that"
                                                  : sandbox::explainExit(ended.keeperStatus, launcher_.keeper);
      logError("token=" + token_.name + " its keeper " + how + ": starting it again in " + std::to_string(delayMs) +
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
    const pid_t keeper = fork();
    if (keeper < 0) return {.keeperStatus = W_EXITCODE(failed(), 0)};
    if (keeper == 0) _exit(keep({.control = control_, .launcher = orders.ours, .birth = birth.ours}, self));
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

  int keep(Keeper::Sockets sockets, pid_t launcher) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) return 1;
    prctl(PR_SET_NAME, KEEPER_NAME);
    auto memory = SharedMemory::map(launcher_.childFds[BOARD_FD - CALLS_FD], BOARD_BYTES);
    if (!memory) return fail("hsmd: no memory");
    closeAllBut({sockets.control, sockets.launcher, sockets.birth});
    Keeper keeper(sockets, std::move(*memory), token_.name, stepMs_, lastEpoch_);
    auto report = sandbox_.lockDown();
    if (!report) return fail(report.error().message, report.error().hint);
    return keeper.run();
  }

  sandbox::Sandbox& sandbox_;
  const TokenConfig& token_;
  const uint64_t stepMs_;
  const int control_;
  LauncherOptions launcher_;
  RestartPlan plan_;
  uint32_t lastEpoch_ = 0;
};

int serve(const Arguments& arguments, const TokenConfig& token) {
  sandbox::Options options;
  options.profile = sandbox::Profile::HsmKeeper;
  options.requirement = token.requireSandbox;
  options.user = token.user;
  options.maxOpenFiles = 256;
  const uid_t user = sandbox::targetIdentity(options).uid;

  const int worker = openWorker();
  if (worker < 0) return fail("hsmd-worker is missing", "it belongs beside hsmd or in ../libexec/sallyport");
  const int pin = pinPage(token, user);
  const int board = SharedMemory::createPlain("hsmd-board", BOARD_BYTES);
  const int settings = settingsFile(WorkerSettings::of(token, arguments.operatorMode).write());
  if (pin < 0 || board < 0 || settings < 0)
    return fail(std::string("hsmd: ") + std::strerror(errno), "raise the limits of open files and locked memory");
  const int control = highCopy(arguments.control);
  const int calls = highCopy(arguments.calls);
  const int page = highCopy(arguments.page);
  for (const int fd : {arguments.control, arguments.calls, arguments.page}) close(fd);

  LauncherOptions launcher;
  launcher.program = highCopy(worker);
  launcher.childFds = {calls, page, highCopy(pin), highCopy(board), /* birth: of each keeper */ -1, highCopy(settings)};
  launcher.environment = environmentOf(token);
  for (const int fd : {worker, pin, board, settings}) close(fd);

  sandbox::Sandbox sandbox(options);
  sandbox.enter();
  if (options.requirement != SandboxRequirement::None) {
    // A module runs with what is left here.
    for (const sandbox::Layer& layer : {sandbox::dropCapabilities(), sandbox::setNoNewPrivileges()}) {
      if (layer.state != sandbox::LayerState::Active) return fail("hsmd: " + layer.name + ": " + layer.detail);
    }
  }
  return Processes(sandbox, token, stepMs(token), control, std::move(launcher)).run();
}

int run(int argc, char** argv) {
  const Arguments arguments = parseArguments(argc, argv);
  if (arguments.exitNow) return *arguments.exitNow;
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NAME, LAUNCHER_NAME);
  // Ends when its client closes the control socket. A signal to the whole group comes before that: workers that are
  // gone before the vault has answered its last calls would fail them.
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGTSTP}) std::signal(signal, SIG_IGN);
  startLog("hsmd");
  CHECK(sodium_init() >= 0);
  if (!isSocket(arguments.calls) || !isSocket(arguments.control) || !isPage(arguments.page))
    return fail("the descriptors aren't a vault's", "hsmd is started by vaultd and `sallyport hsm`: see hsmd(8)", 2);
  auto text = readConfigText(arguments.config);
  if (!text) return fail(format(text.error(), arguments.config), text.error().hint);
  const auto config = parseVaultAndPeers(*text, arguments.config);
  if (!config) return fail(format(config.error(), arguments.config), config.error().hint);
  const auto token = config->tokens.find(arguments.token);
  if (token == config->tokens.end())
    return fail("there is no [token." + sanitized(arguments.token) + "] in " + arguments.config.string());
  return serve(arguments, token->second);
}

}  // namespace
}  // namespace sallyport::hsmd

int main(int argc, char** argv) {
  try {
    return sallyport::hsmd::run(argc, argv);
  } catch (const std::exception& e) { return sallyport::hsmd::fail(sallyport::sanitized(e.what())); }
}
