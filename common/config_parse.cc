// config_parse.cc - parseConfig of config.h. Part of: common (vaultd, netd's monitor and the CLI).
// The format is docs/man/sallyport.toml.5. Problems are reported with their lines, but none that
// follows from another. What must never happen
// here: an exception or a crash by any text (a reload hands text to a vault that serves), a key ignored in silence.
#include <map>
#include <set>

#include <toml++/toml.h>

#include "common/config.h"
#include "common/config_key.h"
#include "common/config_section.h"

namespace sallyport {

void config::checkPeer(const Section& section, std::string_view key, const std::string& name, const Config& config,
                       unsigned line) {
  const Reader& reader = section.reader();
  if (name.empty() || config.peers.contains(name) || reader.brokenPeers.contains(name) || reader.peersUnknown) return;
  Texts known;
  for (const auto& [peer, publicKey] : config.peers) known.push_back(peer);
  const auto guess = nearest(name, known);
  section.reader().fail(line, section.at(key) + ": no peer " + ticked(name) + " in [peers]",
                        guess.empty() ? "sallyport peer add " + (isName(name) ? name : "NAME") + " KEY"
                                      : "did you mean `" + std::string(guess) + "`?");
}

namespace {

namespace fs = std::filesystem;
using namespace config;

constexpr size_t MAX_NESTING = 16;  // our format needs 3; the parser's recursion is bounded by it

// --- the sections ----------------------------------------------------------------------------------------------------

fs::path withSuffix(const fs::path& socket, std::string_view suffix) {
  auto name = socket.stem().string() + std::string(suffix) + socket.extension().string();
  return socket.parent_path() / name;
}

void readVault(const Section& root, VaultConfig& vault) {
  const Section section(root.reader(), tableOf(root, "vault"), "[vault]",
                        {"keys", "socket", "net_socket", "admin_socket", "socket_group", "user", "passphrase_file",
                         "handshakes_per_second", "breaker_failures", "breaker_window_s", "breaker_pause_s", "metrics",
                         "require_sandbox"});
  section.path("keys", vault.keys);
  section.socketPath("socket", vault.socket);
  vault.netSocket = withSuffix(vault.socket, "-net");
  vault.adminSocket = withSuffix(vault.socket, "-admin");
  section.socketPath("net_socket", vault.netSocket);
  section.socketPath("admin_socket", vault.adminSocket);
  section.account("socket_group", vault.socketGroup);
  section.account("user", vault.user);
  section.path("passphrase_file", vault.passphraseFile);
  section.number("handshakes_per_second", vault.handshakesPerSecond, 1, 1'000'000);
  section.number("breaker_failures", vault.breakerFailures, 0, 1'000'000);
  section.number("breaker_window_s", vault.breakerWindowS, 1, 86400);
  section.number("breaker_pause_s", vault.breakerPauseS, 1, 86400);
  const auto metrics = section.text("metrics");
  const auto address = section.address("metrics", metrics.value_or(""));
  if (const auto* socket = address ? std::get_if<UnixAddress>(&*address) : nullptr) {
    vault.metrics = socket->path;
  } else if (metrics) {
    section.fail("metrics", "is " + ticked(*metrics),
                 "unix:PATH: the vault listens on no network, not even this host's");
  }
  section.sandbox(vault.requireSandbox);
}

void readAudit(const Section& root, AuditConfig& audit) {
  audit.enabled = root.find("audit") != nullptr;
  const Section section(root.reader(), tableOf(root, "audit"), "[audit]",
                        {"folder", "files", "file_mib", "required", "fsync", "when_full", "handshakes"});
  section.path("folder", audit.folder);
  section.number("files", audit.files, 2, 64);
  section.number("file_mib", audit.fileMiB, 1, 1024);
  section.flag("required", audit.required);
  section.choice("fsync", audit.syncAlways, "always", "batch");
  section.choice("when_full", audit.refuseWhenFull, "refuse", "overwrite");
  section.flag("handshakes", audit.handshakes);
  if (audit.refuseWhenFull && !audit.required) {
    section.fail("when_full", "refuses nothing without `required`", "required = true, or when_full = \"overwrite\"");
  }
}

void readNet(const Section& root, NetConfig& net) {
  const Section section(root.reader(), tableOf(root, "net"), "[net]",
                        {"socket", "admin_socket", "socket_group", "workers", "metrics", "user", "require_sandbox"});
  section.socketPath("socket", net.socket);
  net.adminSocket = withSuffix(net.socket, "-admin");
  section.socketPath("admin_socket", net.adminSocket);
  section.number("workers", net.workers, 0, MAX_WORKERS);
  section.account("socket_group", net.socketGroup);
  section.account("user", net.user);
  section.sandbox(net.requireSandbox);
  const auto metrics = section.text("metrics");
  if (!metrics) return;
  net.metrics = section.address("metrics", *metrics);
  if (net.metrics && !isLocal(*net.metrics)) {
    section.fail("metrics", "is open to the network: " + ticked(*metrics),
                 "use unix:PATH or a loopback address: the page has no password");
  }
}

void readLimits(const Section& root, LimitsConfig& limits) {
  struct Rule {
    std::string_view key;
    uint32_t LimitsConfig::*field;
    uint32_t least;
    uint32_t most;
  };
  constexpr uint32_t MILLION = 1'000'000;
  constexpr uint32_t HOUR_MS = 3'600'000;
  static constexpr Rule RULES[] = {
      {"half_open", &LimitsConfig::halfOpen, 1, MILLION},
      {"connections", &LimitsConfig::connections, 1, MILLION},
      {"half_open_per_source", &LimitsConfig::halfOpenPerSource, 1, MILLION},
      {"connections_per_source", &LimitsConfig::connectionsPerSource, 1, MILLION},
      {"handshake_timeout_ms", &LimitsConfig::handshakeTimeoutMs, 100, HOUR_MS},
      {"dial_timeout_ms", &LimitsConfig::dialTimeoutMs, 100, HOUR_MS},
      {"idle_timeout_s", &LimitsConfig::idleTimeoutS, 0, MILLION},
      {"accept_timeout_ms", &LimitsConfig::acceptTimeoutMs, 1, HOUR_MS},
      {"buffer_mib", &LimitsConfig::bufferMiB, 8, 65536},
      {"drain_timeout_ms", &LimitsConfig::drainTimeoutMs, 0, HOUR_MS},
      {"keepalive_s", &LimitsConfig::keepaliveS, 0, 32767},
      {"user_timeout_ms", &LimitsConfig::userTimeoutMs, 0, HOUR_MS},
  };
  Texts known;
  for (const auto& rule : RULES) known.push_back(rule.key);
  const Section section(root.reader(), tableOf(root, "limits"), "[limits]", known);
  for (const auto& rule : RULES) section.number(rule.key, limits.*rule.field, rule.least, rule.most);
}

// Names and public keys, one key a name, of which `parse` makes `keys`. `broken` gets the names of those that are none.
template <typename Key>
void readNamedKeys(const Section& root, std::string_view table, std::string_view what,
                   Result<Key, std::string> (*parse)(std::string_view), std::map<std::string, Key, std::less<>>& keys,
                   std::set<std::string, std::less<>>& broken) {
  auto& reader = root.reader();
  std::map<Key, std::string> owners;
  for (const auto& [key, node] : tableOf(root, table)) {
    const std::string name(key.str());
    const auto line = key.source().begin.line;
    const auto at = std::string(what) + " " + ticked(name);
    if (!isName(name)) { reader.fail(line, at + " is not a name", NAME_RULE); }
    const auto* value = node.as_string();
    if (value == nullptr) {
      reader.fail(line, at + " must be a string, not " + std::string(typeName(node)),
                  node.is_table() ? "a name with dots stands in quotes: \"" + name + ".x\" = \"KEY\"" : "");
      broken.insert(name);
      continue;
    }
    const auto parsed = parse(value->get());
    if (!parsed) {
      reader.fail(line, at + ": " + parsed.error(),
                  "`sallyport key show NAME` on the " + std::string(what) + "'s host prints its public key");
      broken.insert(name);
      continue;
    }
    const auto [owner, isNew] = owners.emplace(*parsed, name);
    if (!isNew) {
      reader.fail(line, at + " has the same key as " + ticked(owner->second),
                  "one key, one name: remove one of the two");
    }
    keys.emplace(name, *parsed);
  }
}

void readPeers(const Section& root, Config& config) {
  auto& reader = root.reader();
  const auto* peers = root.find("peers");
  reader.peersUnknown = peers != nullptr && !peers->is_table();
  readNamedKeys(root, "peers", "peer", parsePublicKey, config.peers, reader.brokenPeers);
}

void readSigners(const Section& root, Config& config) {
  std::set<std::string, std::less<>> broken;
  readNamedKeys(root, "signers", "signer", parseSigningKey, config.signers, broken);
}

std::vector<std::string> readAllow(const Section& section, const Config& config) {
  std::vector<std::string> result;
  const auto* node = section.find("allow");
  if (node == nullptr) {
    section.fail("allow", "is missing", "name the peers that may connect: allow = [\"alice\"]");
    return result;
  }
  const auto* list = node->as_array();
  if (list == nullptr) {
    section.fail("allow", "must be an array of peers, not " + std::string(typeName(*node)), "allow = [\"alice\"]");
    return result;
  }
  if (list->empty()) section.fail("allow", "allows nobody", "name the peers that may connect: allow = [\"alice\"]");
  for (const auto& item : *list) {
    const auto* value = item.as_string();
    if (value == nullptr) {
      section.reader().fail(lineOf(item),
                            "`allow`" + section.in() + " must hold strings, not " + std::string(typeName(item)));
      break;
    }
    checkPeer(section, "allow", value->get(), config, lineOf(item));
    if (std::ranges::find(result, value->get()) != result.end()) {
      section.reader().fail(lineOf(item), "`allow`" + section.in() + " names " + ticked(value->get()) + " twice");
    }
    result.push_back(value->get());
  }
  return result;
}

Service readService(const Section& section) {
  const auto content = section.required("service", "\"tcp:127.0.0.1:5432\"");
  if (content == "channel") return ChannelService{};
  if (content == "echo" || content.empty()) return EchoService{};
  const bool tcp = content.starts_with("tcp:");
  if (!tcp && !content.starts_with("unix:")) {
    section.fail("service", "is " + ticked(content), "one of \"tcp:HOST:PORT\", \"unix:PATH\", \"channel\", \"echo\"");
  } else if (content == "tcp:") {
    section.fail("service", "names no address", "e.g. \"tcp:127.0.0.1:5432\"");
  } else if (auto address = section.address("service", std::string_view(content).substr(tcp ? 4 : 0))) {
    return std::move(*address);
  }
  return EchoService{};
}

void readListens(const Section& root, Config& config) {
  forEachEntry(root, "listen",
               {"name", "address", "protocol", "key", "allow", "service", "mode", "max_frame_bytes", "rotate_frames"},
               [&](const Section& section) {
                 ListenEntry entry;
                 entry.line = section.line();
                 entry.name = section.requiredName("name", "\"db\"");
                 if (!entry.name.empty() && config.findListen(entry.name) != nullptr)
                   section.fail("name", "is used by another [[listen]]");
                 entry.address =
                     section.address("address", section.required("address", "\"[::]:7001\"")).value_or(TcpAddress{});
                 const auto protocol = section.protocol();
                 entry.protocol = protocol.value_or(Protocol::Curve);
                 entry.key = section.requiredName("key", "\"server\"");
                 if (!protocol) entry.key.clear();  // nobody can say whether it may serve others beside this
                 if (protocol == Protocol::Curve) entry.allow = readAllow(section, config);
                 if (protocol) readFraming(section, *protocol, "allow", entry.framing);
                 entry.service = readService(section);
                 const auto* target = std::get_if<Address>(&entry.service);
                 if (target != nullptr) refuseBaseTunnel(section, "service", entry.framing);
                 if (target != nullptr && !isLocal(*target)) {
                   config.warnings.push_back("[[listen]] " + ticked(entry.name) + ": the service " + toString(*target) +
                                             " is not on this host: bytes go there unencrypted");
                 }
                 config.listens.push_back(std::move(entry));
               });
}

void readConnects(const Section& root, Config& config) {
  forEachEntry(
      root, "connect",
      {"name", "listen", "address", "protocol", "key", "peer", "mode", "max_frame_bytes", "rotate_frames"},
      [&](const Section& section) {
        ConnectEntry entry;
        entry.line = section.line();
        entry.name = section.requiredName("name", "\"db\"");
        if (!entry.name.empty() && config.findConnect(entry.name) != nullptr)
          section.fail("name", "is used by another [[connect]]");
        if (const auto listen = section.text("listen")) entry.listen = section.address("listen", *listen);
        entry.address =
            section.address("address", section.required("address", "\"db.example.com:7001\"")).value_or(TcpAddress{});
        const auto protocol = section.protocol();
        entry.protocol = protocol.value_or(Protocol::Curve);
        entry.key = section.requiredName("key", "\"alice\"");
        if (!protocol) entry.key.clear();
        if (protocol == Protocol::Curve) {
          entry.peer = section.required("peer", "\"server\"");
          checkPeer(section, "peer", entry.peer, config, section.line("peer"));
        }
        if (protocol) readFraming(section, *protocol, "peer", entry.framing);
        if (entry.listen) refuseBaseTunnel(section, "listen", entry.framing);
        if (entry.listen && !isLocal(*entry.listen)) {
          config.warnings.push_back("[[connect]] " + ticked(entry.name) + ": the plain side listens on " +
                                    toString(*entry.listen) +
                                    ", which other hosts can reach: they would use this host's key");
        }
        config.connects.push_back(std::move(entry));
      });
}

// Two things can't listen on one address.
void checkBoundOnce(const Config& config, Reader& reader) {
  struct Claim {
    Address address;
    std::string what;
  };
  std::map<std::string, std::vector<Claim>> taken;  // by what two must have in common to collide
  const auto claim = [&](const Address& address, const std::string& what, unsigned line) {
    const auto* tcp = std::get_if<TcpAddress>(&address);
    if (tcp != nullptr && tcp->port == 0) return;  // it was no address: told of already
    auto& near = taken[tcp != nullptr ? std::to_string(tcp->port) : toString(address)];
    const auto other = std::ranges::find_if(near, [&](const Claim& one) { return collide(one.address, address); });
    if (other == near.end()) {
      near.push_back({address, what});
    } else if (toString(other->address) == toString(address)) {
      reader.fail(line, what + ": " + toString(address) + " is listened on twice", "give each its own address");
    } else {
      reader.fail(line,
                  what + ": " + toString(address) + " can't be listened on beside " + toString(other->address) +
                      " of " + other->what,
                  "both are the same address, or one is a wildcard that takes the port on all: give each its own port");
    }
  };
  claim(UnixAddress{config.vault.socket}, "`socket` in [vault]", 0);
  claim(UnixAddress{config.vault.netSocket}, "`net_socket` in [vault]", 0);
  claim(UnixAddress{config.vault.adminSocket}, "`admin_socket` in [vault]", 0);
  claim(UnixAddress{config.net.socket}, "`socket` in [net]", 0);
  claim(UnixAddress{config.net.adminSocket}, "`admin_socket` in [net]", 0);
  if (!config.vault.metrics.empty()) claim(UnixAddress{config.vault.metrics}, "`metrics` in [vault]", 0);
  if (config.net.metrics) claim(*config.net.metrics, "`metrics` in [net]", 0);
  for (const auto& socket : config.vaultSockets) {
    claim(UnixAddress{socket.path}, "[[vault_socket]] " + ticked(socket.name), socket.line);
  }
  for (const auto& entry : config.listens) claim(entry.address, "[[listen]] " + ticked(entry.name), entry.line);
  for (const auto& entry : config.connects) {
    if (entry.listen) claim(*entry.listen, "[[connect]] " + ticked(entry.name), entry.line);
  }
}

// What parsing may cost is settled before the parser sees the text: toml++ builds a table for each part of a dotted key
// and frees them recursively, so a line of dots could use up the stack. Our format has few dots and brackets outside of
// strings.
// (A multi-line string, which our format has no use for, is seen as several strings: that can only refuse more.)
void screen(std::string_view text, Reader& reader) {
  if (text.size() > MAX_CONFIG_BYTES) return reader.fail(0, "the file is larger than 1 MiB");
  unsigned line = 1;
  size_t dots = 0;
  size_t depth = 0;
  char quote = 0;  // of the string that we are in; '#' in a comment
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\0') return reader.fail(line, "the file holds a NUL byte", "is it a text file?");
    if (c == '\n') {
      ++line;
      dots = 0;
      quote = 0;
    } else if (quote != 0) {
      if (c == '\\' && quote == '"' && i + 1 < text.size() && text[i + 1] != '\n')
        ++i;
      else if (c == quote)
        quote = 0;
    } else if (c == '"' || c == '\'' || c == '#') {
      quote = c;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    } else if (c == '.') {
      ++dots;
    }
    if (dots > MAX_NESTING || depth > MAX_NESTING) return reader.fail(line, "nested too deeply");
  }
}

void readAll(const toml::table& table, Config& config, Reader& reader) {
  const Section root(reader, table, "",
                     {"vault", "net", "listen", "connect", "vault_socket", "grant", "key", "peers", "signers", "limits",
                      "require_sandbox", "audit", "token"});
  auto sandbox = SandboxRequirement::Full;
  root.sandbox(sandbox);
  config.vault.requireSandbox = sandbox;
  config.net.requireSandbox = sandbox;
  readVault(root, config.vault);
  readNet(root, config.net);
  readAudit(root, config.audit);
  readLimits(root, config.limits);
  readPeers(root, config);
  readSigners(root, config);
  readListens(root, config);
  readConnects(root, config);
  readVaultSockets(root, config);
  readGrants(root, config);
  readKeys(root, config);
  readTokens(root, config);
  for (auto& [name, token] : config.tokens) token.requireSandbox = sandbox;
  checkHoneyKeys(root, config);
  checkBlocks(root, config);
  checkBoundOnce(config, reader);
  if (config.listens.empty() && config.connects.empty() && config.grants.empty()) {
    config.warnings.push_back("no [[listen]], no [[connect]] and no [[grant]]: nothing comes in or goes out");
  }
}

void readVaultAndPeers(const toml::table& table, Config& config, Reader& reader) {
  Texts any;
  for (const auto& [key, node] : table) any.push_back(key.str());
  const Section root(reader, table, "", any);
  readVault(root, config.vault);
  readAudit(root, config.audit);
  readPeers(root, config);
  readKeys(root, config);
  readTokens(root, config);
  auto sandbox = SandboxRequirement::Full;
  root.sandbox(sandbox);
  for (auto& [name, token] : config.tokens) token.requireSandbox = sandbox;
}

template <typename Read>
Result<Config, ConfigError> parseWith(std::string_view text, const fs::path& file, Read&& read) {
  Reader reader;
  try {
    Config config;
    config.file = fs::absolute(file);
    reader.base = config.file.parent_path();
    screen(text, reader);
    if (reader.ok()) read(toml::parse(text, file.native()), config, reader);
    if (reader.ok()) return config;
  } catch (const toml::parse_error& e) {
    reader.fail(e.source().begin.line, std::string(e.description()),
                "text stands in \"quotes\", lists in [brackets], one key a line: sallyport.toml(5) has examples");
  } catch (const std::exception& e) { reader.fail(0, std::string("can't be parsed: ") + e.what()); }
  return refuse(reader.result());
}

}  // namespace

Result<Config, ConfigError> parseConfig(std::string_view text, const fs::path& file) {
  return parseWith(text, file, readAll);
}

Result<Config, ConfigError> parseVaultAndPeers(std::string_view text, const fs::path& file) {
  return parseWith(text, file, readVaultAndPeers);
}

}  // namespace sallyport
