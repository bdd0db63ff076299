// grants.cc - see grants.h.
#include "common/grants.h"

#include <algorithm>
#include <optional>

namespace sallyport {

bool Grant::isFor(const Caller& caller) const {
  if (socket != caller.socket) return false;
  if (anyUser) return true;
  // Nobody is told apart under this number.
  if (caller.uid != OVERFLOW_ID && users.contains(caller.uid)) return true;
  return std::ranges::any_of(caller.gids, [&](gid_t gid) { return gid != OVERFLOW_ID && groups.contains(gid); });
}

Result<Grants, ConfigError> Grants::resolve(const Config& config, const Accounts& accounts) {
  Grants result;
  for (const GrantEntry& entry : config.grants) {
    Grant grant;
    const auto unknown = [&](std::string_view kind, const std::string& name) {
      return refuse(ConfigError{"[[grant]] `" + entry.name + "`: no " + std::string(kind) + " `" + name + "` here",
                                entry.line, "add it, or give its number; a running vaultd knows those of its start"});
    };
    for (const std::string& user : entry.users) {
      if (user == "*") {
        grant.anyUser = true;
      } else if (const auto uid = accounts.user(user)) {
        grant.users.insert(*uid);
      } else {
        return unknown("user", user);
      }
    }
    for (const std::string& group : entry.groups) {
      const auto gid = accounts.group(group);
      if (!gid) return unknown("group", group);
      grant.groups.insert(*gid);
    }
    for (const std::string& peer : entry.peers) {
      if (peer == "*") {
        grant.anyPeer = true;
      } else {
        const auto found = config.peers.find(peer);
        CHECK(found != config.peers.end());  // parseConfig refuses others
        grant.peers.insert(found->second);
      }
    }
    grant.name = entry.name;
    grant.socket = entry.socket;
    grant.keys.insert(entry.keys.begin(), entry.keys.end());
    grant.verbs = entry.verbs;
    grant.maxBytes = entry.maxBytes;
    grant.perSecond = entry.perSecond;
    grant.domains.insert(entry.domains.begin(), entry.domains.end());
    grant.leaseS = entry.leaseS;
    result.grants_.push_back(std::move(grant));
  }
  return result;
}

std::vector<const Grant*> Grants::find(const Caller& caller, std::string_view key, VerbSet verbs) const {
  std::vector<const Grant*> found;
  for (const Grant& grant : grants_) {
    if (!(grant.verbs & verbs).empty() && grant.keys.contains(key) && grant.isFor(caller)) found.push_back(&grant);
  }
  return found;
}

VerbSet verbsOf(const std::vector<const Grant*>& grants) {
  VerbSet verbs;
  for (const Grant* grant : grants) verbs = verbs | grant->verbs;
  return verbs;
}

uint64_t longestLeaseS(const std::vector<const Grant*>& grants, VerbSet verbs) {
  uint64_t shortest = 0;
  for (const Verb verb : {Verb::Box, Verb::Open, Verb::Sign, Verb::FreshNonce}) {
    if (!verbs.has(verb)) continue;
    std::optional<uint64_t> longest;
    for (const Grant* grant : grants) {
      if (!grant->verbs.has(verb)) continue;
      const bool endless = grant->leaseS == 0 || longest == 0;
      longest = endless ? 0 : std::max<uint64_t>(longest.value_or(0), grant->leaseS);
    }
    if (longest.value_or(0) != 0) shortest = shortest == 0 ? *longest : std::min(shortest, *longest);
  }
  return shortest;
}

Result<const Grant*, Denial> judge(const std::vector<const Grant*>& grants, const Use& use,
                                   const std::function<bool(const Grant&)>& take) {
  Denial nearest = Denial::NotPermitted;
  // The reasons are declared in the order in which they are looked for.
  const auto missed = [&nearest](Denial reason) { nearest = std::max(nearest, reason); };
  for (const Grant* grant : grants) {
    if (!grant->verbs.has(use.verb)) continue;
    const bool hasPeer = use.verb == Verb::Box || use.verb == Verb::Open;
    if (hasPeer && !(use.peer == nullptr ? grant->anyPeer : grant->permitsPeer(*use.peer))) {
      missed(Denial::PeerNotAllowed);
    } else if (use.verb == Verb::FreshNonce && !grant->domains.contains(use.domain)) {
      missed(Denial::BadDomain);
    } else if (use.bytes > grant->maxBytes) {
      missed(Denial::TooLong);
    } else if (!take(*grant)) {
      missed(Denial::RateLimited);
    } else {
      return grant;
    }
  }
  return refuse(nearest);
}

}  // namespace sallyport
