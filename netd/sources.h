// sources.h - how many connections each source holds. Part of: netd-worker.
// IPv4 counts by address, IPv6 by /64 (an attacker owns at least that much), Unix sockets by the user at the other end.
// And how often lately one had the vault asked for nothing.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "common/bytes.h"
#include "netd/origin.h"
#include "netd/stats.h"

namespace sallyport::netd {

class Connection;

struct SourceTag;
using SourceAddress = Bytes<SourceTag, 16>;
SourceAddress sourceOf(const Origin& origin);

// The highest of many numbers that change by one.
class Highest {
 public:
  void up(size_t from);    // one that was `from` is one more now
  void down(size_t from);  // or one less
  size_t now() const { return highest_; }

 private:
  std::vector<uint32_t> numbers_;  // how many are 1, 2, ...
  size_t highest_ = 0;
};

class Sources {
 private:
  using HalfOpen = std::list<Connection*>;  // oldest first; null as long as its ticket has no holder
  struct Source {
    uint32_t connections = 0;
    HalfOpen halfOpen;
  };

 public:
  struct Counts {
    size_t connections = 0;
    size_t halfOpen = 0;
  };
  // A place held by a connection; given back when it dies.
  class Ticket {
   public:
    Ticket() = default;
    Ticket(Ticket&& other) noexcept { swap(other); }
    Ticket& operator=(Ticket&& other) noexcept {
      swap(other);
      return *this;
    }
    ~Ticket();
    // Who is dropped when its source has too many half-open connections.
    void heldBy(Connection& holder) { *place_ = &holder; }
    // The handshake is over.
    void settle();

   private:
    friend class Sources;
    void swap(Ticket& other) noexcept {
      std::swap(sources_, other.sources_);
      std::swap(node_, other.node_);
      std::swap(halfOpen_, other.halfOpen_);
      std::swap(place_, other.place_);
    }
    Sources* sources_ = nullptr;
    std::pair<const SourceAddress, Source>* node_ = nullptr;
    bool halfOpen_ = false;
    HalfOpen::iterator place_;  // while half-open
  };

  // `stats`, where the busiest source is told, must outlive this.
  explicit Sources(Stats& stats) : stats_(stats) {}
  Sources(const Sources&) = delete;

  Counts counts(const SourceAddress& source) const;
  // Null if there is none. Costs the same however many other sources have some.
  Connection* oldestHalfOpen(const SourceAddress& source) const;
  Ticket take(const SourceAddress& source);  // a half-open connection

  // Of connections that have the vault asked and prove nothing (base mode): so many a second, then the source's others
  // aren't worth a question until the second is over.
  static constexpr uint32_t TRIES_PER_SECOND = 20;
  // Counts one, or says that there were too many.
  [[nodiscard]] bool mayTry(const SourceAddress& source, uint64_t nowMs);
  // That one was worth it.
  void proved(const SourceAddress& source);
  size_t triers() const { return tries_.size(); }

 private:
  struct Hash {
    size_t operator()(const SourceAddress& source) const;
  };
  // More addresses than that in one second aren't told apart any more: the newest go uncounted.
  static constexpr size_t MAX_TRIERS = 4096;
  void tell();
  Stats& stats_;
  Highest halfOpen_;
  Highest connections_;
  std::unordered_map<SourceAddress, Source, Hash> table_;
  std::unordered_map<SourceAddress, uint32_t, Hash> tries_;  // in the second of `triesSinceMs_`
  uint64_t triesSinceMs_ = 0;
};

}  // namespace sallyport::netd
