#include "vaultd/counters.h"

#include <algorithm>

namespace sallyport::vaultd {

const std::array<std::string_view, Counters::COUNTS> Counters::NAMES = {
#define X(id, text) text,
    SALLYPORT_VAULT_COUNTS(X)
#undef X
};

// In the order of proto::Refusal.
const std::array<std::string_view, Counters::REFUSALS> Counters::REFUSAL_NAMES = {
    "refused_unspecified",       "refused_unknown_entry", "refused_unknown_key",   "refused_peer_not_allowed",
    "refused_bad_box",           "refused_bad_size",      "refused_low_order_key", "refused_rate_limited",
    "refused_nonce_unavailable", "refused_locked",        "refused_too_many",      "refused_not_permitted",
    "refused_bad_config",        "refused_bad_nonce",     "refused_too_long",      "refused_expired",
    "refused_wrong_kind",        "refused_wrong_version", "refused_breaker_open",  "refused_not_recorded",
    "refused_too_many_objects",  "refused_bad_signature", "refused_bad_domain",    "refused_hsm_unavailable"};
static_assert(static_cast<size_t>(proto::Refusal::HSM_UNAVAILABLE) + 1 == Counters::REFUSALS);

void Counters::addRefusal(proto::Refusal reason) { ++refusals_[std::min(static_cast<size_t>(reason), REFUSALS - 1)]; }

}  // namespace sallyport::vaultd
