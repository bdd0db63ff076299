// config_view.cc - see config_view.h.
#include "cli/config_view.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "common/find_program.h"
#include "common/socket_group.h"
#include "vaultd/block_claims.h"
#include "vaultd/key_file.h"
#include "vaultd/key_owners.h"
#include "vaultd/nonce_file.h"

namespace sallyport::cli {

namespace fs = std::filesystem;

namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// What stands behind an entry's protocol, beside the key.
std::string describeFraming(const PeerFraming& framing) {
  return std::string("peer protocol, ") + (framing.mode == PeerMode::Hard ? "hard" : "base") + " mode";
}

// What is said of a claimed block.
std::string usedBlock(const std::string& claims) {
  return (claims == "ready" ? std::string("is used") : "counts as used, as block-claims is " + claims) + ", and " +
         std::string(USED_BLOCK_ADVICE);
}

// A key of another kind than the entry's protocol needs would refuse every handshake. `claims`: if they can be read.
template <typename Entries>
void inspectKinds(const Entries& entries, std::string_view title, const vaultd::KeyHeader& header,
                  const vaultd::BlockClaims* claims, Findings& findings) {
  for (const auto& entry : entries) {
    if (entry.key != header.name) continue;
    const auto named = std::string(title) + " `" + entry.name + "`";
    const bool peer = entry.protocol == Protocol::Peer;
    const auto wanted = peer ? vaultd::KeyKind::PeerBlock : vaultd::KeyKind::X25519;
    if (header.kind != wanted) {
      findings.errors.push_back({named + " needs a key of the kind " + std::string(vaultd::describe(wanted)) +
                                     ", and `" + header.name + "` is " + std::string(vaultd::describe(header.kind)),
                                 peer ? "`sallyport pair NAME` makes one on both hosts" : "sallyport key new NAME"});
      continue;
    }
    const auto* active = vaultd::activeVersion(header, vaultd::unixNow());
    if (peer && active == nullptr) {
      findings.warnings.push_back(named + ": no block of `" + header.name +
                                  "` is active: `sallyport pair` confirms one");
    } else if (peer && entry.framing.mode == PeerMode::Base && !active->unused) {
      findings.warnings.push_back(named + ": the block of `" + header.name +
                                  "` was restored or imported, and base mode needs an unused one: pair anew");
    } else if (peer && entry.framing.mode == PeerMode::Base && claims != nullptr &&
               claims->isClaimed(active->publicKey)) {
      findings.warnings.push_back(named + ": the block of `" + header.name + "` " + usedBlock(claims->describe()));
    }
  }
}

// Not there, or no file; false also if we may not look.
bool isMissing(const fs::path& path) {
  std::error_code failure;
  const auto status = fs::status(path, failure);
  return fs::status_known(status) && !fs::is_regular_file(status);
}

// What tokens need before a daemon can use them, and keys that need one. A token that can't work keeps nobody else's
// keys from being served, so it is no error.
void inspectTokens(const Config& config, Findings& findings) {
  if (config.tokens.empty()) return;
  if (findProgram("hsmd").empty())
    findings.errors.push_back({"[token] needs hsmd, which isn't installed beside this program", {}});
  for (const auto& [name, token] : config.tokens) {
    if (isMissing(token.module))
      findings.warnings.push_back("[token." + name + "]: there is no module " + token.module.string() +
                                  ": its keys are refused until there is");
    if (std::holds_alternative<PinAsk>(token.pin) || std::holds_alternative<PinDescriptor>(token.pin))
      findings.warnings.push_back("[token." + name + "]: its keys wait for `sallyport hsm unlock " + name + "` after " +
                                  (std::holds_alternative<PinAsk>(token.pin) ? "each start" : "a panic"));
    const auto* file = std::get_if<PinFile>(&token.pin);
    if (file != nullptr && isMissing(file->path))
      findings.warnings.push_back("[token." + name + "] pin: there is no file " + file->path.string() +
                                  ": its keys wait for `sallyport hsm unlock " + name + "`");
  }
}

void inspectTokensOf(const vaultd::KeyHeader& header, const Config& config, Findings& findings) {
  if (!header.token.empty() && !config.tokens.contains(header.token))
    findings.errors.push_back({"key `" + header.name + "` lives in token `" + header.token +
                                   "`, but there is no [token." + header.token + "]",
                               "sallyport.toml(5) tells what such a section needs"});
  const auto token = config.tokens.find(header.token);
  const auto serves = [&header](const auto& entry) { return entry.key == header.name; };
  if (token != config.tokens.end() && token->second.deadlineMs >= config.limits.handshakeTimeoutMs &&
      (std::ranges::any_of(config.listens, serves) || std::ranges::any_of(config.connects, serves))) {
    findings.warnings.push_back(
        "[token." + header.token +
        "]: deadline_ms isn't below handshake_timeout_ms: when the token hangs, handshakes with "
        "key `" +
        header.name + "` time out before they are refused");
  }
  bool others = false;
  for (const auto& slot : header.slots) {
    others |= slot.kind != vaultd::SealKind::Token;
    if (slot.kind == vaultd::SealKind::Token && !config.tokens.contains(slot.token))
      findings.warnings.push_back("token `" + slot.token + "` opens key `" + header.name +
                                  "`, but there is no [token." + slot.token + "]");
  }
  if (!others && header.slots.size() == 1)
    findings.warnings.push_back("nothing but token `" + header.slots[0].token + "` opens key `" + header.name +
                                "`: add a recovery passphrase with `sallyport key slot add " + header.name +
                                " recovery`");
}

// How a key that isn't there is made.
std::string makingOf(const Config& config, const std::string& name) {
  const auto isBlock = [&](const auto& entry) { return entry.key == name && entry.protocol == Protocol::Peer; };
  if (std::ranges::any_of(config.listens, isBlock) || std::ranges::any_of(config.connects, isBlock))
    return "`sallyport pair " + name + "` makes one on both hosts, or: sallyport key new " + name +
           " --kind peer-block --party A";
  return "sallyport key new " + name;
}

// What only the vault's own user can judge.
bool isClosedToUs(const fs::path& path, Findings& findings) {
  if (::access(path.c_str(), R_OK) == 0 || errno != EACCES) return false;
  findings.warnings.push_back(path.string() + " is not checked: this user can't read it");
  return true;
}

// The key as the vault will read it, as far as it can be opened without a secret. Nothing: that is a finding.
std::optional<vaultd::KeyHeader> readKey(const fs::path& folder, const std::string& name,
                                         const vaultd::FileOwners& owners, Findings& findings) {
  if (isClosedToUs(vaultd::keyPath(folder, name), findings)) return std::nullopt;
  auto key = vaultd::readKeyFile(folder, name, owners);
  if (!key) {
    findings.errors.push_back(key.error());
    return std::nullopt;
  }
  if (key->header.seal != vaultd::SealKind::Plain) return std::move(key->header);
  auto opened = vaultd::loadKey(folder, name, {}, owners);
  if (!opened) {
    findings.errors.push_back(opened.error());
    return std::nullopt;
  }
  return std::move(opened->header);
}

// A key without nonces doesn't keep the vault from serving others; if there are no others, it doesn't start.
void inspectNonces(const fs::path& folder, const std::vector<std::string>& drawing, size_t keys,
                   const vaultd::FileOwners& owners, Findings& findings) {
  std::vector<vaultd::Problem> problems;
  for (const auto& name : drawing) {
    const auto path = vaultd::noncePath(folder, name);
    if (isClosedToUs(path, findings)) continue;
    if (auto good = vaultd::inspectNonceFile(path, owners); !good) problems.push_back(good.error());
  }
  for (auto& problem : problems) {
    if (problems.size() == keys)
      findings.errors.push_back(std::move(problem));
    else
      findings.warnings.push_back(problem.message + ": handshakes with its key are refused" +
                                  (problem.hint.empty() ? "" : " (" + problem.hint + ")"));
  }
}

// Which blocks base mode has used up. Without that knowledge its entries are of no use, and all others serve. Nothing:
// that is a finding, or of no interest.
std::unique_ptr<vaultd::BlockClaims> readClaims(const Config& config, const vaultd::FileOwners& owners,
                                                Findings& findings) {
  const auto isBase = [](const auto& entry) { return entry.framing.mode == PeerMode::Base; };
  if (std::ranges::none_of(config.listens, isBase) && std::ranges::none_of(config.connects, isBase)) return nullptr;
  const auto& folder = config.vault.keys;
  if (isClosedToUs(vaultd::claimsPath(folder), findings)) return nullptr;
  auto claims = vaultd::inspectClaims(folder, owners);
  if (claims) return std::move(*claims);
  const auto& [message, hint] = claims.error();
  findings.warnings.push_back(message + (hint.empty() ? "" : " (" + hint + ")"));
  return nullptr;
}

// Nothing that the grant allows can be done with a key of this kind: every call would be refused.
void inspectGrants(const Config& config, const vaultd::KeyHeader& header, Findings& findings) {
  VerbSet possible;
  switch (header.kind) {
    case vaultd::KeyKind::X25519: possible = {Verb::Box, Verb::Open, Verb::FreshNonce}; break;
    case vaultd::KeyKind::Ed25519: possible = {Verb::Sign, Verb::FreshNonce}; break;
    case vaultd::KeyKind::PeerBlock: break;  // it serves entries alone
  }
  for (const GrantEntry& grant : config.grants) {
    if (std::ranges::find(grant.keys, header.name) == grant.keys.end() || !(grant.verbs & possible).empty()) continue;
    findings.warnings.push_back("[[grant]] `" + grant.name + "`: none of its verbs is for a key of the kind " +
                                std::string(vaultd::describe(header.kind)) + ", as `" + header.name + "` is");
  }
}

void inspectKeys(const Config& config, Findings& findings) {
  const auto& folder = config.vault.keys;
  const auto owners = vaultd::keyOwners(config.vault);
  const auto keys = keysInUse(config);
  std::error_code unknown;
  if (fs::exists(folder, unknown) && !fs::is_directory(folder, unknown)) {
    if (auto good = vaultd::checkFolder(folder); !good) findings.errors.push_back(good.error());
    return;
  }
  const auto claims = readClaims(config, owners, findings);
  std::vector<std::string> drawing;  // nonces
  for (const auto& [name, user] : keys) {
    std::error_code failure;
    const auto path = vaultd::keyPath(folder, name);
    if (fs::symlink_status(path, failure).type() == fs::file_type::not_found) {
      findings.errors.push_back(
          {user + " needs the key `" + name + "`, but there is no " + path.string(), makingOf(config, name)});
      continue;
    }
    const auto header = readKey(folder, name, owners, findings);
    if (!header) continue;
    if (header->kind != vaultd::KeyKind::PeerBlock) drawing.push_back(name);
    inspectKinds(config.listens, "[[listen]]", *header, claims.get(), findings);
    inspectKinds(config.connects, "[[connect]]", *header, claims.get(), findings);
    inspectGrants(config, *header, findings);
    inspectTokensOf(*header, config, findings);
    // A peer with our own key would talk to itself: nearly always a key pasted on the wrong host.
    for (const auto& [peer, publicKey] : config.peers) {
      const auto& versions = header->versions;
      if (std::ranges::find(versions, publicKey, &vaultd::KeyVersion::publicKey) == versions.end()) continue;
      findings.warnings.push_back("peer `" + peer + "` has the key of our own `" + name + "`");
    }
  }
  inspectNonces(folder, drawing, keys.size(), owners, findings);
}

// A frame that isn't whole yet is held in its worker's share of the buffers; one that can't fit ends its connection.
// Nobody is warned of the two defaults, which on many cores are like that.
void inspectFrames(const Config& config, Findings& findings) {
  const auto workers = workerCount(config.net);
  const uint64_t share = (uint64_t{config.limits.bufferMiB} << 20) / workers;
  const bool bufferChosen = config.limits.bufferMiB != LimitsConfig{}.bufferMiB;
  const auto inspect = [&](std::string_view title, const auto& entry) {
    const uint32_t longest = entry.framing.maxFrameBytes;
    if (entry.protocol != Protocol::Peer || longest <= share) return;
    if (!bufferChosen && longest == DEFAULT_MAX_FRAME_BYTES) return;
    findings.warnings.push_back(std::string(title) + " `" + entry.name + "`: max_frame_bytes is " +
                                std::to_string(longest) + ", but each of " + std::to_string(workers) + " workers has " +
                                std::to_string(share) +
                                " bytes of buffer_mib: a longer frame can end its connection as memory_limit. Raise "
                                "buffer_mib, or lower max_frame_bytes");
  };
  for (const auto& entry : config.listens) inspect("[[listen]]", entry);
  for (const auto& entry : config.connects) inspect("[[connect]]", entry);
}

void inspectPassphrase(const Config& config, Findings& findings) {
  const auto& file = config.vault.passphraseFile;
  if (file.empty() || isClosedToUs(file, findings)) return;
  bool missing = false;
  const auto text = vaultd::readPrivate(file, vaultd::keyOwners(config.vault), &missing);
  if (text) return;
  findings.errors.push_back(
      missing ? vaultd::Problem{"[vault] passphrase_file: there is no file " + file.string(),
                                "its first line is the passphrase, and its mode 0600"}
              : vaultd::Problem{"[vault] passphrase_file: " + text.error().message, text.error().hint});
}

void inspectGroups(const Config& config, Findings& findings) {
  for (const auto& group : std::set{config.vault.socketGroup, config.net.socketGroup}) {
    if (group.empty() || findGroup(group)) continue;
    const auto error = unknownGroup(group);
    findings.errors.push_back({error.message, error.hint});
  }
}

// A daemon of root becomes another user, and refuses to serve as root.
void inspectUsers(const Config& config, Findings& findings) {
  const auto inspect = [&](const std::string& section, const std::string& user, SandboxRequirement requirement) {
    if (requirement == SandboxRequirement::None) return;
    const passwd* entry = ::getpwnam(user.c_str());
    if (entry == nullptr || entry->pw_uid != 0) return;
    findings.warnings.push_back(section + " user = \"" + user +
                                "\" is root: started as root, the daemon refuses to serve. Name another, or none");
  };
  inspect("[vault]", config.vault.user, config.vault.requireSandbox);
  inspect("[net]", config.net.user, config.net.requireSandbox);
  for (const auto& [name, token] : config.tokens) inspect("[token." + name + "]", token.user, token.requireSandbox);
}

}  // namespace

std::map<std::string, std::string> keysInUse(const Config& config) {
  std::map<std::string, std::string> keys;
  for (const auto& entry : config.listens) keys.emplace(entry.key, "[[listen]] `" + entry.name + "`");
  for (const auto& entry : config.connects) keys.emplace(entry.key, "[[connect]] `" + entry.name + "`");
  for (const GrantEntry& grant : config.grants) {
    for (const auto& key : grant.keys) keys.emplace(key, "[[grant]] `" + grant.name + "`");
  }
  for (const auto& key : config.honeyKeys) keys.emplace(key, "[key." + key + "] honey");
  return keys;
}

std::string describeService(const ListenEntry& entry) {
  if (std::holds_alternative<ChannelService>(entry.service)) return "programs that accept `" + entry.name + "`";
  if (std::holds_alternative<EchoService>(entry.service)) return "an echo";
  return toString(std::get<Address>(entry.service));
}

std::vector<std::string> describeEntries(const Config& config) {
  std::vector<std::string> lines;
  for (const auto& entry : config.listens) {
    lines.push_back(
        "listen `" + entry.name + "`: encrypted on " + toString(entry.address) + ", key `" + entry.key + "`, " +
        (entry.protocol == Protocol::Peer ? describeFraming(entry.framing) : "allows " + joined(entry.allow)) +
        ", leads to " + describeService(entry));
  }
  for (const auto& entry : config.connects) {
    lines.push_back(
        "connect `" + entry.name +
        "`: " + (entry.listen ? "plain on " + toString(*entry.listen) : std::string("for programs and `pipe` only")) +
        ", dials " + toString(entry.address) + ", key `" + entry.key + "`, " +
        (entry.protocol == Protocol::Peer ? describeFraming(entry.framing) : "expects peer " + entry.peer));
  }
  if (config.net.metrics) lines.push_back("metrics: plain on " + toString(*config.net.metrics));
  lines.push_back("programs: " + config.net.socket.string() + " (channels), " + config.vault.socket.string() +
                  " (vault)");
  return lines;
}

std::string describeListeners(const Config& config) {
  std::vector<std::string> parts;
  for (const auto& entry : config.listens) parts.push_back(entry.name + " on " + toString(entry.address));
  for (const auto& entry : config.connects) {
    if (entry.listen) parts.push_back(entry.name + " on " + toString(*entry.listen) + " (plain)");
  }
  parts.push_back("programs on " + config.net.socket.string());
  return joined(parts);
}

std::vector<fs::path> socketFolders(const Config& config) {
  std::set<fs::path> folders;
  const auto note = [&](const Address& address) {
    if (const auto* local = std::get_if<UnixAddress>(&address)) folders.insert(local->path.parent_path());
  };
  for (const auto& path : {config.vault.socket, config.vault.netSocket, config.vault.adminSocket, config.net.socket}) {
    folders.insert(path.parent_path());
  }
  if (config.net.metrics) note(*config.net.metrics);
  for (const auto& entry : config.listens) note(entry.address);
  for (const auto& entry : config.connects) {
    if (entry.listen) note(*entry.listen);
  }
  return {folders.begin(), folders.end()};
}

Findings inspectSurroundings(const Config& config) {
  Findings findings;
  findings.warnings = config.warnings;
  inspectTokens(config, findings);
  inspectKeys(config, findings);
  inspectFrames(config, findings);
  inspectPassphrase(config, findings);
  inspectGroups(config, findings);
  inspectUsers(config, findings);
  for (const auto& folder : socketFolders(config)) {
    std::error_code failure;
    if (!fs::exists(folder, failure)) {
      findings.warnings.push_back(folder.string() +
                                  " is missing: `sallyport up` makes it, a daemon of its own doesn't");
    } else if (::access(folder.c_str(), W_OK | X_OK) != 0) {
      findings.warnings.push_back(folder.string() + " can't be written by this user: no socket can be made there");
    }
  }
  return findings;
}

}  // namespace sallyport::cli
