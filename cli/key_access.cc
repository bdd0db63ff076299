// key_access.cc - see key_access.h.
#include "cli/key_access.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "cli/daemon_client.h"
#include "cli/hsm_session.h"
#include "cli/load_config.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "common/config_key.h"
#include "common/log.h"
#include "vaultd/key_shares.h"
#include "vaultd/key_text.h"

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;
using vaultd::KeyHeader;
using vaultd::Problem;
using vaultd::SealKind;
using vaultd::SecretText;
using vaultd::SlotSecret;

using SlotSecretOrProblem = Result<SlotSecret, Problem>;

bool hasSlot(const KeyHeader& header, SealKind kind) {
  return std::ranges::find(header.slots, kind, &vaultd::Slot::kind) != header.slots.end();
}

// The lines of a private file, or of standard input for `-`.
SlotSecretOrProblem sharesFrom(const std::string& file) {
  auto text = file == "-" ? readSecretFromInput("shares") : vaultd::readPrivate(file, {});
  if (!text) return refuse(text.error());
  std::vector<vaultd::Share> shares;
  std::string_view rest = text->expose();
  while (!rest.empty()) {
    const auto end = std::min(rest.find('\n'), rest.size());
    const auto line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    auto share = vaultd::parseShare(line);
    if (!share) return refuse(share.error());
    shares.push_back(std::move(*share));
  }
  return vaultd::joinShares(shares);
}

// A credential of the service manager, if it gave one that a slot asks for.
std::optional<SlotSecretOrProblem> systemdCredential(const KeyHeader& header) {
  const char* given = std::getenv("CREDENTIALS_DIRECTORY");
  if (given == nullptr || *given == '\0') return std::nullopt;
  for (const auto& slot : header.slots) {
    const auto file = fs::path(given) / slot.credential;
    if (slot.kind != SealKind::SystemdCredential || ::access(file.c_str(), F_OK) != 0) continue;
    auto content = vaultd::readCredential(file);
    if (!content) return SlotSecretOrProblem(refuse(content.error()));
    return SlotSecretOrProblem(SlotSecret{slot.kind, std::move(*content), slot.credential});
  }
  return std::nullopt;
}

SlotSecretOrProblem passphraseOf(const Arguments& arguments, const KeyFolder& folder, const KeyHeader& header) {
  const bool recovery =
      arguments.has("--recovery") || (!hasSlot(header, SealKind::Passphrase) && hasSlot(header, SealKind::Recovery));
  // The configured file holds the vault's passphrase, never the recovery one.
  const fs::path file = recovery ? fs::path(arguments.get("--passphrase-file")) : folder.passphraseFile;
  auto text = file.empty() ? askSecret((recovery ? "recovery passphrase of `" : "passphrase of `") + header.name + "`",
                                       "give it with --passphrase-file FILE")
                           : readPassphraseFile(file);
  if (!text) return refuse(text.error());
  if (!recovery) return SlotSecret{SealKind::Passphrase, std::move(*text), {}};
  return SlotSecret{SealKind::Recovery, vaultd::normalRecoveryPassphrase(text->expose()), {}};
}

std::string stateIn(proto::VaultStatus::Reader status, const std::string& name) {
  for (const auto key : status.getKeys()) {
    if (std::string(key.getName().cStr()) == name) return key.getState().cStr();
  }
  return {};
}

}  // namespace

int failProblem(const Problem& problem) { return fail(problem.message, problem.hint); }

int checkNewName(const std::string& name) {
  if (isName(name)) return EXIT_DONE;
  return fail("`" + name + "` is not a name",
              "names are 1 to 64 letters, digits, `_`, `.`, `-`, and begin with a letter or digit");
}

std::optional<uint32_t> numberIn(const std::string& word, std::string_view what) {
  uint32_t number = 0;
  const auto [end, fault] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (fault == std::errc() && end == word.data() + word.size() && number > 0) return number;
  failUsage("`" + word + "` is not the number of a " + std::string(what), "numbers begin at 1");
  return std::nullopt;
}

std::optional<int64_t> durationIn(const Arguments& arguments, const std::string& option, int64_t otherwise) {
  if (!arguments.has(option)) return otherwise;
  const auto seconds = parseDuration(arguments.get(option));
  if (!seconds) failUsage("`" + option + "` needs a duration, not `" + arguments.get(option) + "`", DURATION_RULE);
  return seconds;
}

std::optional<KeyFolder> keyFolder(const Arguments& arguments) {
  KeyFolder folder{"keys", {}, {}, {}, {}, {}};
  const auto file = findConfigFile(arguments.get("--config"));
  if (!file.empty() && !(arguments.has("--keys") && !arguments.has("--config"))) {
    const auto text = readConfigText(file);
    const auto config = text ? parseVaultAndPeers(*text, file) : refuse(text.error());
    // A key that is still to be made may be what the rest of the file waits for: only [vault], [peers] and [key.NAME]
    // must be right.
    if (!config) {
      failConfig(config.error(), file);
      return std::nullopt;
    }
    folder = {
        config->vault.keys, config->vault.passphraseFile, config->vault.adminSocket, config->rotations, config->tokens,
        config->file};
  }
  if (arguments.has("--keys")) {
    if (folder.path != arguments.get("--keys")) folder.adminSocket.clear();
    folder.path = arguments.get("--keys");
  }
  if (arguments.has("--passphrase-file")) folder.passphraseFile = arguments.get("--passphrase-file");
  return folder;
}

vaultd::Unlocker unlocker(const Arguments& arguments, const KeyFolder& folder) {
  return [&arguments, &folder](const KeyHeader& header) -> SlotSecretOrProblem {
    if (arguments.has("--shares")) return sharesFrom(arguments.get("--shares"));
    if (arguments.has("--credential")) {
      auto seal = credentialSeal(arguments.get("--credential"));
      if (!seal) return refuse(seal.error());
      return SlotSecret{SealKind::SystemdCredential, std::move(*seal->secret), seal->sealing.credential};
    }
    if (!arguments.has("--recovery")) {
      if (auto given = systemdCredential(header)) return std::move(*given);
    }
    const bool spoken = hasSlot(header, SealKind::Passphrase) || hasSlot(header, SealKind::Recovery);
    if (arguments.has("--token") || (hasSlot(header, SealKind::Token) && !spoken))
      return unwrapByToken(arguments, folder, header);
    if (!spoken) {
      return refuse(Problem{"`" + header.name + "` is sealed by " + vaultd::describeSlots(header),
                            hasSlot(header, SealKind::Shares) ? "open it with --shares FILE, one share a line"
                                                              : "open it with --credential NAME=FILE"});
    }
    return passphraseOf(arguments, folder, header);
  };
}

SealOrProblem sealWith(SealKind kind, SecretText secret, std::string credential) {
  NewSeal seal;
  seal.secret = std::make_unique<SecretText>(std::move(secret));
  seal.sealing.kind = kind;
  seal.sealing.secret = seal.secret.get();
  seal.sealing.credential = std::move(credential);
  return seal;
}

SealOrProblem passphraseSeal(const std::string& name, const fs::path& file, const std::string& option) {
  auto secret = file.empty() ? askNewPassphrase("new passphrase for `" + name + "`", "give it with " + option + " FILE")
                             : readPassphraseFile(file);
  if (!secret) return refuse(secret.error());
  return sealWith(SealKind::Passphrase, std::move(*secret));
}

SealOrProblem credentialSeal(const std::string& option) {
  const auto equals = option.find('=');
  const auto name = option.substr(0, equals);
  if (equals == option.npos || !isName(name)) {
    return refuse(Problem{"a credential is given as NAME=FILE",
                          "FILE holds what systemd will give vaultd as the credential NAME"});
  }
  auto content = vaultd::readPrivate(option.substr(equals + 1), {});
  if (!content) return refuse(content.error());
  return sealWith(SealKind::SystemdCredential, std::move(*content), name);
}

SealOrProblem sealOfNewFile(const Arguments& arguments, const std::string& name, const KeyFolder& folder) {
  if (arguments.has("--credential")) return credentialSeal(arguments.get("--credential"));
  if (!arguments.has("--passphrase") && !arguments.has("--passphrase-file")) return NewSeal{};
  return passphraseSeal(name, folder.passphraseFile, "--passphrase-file");
}

Result<vaultd::Rewrite, Problem> addSlot(vaultd::EditedKey& key, const vaultd::Sealing& sealing) {
  auto& slots = key.opened.header.slots;
  if (slots[0].kind == SealKind::Plain) {
    auto fileKey = vaultd::renewFileKey(key.opened, sealing);
    if (!fileKey) return refuse(fileKey.error());
    key.fileKey = std::move(*fileKey);
    return vaultd::Rewrite::All;
  }
  if (slots.size() == vaultd::MAX_SLOTS)
    return refuse(Problem{"it has " + std::to_string(vaultd::MAX_SLOTS) + " slots, as many as fit",
                          "remove one with `sallyport key slot remove`"});
  auto slot = vaultd::makeSlot(key.opened.header.name, slots.back().number + 1, sealing, key.fileKey);
  if (!slot) return refuse(slot.error());
  slots.push_back(std::move(*slot));
  return vaultd::Rewrite::Slots;
}

namespace {

Result<std::string, Problem> give(EventLoop& loop, const fs::path& adminSocket, std::string_view text,
                                  const vaultd::FileKey& key) {
  auto client = DaemonClient::connect(loop, adminSocket);
  if (!client) return refuse(client.error());
  auto request = (*client)->as<proto::Admin>().unlockRequest(capnp::MessageSize{text.size() / 8 + 64, 0});
  auto keyFile = request.initKeyFile(static_cast<unsigned>(text.size()));
  std::ranges::copy(text, keyFile.begin());
  const auto bytes = key.expose();
  auto fileKey = request.initFileKey(static_cast<unsigned>(bytes.size()));
  std::memcpy(fileKey.begin(), bytes.data(), bytes.size());
  auto answer = answerOf(loop, request.send());
  if (!answer) return refuse(Problem{answer.error(), {}});
  const auto outcome = answer->getOutcome();
  if (outcome.isDone()) return sanitized(outcome.getDone().cStr());
  return refuse(Problem{"refuses: " + sanitized(outcome.getRefused().getProblem().cStr()), {}});
}

bool vaultRuns(const KeyFolder& folder) {
  std::error_code failure;
  return !folder.adminSocket.empty() && fs::exists(folder.adminSocket, failure);
}

// Has the running vault the key, open? If not, says what to do.
bool canTake(EventLoop& loop, const KeyFolder& folder, const std::string& name) {
  const auto lacks = [](const std::string& problem) {
    warn("the vault " + problem + "; it uses the change when it is started again");
    return false;
  };
  auto client = DaemonClient::connect(loop, folder.adminSocket);
  if (!client) return lacks(client.error().message);
  auto answer = answerOf(loop, (*client)->as<proto::Admin>().statusRequest().send());
  if (!answer) return lacks(answer.error());
  const std::string state = stateIn(answer->getStatus(), name);
  if (state.empty())
    say("the running vault was started without `" + name + "`: restart vaultd, so that it is used there");
  // Who locked it wants a person to unlock it: a timer that rotates must not.
  if (state == "locked")
    say("the running vault has `" + name + "` locked; `sallyport unlock " + name + "` brings the change to it");
  return !state.empty() && state != "locked";
}

}  // namespace

Result<std::string, Problem> giveToVault(const fs::path& adminSocket, std::string_view text,
                                         const vaultd::FileKey& key) {
  EventLoop loop;
  return give(loop, adminSocket, text, key);
}

void tellVault(const KeyFolder& folder, const vaultd::ChangedKey& key) {
  EventLoop loop;
  tellVault(loop, folder, key);
}

bool tellVault(EventLoop& loop, const KeyFolder& folder, const vaultd::ChangedKey& key, const char* whatItMeans) {
  if (!vaultRuns(folder)) return true;
  if (!canTake(loop, folder, key.header.name)) return false;
  const auto given = give(loop, folder.adminSocket, key.text.expose(), key.fileKey);
  if (given)
    say(whatItMeans);
  else
    warn("the vault " + given.error().message + "; restart it to use the change");
  return true;
}

bool tellVaultOfNew(EventLoop& loop, const KeyFolder& folder, const std::string& name) {
  return !vaultRuns(folder) || canTake(loop, folder, name);
}

std::string timeText(int64_t unixSeconds) {
  if (unixSeconds == 0) return "-";
  if (unixSeconds == vaultd::AWAITS_CONFIRMATION) return "when it is confirmed";
  return vaultd::utcText(unixSeconds, ' ');
}

}  // namespace sallyport::cli
