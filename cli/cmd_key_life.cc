// cmd_key_life.cc - sallyport key rotate|retire|delete|undelete|allow-export|allow-backup: the life of a key's
// versions. Part of: cli. The rules are vaultd/key_life.h's. A vault that runs is told of each change.
#include <algorithm>

#include "cli/commands.h"
#include "cli/hsm_session.h"
#include "cli/key_access.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "common/config_key.h"
#include "vaultd/key_life.h"

namespace sallyport::cli {
namespace {

using vaultd::ChangedKey;
using vaultd::EditedKey;
using vaultd::Problem;
using vaultd::Rewrite;

constexpr int64_t DEFAULT_WINDOW_S = 7 * DAY_S;

using RewriteOrProblem = Result<Rewrite, Problem>;

// `change` works on the opened key; all of it is written.
template <typename ChangeOpened>
Result<ChangedKey, Problem> changeOpened(const Arguments& arguments, const KeyFolder& folder, const std::string& name,
                                         ChangeOpened&& change) {
  return vaultd::changeKey(
      folder.path, name, unlocker(arguments, folder),
      [&](EditedKey& key) -> RewriteOrProblem {
        if (auto done = change(key.opened); !done) return refuse(done.error());
        return Rewrite::All;
      },
      vaultd::unixNow());
}

int finish(const KeyFolder& folder, const Result<ChangedKey, Problem>& changed, const std::string& what) {
  if (!changed) return failProblem(changed.error());
  say(what);
  tellVault(folder, *changed);
  return EXIT_DONE;
}

vaultd::Rotation rotationFor(const KeyFolder& folder, const std::string& name) {
  const auto rule = folder.rotations.find(name);
  return {0, rule == folder.rotations.end() ? RotationRule().graceS : rule->second.graceS};
}

// A version of a key, or the whole key, for `delete` and `undelete`. False: the error has been printed.
bool readVersion(const Arguments& arguments, std::optional<uint32_t>& number) {
  if (arguments.words.size() == 1) return true;
  number = numberIn(arguments.words[1], "version");
  return number.has_value();
}

std::string titled(const std::string& name, const std::optional<uint32_t>& number) {
  return number ? "version " + std::to_string(*number) + " of `" + name + "`" : "`" + name + "`";
}

// A version with a new secret: in the file, or in the token where the key lives.
Result<void, Problem> addVersion(const Arguments& arguments, const KeyFolder& folder, vaultd::OpenedKey& key,
                                 const vaultd::Rotation& rotation, int64_t now) {
  if (key.header.token.empty())
    return vaultd::rotate(key, vaultd::LongTermSecret::random(key.header.kind), rotation, now);
  // What a token has made can't be made undone from here: asked first.
  if (auto may = vaultd::mayRotate(key.header, now); !may) return may;
  auto session = HsmSession::open(arguments, folder, key.header.token, true);
  if (!session) return refuse(session.error());
  // Labels are for people, but no two of a token's keys have the same.
  const auto number = key.header.versions.back().number + 1;
  const auto made = makeTokenKey(**session, key.header.kind, key.header.name + "-" + std::to_string(number));
  if (!made) return refuse(made.error());
  return vaultd::rotateInToken(key, *made, rotation, now);
}

// One key of `rotate --due`: rotated if its period is over, and destroyed secrets dropped. What failed is returned.
std::optional<Problem> rotateIfDue(const Arguments& arguments, const KeyFolder& folder,
                                   const vaultd::KeyHeader& header) {
  const auto now = vaultd::unixNow();
  const auto rule = folder.rotations.find(header.name);
  const bool due = rule != folder.rotations.end() && rule->second.everyS != 0 &&
                   vaultd::rotationDue(header, rule->second.everyS, now);
  if (due && header.kind == vaultd::KeyKind::PeerBlock) {
    return Problem{"`" + header.name + "` is due, and a block is rotated together with the other host",
                   "sallyport pair " + header.name + " ..., see sallyport(1)"};
  }
  const bool dropping = std::ranges::any_of(header.versions, [&](const vaultd::KeyVersion& version) {
    return vaultd::stateOf(version, now) == vaultd::VersionState::Destroyed;
  });
  if (!due && !dropping) return std::nullopt;
  const auto changed = vaultd::changeKey(
      folder.path, header.name, unlocker(arguments, folder),
      [&](EditedKey& key) -> RewriteOrProblem {
        if (!due) return Rewrite::Nothing;  // but for what is destroyed
        const auto done = addVersion(arguments, folder, key.opened, rotationFor(folder, header.name), now);
        if (!done) return refuse(done.error());
        return Rewrite::All;
      },
      now);
  if (!changed) return changed.error();
  if (!changed->written) return std::nullopt;
  if (due) say("rotated `" + header.name + "`: version " + std::to_string(changed->header.versions.back().number));
  if (!due) say("`" + header.name + "`: dropped the secrets of destroyed versions");
  tellVault(folder, *changed);
  return std::nullopt;
}

int rotateDue(const Arguments& arguments, const KeyFolder& folder) {
  const auto keys = vaultd::listKeys(folder.path);
  if (!keys) return failProblem(keys.error());
  std::optional<Problem> first;
  for (const auto& key : *keys) {
    auto failed = key.header ? rotateIfDue(arguments, folder, *key.header) : std::optional(key.problem);
    if (!failed) continue;
    if (first)
      warn(failed->message);
    else
      first = std::move(failed);
  }
  return first ? failProblem(*first) : EXIT_DONE;
}

}  // namespace

int keyRotate(const Arguments& arguments) {
  const bool due = arguments.has("--due");
  if (due != arguments.words.empty()) {
    return failUsage(
        due ? "`--due` rotates all keys whose time has come: name none" : "name the key to rotate, or give --due",
        "sallyport key rotate --help");
  }
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  if (due) return rotateDue(arguments, *folder);
  const auto& name = arguments.words[0];
  auto rotation = rotationFor(*folder, name);
  const auto activateIn = durationIn(arguments, "--activate-in", 0);
  const auto grace = activateIn ? durationIn(arguments, "--grace", rotation.grace) : std::nullopt;
  if (!activateIn || !grace) return EXIT_USAGE;
  rotation = {*activateIn, *grace};
  std::optional<vaultd::SecretText> given;
  if (arguments.has("--import")) {
    auto text = readSecretFromInput("new secret of `" + name + "` in base64 or hex");
    if (!text) return failProblem(text.error());
    given = std::move(*text);
  }
  const auto changed = changeOpened(arguments, *folder, name, [&](vaultd::OpenedKey& key) -> Result<void, Problem> {
    rotation.unused = key.header.kind == vaultd::KeyKind::PeerBlock && (!given || arguments.has("--unused"));
    if (!given) return addVersion(arguments, *folder, key, rotation, vaultd::unixNow());
    auto secret = vaultd::parseGivenSecret(given->expose(), key.header.kind);
    if (!secret) return refuse(secret.error());
    return vaultd::rotate(key, std::move(*secret), rotation, vaultd::unixNow());
  });
  if (!changed) return failProblem(changed.error());
  const auto& added = changed->header.versions.back();
  const auto& old = *(changed->header.versions.end() - 2);
  say("version " + std::to_string(added.number) + " of `" + name + "` is active from " + timeText(added.activeFrom) +
      "; version " + std::to_string(old.number) + " still opens until " + timeText(old.retiredFrom));
  say(changed->header.kind == vaultd::KeyKind::PeerBlock ? "the other host needs the same block by that time"
                                                         : "every peer needs the new public key before that");
  tellVault(*folder, *changed);
  putLine(toBase64(added.publicKey.span()));
  return finishOutput();
}

int keyRetire(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const auto number = numberIn(arguments.words[1], "version");
  if (!number) return EXIT_USAGE;
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto changed = changeOpened(arguments, *folder, name, [&](vaultd::OpenedKey& key) {
    return vaultd::retire(key, *number, vaultd::unixNow());
  });
  return finish(*folder, changed, titled(name, number) + " is retired");
}

int keyDelete(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  std::optional<uint32_t> number;
  if (!readVersion(arguments, number)) return EXIT_USAGE;
  const auto window = durationIn(arguments, "--window", DEFAULT_WINDOW_S);
  if (!window) return EXIT_USAGE;
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto now = vaultd::unixNow();
  const auto changed = changeOpened(
      arguments, *folder, name, [&](vaultd::OpenedKey& key) { return vaultd::markDeleted(key, number, *window, now); });
  return finish(*folder, changed,
                *window == 0 ? titled(name, number) + " is destroyed"
                             : titled(name, number) + " is not used any more, and destroyed at " +
                                   timeText(now + *window) + "; until then `sallyport key undelete` brings it back");
}

int keyUndelete(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  std::optional<uint32_t> number;
  if (!readVersion(arguments, number)) return EXIT_USAGE;
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto changed = changeOpened(arguments, *folder, name, [&](vaultd::OpenedKey& key) {
    return vaultd::undelete(key, number, vaultd::unixNow());
  });
  return finish(*folder, changed, titled(name, number) + " is as it was before");
}

namespace {

int turnOn(const Arguments& arguments, bool vaultd::KeyHeader::*flag, const std::string& what) {
  const auto& name = arguments.words[0];
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto changed = changeOpened(arguments, *folder, name, [&](vaultd::OpenedKey& key) -> Result<void, Problem> {
    key.header.*flag = true;
    return {};
  });
  return finish(*folder, changed, "`" + name + "` can " + what + " from now on; this can't be taken back");
}

}  // namespace

int keyAllowExport(const Arguments& arguments) {
  return turnOn(arguments, &vaultd::KeyHeader::exportable, "be exported");
}
int keyAllowBackup(const Arguments& arguments) {
  return turnOn(arguments, &vaultd::KeyHeader::backupAllowed, "be backed up");
}

}  // namespace sallyport::cli
