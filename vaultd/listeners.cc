#include "vaultd/listeners.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "common/log.h"
#include "common/socket_group.h"
#include "vaultd/app_service.h"

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

// Only we (and root) may connect, until it is given to another user.
constexpr mode_t SOCKET_MODE = 0600;

Result<int, Problem> listenAt(const fs::path& path) {
  std::error_code ignored;
  // 0755 less the umask: netd, under another user, must be able to pass. If it can't be made, bind says why.
  fs::create_directories(path.parent_path(), ignored);
  auto fd = tryListenUnix(path, SOCKET_MODE);
  if (fd) return *fd;
  return refuse(Problem{path.string() + ": can't listen: " + fd.error().why,
                        "stop the other vaultd, remove what is in the way, or set another path in [vault]"});
}

Result<int, Problem> openForPrograms(const VaultSocket& socket, const Accounts& accounts) {
  std::optional<gid_t> group;
  if (!socket.group.empty()) {
    group = accounts.group(socket.group);
    if (!group) return refuse(Problem{socket.path.string() + ": no group `" + socket.group + "` here", {}});
  }
  const auto fd = listenAt(socket.path);
  if (!fd) return refuse(fd.error());
  // The group first: the mode opens the socket to it, and to no other.
  if (group && ::chown(socket.path.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    return refuse(
        Problem{socket.path.string() + ": can't give it to the group " + socket.group + ": " + std::strerror(errno),
                "start vaultd as root, or name a group that its user is in"});
  }
  if (::chmod(socket.path.c_str(), socket.mode) != 0) {
    return refuse(Problem{socket.path.string() + ": can't set its mode: " + std::strerror(errno), {}});
  }
  return *fd;
}

}  // namespace

RefusalLog::RefusalLog(std::string_view socket, const std::set<uid_t>& users) : socket_(socket) {
  for (const uid_t uid : users) users_ += (users_.empty() ? "" : ",") + std::to_string(uid);
}

void RefusalLog::note(const PeerCredentials& peer) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  const auto unlogged =
      ration_.take(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()));
  if (!unlogged) return;
  logWarning("client refused socket=" + socket_ + " uid=" + std::to_string(peer.uid) +
             " pid=" + std::to_string(peer.pid) + " allowed=" + users_ + *unlogged);
}

RpcServer::Bootstrap admitPrograms(VaultState& state, std::string socket, std::set<uid_t> users,
                                   std::optional<gid_t> group) {
  return [&state, refused = RefusalLog(socket, users), socket = std::move(socket), users = std::move(users),
          group](const PeerCredentials& peer) mutable -> kj::Maybe<capnp::Capability::Client> {
    Caller caller{socket, peer.uid, peer.groups()};
    if (!users.empty() && !users.contains(peer.uid) && !(group && caller.gids.contains(*group))) {
      refused.note(peer);
      return nullptr;
    }
    caller.gid = peer.gid;
    return capnp::Capability::Client(kj::heap<AppService>(state, std::move(caller), peer.pid, peer.charge));
  };
}

Result<Listeners, Problem> openListeners(const Config& config, const sandbox::Options& options,
                                         const Accounts& accounts) {
  const uid_t started = ::geteuid();
  Listeners listeners;
  const std::pair<const fs::path&, int&> sockets[] = {{config.vault.netSocket, listeners.net},
                                                      {config.vault.socket, listeners.app},
                                                      {config.vault.adminSocket, listeners.admin}};
  for (const auto& [path, fd] : sockets) {
    const auto opened = listenAt(path);
    if (!opened) return refuse(opened.error());
    fd = *opened;
  }
  if (const auto& group = config.vault.socketGroup; !group.empty()) {
    const auto shared = shareWithGroup(config.vault.socket, group);
    if (!shared) return refuse(Problem{shared.error().message, shared.error().hint});
    listeners.appGroup = *shared;
  }
  listeners.appUsers = {0, started, sandbox::targetIdentity(options).uid};
  if (started != 0 || !sandbox::namesUser(OVERFLOW_ID)) {
    // Without root everything runs as one user. In a namespace of our own, or in the one that we were started in, that
    // user may be the only one with a number: root then shows as the overflow uid. Nobody but this user, root and, at
    // `app`, the group gets past the mode of the socket.
    listeners.appUsers.insert(OVERFLOW_ID);
  }
  listeners.netUsers = listeners.appUsers;
  if (started == 0) {
    sandbox::Options net;
    net.profile = sandbox::Profile::Netd;
    net.requirement = config.net.requireSandbox;
    net.user = config.net.user;
    const sandbox::Identity identity = sandbox::targetIdentity(net);
    listeners.netUsers.insert(identity.uid);
    const fs::path& path = config.vault.netSocket;
    if (identity.uid != started && ::chown(path.c_str(), identity.uid, identity.gid) != 0) {
      return refuse(Problem{path.string() + ": can't give it to " + identity.name + ": " + std::strerror(errno), {}});
    }
  }
  if (!config.vault.metrics.empty()) {
    const auto opened = listenAt(config.vault.metrics);
    if (!opened) return refuse(opened.error());
    listeners.metrics = *opened;
  }
  for (const VaultSocket& socket : config.vaultSockets) {
    auto opened = openForPrograms(socket, accounts);
    if (!opened) return refuse(opened.error());
    listeners.programs.emplace_back(socket.name, *opened);
  }
  return listeners;
}

}  // namespace sallyport::vaultd
