#include "vaultd/policy.h"

#include <algorithm>

namespace sallyport::vaultd {

Policy::Policy(const Config& config, const Keyring& keys) : peers_(config.peers), honeyKeys_(config.honeyKeys) {
  for (const auto& [name, key] : peers_) peerNames_.emplace(key, name);
  for (const ListenEntry& entry : config.listens) {
    if (entry.protocol == Protocol::Peer) {
      peerListens_.emplace(entry.name, PeerRule{keys.find(entry.key), entry.framing});
      continue;
    }
    ListenRule rule;
    rule.key = keys.find(entry.key);
    for (const std::string& peer : entry.allow) {
      const auto found = config.peers.find(peer);
      CHECK(found != config.peers.end());  // parseConfig refuses others
      rule.allowed.emplace(found->second, peer);
    }
    listens_.emplace(entry.name, std::move(rule));
  }
  for (const ConnectEntry& entry : config.connects) {
    if (entry.protocol == Protocol::Peer) {
      peerConnects_.emplace(entry.name, PeerRule{keys.find(entry.key), entry.framing});
      continue;
    }
    const auto server = config.peers.find(entry.peer);
    CHECK(server != config.peers.end());
    connects_.emplace(entry.name, ConnectRule{keys.find(entry.key), server->second});
  }
  for (const std::string& name : keysUsed(config)) {
    if (keys.find(name) == nullptr) missingKeys_ += (missingKeys_.empty() ? "" : ", ") + name;
  }
}

const std::pair<const std::string, PublicKey>* Policy::peer(std::string_view name) const {
  const auto found = peers_.find(name);
  return found == peers_.end() ? nullptr : &*found;
}

std::string_view Policy::peerName(const PublicKey& key) const {
  const auto found = peerNames_.find(key);
  return found == peerNames_.end() ? std::string_view() : found->second;
}

const ListenRule* Policy::listen(std::string_view entry) const {
  const auto found = listens_.find(entry);
  return found == listens_.end() ? nullptr : &found->second;
}

const ConnectRule* Policy::connect(std::string_view entry) const {
  const auto found = connects_.find(entry);
  return found == connects_.end() ? nullptr : &found->second;
}

bool Policy::hasEntry(std::string_view name) const {
  return listen(name) != nullptr || connect(name) != nullptr || peerListens_.contains(name) ||
         peerConnects_.contains(name);
}

const PeerRule* Policy::peerEntry(std::string_view entry, bool isListen) const {
  const auto& rules = isListen ? peerListens_ : peerConnects_;
  const auto found = rules.find(entry);
  return found == rules.end() ? nullptr : &found->second;
}

bool Policy::knows(const VaultKey& key, const PublicKey& peer) const {
  return std::any_of(
             listens_.begin(), listens_.end(),
             [&](const auto& entry) { return entry.second.key == &key && entry.second.allowed.contains(peer); }) ||
         std::any_of(connects_.begin(), connects_.end(),
                     [&](const auto& entry) { return entry.second.key == &key && entry.second.server == peer; });
}

std::string Policy::missingKeys() const { return missingKeys_; }

}  // namespace sallyport::vaultd
