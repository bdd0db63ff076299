#include "vaultd/peer_salts.h"

namespace sallyport::vaultd {

wire::PeerSalt PeerSalts::draw(std::string_view entry, bool isListen, uint64_t nowMs) {
  while (!order_.empty() && (order_.size() >= capacity_ || order_.front().endsMs <= nowMs)) dropOldest();
  wire::PeerSalt salt;
  fillRandom(salt.mutableSpan());
  order_.push_back({salt, std::string(entry), isListen, nowMs + lifeMs_});
  index_.emplace(salt, std::prev(order_.end()));
  return salt;
}

bool PeerSalts::take(const wire::PeerSalt& salt, std::string_view entry, bool isListen, uint64_t nowMs) {
  const auto found = index_.find(salt);
  if (found == index_.end()) return false;
  const auto pending = found->second;
  const bool good = pending->entry == entry && pending->isListen == isListen && nowMs < pending->endsMs;
  index_.erase(found);
  order_.erase(pending);
  return good;
}

void PeerSalts::dropOldest() {
  index_.erase(order_.front().salt);
  order_.pop_front();
}

}  // namespace sallyport::vaultd
