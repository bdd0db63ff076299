// listeners.h - the vault's sockets and who may use each. Process: vaultd alone, before lock-down.
// The socket's file mode keeps others away; SO_PEERCRED is checked again for each client. See vault.capnp for what each
// one gets.
#pragma once

#include <optional>
#include <set>

#include "common/accounts.h"
#include "common/config.h"
#include "common/log_ration.h"
#include "common/rpc.h"
#include "sandbox/sandbox.h"
#include "vaultd/problem.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

struct Listeners {
  int net = -1;  // listening descriptors, to be taken over by RpcServer
  int app = -1;
  int admin = -1;
  int metrics = -1;               // none: no page
  std::set<uid_t> netUsers;       // who may connect to `net`
  std::set<uid_t> appUsers;       // to `app` and `admin`
  std::optional<gid_t> appGroup;  // and to `app`: socket_group
  // [[vault_socket]]: for those whom the file's mode and group let in. What they may do there, grants say.
  std::vector<std::pair<std::string, int>> programs;  // its name, its descriptor
};

// Makes missing folders, binds the sockets, and gives the net socket to netd's user if we are root.
Result<Listeners, Problem> openListeners(const Config& config, const sandbox::Options& options,
                                         const Accounts& accounts);

// Tells the log who is turned away from a socket for his user: a daemon or a program that waits for us learns no
// reason. A line a second; what was left out is counted in the next one.
class RefusalLog {
 public:
  RefusalLog(std::string_view socket, const std::set<uid_t>& users);
  void note(const PeerCredentials& peer);

 private:
  std::string socket_;
  std::string users_;
  LogRation ration_;
};

// An App for the program at the other end of a socket of this name; null if it is none of `users` (empty: anybody) and
// no member of `group`.
RpcServer::Bootstrap admitPrograms(VaultState& state, std::string socket, std::set<uid_t> users,
                                   std::optional<gid_t> group = std::nullopt);

// A Bootstrap that gives `make()`, or `make(peer)`, to the users named, and null to others. `socket`: its name, for the
// log.
template <typename Make>
RpcServer::Bootstrap admit(std::string_view socket, std::set<uid_t> users, Make make) {
  return [refused = RefusalLog(socket, users), users = std::move(users),
          make = std::move(make)](const PeerCredentials& peer) mutable -> kj::Maybe<capnp::Capability::Client> {
    if (!users.contains(peer.uid)) {
      refused.note(peer);
      return nullptr;
    }
    if constexpr (std::is_invocable_v<Make, const PeerCredentials&>) {
      return capnp::Capability::Client(make(peer));
    } else {
      return capnp::Capability::Client(make());
    }
  };
}

}  // namespace sallyport::vaultd
