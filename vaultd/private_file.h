// private_file.h - small files that nobody else may read: key files, nonce files, passphrase files. Part of: vaultd's
// key library. Reading refuses whatever another user could have read or written. Writing is atomic and durable, and
// creation never overwrites: a new file appears whole under its name or not at all. Only before lock-down, and in the
// CLI.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <functional>
#include <string_view>
#include <vector>

#include <kj/io.h>

#include "common/result.h"
#include "vaultd/problem.h"
#include "vaultd/secret_text.h"

namespace sallyport::vaultd {

// Who may own a private file. Empty: the effective user of this process and root.
struct FileOwners {
  std::vector<uid_t> allowed;
  bool allows(uid_t uid) const;
};

// Opens a regular file (no symbolic link) that only its owner can read or write. `flags`: O_RDONLY or O_RDWR. Anything
// else is refused without waiting for it.
// `missing` is set when there is no such file: then the problem says just that.
Result<kj::AutoCloseFd, Problem> openPrivate(const std::filesystem::path& path, int flags, const FileOwners& owners,
                                             bool* missing = nullptr);
// The whole of a private file; longer than SecretText::CAPACITY is a problem.
Result<SecretText, Problem> readPrivate(const std::filesystem::path& path, const FileOwners& owners,
                                        bool* missing = nullptr);

// The whole of a credential. systemd keeps those in a folder that only this service can enter, with modes of its own:
// they are taken as they are.
Result<SecretText, Problem> readCredential(const std::filesystem::path& path);

// Makes the file with mode 0600: temporary file, fsync, rename that never replaces, fsync of the folder. `lockedFd`, if
// given, gets the open descriptor after `prepare` has run on it (before the rename), so that a lock taken there is held
// from the moment the name exists. EEXIST is a problem with `exists` set.
struct Creation {
  std::function<bool(int fd)> prepare;  // may be empty; false gives up (errno says why)
  bool exists = false;
};
Result<kj::AutoCloseFd, Problem> createPrivate(const std::filesystem::path& path, std::string_view content,
                                               Creation* creation = nullptr);
// Replaces an existing file atomically: the old content or the new one, whatever happens. The owner stays when we may
// set it.
Result<void, Problem> replacePrivate(const std::filesystem::path& path, std::string_view content);

// A folder in which another user could put files is refused. With `create`, a missing one is made with mode 0700.
Result<void, Problem> checkFolder(const std::filesystem::path& folder, bool create = false);
int syncFolder(const std::filesystem::path& folder);  // 0 or errno

}  // namespace sallyport::vaultd
