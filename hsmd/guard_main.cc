// token-guard - the first process of a token: prepares all that an hsmd needs, becomes the token's user, and then
// starts hsmd and starts it again when it was killed. See hsmd(8). Started by vaultd and sallyport, never by hand.
// Order: read the configuration and the PIN, make what is inherited, become the token's user; from there on nothing is
// read any more (guard.h).
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <sodium.h>

#include "common/log.h"
#include "hsmd/board.h"
#include "hsmd/guard.h"
#include "hsmd/pin_page.h"
#include "hsmd/pin_source.h"
#include "hsmd/program.h"
#include "hsmd/settings.h"
#include "proto/hsm/frames.h"
#include "sandbox/layers.h"
#include "sandbox/sandbox.h"

namespace sallyport::hsmd {
namespace {

constexpr const char* HELP =
    "usage: token-guard --config FILE --token NAME --calls-fd N --control-fd N --page-fd N [--operator]\n"
    "\n"
    "Keeps hsmd running, the PKCS#11 module of [token.NAME], for the vault. Started by vaultd and by `sallyport hsm`.\n"
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
    arguments.exitNow = fail(message, "token-guard is started by vaultd and `sallyport hsm`: see hsmd(8)", 2);
    return arguments;
  };
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help" || argument == "--version") {
      std::fputs(argument == "--help" ? HELP : "token-guard " SALLYPORT_VERSION "\n", stdout);
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

// Beside this one, or where packages put it.
int openProgram(const char* name) {
  std::error_code fault;
  const auto folder = std::filesystem::read_symlink("/proc/self/exe", fault).parent_path();
  for (const auto& candidate : {folder / name, folder / "../libexec/sallyport" / name}) {
    const int fd = open(candidate.c_str(), O_PATH | O_CLOEXEC);
    if (fd >= 0) return fd;
  }
  return -1;
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

// The PIN stays in its page, which no process of ours has mapped from here on until a worker does. It is read once:
// hsmd may be started again, and one that was wrong is not to be tried again.
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

// Under a number that no child's descriptor gets; the one that it had is closed.
int moved(int fd) {
  const int high = highCopy(fd);
  if (fd >= 0) close(fd);
  return high;
}

int serve(const Arguments& arguments, const TokenConfig& token) {
  sandbox::Options options;
  options.profile = sandbox::Profile::HsmKeeper;
  options.requirement = token.requireSandbox;
  options.user = token.user;
  const uid_t user = sandbox::targetIdentity(options).uid;

  GuardOptions guarded;
  guarded.token = token.name;
  guarded.program = moved(openProgram("hsmd"));
  const int worker = moved(openProgram("hsmd-worker"));
  if (guarded.program < 0 || worker < 0)
    return fail("hsmd or hsmd-worker is missing", "they belong beside token-guard or in ../libexec/sallyport");
  const int pin = moved(pinPage(token, user));
  const LauncherSettings settings{.token = token.name,
                                  .stepMs = stepMs(token),
                                  .requirement = token.requireSandbox,
                                  .environment = environmentOf(token)};
  guarded.control = moved(arguments.control);
  guarded.childFds = {guarded.control,
                      moved(settingsFile(settings.write())),
                      moved(SharedMemory::createPlain("hsmd-epoch", LAST_EPOCH_BYTES)),
                      worker,
                      moved(arguments.calls),
                      moved(arguments.page),
                      pin,
                      moved(SharedMemory::createPlain("hsmd-board", BOARD_BYTES)),
                      moved(settingsFile(WorkerSettings::of(token, arguments.operatorMode).write()))};
  static_assert(HELD_FD_END - HELD_CONTROL == 9);
  if (std::ranges::any_of(guarded.childFds, [](int fd) { return fd < 0; }))
    return fail(std::string("hsmd: ") + std::strerror(errno), "raise the limits of open files and locked memory");
  std::vector<int> kept = guarded.childFds;
  kept.push_back(guarded.program);
  closeAllBut(std::move(kept));

  sandbox::Sandbox(options).enter();
  if (options.requirement != SandboxRequirement::None) {
    // A module runs with what is left here.
    for (const sandbox::Layer& layer : {sandbox::dropCapabilities(), sandbox::setNoNewPrivileges()}) {
      if (layer.state != sandbox::LayerState::Active) return fail("hsmd: " + layer.name + ": " + layer.detail);
    }
  }
  return guard(guarded);
}

int run(int argc, char** argv) {
  const Arguments arguments = parseArguments(argc, argv);
  if (arguments.exitNow) return *arguments.exitNow;
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NAME, GUARD_NAME);
  // Ends when its client closes the control socket, and so does hsmd, which inherits this. A signal to the whole group
  // comes before that: workers that are gone before the vault has answered its last calls would fail them.
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGTSTP}) std::signal(signal, SIG_IGN);
  startLog(GUARD_NAME);
  CHECK(sodium_init() >= 0);
  if (!isSocket(arguments.calls) || !isSocket(arguments.control) || !isPage(arguments.page))
    return fail("the descriptors aren't a vault's", "token-guard is started by vaultd and `sallyport hsm`: see hsmd(8)",
                2);
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
