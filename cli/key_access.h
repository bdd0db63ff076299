// key_access.h - what all key commands share: the folder, what opens a key, what seals a new one, and telling a vault
// that runs. Part of: cli. The files are vaultd/key_file.h's. What must never happen here: a passphrase in an argument
// or in the environment, a key that is brought to life in a vault whose operator has locked it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli/arguments.h"
#include "common/config.h"
#include "common/event_loop.h"
#include "vaultd/key_file.h"

namespace sallyport::cli {

// Where the keys are, and what the configuration says of them.
struct KeyFolder {
  std::filesystem::path path;
  std::filesystem::path passphraseFile;
  std::filesystem::path adminSocket;  // empty: no configuration that uses this folder
  std::map<std::string, RotationRule, std::less<>> rotations;
  std::map<std::string, TokenConfig, std::less<>> tokens;
  std::filesystem::path configFile;  // absolute: for an hsmd, which reads its own section; empty: none
};
// --keys, else [vault] keys of the configuration, else `keys` here. The error has been printed.
std::optional<KeyFolder> keyFolder(const Arguments& arguments);

int failProblem(const vaultd::Problem& problem);
int checkNewName(const std::string& name);
// The number of a version or a slot; the error has been printed.
std::optional<uint32_t> numberIn(const std::string& word, std::string_view what);
// The option's duration, or `otherwise`; the error has been printed.
std::optional<int64_t> durationIn(const Arguments& arguments, const std::string& option, int64_t otherwise);

// --- opening ---

// Opens a key: --shares FILE, --recovery, --credential NAME=FILE, --token NAME, a credential of systemd, a token if
// there is no passphrase, --passphrase-file or that of [vault], or the terminal.
vaultd::Unlocker unlocker(const Arguments& arguments, const KeyFolder& folder);

// --- sealing ---

// A seal for a new slot. Owns the secret that Sealing only points to.
struct NewSeal {
  vaultd::Sealing sealing;
  std::unique_ptr<vaultd::SecretText> secret;
};
using SealOrProblem = Result<NewSeal, vaultd::Problem>;
SealOrProblem sealWith(vaultd::SealKind kind, vaultd::SecretText secret, std::string credential = {});
// The first line of `file`, or what the terminal is asked for twice. `option` names the file in the hint.
SealOrProblem passphraseSeal(const std::string& name, const std::filesystem::path& file, const std::string& option);
// NAME=FILE: the content of FILE, which the service manager will hand to vaultd as the credential NAME.
SealOrProblem credentialSeal(const std::string& option);
// For a new file: --passphrase, --passphrase-file, --credential, or none: a plain file.
SealOrProblem sealOfNewFile(const Arguments& arguments, const std::string& name, const KeyFolder& folder);

// Puts a slot beside the others. A plain file has its file key in the open: it gets another one with its first seal.
Result<vaultd::Rewrite, vaultd::Problem> addSlot(vaultd::EditedKey& key, const vaultd::Sealing& sealing);

// --- after a change ---

// If a vault of this folder runs, it gets the key as it is now. Says what happened, or what to do; never fails the
// command: the file is changed already.
void tellVault(const KeyFolder& folder, const vaultd::ChangedKey& key);
inline constexpr const char* USES_IT = "the running vault uses it from now on";
// The same for a command that has a loop already: a thread has one. False: the running vault can't take it, and it
// was said why.
bool tellVault(EventLoop& loop, const KeyFolder& folder, const vaultd::ChangedKey& key,
               const char* whatItMeans = USES_IT);
// The same for a key that was just made: a vault that runs was started without it.
bool tellVaultOfNew(EventLoop& loop, const KeyFolder& folder, const std::string& name);
// Hands over the text of a file and what opens it. What was done, or why not, for people.
Result<std::string, vaultd::Problem> giveToVault(const std::filesystem::path& adminSocket, std::string_view text,
                                                 const vaultd::FileKey& key);

// Prints the public half of a key that was just made, and where it goes (cmd_key.cc).
int announceKey(const vaultd::KeyHeader& header, const KeyFolder& folder, std::string_view what);

std::string timeText(int64_t unixSeconds);  // "2026-11-21 04:00:00Z", "-" for 0

}  // namespace sallyport::cli
