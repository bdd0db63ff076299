// cmd_key.cc - sallyport key new|list|show|import|export-public: making keys and looking at them, offline. Part of:
// cli. The files are vaultd/key_file.h's. What must never happen here: a secret in an argument, on standard output, or
// in a message; a key overwritten.
#include <algorithm>

#include "cli/commands.h"
#include "cli/key_access.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "vaultd/block_claims.h"

namespace sallyport::cli {
namespace {

using vaultd::KeyHeader;
using vaultd::KeyKind;
using vaultd::KeyVersion;
using vaultd::Problem;
using vaultd::VersionState;

// The version whose public key is meant when none is named: the active one, else the newest.
const KeyVersion& currentVersion(const KeyHeader& header) {
  const auto* active = vaultd::activeVersion(header, vaultd::unixNow());
  return active != nullptr ? *active : header.versions.back();
}

std::string publicText(const KeyVersion& version) { return toBase64(version.publicKey.span()); }

std::string peerLine(const KeyHeader& header) {
  const auto quote = header.name.find('.') == std::string::npos ? "" : "\"";
  return quote + header.name + quote + " = \"" + publicText(currentVersion(header)) + "\"";
}

Result<vaultd::KeyOptions, std::string> keyOptions(const Arguments& arguments) {
  vaultd::KeyOptions options;
  options.exportable = arguments.has("--exportable");
  options.backupAllowed = arguments.has("--allow-backup");
  if (arguments.has("--kind")) {
    const auto kind = vaultd::keyKindOf(arguments.get("--kind"));
    if (!kind)
      return refuse("`--kind` is " + std::string(vaultd::KEY_KIND_RULE) + ", not `" + arguments.get("--kind") + "`");
    options.kind = *kind;
  }
  if (arguments.has("--party")) {
    options.party = vaultd::partyOf(arguments.get("--party"));
    if (!options.party) return refuse("`--party` is A or B, not `" + arguments.get("--party") + "`");
  }
  options.unused = arguments.has("--unused");
  if (arguments.has("--wrapped")) return options;  // it tells its kind
  const bool block = options.kind == KeyKind::PeerBlock;
  if (block && !options.party) {
    return refuse(
        "a peer-block has a party: --party A on one of the two hosts, --party B on the other (A dials, mostly)");
  }
  if (!block && (options.party || options.unused)) return refuse("--party and --unused belong to --kind peer-block");
  return options;
}

// What the vault knows of used blocks has to be there before the first block is. The error has been printed.
bool readyForBlocks(const KeyFolder& folder, const vaultd::KeyOptions& options) {
  if (!options.party) return true;
  const auto ready = vaultd::ensureClaims(folder.path);
  if (!ready) failProblem(ready.error());
  return ready.has_value();
}

std::string kindText(const KeyHeader& header) {
  return std::string(vaultd::describe(header.kind)) +
         (header.party ? " " + std::string(vaultd::describe(*header.party)) : "");
}

void addVersion(Table& table, const KeyVersion& version) {
  const auto state = vaultd::stateOf(version, vaultd::unixNow());
  table.add({std::to_string(version.number), std::string(vaultd::describe(state)), publicText(version),
             timeText(version.activeFrom), timeText(version.openOnlyFrom), timeText(version.retiredFrom),
             timeText(version.destroyAt)});
}

}  // namespace

// The public key is what the command was asked for; where it goes is talk.
int announceKey(const KeyHeader& header, const KeyFolder& folder, std::string_view what) {
  say(std::string(what) + " " + vaultd::keyPath(folder.path, header.name).string() + " (" +
      vaultd::describeSlots(header) + ")");
  const auto key = publicText(currentVersion(header));
  if (header.kind == KeyKind::PeerBlock) {
    say("this host is party " + std::string(vaultd::describe(*header.party)) +
        "; the other host needs the same block, and the fingerprint below, as the other party");
  } else if (header.kind == KeyKind::X25519) {
    say("on the other side: sallyport peer add " + header.name + " " + key);
    say("or in its [peers]: " + peerLine(header));
  }
  putLine(key);
  return finishOutput();
}

int keyNew(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  if (checkNewName(name) != EXIT_DONE) return EXIT_FAILED;
  const auto options = keyOptions(arguments);
  if (!options) return failUsage(options.error(), "sallyport key new --help");
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto seal = sealOfNewFile(arguments, name, *folder);
  if (!seal) return failProblem(seal.error());
  if (!readyForBlocks(*folder, *options)) return EXIT_FAILED;
  const auto made = vaultd::generateKey(folder->path, name, seal->sealing, *options);
  if (!made) return failProblem(made.error());
  return announceKey(*made, *folder, "made");
}

int keyImport(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  if (checkNewName(name) != EXIT_DONE) return EXIT_FAILED;
  const auto options = keyOptions(arguments);
  if (!options) return failUsage(options.error(), "sallyport key import --help");
  const bool wrapped = arguments.has("--wrapped");
  if (wrapped && arguments.has("--kind"))
    return failUsage("--wrapped and --kind don't go together: a wrapped key tells its kind",
                     "sallyport key import --help");
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto text = readSecretFromInput(wrapped ? "wrapped key" : "secret of `" + name + "` in base64 or hex");
  if (!text) return failProblem(text.error());
  if (wrapped) {
    const auto seal = sealOfNewFile(arguments, name, *folder);
    if (!seal) return failProblem(seal.error());
    if (!readyForBlocks(*folder, *options)) return EXIT_FAILED;
    const auto made = vaultd::importWrapped(folder->path, name, text->expose(), seal->sealing, *options);
    if (!made) return failProblem(made.error());
    return announceKey(*made, *folder, "made");
  }
  const auto secret = vaultd::parseGivenSecret(text->expose(), options->kind);
  if (!secret) return failProblem(secret.error());
  const auto seal = sealOfNewFile(arguments, name, *folder);
  if (!seal) return failProblem(seal.error());
  if (!readyForBlocks(*folder, *options)) return EXIT_FAILED;
  const auto made = vaultd::importKey(folder->path, name, *secret, seal->sealing, *options);
  if (!made) return failProblem(made.error());
  return announceKey(*made, *folder, "made");
}

int keyShow(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto key = vaultd::readKeyFile(folder->path, arguments.words[0]);
  if (!key) return failProblem(key.error());
  const auto& header = key->header;
  if (arguments.has("--versions")) {
    Table table({"VERSION", "STATE", "PUBLIC KEY", "ACTIVE FROM", "OPEN-ONLY FROM", "RETIRED FROM", "DESTROYED AT"});
    for (const auto& version : header.versions) addVersion(table, version);
    put(table.render());
    return finishOutput();
  }
  if (arguments.words.size() == 1) {
    putLine(publicText(currentVersion(header)));
    return finishOutput();
  }
  const auto number = numberIn(arguments.words[1], "version");
  if (!number) return EXIT_USAGE;
  const auto found = std::ranges::find(header.versions, *number, &KeyVersion::number);
  if (found == header.versions.end()) {
    return fail("`" + header.name + "` has no version " + arguments.words[1],
                "`sallyport key show " + header.name + " --versions` lists them");
  }
  putLine(publicText(*found));
  return finishOutput();
}

int keyList(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto keys = vaultd::listKeys(folder->path);
  if (!keys) return failProblem(keys.error());
  Table table({"NAME", "KIND", "VERSION", "STATE", "PUBLIC KEY", "PROTECTION", "CREATED"});
  std::vector<Problem> broken;
  for (const auto& key : *keys) {
    if (!key.header) {
      broken.push_back(key.problem);
      continue;
    }
    const auto& version = currentVersion(*key.header);
    table.add({key.name, kindText(*key.header), std::to_string(version.number),
               std::string(vaultd::describe(vaultd::stateOf(version, vaultd::unixNow()))), publicText(version),
               vaultd::describeSlots(*key.header), key.header->created});
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
  const bool all = names.empty();
  if (all) {
    const auto keys = vaultd::listKeys(folder->path);
    if (!keys) return failProblem(keys.error());
    for (const auto& key : *keys) names.push_back(key.name);
  }
  for (const auto& name : names) {
    const auto key = vaultd::readKeyFile(folder->path, name);
    if (!key) return failProblem(key.error());
    if (key->header.kind != KeyKind::X25519) {
      if (all) continue;
      const bool block = key->header.kind == KeyKind::PeerBlock;
      return fail("`" + name + (block ? "` is a block: it has no public half" : "` signs: it is no peer's key"),
                  "`sallyport key show " + name + "` prints its " + (block ? "fingerprint" : "public half"));
    }
    putLine(peerLine(key->header));
  }
  return finishOutput();
}

}  // namespace sallyport::cli
