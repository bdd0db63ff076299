// grants.h - who may have the vault do what: the [[grant]] sections, resolved and judged. Part of: common (vaultd, and
// the CLI for `policy check`). Pure. See docs/protocol.md §8.
//
// A use is permitted if ONE grant permits all of it: caller, key, verb, peer or domain, length and rate. Grants never
// add up dimension by dimension: "box to alice" and "box of 100 bytes to anybody" don't make "box of 60,000 bytes to
// bob". Whatever no grant permits is refused; the reason tells how far the best of them went.
#pragma once

#include <sys/types.h>

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/accounts.h"
#include "common/config.h"

namespace sallyport {

// Who asks: the socket it came by, and what the kernel says of the process at its other end.
struct Caller {
  std::string socket{MAIN_SOCKET};
  uid_t uid = OVERFLOW_ID;
  std::set<gid_t> gids;     // of the process, supplementary ones too
  gid_t gid = OVERFLOW_ID;  // the first of them, for the log
};

struct Grant {
  std::string name;
  std::string socket;
  bool anyUser = false;
  std::set<uid_t> users;
  std::set<gid_t> groups;
  std::set<std::string, std::less<>> keys;
  VerbSet verbs;
  bool anyPeer = false;
  std::set<PublicKey> peers;
  size_t maxBytes = 0;
  uint32_t perSecond = 0;  // 0: no limit
  std::set<std::string, std::less<>> domains;
  uint32_t leaseS = 0;  // 0: no end

  // By user or by group: one of both suffices.
  bool isFor(const Caller& caller) const;
  bool permitsPeer(const PublicKey& peer) const { return anyPeer || peers.contains(peer); }
};

// What is to be done, beyond the key.
struct Use {
  Verb verb;
  const PublicKey* peer = nullptr;  // box, open; null for a sealed box, which may come from anybody
  size_t bytes = 0;                 // of the text
  std::string_view domain;          // fresh_nonce
};

enum class Denial : uint8_t { NotPermitted, PeerNotAllowed, BadDomain, TooLong, RateLimited };

class Grants {
 public:
  Grants() = default;
  // A name that `accounts` doesn't have is an error.
  static Result<Grants, ConfigError> resolve(const Config& config, const Accounts& accounts);

  // Those for this caller and key, with one of `verbs`. Valid as long as this lives.
  std::vector<const Grant*> find(const Caller& caller, std::string_view key, VerbSet verbs = VerbSet::all()) const;
  const std::vector<Grant>& all() const { return grants_; }
  size_t indexOf(const Grant& grant) const { return static_cast<size_t>(&grant - grants_.data()); }

 private:
  std::vector<Grant> grants_;
};

VerbSet verbsOf(const std::vector<const Grant*>& grants);
// The longest lease, in seconds, of a capability for `verbs`; 0: no end. Each verb has the longest that a grant with it
// gives, and the capability the shortest of those.
uint64_t longestLeaseS(const std::vector<const Grant*>& grants, VerbSet verbs);

// The first of `grants` that permits the use, or the reason of the one that came nearest. `take`: is there a use left
// in this grant's rate? It is asked last.
Result<const Grant*, Denial> judge(const std::vector<const Grant*>& grants, const Use& use,
                                   const std::function<bool(const Grant&)>& take);

}  // namespace sallyport
