// cmd_policy.cc - sallyport policy check: what the [[grant]] sections say of one use, by the vault's own code. Part of:
// cli. It reads the configuration and the host's accounts, and asks no daemon: a file can be judged before it is in
// force. Rates, leases, breakers and the state of a key are the running vault's business.
#include <grp.h>
#include <pwd.h>

#include <charconv>

#include "cli/commands.h"
#include "cli/load_config.h"
#include "cli/terminal.h"
#include "common/accounts.h"
#include "common/grants.h"

namespace sallyport::cli {
namespace {

std::optional<Verb> verbNamed(std::string_view text) {
  for (const Verb verb : {Verb::Box, Verb::Open, Verb::Sign, Verb::FreshNonce}) {
    if (name(verb) == text) return verb;
  }
  return std::nullopt;
}

// The user, with all groups that the host gives them; `--group` adds to these. The error has been printed.
std::optional<Caller> callerOf(const Arguments& arguments, const Accounts& accounts) {
  Caller caller;
  if (arguments.has("--socket")) caller.socket = arguments.get("--socket");
  const std::string user = arguments.get("--user");
  const auto uid = accounts.user(user);
  if (!uid) {
    fail("no user `" + user + "` on this host", "a name, or a number, which needs no account");
    return std::nullopt;
  }
  caller.uid = *uid;
  if (const passwd* account = getpwuid(*uid)) {
    caller.gid = account->pw_gid;
    int count = 0;
    getgrouplist(account->pw_name, account->pw_gid, nullptr, &count);
    std::vector<gid_t> groups(static_cast<size_t>(count));
    if (getgrouplist(account->pw_name, account->pw_gid, groups.data(), &count) >= 0)
      caller.gids.insert(groups.begin(), groups.end());
  }
  if (arguments.has("--group")) {
    const auto gid = accounts.group(arguments.get("--group"));
    if (!gid) {
      fail("no group `" + arguments.get("--group") + "` on this host", "a name, or a number, which needs no account");
      return std::nullopt;
    }
    caller.gids.insert(*gid);
  }
  return caller;
}

// A name of [peers], or a key in base64. "any": a peer that nobody named, or the unknown sender of a sealed box.
Result<std::optional<PublicKey>, std::string> peerOf(const Config& config, const std::string& text) {
  if (text == "any") return std::optional<PublicKey>();
  if (const auto found = config.peers.find(text); found != config.peers.end()) return std::optional(found->second);
  const auto key = parsePublicKey(text);
  if (!key) return refuse("`" + text + "` is neither a name in [peers] nor a public key");
  return std::optional(*key);
}

std::string why(Denial denial, const Use& use) {
  switch (denial) {
    case Denial::PeerNotAllowed: return "a grant gives the verb, but not with this peer";
    case Denial::BadDomain: return "a grant gives the verb, but not in the domain `" + std::string(use.domain) + "`";
    case Denial::TooLong: return "a grant gives it, but not for " + std::to_string(use.bytes) + " bytes";
    case Denial::NotPermitted:
    case Denial::RateLimited: break;
  }
  return "no grant gives this caller the verb with this key";
}

}  // namespace

int policyCheck(const Arguments& arguments) {
  if (!arguments.has("--user"))
    return failUsage("whose use? `--user` is missing", "sallyport policy check box KEY PEER --user backup");
  const auto verb = verbNamed(arguments.words[0]);
  if (!verb) return failUsage("no verb `" + arguments.words[0] + "`", "one of: box, open, sign, fresh_nonce");
  const bool hasObject = *verb != Verb::Sign;
  if (hasObject != (arguments.words.size() == 3)) {
    const std::string object = *verb == Verb::FreshNonce ? "a domain" : "a peer (or `any`)";
    return failUsage(hasObject ? "`" + arguments.words[0] + "` needs a key and " + object : "`sign` needs a key alone",
                     "sallyport policy check --help");
  }
  const auto config = loadConfigOrFail(arguments);
  if (!config) return EXIT_FAILED;
  const Accounts accounts = Accounts::ofThisHost(*config);
  const auto grants = Grants::resolve(*config, accounts);
  if (!grants) return failConfig(grants.error(), config->file);
  const auto caller = callerOf(arguments, accounts);
  if (!caller) return EXIT_FAILED;

  Use use{.verb = *verb, .peer = nullptr, .bytes = 0, .domain = {}};
  std::optional<PublicKey> peer;
  if (*verb == Verb::FreshNonce) {
    use.domain = arguments.words[2];
  } else if (hasObject) {
    const auto parsed = peerOf(*config, arguments.words[2]);
    if (!parsed) return fail(parsed.error(), "sallyport peer list");
    peer = *parsed;
    if (peer) use.peer = &*peer;
  }
  if (arguments.has("--bytes")) {
    const std::string text = arguments.get("--bytes");
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), use.bytes);
    if (fault != std::errc() || end != text.data() + text.size())
      return failUsage("`--bytes` takes a number, not `" + text + "`", "--bytes 4096");
  }

  const std::string& key = arguments.words[1];
  const auto judged = judge(grants->find(*caller, key), use, [](const Grant&) { return true; });
  if (!judged) {
    putLine("no: " + why(judged.error(), use));
    finishOutput();
    return EXIT_FAILED;
  }
  const Grant& grant = **judged;
  putLine("yes: [[grant]] " + grant.name + ", at most " + std::to_string(grant.maxBytes) + " bytes, " +
          (grant.perSecond == 0 ? "at any rate" : std::to_string(grant.perSecond) + " a second") +
          (grant.leaseS == 0 ? "" : ", for leases of at most " + std::to_string(grant.leaseS) + " s"));
  return finishOutput();
}

}  // namespace sallyport::cli
