// key_owners.h - whose files the vault accepts. Part of: vaultd's key library (vaultd before lock-down, the CLI).
#pragma once

#include "common/config.h"
#include "sandbox/sandbox.h"
#include "vaultd/private_file.h"

namespace sallyport::vaultd {

// What decides which user a vault becomes that this process's user starts.
sandbox::Options identityOptions(const VaultConfig& config);
// Such a vault's own, root's, and those of the user that it is going to be.
FileOwners keyOwners(const VaultConfig& config);

}  // namespace sallyport::vaultd
