// config_grants.cc - the sections [[vault_socket]] and [[grant]] of sallyport.toml. Part of: common
// (vaultd, netd's monitor and the CLI). The format is docs/man/sallyport.toml.5. What must never happen here: a grant
// that means more than it says. Whatever is doubtful is an error, and what is wide (any user, any peer) is written with
// a "*".
#include <algorithm>
#include <charconv>

#include "common/config_section.h"

namespace sallyport::config {
namespace {

constexpr size_t MAX_LIST = 256;  // names in one list of a grant
constexpr uint32_t MAX_LEASE_S = 10 * 365 * 86400;

// An array of strings, each once; empty if the key isn't there. Integers are taken as text where `numbers` says so.
std::vector<std::string> texts(const Section& section, std::string_view key, bool numbers = false) {
  std::vector<std::string> result;
  const auto* node = section.find(key);
  if (node == nullptr) return result;
  const auto* list = node->as_array();
  if (list == nullptr) {
    section.fail(key, "must be an array, not " + std::string(typeName(*node)),
                 std::string(key) + " = [\"" + (key == "verbs" ? "box" : "NAME") + "\"]");
    return result;
  }
  if (list->empty()) section.fail(key, "is empty", "leave it out, or name something");
  if (list->size() > MAX_LIST) section.fail(key, "is too long", "at most 256 names");
  for (const auto& item : *list) {
    std::string text;
    if (const auto* value = item.as_string()) {
      text = value->get();
    } else if (const auto* number = item.as_integer(); numbers && number != nullptr) {
      text = std::to_string(number->get());
    } else {
      section.reader().fail(lineOf(item), section.at(key) + " must hold strings" + (numbers ? " or numbers" : "") +
                                              ", not " + std::string(typeName(item)));
      return result;
    }
    if (std::ranges::find(result, text) != result.end()) {
      section.reader().fail(lineOf(item), section.at(key) + " names " + ticked(text) + " twice");
    }
    result.push_back(std::move(text));
  }
  return result;
}

// The name or the number of a user or a group. 65534 is what the kernel shows for everybody whom it can't name here.
void checkAccount(const Section& section, std::string_view key, const std::string& account) {
  const bool number = !account.empty() && std::ranges::all_of(account, [](char c) { return c >= '0' && c <= '9'; });
  uint32_t id = 0;
  const auto parsed = std::from_chars(account.data(), account.data() + account.size(), id);
  if (number && (parsed.ec != std::errc() || id == UINT32_MAX)) {
    section.fail(key, "holds " + ticked(account) + ", which is no number of an account");
  } else if (number && id == OVERFLOW_ID) {
    section.fail(key, "holds 65534, which stands for all whom the kernel can't name here",
                 "name somebody else, or \"*\" for anybody");
  } else if (!number && (account.size() > 32 || !isName(account)) && !account.starts_with('_')) {
    section.fail(key, "holds " + ticked(account) + ", which is not a name of an account");
  }
}

void readCallers(const Section& section, GrantEntry& grant, Config& config) {
  grant.users = texts(section, "users", true);
  grant.groups = texts(section, "groups", true);
  if (grant.users.empty() && grant.groups.empty()) {
    section.fail("users", "is missing, and `groups` too", "say who may: users = [\"backup\"]");
  }
  for (const auto& user : grant.users) {
    if (user != "*") {
      checkAccount(section, "users", user);
    } else {
      config.warnings.push_back("[[grant]] " + ticked(grant.name) + ": any user who can open the socket may use it");
    }
  }
  for (const auto& group : grant.groups) checkAccount(section, "groups", group);
}

void readVerbs(const Section& section, GrantEntry& grant) {
  static constexpr Verb VERBS[] = {Verb::Box, Verb::Open, Verb::Sign, Verb::FreshNonce};
  if (section.find("verbs") == nullptr) section.fail("verbs", "is missing", "verbs = [\"box\", \"open\"]");
  for (const auto& word : texts(section, "verbs")) {
    const auto* verb = std::ranges::find(VERBS, word, [](Verb each) { return name(each); });
    if (verb != std::end(VERBS)) {
      grant.verbs.add(*verb);
    } else {
      section.fail("verbs", "holds " + ticked(word), R"(one of "box", "open", "sign", "fresh_nonce")");
    }
  }
}

void readPeersOf(const Section& section, GrantEntry& grant, const Config& config) {
  const bool needed = grant.verbs.has(Verb::Box) || grant.verbs.has(Verb::Open);
  grant.peers = texts(section, "peers");
  if (needed && grant.peers.empty()) {
    section.fail("peers", "is missing", "box and open need them: peers = [\"alice\"], or [\"*\"] for any key");
  } else if (!needed && !grant.peers.empty()) {
    section.fail("peers", "says nothing here: neither box nor open is granted");
  }
  for (const auto& peer : grant.peers) {
    if (peer != "*") checkPeer(section, "peers", peer, config, section.line("peers"));
  }
}

void readDomains(const Section& section, GrantEntry& grant) {
  const bool needed = grant.verbs.has(Verb::FreshNonce);
  grant.domains = texts(section, "domains");
  if (needed && grant.domains.empty()) {
    section.fail("domains", "is missing", "fresh_nonce needs them: domains = [\"minute-k\"]");
  } else if (!needed && !grant.domains.empty()) {
    section.fail("domains", "says nothing here: fresh_nonce is not granted");
  }
  for (const auto& domain : grant.domains) {
    if (!isNonceDomain(domain)) {
      section.fail("domains", "holds " + ticked(domain) + ", which can't be a domain",
                   "1 to 8 letters, digits, `_`, `.`, `-`; not \"SallyBox\", nothing that begins with \"CurveCP\"");
    }
  }
}

mode_t readMode(const Section& section) {
  const auto word = section.text("mode");
  if (!word) return 0600;
  unsigned mode = 0;
  const auto parsed = std::from_chars(word->data(), word->data() + word->size(), mode, 8);
  const bool octal = parsed.ec == std::errc() && parsed.ptr == word->data() + word->size();
  // The owner must be able to connect; a bit for running means nothing on a socket.
  if (!octal || (mode & ~0666U) != 0 || (mode & 0600U) != 0600U) {
    section.fail("mode", "is " + ticked(*word), R"(octal, e.g. "0660" or "0666")");
  }
  return static_cast<mode_t>(mode);
}

}  // namespace

void readVaultSockets(const Section& root, Config& config) {
  forEachEntry(root, "vault_socket", {"name", "path", "mode", "group"}, [&](const Section& section) {
    VaultSocket socket;
    socket.line = section.line();
    socket.name = section.requiredName("name", "\"backup\"");
    if (socket.name == MAIN_SOCKET) section.fail("name", "is \"main\", which is [vault] socket");
    if (std::ranges::find(config.vaultSockets, socket.name, &VaultSocket::name) != config.vaultSockets.end()) {
      section.fail("name", "is used by another [[vault_socket]]");
    }
    if (section.find("path") == nullptr) section.fail("path", "is missing", "path = \"run/vault-backup.sock\"");
    section.socketPath("path", socket.path);
    socket.mode = readMode(section);
    if (const auto group = section.text("group")) {
      socket.group = *group;
      checkAccount(section, "group", socket.group);
    }
    config.vaultSockets.push_back(std::move(socket));
    if (config.vaultSockets.size() > MAX_VAULT_SOCKETS) section.fail("name", "is one socket too many: 16 at most");
  });
}

void readGrants(const Section& root, Config& config) {
  forEachEntry(
      root, "grant",
      {"name", "socket", "users", "groups", "keys", "verbs", "peers", "max_bytes", "per_second", "domains", "lease_s"},
      [&](const Section& section) {
        GrantEntry grant;
        grant.line = section.line();
        grant.name = section.requiredName("name", "\"backup\"");
        if (std::ranges::find(config.grants, grant.name, &GrantEntry::name) != config.grants.end()) {
          section.fail("name", "is used by another [[grant]]");
        }
        grant.socket = section.text("socket").value_or(std::string(MAIN_SOCKET));
        if (grant.socket != MAIN_SOCKET &&
            std::ranges::find(config.vaultSockets, grant.socket, &VaultSocket::name) == config.vaultSockets.end()) {
          section.fail("socket", "is " + ticked(grant.socket) + ", and no [[vault_socket]] has that name",
                       "\"main\" is [vault] socket");
        }
        readCallers(section, grant, config);
        if (section.find("keys") == nullptr) section.fail("keys", "is missing", "keys = [\"backup\"]");
        grant.keys = texts(section, "keys");
        for (const auto& key : grant.keys) section.checkName("keys", key);
        readVerbs(section, grant);
        readPeersOf(section, grant, config);
        readDomains(section, grant);
        grant.maxBytes = MAX_TEXT_BYTES;
        section.number("max_bytes", grant.maxBytes, 0, MAX_TEXT_BYTES);
        section.number("per_second", grant.perSecond, 0, 1'000'000);
        section.number("lease_s", grant.leaseS, 0, MAX_LEASE_S);
        config.grants.push_back(std::move(grant));
      });
}

void checkHoneyKeys(const Section& root, const Config& config) {
  const auto check = [&](const auto& entry) {
    if (!config.honeyKeys.contains(entry.key)) return;
    root.reader().fail(entry.line,
                       "`key` of " + ticked(entry.name) + " is a honey key: every handshake would be an alarm",
                       "remove `honey` in [key." + entry.key + "], or use another key");
  };
  std::ranges::for_each(config.listens, check);
  std::ranges::for_each(config.connects, check);
}

}  // namespace sallyport::config
