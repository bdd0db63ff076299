// audit_files.h - the folder of the audit log: `N.log`, `state`, and once `verify.key`. Process: vaultd alone, before
// lock-down; afterwards only pwrite, ftruncate and fdatasync on descriptors that are open already. See docs/protocol.md
// §10. What must never happen here: a log begun anew where one was, a file of another user taken.
#pragma once

#include <filesystem>

#include "common/config.h"
#include "vaultd/audit_log.h"
#include "vaultd/private_file.h"

namespace sallyport::vaultd {

// Opens or begins the log of `config.folder`. The problem names the file, and the line where there is one. `key` as for
// AuditLog::open.
Result<std::unique_ptr<AuditLog>, Problem> openAuditLog(const AuditConfig& config, const FileOwners& owners,
                                                        AuditKey& key, int64_t nowMs);

}  // namespace sallyport::vaultd
