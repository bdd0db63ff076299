// paired_blocks.h - the fingerprints of all blocks that were ever made or taken here by `sallyport pair`. Part of:
// vaultd's key library (the CLI alone uses it). docs/protocol.md §14. Kept in `KEYS/paired-blocks`, one a line, and
// never shortened: what was imported once can't be imported again, also after its key is gone.
#pragma once

#include <filesystem>

#include "vaultd/key_file.h"

namespace sallyport::vaultd {

// Remembers a block, durably. A problem if it is known already: by the list, or by a key of the folder.
Result<void, Problem> rememberBlock(const std::filesystem::path& folder, const PublicKey& fingerprint);

}  // namespace sallyport::vaultd
