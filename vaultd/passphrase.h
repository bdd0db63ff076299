// passphrase.h - where a passphrase or a systemd credential comes from. Process: vaultd alone, before lock-down.
// Never from an argument or an environment variable: other users can read those.
#pragma once

#include <filesystem>

#include "vaultd/key_file.h"

namespace sallyport::vaultd {

// Asks, in this order, [vault] passphrase_file, $CREDENTIALS_DIRECTORY/passphrase, and the terminal on standard input
// (once for all keys). A key sealed by a systemd credential is opened with $CREDENTIALS_DIRECTORY/NAME, NAME from its
// header.
Unlocker unlockerFor(const std::filesystem::path& passphraseFile, const FileOwners& owners);

}  // namespace sallyport::vaultd
