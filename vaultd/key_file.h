// key_file.h - the folder of keys: NAME.key and NAME.nonces. Part of: vaultd's key library (vaultd before lock-down,
// the CLI). The format is key_format.h. Nothing here ever overwrites a key that it can't read, and a change replaces a
// file atomically; a problem names the file and the remedy, and leaves everything as it was. NAME.key.N are keys that
// earlier releases have rotated out: they are for people, the vault never loads them.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vaultd/key_format.h"
#include "vaultd/key_transfer.h"
#include "vaultd/private_file.h"

namespace sallyport::vaultd {

std::filesystem::path keyPath(const std::filesystem::path& folder, std::string_view name);
std::filesystem::path noncePath(const std::filesystem::path& folder, std::string_view name);

// Gives what opens one of the header's slots. Not called for plain keys.
using Unlocker = std::function<Result<SlotSecret, Problem>(const KeyHeader&)>;

// The text of NAME.key, parsed without opening the seal.
struct KeyFile {
  SecretText text;
  SealedKey sealed;
};
Result<KeyFile, Problem> readKeyText(const std::filesystem::path& folder, std::string_view name,
                                     const FileOwners& owners = {});
Result<SealedKey, Problem> readKeyFile(const std::filesystem::path& folder, std::string_view name,
                                       const FileOwners& owners = {});
// Reads, unlocks, and checks that the public keys belong to the secrets.
Result<OpenedKey, Problem> loadKey(const std::filesystem::path& folder, std::string_view name, const Unlocker& unlock,
                                   const FileOwners& owners = {});

// A new key; the folder is made if it is missing. A key of that name stays untouched.
struct KeyOptions {
  KeyKind kind = KeyKind::X25519;
  bool exportable = false;
  bool backupAllowed = false;
  std::optional<wire::PeerParty> party{};  // PeerBlock: which of both this host is
  bool unused = false;                     // PeerBlock: no connection in base mode was ever opened with it
  bool awaits = false;                     // PeerBlock: not active before it is confirmed
};
Result<KeyHeader, Problem> generateKey(const std::filesystem::path& folder, std::string_view name,
                                       const Sealing& sealing, const KeyOptions& options = {});
Result<KeyHeader, Problem> importKey(const std::filesystem::path& folder, std::string_view name,
                                     const LongTermSecret& secret, const Sealing& sealing,
                                     const KeyOptions& options = {});
// The key of a backup under its own name. `secret` opens the backup.
Result<KeyHeader, Problem> restoreKey(const std::filesystem::path& folder, const SealedKey& backup,
                                      const SlotSecret& secret, const Sealing& sealing);

// --- changes ---------------------------------------------------------------------------------------------------------

// A key while it is changed. A key of format 1 has become one of format 2 under the same seal.
struct EditedKey {
  SealedKey sealed;
  OpenedKey opened;
  FileKey fileKey;
};
// What a change asks to be written.
enum class Rewrite : uint8_t {
  Nothing,
  Slots,  // opened.header.slots alone: the sealed keys stay as they are, byte by byte
  All
};
using Change = std::function<Result<Rewrite, Problem>(EditedKey&)>;
struct ChangedKey {
  KeyHeader header;
  bool written = false;
  SecretText text;  // of the file as it is now, and what opens it: for Admin.unlock
  FileKey fileKey;
};
// Opens, changes and replaces the file, while no other process changes this folder. Destroyed versions lose their
// secret with every write.
Result<ChangedKey, Problem> changeKey(const std::filesystem::path& folder, std::string_view name,
                                      const Unlocker& unlock, const Change& change, int64_t nowUnix);

// --- the one-time import key -----------------------------------------------------------------------------------------

// Makes `import-key`, or gives back the one that still waits.
Result<PublicKey, Problem> prepareImport(const std::filesystem::path& folder);
// Unwraps with it, makes the key, and destroys it.
Result<KeyHeader, Problem> importWrapped(const std::filesystem::path& folder, std::string_view name,
                                         std::string_view wrapped, const Sealing& sealing,
                                         const KeyOptions& options = {});

// --- the folder ------------------------------------------------------------------------------------------------------

struct ListedKey {
  std::string name;
  std::optional<KeyHeader> header;  // none: `problem` says why
  Problem problem;
};
// Every NAME.key of the folder, sorted by name. A folder that doesn't exist is a problem; a broken key is listed as
// such.
Result<std::vector<ListedKey>, Problem> listKeys(const std::filesystem::path& folder);

int64_t unixNow();

}  // namespace sallyport::vaultd
