// sources.cc - see sources.h.
#include "netd/sources.h"

#include <algorithm>
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

void Highest::up(size_t from) {
  if (from > 0) --numbers_[from - 1];
  if (numbers_.size() == from) numbers_.push_back(0);
  ++numbers_[from];
  highest_ = std::max(highest_, from + 1);
}

void Highest::down(size_t from) {
  --numbers_[from - 1];
  if (from > 1) ++numbers_[from - 2];
  if (highest_ == from && numbers_[from - 1] == 0) --highest_;
}

void Sources::tell() {
  stats_.set(Counter::BusiestHalfOpen, halfOpen_.now());
  stats_.set(Counter::BusiestConnections, connections_.now());
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
  connections_.up(node.second.connections++);
  halfOpen_.up(node.second.halfOpen.size());
  Ticket ticket;
  ticket.sources_ = this;
  ticket.node_ = &node;
  ticket.halfOpen_ = true;
  ticket.place_ = node.second.halfOpen.insert(node.second.halfOpen.end(), nullptr);
  tell();
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
  sources_->halfOpen_.down(node_->second.halfOpen.size());
  node_->second.halfOpen.erase(place_);
  sources_->tell();
}

Sources::Ticket::~Ticket() {
  if (node_ == nullptr) return;
  settle();
  sources_->connections_.down(node_->second.connections);
  sources_->tell();
  if (--node_->second.connections == 0) {
    const SourceAddress key = node_->first;
    sources_->table_.erase(key);
  }
}

}  // namespace sallyport::netd
