// nonce_file.h - NAME.nonces: the file beneath a NonceLedger. Process: vaultd alone, opened before lock-down;
// afterwards only pwrite and fdatasync on the open descriptor. Holds no secret. Two vaults never share one: the file
// stays locked (OFD) for the life of the process. A missing file is made new, with a fresh instance id, so deleting it
// is always safe.
#pragma once

#include <filesystem>
#include <memory>

#include "vaultd/key_format.h"
#include "vaultd/nonce_ledger.h"
#include "vaultd/private_file.h"

namespace sallyport::vaultd {

struct NonceFileProblem {
  enum class Kind {
    InUse,    // another vault has it: the caller must not start
    Unusable  // damaged, cut off, of another version, readable by others ... : this key can't make nonces
  };
  Kind kind;
  Problem problem;  // names the file
};

// Opens or makes the file and makes the first reservation durable. When the disk doesn't let us make the file, the
// ledger is there but gives out nothing, and says why.
Result<std::unique_ptr<NonceLedger>, NonceFileProblem> openNonceFile(const std::filesystem::path& path,
                                                                     const LedgerId& id, const FileOwners& owners = {});

}  // namespace sallyport::vaultd
