// sources.cc - see sources.h.
#include "netd/sources.h"

#include <cstring>

#include "common/match.h"

namespace sallyport::netd {

SourceAddress sourceOf(const Origin& origin) {
  std::array<std::byte, 16> bytes{};
  std::visit(Match{
                 [&](const LocalUser& user) {
                   bytes[8] = std::byte{1};  // which no source of the network has
                   std::memcpy(bytes.data() + 12, &user.uid, sizeof user.uid);
                 },
                 [&](const sockaddr_in& v4) {
                   bytes[10] = bytes[11] = std::byte{0xff};
                   std::memcpy(bytes.data() + 12, &v4.sin_addr, 4);
                 },
                 [&](const sockaddr_in6& v6) {
                   const bool mapped = IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr);
                   std::memcpy(bytes.data(), &v6.sin6_addr, mapped ? 16 : 8);
                 },
             },
             origin);
  return SourceAddress(bytes);
}

size_t Sources::Hash::operator()(const SourceAddress& source) const {
  // Addresses are the attacker's choice: the keyed hash of public keys serves here too.
  std::array<std::byte, 32> padded{};
  std::memcpy(padded.data(), source.data(), SourceAddress::SIZE);
  return PublicKeyHash()(PublicKey(padded));
}

Sources::Counts Sources::counts(const SourceAddress& source) const {
  const auto found = table_.find(source);
  return found == table_.end() ? Counts{} : Counts{found->second.connections, found->second.halfOpen.size()};
}

Connection* Sources::oldestHalfOpen(const SourceAddress& source) const {
  const auto found = table_.find(source);
  return found == table_.end() || found->second.halfOpen.empty() ? nullptr : found->second.halfOpen.front();
}

Sources::Ticket Sources::take(const SourceAddress& source) {
  auto& node = *table_.try_emplace(source).first;
  ++node.second.connections;
  Ticket ticket;
  ticket.sources_ = this;
  ticket.node_ = &node;
  ticket.halfOpen_ = true;
  ticket.place_ = node.second.halfOpen.insert(node.second.halfOpen.end(), nullptr);
  return ticket;
}

bool Sources::mayTry(const SourceAddress& source, uint64_t nowMs) {
  if (nowMs >= triesSinceMs_ + 1000) {
    tries_.clear();
    triesSinceMs_ = nowMs;
  }
  const auto found = tries_.find(source);
  if (found == tries_.end()) {
    if (tries_.size() < MAX_TRIERS) tries_.emplace(source, 1);
    return true;
  }
  if (found->second >= TRIES_PER_SECOND) return false;
  ++found->second;
  return true;
}

void Sources::proved(const SourceAddress& source) {
  const auto found = tries_.find(source);
  if (found != tries_.end() && found->second > 0) --found->second;
}

void Sources::Ticket::settle() {
  if (!halfOpen_) return;
  halfOpen_ = false;
  node_->second.halfOpen.erase(place_);
}

Sources::Ticket::~Ticket() {
  if (node_ == nullptr) return;
  settle();
  if (--node_->second.connections == 0) {
    const SourceAddress key = node_->first;
    sources_->table_.erase(key);
  }
}

}  // namespace sallyport::netd
