// policy.h - which key an entry uses, which peers may meet it there, and who [peers] are. Process: vaultd alone. (What
// programs may do: authority.h.)
// Made whole from a configuration and never changed: a reload replaces it. netd applies the same lists, but the vault
// doesn't rely on that.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include "common/config.h"
#include "vaultd/keyring.h"

namespace sallyport::vaultd {

// A [[listen]] entry.
struct ListenRule {
  VaultKey* key = nullptr;                                            // null: not loaded
  std::unordered_map<PublicKey, std::string, PublicKeyHash> allowed;  // client key -> its name in [peers]
};
// A [[connect]] entry.
struct ConnectRule {
  VaultKey* key = nullptr;
  PublicKey server;
};

// An entry of either direction with `protocol = "peer"`. It is in none of the rules above.
struct PeerRule {
  VaultKey* key = nullptr;
  PeerFraming framing;
};

class Policy {
 public:
  Policy() = default;
  // `keys` must outlive this.
  Policy(const Config& config, const Keyring& keys);

  // A peer by its name: the name and its key. Null for an unknown one. Valid until the policy is replaced.
  const std::pair<const std::string, PublicKey>* peer(std::string_view name) const;
  // Its name in [peers]; empty for a key that isn't there.
  std::string_view peerName(const PublicKey& key) const;
  // [key.NAME] honey: nobody has a reason to use this key.
  bool isHoney(std::string_view key) const { return honeyKeys_.contains(key); }
  // Null for an unknown name. Valid until the policy is replaced.
  const ListenRule* listen(std::string_view entry) const;
  const ConnectRule* connect(std::string_view entry) const;
  bool hasEntry(std::string_view name) const;  // of either direction and protocol
  const PeerRule* peerEntry(std::string_view entry, bool isListen) const;
  // May this key of ours still meet this peer, in any entry?
  bool knows(const VaultKey& key, const PublicKey& peer) const;
  // Names of keys that entries use but the vault hasn't loaded, for people; empty if there are none.
  std::string missingKeys() const;

 private:
  struct NameHash {
    using is_transparent = void;
    size_t operator()(std::string_view name) const { return std::hash<std::string_view>()(name); }
  };
  template <typename Rule>
  using Rules = std::unordered_map<std::string, Rule, NameHash, std::equal_to<>>;

  decltype(Config::peers) peers_;
  std::unordered_map<PublicKey, std::string, PublicKeyHash> peerNames_;
  std::set<std::string, std::less<>> honeyKeys_;
  Rules<ListenRule> listens_;
  Rules<ConnectRule> connects_;
  Rules<PeerRule> peerListens_;
  Rules<PeerRule> peerConnects_;
  std::string missingKeys_;
};

}  // namespace sallyport::vaultd
