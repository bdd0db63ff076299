// use_stats.h - what programs' uses of keys came to, and how long they took. Process: vaultd alone. Bounded: one row a
// verb, one column an outcome or a power of two. Nothing in it tells one text or key from another.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/config.h"
#include "vaultd/counters.h"

namespace sallyport::vaultd {

// Counts durations by powers of two of a microsecond: bucket i holds those below 2^i us, the last one the rest.
class Log2Histogram {
 public:
  static constexpr size_t BUCKETS = 24;

  void add(uint64_t ns) {
    ++counts_[std::min<size_t>(static_cast<size_t>(std::bit_width(ns / 1000)), BUCKETS - 1)];
    sumNs_ += ns;
  }
  const std::array<uint64_t, BUCKETS>& counts() const { return counts_; }
  uint64_t sumNs() const { return sumNs_; }

 private:
  std::array<uint64_t, BUCKETS> counts_{};
  uint64_t sumNs_ = 0;
};

struct VerbStats {
  uint64_t done = 0;
  std::array<uint64_t, Counters::REFUSALS> refused{};
  Log2Histogram queued;    // of a call: from the turn that read it until its work began
  Log2Histogram executed;  // its work, all items
};

class UseStats {
 public:
  void count(Verb verb, std::optional<proto::Refusal> refused) {
    VerbStats& stats = (*this)[verb];
    refused ? ++stats.refused[std::min(static_cast<size_t>(*refused), Counters::REFUSALS - 1)] : ++stats.done;
  }
  VerbStats& operator[](Verb verb) { return verbs_[static_cast<size_t>(verb)]; }
  const VerbStats& operator[](Verb verb) const { return verbs_[static_cast<size_t>(verb)]; }

 private:
  std::array<VerbStats, VERB_COUNT> verbs_;
};

inline constexpr std::array<Verb, VERB_COUNT> ALL_VERBS = {Verb::Box, Verb::Open, Verb::Sign, Verb::FreshNonce};

}  // namespace sallyport::vaultd
