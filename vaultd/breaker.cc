#include "vaultd/breaker.h"

#include <algorithm>

namespace sallyport::vaultd {

void Breakers::setRule(const Rule& rule) {
  rule_ = rule;
  for (auto& [caller, breaker] : breakers_) breaker.failures = 0;
}

bool Breakers::isOpen(const Caller& caller, uint64_t nowMs) const {
  const auto found = breakers_.find({caller.socket, caller.uid});
  return found != breakers_.end() && nowMs < found->second.openUntilMs;
}

bool Breakers::failed(const Caller& caller, uint64_t nowMs) {
  if (rule_.failures == 0) return false;
  if (breakers_.size() >= MAX_CALLERS) makeRoom(nowMs);
  Breaker& breaker = breakers_[{caller.socket, caller.uid}];
  if (nowMs >= breaker.windowEndsMs) {
    breaker.windowEndsMs = nowMs + rule_.windowMs;
    breaker.failures = 0;
  }
  if (++breaker.failures < rule_.failures) return false;
  breaker.failures = 0;
  breaker.openUntilMs = nowMs + rule_.pauseMs;
  return true;
}

// Those whose window and pause are over go first, then the one whose end is nearest.
void Breakers::makeRoom(uint64_t nowMs) {
  std::erase_if(breakers_, [nowMs](const auto& each) {
    return each.second.windowEndsMs <= nowMs && each.second.openUntilMs <= nowMs;
  });
  if (breakers_.size() < MAX_CALLERS) return;
  breakers_.erase(std::ranges::min_element(
      breakers_, {}, [](const auto& each) { return std::max(each.second.windowEndsMs, each.second.openUntilMs); }));
}

size_t Breakers::openNow(uint64_t nowMs) const {
  return static_cast<size_t>(
      std::ranges::count_if(breakers_, [nowMs](const auto& each) { return nowMs < each.second.openUntilMs; }));
}

}  // namespace sallyport::vaultd
