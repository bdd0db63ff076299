// vault_state.h - what all services of the vault share. Process: vaultd alone. Made before lock-down, lives as long as
// the process.
#pragma once

#include <ctime>
#include <functional>
#include <map>

#include "vaultd/authority.h"
#include "vaultd/base_sessions.h"
#include "vaultd/breaker.h"
#include "vaultd/counters.h"
#include "vaultd/keyring.h"
#include "vaultd/peer_salts.h"
#include "vaultd/policy.h"
#include "vaultd/use_stats.h"
#include "vaultd/uses.h"

namespace sallyport::vaultd {

class Tokens;

// Anybody may have signatures verified, and each costs as much as a handshake: more of a user are refused.
inline constexpr uint32_t VERIFIES_PER_SECOND = 2000;
inline constexpr size_t MAX_VERIFYING_USERS = 1024;  // are remembered; then all begin anew

struct VaultState {
  SharedKeyCache& cache;
  Keyring& keys;
  Policy policy;
  Counters counters;
  std::function<uint64_t()> nowMs;  // monotonic
  Authority authority{};
  std::function<int64_t()> nowUnix = [] { return static_cast<int64_t>(::time(nullptr)); };  // versions live by it
  std::map<uid_t, TokenBucket> verifyRates{};
  TokenBucket alarmRate{1, 0};
  Breakers breakers{};
  std::map<uid_t, size_t> objects{};  // capabilities that programs hold, by user
  size_t allObjects = 0;
  PeerSalts salts{};
  BaseSessions* base = nullptr;   // null: no block is loaded
  size_t peerSessionObjects = 0;  // capabilities of it that netd holds, also when their session is over
  UseStats uses{};
  UseRecorder* recorder = nullptr;  // may be null
  Tokens* tokens = nullptr;         // null: the configuration has none
  // Nanoseconds of a monotonic clock: now, and at the begin of the loop's turn.
  std::function<uint64_t()> preciseNs = [] { return uint64_t{0}; };
  std::function<uint64_t()> turnNs = [] { return uint64_t{0}; };

  // What the configuration says of programs, at the start and at each reload.
  void apply(const Config& config, Grants grants);
  // False: no use may begin, for it couldn't be recorded.
  bool mayUse() const;
  // One signature for this user's programs.
  bool mayVerify(uid_t uid) {
    if (verifyRates.size() >= MAX_VERIFYING_USERS && !verifyRates.contains(uid)) verifyRates.clear();
    return verifyRates.try_emplace(uid, VERIFIES_PER_SECOND, nowMs()).first->second.take(nowMs());
  }
  // Counts and writes down a use. False: no record, so the answer must not be sent.
  bool recordUse(const UseRecord& use);
  void recordStep(const StepRecord& step);
  void recordEvent(AuditRecord record);
  // May this connection in base mode go on, by the configuration and the clock?
  bool inForce(const BaseSessions::Session& session) const;
  // Wipes the secrets of a key, and ends what lives by them.
  void lock(VaultKey& key);
  // Somebody wants to use a honey key.
  void alarm(const Caller& caller, pid_t pid, std::string_view key, std::string_view what);
};

}  // namespace sallyport::vaultd
