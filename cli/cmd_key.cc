// cmd_key.cc - sallyport key new|list|show|rotate|import|export-public|passphrase: the vault's folder of keys, offline.
// Part of: cli. The files are vaultd/key_file.h's. What must never happen here: a secret in an argument, on standard
// output, or in a message; a key overwritten.
#include "cli/commands.h"
#include "cli/passphrase_prompt.h"
#include "cli/programs.h"
#include "cli/terminal.h"
#include "vaultd/key_file.h"

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;
using vaultd::KeyHeader;
using vaultd::Problem;
using vaultd::Sealing;
using vaultd::SealKind;
using vaultd::SecretText;

int failProblem(const Problem& problem) { return fail(problem.message, problem.hint); }

// Where the keys are, and the file that opens those sealed by a passphrase, if one is configured.
struct KeyFolder {
  fs::path path;
  fs::path passphraseFile;
};

// --keys, else [vault] keys of the configuration, else `keys` here. The error has been printed.
std::optional<KeyFolder> keyFolder(const Arguments& arguments) {
  KeyFolder folder{"keys", {}};
  const auto file = findConfigFile(arguments.get("--config"));
  if (!file.empty() && !(arguments.has("--keys") && !arguments.has("--config"))) {
    const auto text = readConfigText(file);
    const auto config = text ? parseVaultAndPeers(*text, file) : refuse(text.error());
    // A key that is still to be made may be what the rest of the file waits for: only [vault] and [peers] must be
    // right.
    if (!config) {
      failConfig(config.error(), file);
      return std::nullopt;
    }
    folder = {config->vault.keys, config->vault.passphraseFile};
  }
  if (arguments.has("--keys")) folder.path = arguments.get("--keys");
  if (arguments.has("--passphrase-file")) folder.passphraseFile = arguments.get("--passphrase-file");
  return folder;
}

// A seal for a new file. Owns the secret that Sealing only points to.
struct NewSeal {
  Sealing sealing;
  std::unique_ptr<SecretText> secret;
};

Result<NewSeal, Problem> sealWith(SealKind kind, SecretText secret, std::string credential = {}) {
  NewSeal seal;
  seal.secret = std::make_unique<SecretText>(std::move(secret));
  seal.sealing.kind = kind;
  seal.sealing.secret = seal.secret.get();
  seal.sealing.credential = std::move(credential);
  return seal;
}

Result<NewSeal, Problem> passphraseSeal(const std::string& name, const fs::path& file, const std::string& option) {
  auto secret = file.empty() ? askNewPassphrase("new passphrase for `" + name + "`", "give it with " + option + " FILE")
                             : readPassphraseFile(file);
  if (!secret) return refuse(secret.error());
  return sealWith(SealKind::Passphrase, std::move(*secret));
}

// NAME=FILE: sealed by the content of FILE, which the service manager will hand to vaultd as the credential NAME.
Result<NewSeal, Problem> credentialSeal(const std::string& option) {
  const auto equals = option.find('=');
  const auto name = option.substr(0, equals);
  if (equals == option.npos || !isName(name)) {
    return refuse(
        Problem{"--credential needs NAME=FILE", "FILE holds what systemd will give vaultd as the credential NAME"});
  }
  auto content = vaultd::readPrivate(option.substr(equals + 1), {});
  if (!content) return refuse(content.error());
  return sealWith(SealKind::SystemdCredential, std::move(*content), name);
}

// The seal that --passphrase, --passphrase-file and --credential ask for; `otherwise` without any of them.
Result<NewSeal, Problem> chosenSeal(const Arguments& arguments, const std::string& name, const KeyFolder& folder,
                                    SealKind otherwise = SealKind::Plain) {
  if (arguments.has("--credential")) return credentialSeal(arguments.get("--credential"));
  const bool passphrase =
      arguments.has("--passphrase") || arguments.has("--passphrase-file") || otherwise == SealKind::Passphrase;
  if (passphrase) return passphraseSeal(name, folder.passphraseFile, "--passphrase-file");
  if (otherwise == SealKind::SystemdCredential) {
    return refuse(
        Problem{"`" + name + "` is sealed by a systemd credential", "seal the new one with --credential NAME=FILE"});
  }
  return NewSeal{};
}

// Opens what a key is sealed by now.
vaultd::Unlocker unlocker(const Arguments& arguments, const KeyFolder& folder) {
  return [&arguments, &folder](const KeyHeader& header) -> SecretOrProblem {
    if (header.seal == SealKind::SystemdCredential) {
      auto seal = credentialSeal(arguments.get("--credential"));
      if (!seal) return refuse(seal.error());
      return std::move(*seal->secret);
    }
    if (!folder.passphraseFile.empty()) return readPassphraseFile(folder.passphraseFile);
    return askSecret("passphrase of `" + header.name + "`", "give it with --passphrase-file FILE");
  };
}

const PublicKey& publicKey(const KeyHeader& header) { return header.versions.back().publicKey; }

std::string peerLine(const KeyHeader& header) {
  const auto quote = header.name.find('.') == std::string::npos ? "" : "\"";
  return quote + header.name + quote + " = \"" + toBase64(publicKey(header).span()) + "\"";
}

// The public key is what the command was asked for; where it goes is talk.
int announce(const KeyHeader& header, const KeyFolder& folder, std::string_view what) {
  say(std::string(what) + " " + vaultd::keyPath(folder.path, header.name).string() + " (" +
      std::string(vaultd::describe(header.seal)) + ")");
  say("on the other side: sallyport peer add " + header.name + " " + toBase64(publicKey(header).span()));
  say("or in its [peers]: " + peerLine(header));
  putLine(toBase64(publicKey(header).span()));
  return finishOutput();
}

int checkNewName(const std::string& name) {
  if (isName(name)) return EXIT_DONE;
  return fail("`" + name + "` is not a name",
              "names are 1 to 64 letters, digits, `_`, `.`, `-`, and begin with a letter or digit");
}

}  // namespace

int keyNew(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  if (checkNewName(name) != EXIT_DONE) return EXIT_FAILED;
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto seal = chosenSeal(arguments, name, *folder);
  if (!seal) return failProblem(seal.error());
  const auto made = vaultd::generateKey(folder->path, name, seal->sealing);
  if (!made) return failProblem(made.error());
  return announce(*made, *folder, "made");
}

int keyImport(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  if (checkNewName(name) != EXIT_DONE) return EXIT_FAILED;
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto text = readSecretFromInput("secret of `" + name + "` in base64 or hex");
  if (!text) return failProblem(text.error());
  const auto secret = vaultd::parseSecret(text->expose());
  if (!secret) return failProblem(secret.error());
  const auto seal = chosenSeal(arguments, name, *folder);
  if (!seal) return failProblem(seal.error());
  const auto made = vaultd::importKey(folder->path, name, *secret, seal->sealing);
  if (!made) return failProblem(made.error());
  return announce(*made, *folder, "made");
}

int keyRotate(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto old = vaultd::readKeyFile(folder->path, name);
  if (!old) return failProblem(old.error());
  const auto seal = chosenSeal(arguments, name, *folder, old->header.seal);
  if (!seal) return failProblem(seal.error());
  const auto rotated = vaultd::rotateKey(folder->path, name, seal->sealing);
  if (!rotated) return failProblem(rotated.error());
  say("the old key is kept as " + rotated->archive.string());
  say("running daemons use the old key until they are restarted; every peer needs the new public key");
  return announce(rotated->header, *folder, "replaced");
}

int keyShow(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto key = vaultd::readKeyFile(folder->path, arguments.words[0]);
  if (!key) return failProblem(key.error());
  putLine(toBase64(publicKey(key->header).span()));
  return finishOutput();
}

int keyList(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto keys = vaultd::listKeys(folder->path);
  if (!keys) return failProblem(keys.error());
  Table table({"NAME", "PUBLIC KEY", "PROTECTION", "CREATED"});
  std::vector<Problem> broken;
  for (const auto& key : *keys) {
    if (key.header) {
      table.add({key.name, toBase64(publicKey(*key.header).span()), std::string(vaultd::describe(key.header->seal)),
                 key.header->created});
    } else {
      broken.push_back(key.problem);
    }
  }
  if (!table.empty()) put(table.render());
  const int done = finishOutput();
  if (broken.empty()) return done;
  for (size_t i = 1; i < broken.size(); ++i) warn(broken[i].message);
  return failProblem(broken[0]);
}

int keyExportPublic(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  std::vector<std::string> names = arguments.words;
  if (names.empty()) {
    const auto keys = vaultd::listKeys(folder->path);
    if (!keys) return failProblem(keys.error());
    for (const auto& key : *keys) names.push_back(key.name);
  }
  for (const auto& name : names) {
    const auto key = vaultd::readKeyFile(folder->path, name);
    if (!key) return failProblem(key.error());
    putLine(peerLine(key->header));
  }
  return finishOutput();
}

int keyPassphrase(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  if (arguments.has("--remove") && arguments.has("--new-passphrase-file")) {
    return failUsage("--remove and --new-passphrase-file don't go together", "sallyport key passphrase --help");
  }
  auto old = vaultd::readKeyFile(folder->path, name);
  if (!old) return failProblem(old.error());
  const bool wasPlain = old->header.seal == SealKind::Plain;
  if (arguments.has("--remove") && wasPlain) return fail("`" + name + "` has no passphrase", {});
  // The old one first, so that a wrong one is told before a new one is asked for.
  auto current = wasPlain ? SecretOrProblem(SecretText()) : unlocker(arguments, *folder)(old->header);
  if (!current) return failProblem(current.error());
  if (const auto opened = vaultd::openSealed(*old, *current); !opened) {
    return fail(vaultd::keyPath(folder->path, name).string() + ": " + opened.error().message, opened.error().hint);
  }
  const auto seal = arguments.has("--remove")
                        ? Result<NewSeal, Problem>(NewSeal{})
                        : passphraseSeal(name, arguments.get("--new-passphrase-file"), "--new-passphrase-file");
  if (!seal) return failProblem(seal.error());
  const auto resealed = vaultd::resealKey(
      folder->path, name, [&](const KeyHeader&) -> SecretOrProblem { return SecretText::copyOf(current->expose()); },
      seal->sealing);
  if (!resealed) return failProblem(resealed.error());
  say(vaultd::keyPath(folder->path, name).string() + " is now protected as " +
      std::string(vaultd::describe(seal->sealing.kind)));
  return EXIT_DONE;
}

}  // namespace sallyport::cli
