// cmd_up.cc - sallyport up: a vault and a net daemon in the foreground, from one file. Part of: cli.
//
// The vault starts first, because netd is of no use without it, and stops last. Each daemon opens its own files and
// sockets and locks itself down; this process only starts, watches and stops them, and makes the folders that their
// sockets need.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "cli/child.h"
#include "cli/commands.h"
#include "cli/config_view.h"
#include "cli/daemon_client.h"
#include "cli/load_config.h"
#include "cli/start_patience.h"
#include "cli/terminal.h"
#include "common/find_program.h"

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t PROBE_TIMEOUT_MS = 1000;
constexpr int PROBE_PERIOD_MS = 50;
constexpr uint64_t SAME_WISH_MS = 500;
constexpr uint64_t VAULT_STOP_MS = 5000;
constexpr uint64_t NET_STOP_MARGIN_MS = 5000;  // after its drain time

class Supervisor {
 public:
  Supervisor(Config config, const fs::path& vaultd, const fs::path& netd)
      : config_(std::move(config)),
        vault_("vaultd", vaultd, config_.file, Terminal::ToAskOnly, Descriptors::All),
        net_("netd", netd, config_.file, Terminal::None, Descriptors::StandardAlone),
        signals_(loop_, {SIGCHLD, SIGTERM, SIGINT, SIGHUP}, [this](int number) { onSignal(number); }) {}

  int run() {
    // vaultd asks for passphrases where its standard input, which is ours, is a terminal.
    const bool started =
        startFirst(vault_, ::isatty(STDIN_FILENO) == 1, [this](auto& patience) { return vaultAnswers(patience); }) &&
        startFirst(net_, false, [this](auto& patience) { return netAnswers(patience); });
    if (started) {
      say("ready: " + describeListeners(config_));
      supervise();
    }
    const bool asked = stopping_ != 0;
    stopAll();
    return asked && !failed_ ? EXIT_DONE : EXIT_FAILED;
  }

 private:
  void onSignal(int number) {
    if (number == SIGTERM || number == SIGINT) ++stopping_;
    if (number == SIGHUP) reloadWanted_ = true;
    // SIGCHLD only wakes: reap() looks.
  }

  // False: it ended, could not be started or never answered; or we are to stop. The error has been printed.
  template <typename Answers>
  bool startFirst(Child& child, bool mayAsk, Answers&& answers) {
    if (stopping_ != 0) return false;
    if (const auto started = child.start(loop_.nowMs()); !started)
      return fail(child.name() + ": " + started.error()), false;
    StartPatience patience(loop_.nowMs(), mayAsk);
    while (stopping_ == 0) {
      loop_.turn(PROBE_PERIOD_MS);
      reap(false);
      if (failed_) return false;
      if (answers(patience)) return true;
      switch (patience.judge(loop_.nowMs())) {
        case StartPatience::Verdict::Wait: break;
        case StartPatience::Verdict::Note: warn(child.name() + " runs but doesn't serve yet; still waiting"); break;
        case StartPatience::Verdict::GiveUp:
          failed_ = true;
          fail(child.name() + (patience.wasConnected() ? " takes connections, but doesn't answer: given up"
                                                       : " runs, but hasn't got as far as its sockets: given up"),
               &child == &vault_ ? "its own messages are above: `client refused` means that it doesn't know this user"
                                 : "its own messages are above");
          return false;
      }
    }
    return false;
  }

  bool vaultAnswers(StartPatience& patience) {
    auto client = DaemonClient::connect(loop_, config_.vault.adminSocket);
    if (!client) return false;
    patience.connected(loop_.nowMs());
    return answerOf(loop_, (*client)->as<proto::Admin>().statusRequest().send(), PROBE_TIMEOUT_MS).has_value();
  }

  bool netAnswers(StartPatience& patience) {
    auto client = DaemonClient::connect(loop_, config_.net.socket);
    if (!client) return false;
    patience.connected(loop_.nowMs());
    return answerOf(loop_, (*client)->as<proto::Network>().statusRequest().send(), PROBE_TIMEOUT_MS).has_value();
  }

  void supervise() {
    while (stopping_ == 0) {
      reap(true);
      for (Child* child : {&vault_, &net_}) {
        if (stopping_ == 0 && child->isDue(loop_.nowMs())) startAgain(*child);
      }
      if (std::exchange(reloadWanted_, false) && stopping_ == 0) {
        reloadBoth();
        continue;
      }
      // Last, and nothing that turns the loop stands between it and the looks above: a signal that was taken by another
      // turn, at the start or in a reload, must not wait for the next one.
      if (stopping_ == 0) loop_.turn(sleepMs());
    }
  }

  int sleepMs() {
    uint64_t sleep = 3'600'000;
    const auto now = loop_.nowMs();
    for (const Child* child : {&vault_, &net_}) {
      if (!child->running()) sleep = std::min(sleep, child->restartAtMs() > now ? child->restartAtMs() - now : 0);
    }
    return static_cast<int>(sleep);
  }

  void startAgain(Child& child) {
    if (const auto started = child.start(loop_.nowMs()); !started) {
      warn(child.name() + ": " + started.error());
    } else {
      say(child.name() + " is started again");
    }
  }

  // Takes note of children that have ended. `expected`: they have served before, so that one more start may help.
  void reap(bool expected) {
    int waitStatus = 0;
    pid_t pid = 0;
    while ((pid = ::waitpid(-1, &waitStatus, WNOHANG)) > 0) {
      for (Child* child : {&vault_, &net_}) {
        if (child->pid() != pid) continue;
        const auto words = child->name() + " " + child->onExit(waitStatus, loop_.nowMs());
        if (stopping_ != 0) continue;
        if (expected) {
          warn(words + "; it is started again in " +
               std::to_string(child->restartAtMs() - std::min(loop_.nowMs(), child->restartAtMs())) + " ms");
        } else if (!std::exchange(failed_, true)) {
          fail(words + " before it served", "its own messages are above");
        }
      }
    }
  }

  void reloadBoth() {
    const auto text = readConfigText(config_.file);
    if (!text) return warn("not reloaded: " + format(text.error(), config_.file));
    auto fresh = parseConfig(*text, config_.file);
    if (!fresh) {
      for (const auto& error : eachOf(fresh.error())) warn("not reloaded: " + format(error, config_.file));
      return;
    }
    const auto vault = reloadVault(loop_, config_.vault.adminSocket, *text);
    if (!vault.done) return warn("not reloaded: vaultd " + vault.text);
    say("vaultd: " + vault.text);
    const auto net = reloadNet(config_.net.adminSocket, *text);
    if (!net.done)
      return warn("netd is not reloaded: it " + net.text + (net.hint.empty() ? "" : " (" + net.hint + ")"));
    say("netd: " + net.text);
    for (const auto& line : keysNotLoaded(loop_, config_.vault.adminSocket, *fresh)) warn(line);
    config_.limits = fresh->limits;  // the drain time; sockets and users stay as they were at the start
  }

  // netd first: while it finishes its connections, the vault is still there for it.
  void stopAll() {
    stop(net_, config_.limits.drainTimeoutMs + NET_STOP_MARGIN_MS);
    stop(vault_, VAULT_STOP_MS);
  }

  void stop(Child& child, uint64_t timeoutMs) {
    auto signalsBefore = std::max(stopping_, 1u);
    stopping_ = signalsBefore;
    child.signal(SIGTERM);
    const auto asked = loop_.nowMs();
    const auto deadline = asked + timeoutMs;
    bool killed = false;
    while (child.running()) {
      loop_.turn(PROBE_PERIOD_MS);
      reap(false);
      // One wish may come twice: timeout(1) tells the process, then its group.
      if (loop_.nowMs() < asked + SAME_WISH_MS) signalsBefore = stopping_;
      // Asked a second time, the user doesn't want to wait.
      const bool impatient = stopping_ > signalsBefore;
      if (child.running() && !killed && (loop_.nowMs() >= deadline || impatient)) {
        warn(child.name() + (impatient ? " is killed: asked to stop a second time" : " doesn't stop in time: killed"));
        child.signal(SIGKILL);
        killed = true;
      }
    }
  }

  EventLoop loop_;
  Config config_;
  Child vault_;
  Child net_;
  SignalWatcher signals_;
  unsigned stopping_ = 0;  // how often we were asked to
  bool reloadWanted_ = false;
  bool failed_ = false;
};

// Folders for sockets. Root's daemons change their users, and a group's programs connect: the sockets have modes of
// their own.
bool makeFolders(const Config& config) {
  const bool open = ::geteuid() == 0 || !config.net.socketGroup.empty() || !config.vault.socketGroup.empty();
  for (const auto& folder : socketFolders(config)) {
    std::error_code failure;
    if (fs::exists(folder, failure)) continue;
    fs::create_directories(folder.parent_path(), failure);
    if (::mkdir(folder.c_str(), 0700) != 0 || (open && ::chmod(folder.c_str(), 0755) != 0)) {
      fail(folder.string() + ": can't be made: " + std::strerror(errno), "[vault] socket and [net] socket say where");
      return false;
    }
  }
  return true;
}

// Two vaults with the same keys must not run: their sockets tell.
bool isAlreadyUp(const Config& config) {
  EventLoop loop;
  for (const auto& [name, socket] :
       {std::pair("vaultd", config.vault.adminSocket), std::pair("netd", config.net.socket)}) {
    if (!DaemonClient::connect(loop, socket)) continue;
    fail("a " + std::string(name) + " already serves " + socket.string(), "`sallyport status` tells more");
    return true;
  }
  return false;
}

}  // namespace

int up(const Arguments& arguments) {
  auto config = loadConfigOrFail(arguments);
  if (!config) return EXIT_FAILED;
  const auto findings = inspectSurroundings(*config);
  for (const auto& warning : config->warnings) warn(warning);
  for (const auto& error : findings.errors) fail(error.message, error.hint);
  if (!findings.errors.empty()) return EXIT_FAILED;
  const auto vaultd = findProgram("vaultd");
  const auto netd = findProgram("netd");
  if (vaultd.empty() || netd.empty()) {
    return fail(std::string("no ") + (vaultd.empty() ? "vaultd" : "netd") + " beside this program",
                "install the daemons, or run the sallyport of the build tree");
  }
  if (isAlreadyUp(*config) || !makeFolders(*config)) return EXIT_FAILED;
  return Supervisor(std::move(*config), vaultd, netd).run();
}

}  // namespace sallyport::cli
