// rpc.h - Cap'n Proto over Unix sockets, with every limit set. Part of: common (any process).
// RpcServer accepts on an inherited or freshly bound listening socket and gives each client a bootstrap capability;
// RpcClient is one connection to such a server. Service methods go through `guarded()`, so that no exception text
// reaches a peer.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <capnp/rpc-twoparty.h>
#include <kj/io.h>

#include "common/link.h"
#include "common/log_ration.h"
#include "common/result.h"

namespace sallyport {

// Who is at the other end of a Unix socket when it connected (SO_PEERCRED). The pid is for the log alone.
struct PeerCredentials {
  uid_t uid = static_cast<uid_t>(-1);
  gid_t gid = static_cast<gid_t>(-1);
  pid_t pid = 0;
  int socket = -1;                       // theirs; open while they are being admitted
  std::shared_ptr<LinkCharge> charge{};  // for what is kept for them; may be null

  // Its own group and the supplementary ones (SO_PEERGROUPS), as of when it connected. Fewer if the kernel won't tell.
  std::set<gid_t> groups() const;
};

class RpcServer final : private EventLoop::Watcher {
 public:
  // Makes the bootstrap capability of a new client; null refuses it (the connection is closed at once).
  using Bootstrap = std::function<kj::Maybe<capnp::Capability::Client>(const PeerCredentials&)>;

  struct Stats {
    uint64_t accepted = 0;
    uint64_t refused = 0;  // by Bootstrap, or over maxClients
    std::array<uint64_t, CUT_OFF_COUNT> cutOff{};
    size_t connected = 0;
  };

  // Takes over `listenFd`, a listening non-blocking Unix socket. `budget`, if there is one, must outlive this.
  RpcServer(EventLoop& loop, int listenFd, Bootstrap bootstrap, LinkLimits limits, size_t maxClients = 256,
            LinkBudget* budget = nullptr);
  ~RpcServer() noexcept(false);

  const Stats& stats() const { return stats_; }
  // Told of each client that is cut off; may be empty.
  std::function<void(CutOff)> onCutOff;
  // Gets who has connected but is nobody in the user namespace of this process (OVERFLOW_ID): to ask a process that
  // can name him, and admit() him then. May be empty; such clients are one user.
  std::function<void(kj::AutoCloseFd)> onUnnamed;
  // `user`: whom others have named; without it SO_PEERCRED tells.
  void admit(kj::AutoCloseFd socket, std::optional<uid_t> user = std::nullopt);
  // Back-pressure: while it rests, connections wait in the kernel's queue.
  void rest(bool resting);
  // No new clients; those connected stay.
  void stopAccepting();

 private:
  struct Client;
  void onEvents(uint32_t events) override;
  void updateListening();
  bool makeRoomFor(uid_t uid);
  void pause();
  void drop(std::list<std::unique_ptr<Client>>::iterator client);
  void logCutOff(CutOff reason, uid_t uid);

  EventLoop& loop_;
  int listenFd_;
  Bootstrap bootstrap_;
  LinkLimits limits_;
  size_t maxClients_;
  LinkBudget* budget_;
  Stats stats_;
  std::map<uid_t, LogRation> cutOffLog_;
  bool listening_ = false;  // to what happens at listenFd_
  bool resting_ = false;
  bool paused_ = false;
  kj::Promise<void> resuming_ = nullptr;
  std::list<std::unique_ptr<Client>> clients_;
  std::shared_ptr<bool> alive_;
};

class RpcClient {
 public:
  // Takes over `fd`, a connected non-blocking Unix socket. `onDisconnect` is called once, from the loop, when the
  // connection ends (also when cut off); the client may then be destroyed, but not inside the call.
  RpcClient(EventLoop& loop, int fd, LinkLimits limits, std::function<void()> onDisconnect);
  ~RpcClient() noexcept(false);

  capnp::Capability::Client bootstrap();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Runs a service method so that nothing of an exception but a constant text reaches the RPC peer.
// The method completes synchronously.
template <typename Method>
kj::Promise<void> guarded(Method&& method) {
  try {
    method();
    return kj::READY_NOW;
  } catch (...) { return kj::Exception(kj::Exception::Type::FAILED, __FILE__, 0, kj::str("internal error")); }
}

// --- Unix sockets ----------------------------------------------------------------------------------------------------

// Why a socket can't listen.
struct ListenFailure {
  std::string why;  // for people, without the path
  int error = 0;    // errno; EADDRINUSE also for what is in the way
};
// Binds and listens (non-blocking, close-on-exec). A stale socket file (nobody accepts on it) is replaced; a living one
// is a failure. The mode is set on the file before anyone can connect.
Result<int, ListenFailure> tryListenUnix(const std::filesystem::path& path, mode_t mode, int backlog = 1024,
                                         int type = SOCK_STREAM);
// The others throw kj::Exception with the path in it. This one's description is for people.
int listenUnix(const std::filesystem::path& path, mode_t mode, int backlog = 1024, int type = SOCK_STREAM);
// Connects (non-blocking: a server whose queue is full is an error, close-on-exec).
int connectUnix(const std::filesystem::path& path, int type = SOCK_STREAM);
PeerCredentials peerCredentials(int fd);

}  // namespace sallyport
