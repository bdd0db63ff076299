// cmd_vault.cc - sallyport lock|unlock|panic: a running vault's keys, through its admin socket. Part of: cli.
// A passphrase is stretched here, never sent: the vault gets the text of the key file and the file key.
#include "cli/commands.h"
#include "cli/daemon_client.h"
#include "cli/key_access.h"
#include "cli/load_config.h"
#include "cli/terminal.h"
#include "common/log.h"

namespace sallyport::cli {
namespace {

using vaultd::Problem;

// The folder with an admin socket; the error has been printed.
std::optional<KeyFolder> runningVault(const Arguments& arguments) {
  auto folder = keyFolder(arguments);
  if (!folder) return std::nullopt;
  if (!folder->adminSocket.empty()) return folder;
  fail("no configuration names the vault's admin socket", "name one with -c FILE");
  return std::nullopt;
}

// Words that follow "the vault".
int failVault(const Problem& problem) { return fail("the vault " + problem.message, problem.hint); }

// The names of the keys that it has locked.
Result<std::vector<std::string>, Problem> lockedKeys(const KeyFolder& folder) {
  EventLoop loop;
  auto client = DaemonClient::connect(loop, folder.adminSocket);
  if (!client) return refuse(client.error());
  auto request = (*client)->as<proto::Admin>().statusRequest();
  auto answer = answerOf(loop, request.send());
  if (!answer) return refuse(Problem{answer.error(), {}});
  std::vector<std::string> names;
  for (const auto key : answer->getStatus().getKeys()) {
    if (std::string_view(key.getState().cStr()) == "locked") names.emplace_back(key.getName().cStr());
  }
  return names;
}

int unlockOne(const Arguments& arguments, const KeyFolder& folder, const std::string& name) {
  const auto file = vaultd::readKeyText(folder.path, name);
  if (!file) return failProblem(file.error());
  vaultd::SlotSecret secret;
  if (file->sealed.header.seal != vaultd::SealKind::Plain) {
    auto given = unlocker(arguments, folder)(file->sealed.header);
    if (!given) return failProblem(given.error());
    secret = std::move(*given);
  }
  const auto fileKey = vaultd::fileKeyOf(file->sealed, secret);
  if (!fileKey)
    return fail(vaultd::keyPath(folder.path, name).string() + ": " + fileKey.error().message, fileKey.error().hint);
  const auto given = giveToVault(folder.adminSocket, file->text.expose(), *fileKey);
  if (!given) return failVault(given.error());
  say(*given);
  return EXIT_DONE;
}

}  // namespace

int lockVault(const Arguments& arguments) {
  const auto folder = runningVault(arguments);
  if (!folder) return EXIT_FAILED;
  EventLoop loop;
  auto client = DaemonClient::connect(loop, folder->adminSocket);
  if (!client) return failVault(client.error());
  auto request = (*client)->as<proto::Admin>().lockRequest();
  request.setKey(arguments.words.empty() ? kj::String() : kj::heapString(arguments.words[0].c_str()));
  auto answer = answerOf(loop, request.send());
  if (!answer) return fail("the vault " + answer.error());
  const auto outcome = answer->getOutcome();
  if (!outcome.isDone()) return fail("the vault refuses: " + sanitized(outcome.getRefused().getProblem().cStr()));
  say(sanitized(outcome.getDone().cStr()));
  return EXIT_DONE;
}

int unlockVault(const Arguments& arguments) {
  const auto folder = runningVault(arguments);
  if (!folder) return EXIT_FAILED;
  auto names = arguments.words;
  if (names.empty()) {
    const auto locked = lockedKeys(*folder);
    if (!locked) return failVault(locked.error());
    names = *locked;
    if (names.empty()) say("no key is locked");
  }
  for (const auto& name : names) {
    if (const int done = unlockOne(arguments, *folder, name); done != EXIT_DONE) return done;
  }
  return EXIT_DONE;
}

int panicVault(const Arguments& arguments) {
  const auto folder = runningVault(arguments);
  if (!folder) return EXIT_FAILED;
  EventLoop loop;
  auto client = DaemonClient::connect(loop, folder->adminSocket);
  if (!client) return failVault(client.error());
  auto request = (*client)->as<proto::Admin>().panicRequest();
  auto answer = answerOf(loop, request.send());
  if (!answer) return fail("the vault " + answer.error());
  say("every secret is wiped; `sallyport unlock` brings the keys back");
  return EXIT_DONE;
}

}  // namespace sallyport::cli
