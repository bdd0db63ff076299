#include "hsmlink/keeper.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "common/find_program.h"

namespace sallyport::hsmlink {

namespace fs = std::filesystem;

namespace {

struct Pair {
  kj::AutoCloseFd ours, theirs;
};

Result<Pair, std::string> socketPair() {
  std::array<int, 2> fds{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()) != 0)
    return refuse(std::string("socketpair: ") + std::strerror(errno));
  Pair pair{kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
  // Our end alone: a flag of one end is not one of the other.
  if (::fcntl(fds[0], F_SETFL, O_NONBLOCK) != 0) return refuse(std::string("fcntl: ") + std::strerror(errno));
  return pair;
}

// posix_spawn's settings: what a program expects to find, and the descriptors it is to have.
class Spawn {
 public:
  Spawn() {
    good_ = posix_spawn_file_actions_init(&actions_) == 0 && posix_spawnattr_init(&attributes_) == 0;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    good_ = good_ && posix_spawnattr_setsigdefault(&attributes_, &all) == 0 &&
            posix_spawnattr_setsigmask(&attributes_, &none) == 0 &&
            posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK) == 0;
  }
  ~Spawn() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  Spawn(const Spawn&) = delete;
  Spawn& operator=(const Spawn&) = delete;

  // Under the same number: glibc takes close-on-exec away from it then.
  void inherit(int fd) { good_ = good_ && posix_spawn_file_actions_adddup2(&actions_, fd, fd) == 0; }
  int run(const fs::path& program, char* const* arguments) {
    if (!good_) return ENOMEM;
    // Nothing of our environment: what the module needs, the configuration says. The C library's messages and systemd's
    // credentials are the keeper's own business.
    std::vector<std::string> kept;
    for (const char* name : {"PATH", "LANG", "CREDENTIALS_DIRECTORY"}) {
      if (const char* value = ::getenv(name)) kept.push_back(std::string(name) + "=" + value);
    }
    std::vector<char*> environment;
    for (std::string& variable : kept) environment.push_back(variable.data());
    environment.push_back(nullptr);
    pid_t pid = 0;
    return posix_spawn(&pid, program.c_str(), &actions_, &attributes_, arguments, environment.data());
  }

 private:
  posix_spawn_file_actions_t actions_{};
  posix_spawnattr_t attributes_{};
  bool good_ = false;
};

}  // namespace

KeeperStart startOf(const TokenConfig& token, const fs::path& configFile, bool asOperator) {
  // Beside hsmd, in an installation as in a build tree.
  const fs::path hsmd = findProgram("hsmd");
  const fs::path guard = hsmd.empty() ? hsmd : hsmd.parent_path() / "token-guard";
  KeeperStart start{guard, configFile, token.name, asOperator};
  if (const auto* pin = std::get_if<PinDescriptor>(&token.pin)) start.pinFd = pin->fd;
  return start;
}

Result<KeeperEnds, std::string> startKeeper(const KeeperStart& start) {
  if (start.program.empty()) return refuse(std::string("hsmd isn't installed beside this program"));
  auto page = SharedPage::create();
  if (!page) return refuse("no page for secrets: " + page.error());
  auto calls = socketPair();
  if (!calls) return refuse(calls.error());
  auto control = socketPair();
  if (!control) return refuse(control.error());

  // Without a folder that may have hsmd in its name: what is called that can be killed, all of it, and is brought back.
  std::vector<std::string> words = {"token-guard",
                                    "--config",
                                    start.configFile.string(),
                                    "--token",
                                    start.token,
                                    "--calls-fd",
                                    std::to_string(calls->theirs.get()),
                                    "--control-fd",
                                    std::to_string(control->theirs.get()),
                                    "--page-fd",
                                    std::to_string((*page)->fd())};
  if (start.asOperator) words.emplace_back("--operator");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);

  Spawn spawn;
  for (const int fd : {calls->theirs.get(), control->theirs.get(), (*page)->fd()}) spawn.inherit(fd);
  if (start.pinFd && ::fcntl(*start.pinFd, F_GETFD) >= 0) spawn.inherit(*start.pinFd);
  if (const int error = spawn.run(start.program, arguments.data()); error != 0)
    return refuse(start.program.string() + " can't be run: " + std::strerror(error));
  // One reader of a PIN is enough.
  if (start.pinFd) ::close(*start.pinFd);
  (*page)->closeFd();
  return KeeperEnds{std::move(calls->ours), std::move(control->ours), std::move(*page)};
}

}  // namespace sallyport::hsmlink
