// counters.h - what the vault counts, by name, for `sallyport status` and metrics. Process: vaultd alone.
// Names are stable: fields are added, never renamed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "proto/vault.capnp.h"

namespace sallyport::vaultd {

// X(enumerator, name)
#define SALLYPORT_VAULT_COUNTS(X) \
  X(CookiesSealed, "cookies_sealed") \
  X(CookiesRefused, "cookies_refused") \
  X(VouchesVerified, "vouches_verified") \
  X(VouchesRefused, "vouches_refused") \
  X(VouchesMade, "vouches_made") \
  X(VouchesNotMade, "vouches_not_made") \
  X(PeerSaltsDrawn, "peer_salts_drawn") \
  X(PeerSaltsRefused, "peer_salts_refused") \
  X(PeerKeysDerived, "peer_keys_derived") \
  X(PeerKeysRefused, "peer_keys_refused") \
  X(PeersAccepted, "peers_accepted") \
  X(PeersNotAccepted, "peers_not_accepted") \
  X(PeerSessionsBegun, "peer_sessions_begun") \
  X(PeerSessionsRefused, "peer_sessions_refused") \
  X(PeerFaults, "peer_faults") \
  X(BlocksClaimed, "blocks_claimed") \
  X(BlocksNotClaimed, "blocks_not_claimed") \
  X(KeysGiven, "keys_given") \
  X(SignaturesVerified, "signatures_verified") \
  X(BreakersTripped, "breakers_tripped") \
  X(HoneyUses, "honey_key_uses") \
  X(KeysLocked, "keys_locked") \
  X(KeysUnlocked, "keys_unlocked") \
  X(UnlocksRefused, "unlocks_refused") \
  X(Panics, "panics") \
  X(SharedKeyHits, "shared_key_hits") \
  X(SharedKeyMisses, "shared_key_misses") \
  X(PublicKeysGiven, "public_keys_given") \
  X(Pings, "pings") \
  X(SelfTestFailures, "self_test_failures") \
  X(Reloads, "reloads") \
  X(ReloadsRefused, "reloads_refused")

enum class Count : uint8_t {
#define X(id, text) id,
  SALLYPORT_VAULT_COUNTS(X)
#undef X
};

class Counters {
 public:
#define X(id, text) +1
  static constexpr size_t COUNTS = 0 SALLYPORT_VAULT_COUNTS(X);
#undef X
  static constexpr size_t REFUSALS = 26;  // of proto::Refusal

  void add(Count which, uint64_t howMany = 1) { counts_[static_cast<size_t>(which)] += howMany; }
  void addRefusal(proto::Refusal reason);

  // "bad_box", for an index below REFUSALS.
  static std::string_view nameOf(size_t refusal) { return REFUSAL_NAMES[refusal].substr(REFUSED.size()); }

  uint64_t get(Count which) const { return counts_[static_cast<size_t>(which)]; }
  uint64_t refusals(proto::Refusal reason) const { return refusals_[static_cast<size_t>(reason)]; }

  // f(name, value) for each count, then for each refusal.
  template <typename F>
  void forEach(F&& f) const {
    for (size_t i = 0; i < COUNTS; ++i) f(NAMES[i], counts_[i]);
    for (size_t i = 0; i < REFUSALS; ++i) f(REFUSAL_NAMES[i], refusals_[i]);
  }
  static constexpr size_t TOTAL = COUNTS + REFUSALS;

 private:
  static constexpr std::string_view REFUSED = "refused_";
  static const std::array<std::string_view, COUNTS> NAMES;
  static const std::array<std::string_view, REFUSALS> REFUSAL_NAMES;

  std::array<uint64_t, COUNTS> counts_{};
  std::array<uint64_t, REFUSALS> refusals_{};
};

}  // namespace sallyport::vaultd
