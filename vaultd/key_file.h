// key_file.h - the folder of keys: NAME.key, NAME.nonces, and NAME.key.N for rotated ones. Part of: vaultd's key
// library (vaultd before lock-down, the CLI). The format is key_format.h. Nothing here ever overwrites a key; a problem
// names the file and the remedy, and leaves everything as it was. Archived keys (NAME.key.N) are for people: the vault
// never loads them.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vaultd/key_format.h"
#include "vaultd/private_file.h"

namespace sallyport::vaultd {

std::filesystem::path keyPath(const std::filesystem::path& folder, std::string_view name);
std::filesystem::path noncePath(const std::filesystem::path& folder, std::string_view name);

// Gives the passphrase or the content of the credential that the header asks for. Not called for plain keys.
using Unlocker = std::function<Result<SecretText, Problem>(const KeyHeader&)>;

// Reads and checks NAME.key without opening the seal.
Result<SealedKey, Problem> readKeyFile(const std::filesystem::path& folder, std::string_view name,
                                       const FileOwners& owners = {});
// Reads, unlocks, and checks that the public key belongs to the secret.
Result<OpenedKey, Problem> loadKey(const std::filesystem::path& folder, std::string_view name, const Unlocker& unlock,
                                   const FileOwners& owners = {});

// A new key; the folder is made if it is missing. A key of that name, or one archived under it, stays untouched.
Result<KeyHeader, Problem> generateKey(const std::filesystem::path& folder, std::string_view name,
                                       const Sealing& sealing);
Result<KeyHeader, Problem> importKey(const std::filesystem::path& folder, std::string_view name,
                                     const LongTermSecret& secret, const Sealing& sealing);
// The same key under another seal: the file is replaced atomically.
Result<void, Problem> resealKey(const std::filesystem::path& folder, std::string_view name, const Unlocker& unlock,
                                const Sealing& sealing);
struct RotatedKey {
  KeyHeader header;
  std::filesystem::path archive;  // where the old key is now
};
// A new pair under the old name; the old file becomes NAME.key.1, or the next free number. A crash leaves the old key
// in place, in the archive too, or the new one: never none.
Result<RotatedKey, Problem> rotateKey(const std::filesystem::path& folder, std::string_view name,
                                      const Sealing& sealing);

struct ListedKey {
  std::string name;
  std::optional<KeyHeader> header;  // none: `problem` says why
  Problem problem;
};
// Every NAME.key of the folder, sorted by name. A folder that doesn't exist is a problem; a broken key is listed as
// such.
Result<std::vector<ListedKey>, Problem> listKeys(const std::filesystem::path& folder);

}  // namespace sallyport::vaultd
