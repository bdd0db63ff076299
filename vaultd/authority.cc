#include "vaultd/authority.h"

#include <algorithm>

namespace sallyport::vaultd {

namespace {

Refusal refusalOf(Denial denial) {
  switch (denial) {
    case Denial::NotPermitted: return Refusal::NOT_PERMITTED;
    case Denial::PeerNotAllowed: return Refusal::PEER_NOT_ALLOWED;
    case Denial::BadDomain: return Refusal::BAD_DOMAIN;
    case Denial::TooLong: return Refusal::TOO_LONG;
    case Denial::RateLimited: return Refusal::RATE_LIMITED;
  }
  return Refusal::NOT_PERMITTED;
}

}  // namespace

Authority::Authority(Grants grants, uint64_t nowMs) : grants_(std::move(grants)) {
  for (const Grant& grant : grants_.all()) {
    rates_.push_back(grant.perSecond == 0 ? std::nullopt : std::optional(TokenBucket(grant.perSecond, nowMs)));
  }
}

Result<void, Refusal> Authority::permit(const std::vector<const Grant*>& found, const Use& use, uint64_t nowMs,
                                        uint32_t uses) {
  const auto permitted = judge(found, use, [&](const Grant& grant) {
    auto& rate = rates_[grants_.indexOf(grant)];
    return !rate || rate->take(nowMs, uses);
  });
  if (!permitted) return refuse(refusalOf(permitted.error()));
  return {};
}

bool Authority::meets(std::string_view key, const PublicKey& peer) const {
  return std::ranges::any_of(grants_.all(), [&](const Grant& grant) {
    const bool boxes = grant.verbs.has(Verb::Box) || grant.verbs.has(Verb::Open);
    return boxes && grant.keys.contains(key) && grant.permitsPeer(peer);
  });
}

}  // namespace sallyport::vaultd
