// nonce_file.h - NAME.nonces: the file beneath a NonceLedger. Part of: vaultd's key library (the vault opens it before
// lock-down, and afterwards does only pwrite and fdatasync on the open descriptor; the CLI only inspects it). Holds no
// secret. Two vaults never share one: the file stays locked (OFD) for the life of the process. A missing file is made
// new, with a fresh instance id, so deleting it is always safe.
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

// Whether openNonceFile() would find a state that it can use; a missing file is none of its problems. Nothing is
// written or locked, so a vault may be at work with the file. The problem names the file.
Result<void, Problem> inspectNonceFile(const std::filesystem::path& path, const FileOwners& owners = {});

}  // namespace sallyport::vaultd
