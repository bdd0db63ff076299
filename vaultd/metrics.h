// metrics.h - the vault's numbers as text for Prometheus. Process: vaultd alone. The page is served by
// common/text_page.h; nothing secret is in a number, and keys appear by their name alone.
#pragma once

#include <string>

#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

std::string metricsPage(const VaultState& state);

}  // namespace sallyport::vaultd
