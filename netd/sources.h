// sources.h - how many connections each address holds. Part of: netd-worker.
// IPv4 counts by address, IPv6 by /64 (an attacker owns at least that much); Unix sockets count together.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>

#include "common/bytes.h"

namespace sallyport::netd {

struct SourceTag;
using SourceAddress = Bytes<SourceTag, 16>;
SourceAddress sourceOf(const sockaddr_storage& address);
// "192.0.2.1:40000", "[2001:db8::1]:40000", "unix"
std::string printable(const sockaddr_storage& address);

class Sources {
 public:
  struct Counts {
    uint32_t connections = 0;
    uint32_t halfOpen = 0;
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
    // The handshake is over.
    void settle();
    const SourceAddress* source() const { return node_ == nullptr ? nullptr : &node_->first; }

   private:
    friend class Sources;
    void swap(Ticket& other) noexcept {
      std::swap(sources_, other.sources_);
      std::swap(node_, other.node_);
      std::swap(halfOpen_, other.halfOpen_);
    }
    Sources* sources_ = nullptr;
    std::pair<const SourceAddress, Counts>* node_ = nullptr;
    bool halfOpen_ = false;
  };

  Counts counts(const SourceAddress& source) const;
  Ticket take(const SourceAddress& source);  // a half-open connection

 private:
  struct Hash {
    size_t operator()(const SourceAddress& source) const;
  };
  std::unordered_map<SourceAddress, Counts, Hash> table_;
};

}  // namespace sallyport::netd
