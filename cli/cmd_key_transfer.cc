// cmd_key_transfer.cc - sallyport key import-key|wrap|export|backup|restore: keys between hosts. Part of: cli.
// What must never happen here: a secret that leaves a key which isn't exportable, a backup that isn't sealed, a file
// overwritten.
#include <unistd.h>

#include "cli/commands.h"
#include "cli/key_access.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "vaultd/block_claims.h"
#include "vaultd/key_text.h"

namespace sallyport::cli {
namespace {

using vaultd::OpenedKey;
using vaultd::Problem;
using vaultd::SealKind;
using vaultd::SlotSecret;

int finishSecret(std::string_view line) {
  if (!putSecretLine(line)) return fail("can't write to standard output");
  return EXIT_DONE;
}

// The opened key if the switch is on; the error has been printed.
std::optional<OpenedKey> openIfAllowed(const Arguments& arguments, const KeyFolder& folder,
                                       bool vaultd::KeyHeader::*flag, const std::string& verb) {
  const auto& name = arguments.words[0];
  auto opened = vaultd::loadKey(folder.path, name, unlocker(arguments, folder));
  if (!opened) {
    failProblem(opened.error());
    return std::nullopt;
  }
  // The switch is believed only now: the seal has proved it.
  if (opened->header.*flag) return std::move(*opened);
  fail("`" + name + "` was made so that it can't be " + (verb == "export" ? "exported" : "backed up"),
       "`sallyport key allow-" + verb + " " + name + "` turns that on, for good");
  return std::nullopt;
}

const vaultd::OpenedVersion* versionToExport(const OpenedKey& key, const std::optional<uint32_t>& number) {
  const auto* active = vaultd::activeVersion(key.header, vaultd::unixNow());
  for (const auto& opened : key.versions) {
    if (number ? opened.version.number == *number : active != nullptr && opened.version.number == active->number)
      return &opened;
  }
  return nullptr;
}

// What opens a backup: the passphrase that it was sealed to.
Result<SlotSecret, Problem> backupSecret(const Arguments& arguments, const vaultd::SealedKey& backup) {
  const bool recovery = backup.header.seal == SealKind::Recovery;
  const auto file = arguments.get("--backup-passphrase-file");
  auto text = file.empty()
                  ? askSecret((recovery ? "recovery passphrase of the backup of `" : "passphrase of the backup of `") +
                                  backup.header.name + "`",
                              "give it with --backup-passphrase-file FILE")
                  : readPassphraseFile(file);
  if (!text) return refuse(text.error());
  if (!recovery) return SlotSecret{backup.header.seal, std::move(*text), {}};
  return SlotSecret{SealKind::Recovery, vaultd::normalRecoveryPassphrase(text->expose()), {}};
}

}  // namespace

int keyImportKey(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto key = vaultd::prepareImport(folder->path);
  if (!key) return failProblem(key.error());
  say("on the other host: sallyport key wrap " + toBase64(key->span()));
  say("then here, once: sallyport key import NAME --wrapped");
  putLine(toBase64(key->span()));
  return finishOutput();
}

int keyWrap(const Arguments& arguments) {
  const auto to = parsePublicKey(arguments.words[0]);
  if (!to) return fail("the import key: " + to.error(), "`sallyport key import-key` on the other host prints it");
  vaultd::WrappedSecret content;
  if (arguments.has("--kind")) {
    const auto kind = vaultd::keyKindOf(arguments.get("--kind"));
    if (!kind)
      return failUsage("`--kind` is " + std::string(vaultd::KEY_KIND_RULE) + ", not `" + arguments.get("--kind") + "`",
                       "sallyport key wrap --help");
    content.kind = *kind;
  }
  const auto text = readSecretFromInput("secret in base64 or hex");
  if (!text) return failProblem(text.error());
  auto secret = vaultd::parseGivenSecret(text->expose(), content.kind);
  if (!secret) return failProblem(secret.error());
  content.secret = std::move(*secret);
  putLine(vaultd::wrapSecret(content, *to));
  return finishOutput();
}

int keyExport(const Arguments& arguments) {
  std::optional<uint32_t> number;
  if (arguments.words.size() > 1 && !(number = numberIn(arguments.words[1], "version"))) return EXIT_USAGE;
  std::optional<PublicKey> to;
  if (arguments.has("--to")) {
    const auto key = parsePublicKey(arguments.get("--to"));
    if (!key) return fail("the import key: " + key.error(), "`sallyport key import-key` on the other host prints it");
    to = *key;
  } else if (::isatty(STDOUT_FILENO) != 0) {
    return fail("the secret isn't shown on a terminal",
                "write it to a file or a pipe, or wrap it with --to IMPORT_KEY");
  }
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto opened = openIfAllowed(arguments, *folder, &vaultd::KeyHeader::exportable, "export");
  if (!opened) return EXIT_FAILED;
  if (!opened->header.token.empty()) {
    return fail("`" + opened->header.name + "` lives in token " + opened->header.token + ": nobody can take it out",
                "a copy of the token, or another key, is the way");
  }
  const auto* version = versionToExport(*opened, number);
  if (version == nullptr) {
    return fail("`" + opened->header.name + "` has no such version with a secret",
                "`sallyport key show " + opened->header.name + " --versions` lists them");
  }
  if (to) {
    const vaultd::WrappedSecret content{opened->header.kind, vaultd::LongTermSecret(version->secret.expose())};
    putLine(vaultd::wrapSecret(content, *to));
    return finishOutput();
  }
  vaultd::SecretText text;
  CHECK(vaultd::appendBase64(text, version->secret.expose()));
  return finishSecret(text.expose());
}

int keyBackup(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const auto& file = arguments.words[1];
  if (arguments.has("--new-recovery") && arguments.has("--new-passphrase-file")) {
    return failUsage("--new-recovery and --new-passphrase-file don't go together", "sallyport key backup --help");
  }
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto opened = openIfAllowed(arguments, *folder, &vaultd::KeyHeader::backupAllowed, "backup");
  if (!opened) return EXIT_FAILED;
  vaultd::SecretText recovery;
  if (arguments.has("--new-recovery")) recovery = vaultd::newRecoveryPassphrase();
  const auto seal = recovery.empty()
                        ? passphraseSeal(name, arguments.get("--new-passphrase-file"), "--new-passphrase-file")
                        : sealWith(SealKind::Recovery, vaultd::normalRecoveryPassphrase(recovery.expose()));
  if (!seal) return failProblem(seal.error());
  const auto text = vaultd::backupText(*opened, seal->sealing);
  if (!text) return failProblem(text.error());
  if (auto made = vaultd::createPrivate(file, text->expose()); !made) return failProblem(made.error());
  say("`" + name + "` is backed up in " + file + ", sealed by " + std::string(vaultd::describe(seal->sealing.kind)));
  return recovery.empty() ? EXIT_DONE : finishSecret(recovery.expose());
}

int keyRestore(const Arguments& arguments) {
  const auto& file = arguments.words[0];
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto text = vaultd::readPrivate(file, {});
  if (!text) return failProblem(text.error());
  const auto backup = vaultd::parseKeyText(text->expose(), vaultd::KeyDocument::Backup);
  if (!backup) return fail(file + ": " + backup.error().message, backup.error().hint);
  if (backup->header.seal != SealKind::Passphrase && backup->header.seal != SealKind::Recovery)
    return fail(file + ": a backup that isn't sealed by a passphrase", "`sallyport key backup` makes no such file");
  const auto secret = backupSecret(arguments, *backup);
  if (!secret) return failProblem(secret.error());
  const auto seal = sealOfNewFile(arguments, backup->header.name, *folder);
  if (!seal) return failProblem(seal.error());
  if (backup->header.kind == vaultd::KeyKind::PeerBlock) {
    if (auto ready = vaultd::ensureClaims(folder->path); !ready) return failProblem(ready.error());
  }
  const auto restored = vaultd::restoreKey(folder->path, *backup, *secret, seal->sealing);
  if (!restored) return fail(file + ": " + restored.error().message, restored.error().hint);
  say(backup->header.kind == vaultd::KeyKind::PeerBlock
          ? "its blocks can't be used in base mode any more: nobody knows what was done with them since"
          : "its nonces begin under a fresh nonce key: an old nonce file is not trusted");
  return announceKey(*restored, *folder, "restored");
}

}  // namespace sallyport::cli
