// peer_salts.h - salts that the vault has drawn for connections in hard mode, each good for one set of keys. Process:
// vaultd alone. docs/protocol.md §14. A salt is no secret; that it works once, soon, and for its own entry is what
// keeps somebody who has recorded a connection and taken over netd from having its keys made again. Bounded: the oldest
// goes when there are too many.
#pragma once

#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "proto/wire/peer_frame.h"
#include "vaultd/key_format.h"

namespace sallyport::vaultd {

class PeerSalts {
 public:
  static constexpr size_t DEFAULT_CAPACITY = 8192;
  static constexpr uint64_t DEFAULT_LIFE_MS = 10'000;

  explicit PeerSalts(size_t capacity = DEFAULT_CAPACITY) : capacity_(capacity) {}

  void setLifeMs(uint64_t lifeMs) { lifeMs_ = lifeMs; }
  // Fresh, and pending from now on.
  wire::PeerSalt draw(std::string_view entry, bool isListen, uint64_t nowMs);
  // True once for a salt that was drawn for this entry and isn't too old. It is gone in any case.
  bool take(const wire::PeerSalt& salt, std::string_view entry, bool isListen, uint64_t nowMs);
  size_t pending() const { return index_.size(); }

 private:
  struct Pending {
    wire::PeerSalt salt;
    std::string entry;
    bool isListen;
    uint64_t endsMs;
  };
  using List = std::list<Pending>;
  struct SaltHash {
    size_t operator()(const wire::PeerSalt& salt) const { return PublicKeyHash()(PublicKey(salt.span())); }
  };

  void dropOldest();

  size_t capacity_;
  uint64_t lifeMs_ = DEFAULT_LIFE_MS;
  List order_;  // oldest first
  std::unordered_map<wire::PeerSalt, List::iterator, SaltHash> index_;
};

}  // namespace sallyport::vaultd
