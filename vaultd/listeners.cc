#include "vaultd/listeners.h"

#include <unistd.h>

#include <kj/debug.h>

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

// Only we (and root) may connect, until it is given to another user.
constexpr mode_t SOCKET_MODE = 0600;
// What SO_PEERCRED shows for a user that our user namespace doesn't map.
constexpr uid_t OVERFLOW_UID = 65534;

int listenAt(const fs::path& path) {
  std::error_code ignored;
  // 0755 less the umask: netd, under another user, must be able to pass. If it can't be made, bind says why.
  fs::create_directories(path.parent_path(), ignored);
  return listenUnix(path, SOCKET_MODE);
}

}  // namespace

Listeners openListeners(const Config& config, const sandbox::Options& options) {
  const uid_t started = ::geteuid();
  Listeners listeners;
  listeners.net = listenAt(config.vault.netSocket);
  listeners.app = listenAt(config.vault.socket);
  listeners.admin = listenAt(config.vault.adminSocket);
  listeners.appUsers = {0, started, sandbox::targetIdentity(options).uid};
  if (started != 0) {
    // Without root everything runs as one user. In a namespace of our own that user may be the only one with a number:
    // root then shows as the overflow uid. Nobody but this user and root gets past the mode of the socket.
    listeners.appUsers.insert(OVERFLOW_UID);
  }
  listeners.netUsers = listeners.appUsers;
  if (started == 0) {
    sandbox::Options net;
    net.profile = sandbox::Profile::Netd;
    net.requirement = config.net.requireSandbox;
    net.user = config.net.user;
    const sandbox::Identity identity = sandbox::targetIdentity(net);
    listeners.netUsers.insert(identity.uid);
    const char* path = config.vault.netSocket.c_str();
    KJ_SYSCALL(::chown(path, identity.uid, identity.gid), path);
  }
  return listeners;
}

FileOwners keyOwners(const sandbox::Options& options) {
  return {{0, ::geteuid(), sandbox::targetIdentity(options).uid}};
}

}  // namespace sallyport::vaultd
