// cmd_key_slots.cc - sallyport key passphrase, key slot list|add|remove: what opens a key file. Part of: cli.
// The sealed keys in the file stay as they are, byte by byte, unless a plain file becomes a sealed one. What must never
// happen here: a file that nothing opens.
#include <algorithm>

#include "cli/commands.h"
#include "cli/key_access.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "vaultd/key_shares.h"

namespace sallyport::cli {
namespace {

using vaultd::EditedKey;
using vaultd::Problem;
using vaultd::Rewrite;
using vaultd::SealKind;
using vaultd::SecretText;
using vaultd::Slot;

using RewriteOrProblem = Result<Rewrite, Problem>;

// Another passphrase in the place of the one there is.
RewriteOrProblem changePassphrase(EditedKey& key, const vaultd::Sealing& sealing) {
  auto& slots = key.opened.header.slots;
  const auto old = std::ranges::find(slots, SealKind::Passphrase, &Slot::kind);
  if (old == slots.end()) return addSlot(key, sealing);
  if (std::ranges::count(slots, SealKind::Passphrase, &Slot::kind) > 1) {
    return refuse(Problem{"it has more than one passphrase",
                          "add the new one with `sallyport key slot add`, then remove an old one"});
  }
  auto slot = vaultd::makeSlot(key.opened.header.name, old->number, sealing, key.fileKey);
  if (!slot) return refuse(slot.error());
  *old = std::move(*slot);
  return Rewrite::Slots;
}

RewriteOrProblem removePassphrase(EditedKey& key) {
  auto& slots = key.opened.header.slots;
  if (slots[0].kind == SealKind::Plain) return refuse(Problem{"it has no passphrase", {}});
  if (slots.size() > 1)
    return refuse(Problem{"other slots open it too", "remove those first: `sallyport key slot remove`"});
  auto fileKey = vaultd::renewFileKey(key.opened, {});
  if (!fileKey) return refuse(fileKey.error());
  key.fileKey = std::move(*fileKey);
  return Rewrite::All;
}

RewriteOrProblem removeSlot(EditedKey& key, uint32_t number) {
  auto& slots = key.opened.header.slots;
  const auto found = std::ranges::find(slots, number, &Slot::number);
  if (found == slots.end())
    return refuse(Problem{"it has no slot " + std::to_string(number), "`sallyport key slot list` shows them"});
  if (slots.size() == 1) {
    return refuse(Problem{"slot " + std::to_string(number) + " is the only one: nothing would open the key",
                          "add another one first, or make it a plain file with `sallyport key passphrase --remove`"});
  }
  slots.erase(found);
  return Rewrite::Slots;
}

// --- what is printed once ---

// A slot that is made together with lines for people.
struct Printed {
  NewSeal seal;
  std::vector<SecretText> lines;
};

Result<Printed, Problem> recoverySlot() {
  Printed made;
  made.lines.push_back(vaultd::newRecoveryPassphrase());
  auto seal = sealWith(SealKind::Recovery, vaultd::normalRecoveryPassphrase(made.lines[0].expose()));
  made.seal = std::move(*seal);
  return made;
}

// "3/5": any three of five.
Result<Printed, Problem> sharesSlot(const std::string& name, const std::string& option) {
  const auto slash = option.find('/');
  const auto needed = slash == option.npos ? std::nullopt : numberIn(option.substr(0, slash), "share");
  const auto total = needed ? numberIn(option.substr(slash + 1), "share") : std::nullopt;
  if (!needed || !total || *needed < 2 || *needed > *total || *total > vaultd::MAX_SHARES) {
    return refuse(Problem{"`--split` is NEEDED/TOTAL, not `" + option + "`",
                          "e.g. --split 3/5: any three of five people; at least 2, at most 255"});
  }
  Printed made;
  const auto secret = vaultd::ShareSecret::random();
  vaultd::ShareSet set;
  fillRandom(set);
  for (const auto& share : vaultd::splitSecret(secret, name, set, *needed, *total))
    made.lines.push_back(vaultd::shareText(share));
  SecretText text;
  CHECK(text.append({reinterpret_cast<const char*>(secret.exposeData()), vaultd::ShareSecret::SIZE}));
  auto seal = sealWith(SealKind::Shares, std::move(text));
  made.seal = std::move(*seal);
  made.seal.sealing.needed = *needed;
  made.seal.sealing.total = *total;
  made.seal.sealing.shareSet = set;
  return made;
}

Result<Printed, Problem> newSlot(const Arguments& arguments, const std::string& name, const std::string& kind) {
  if (kind == "recovery") return recoverySlot();
  if (kind == "shares") return sharesSlot(name, arguments.get("--split"));
  auto seal = kind == "credential"
                  ? credentialSeal(arguments.get("--new-credential"))
                  : passphraseSeal(name, arguments.get("--new-passphrase-file"), "--new-passphrase-file");
  if (!seal) return refuse(seal.error());
  Printed made;
  made.seal = std::move(*seal);
  return made;
}

int finish(const KeyFolder& folder, const Result<vaultd::ChangedKey, Problem>& changed) {
  if (!changed) return failProblem(changed.error());
  say(vaultd::keyPath(folder.path, changed->header.name).string() + " is now protected as " +
      vaultd::describeSlots(changed->header));
  return EXIT_DONE;
}

}  // namespace

int keyPassphrase(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const bool remove = arguments.has("--remove");
  if (remove && arguments.has("--new-passphrase-file")) {
    return failUsage("--remove and --new-passphrase-file don't go together", "sallyport key passphrase --help");
  }
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  // The old one first, so that a wrong one is told before a new one is asked for.
  const auto changed = vaultd::changeKey(
      folder->path, name, unlocker(arguments, *folder),
      [&](EditedKey& key) -> RewriteOrProblem {
        if (remove) return removePassphrase(key);
        const auto seal = passphraseSeal(name, arguments.get("--new-passphrase-file"), "--new-passphrase-file");
        if (!seal) return refuse(seal.error());
        return changePassphrase(key, seal->sealing);
      },
      vaultd::unixNow());
  return finish(*folder, changed);
}

int keySlotList(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto key = vaultd::readKeyFile(folder->path, arguments.words[0]);
  if (!key) return failProblem(key.error());
  Table table({"SLOT", "KIND", "DETAIL"});
  for (const auto& slot : key->header.slots) {
    std::string detail = "-";
    if (slot.kind == SealKind::SystemdCredential) detail = slot.credential;
    if (slot.kind == SealKind::Token) detail = slot.token + ", " + std::string(vaultd::describe(slot.tokenWrap.cipher));
    if (slot.kind == SealKind::Shares)
      detail = std::to_string(slot.needed) + " of " + std::to_string(slot.total) + " needed";
    table.add({std::to_string(slot.number), std::string(vaultd::describe(slot.kind)), detail});
  }
  put(table.render());
  return finishOutput();
}

int keySlotAdd(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const auto& kind = arguments.words[1];
  const std::pair<const char*, const char*> needs[] = {
      {"passphrase", ""}, {"recovery", ""}, {"credential", "--new-credential"}, {"shares", "--split"}};
  const auto* known = std::ranges::find(needs, kind, [](const auto& need) { return std::string(need.first); });
  if (known == std::end(needs))
    return failUsage("no slot is called `" + kind + "`",
                     "one of: passphrase, recovery, credential, shares; of a token: `sallyport hsm seal`");
  if (*known->second != '\0' && !arguments.has(known->second))
    return failUsage("a slot of " + kind + " needs " + known->second, "sallyport key slot add --help");
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  std::vector<SecretText> lines;
  const auto changed = vaultd::changeKey(
      folder->path, name, unlocker(arguments, *folder),
      [&](EditedKey& key) -> RewriteOrProblem {
        auto made = newSlot(arguments, name, kind);
        if (!made) return refuse(made.error());
        lines = std::move(made->lines);
        return addSlot(key, made->seal.sealing);
      },
      vaultd::unixNow());
  if (const int done = finish(*folder, changed); done != EXIT_DONE) return done;
  // The only time that they are seen: what the command was asked for.
  if (kind == "recovery") say("keep it on paper; nothing can print it again");
  if (kind == "shares") say("one line for each person; nothing can print them again");
  for (const auto& line : lines) {
    if (!putSecretLine(line.expose()))
      return fail("can't write to standard output", "the slot is made, but nobody has what opens it: remove it");
  }
  return EXIT_DONE;
}

int keySlotRemove(const Arguments& arguments) {
  const auto number = numberIn(arguments.words[1], "slot");
  if (!number) return EXIT_USAGE;
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  const auto changed = vaultd::changeKey(
      folder->path, arguments.words[0], unlocker(arguments, *folder),
      [&](EditedKey& key) { return removeSlot(key, *number); }, vaultd::unixNow());
  const int done = finish(*folder, changed);
  if (done == EXIT_DONE) say("an old copy of the file, with what that slot was opened by, still opens");
  return done;
}

}  // namespace sallyport::cli
