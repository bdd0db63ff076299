// authority.h - the grants in force, with what is left of their rates. Process: vaultd alone. A reload replaces it, and
// every use asks it anew: so a grant that is taken away is taken from live capabilities too.
#pragma once

#include <optional>
#include <vector>

#include "common/grants.h"
#include "vaultd/box.h"
#include "vaultd/token_bucket.h"

namespace sallyport::vaultd {

class Authority {
 public:
  Authority() = default;
  Authority(Grants grants, uint64_t nowMs);

  const Grants& grants() const { return grants_; }
  // May the caller whose grants for this key are `found` do this now? `uses`: how many it counts for.
  Result<void, Refusal> permit(const std::vector<const Grant*>& found, const Use& use, uint64_t nowMs,
                               uint32_t uses = 1);
  // Does a grant let somebody box to this peer with this key, or open what it boxed?
  bool meets(std::string_view key, const PublicKey& peer) const;

 private:
  Grants grants_;
  std::vector<std::optional<TokenBucket>> rates_;  // of each grant; none: no limit
};

}  // namespace sallyport::vaultd
