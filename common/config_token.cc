// config_token.cc - [token.NAME] of sallyport.toml: a PKCS#11 module, its token, where the PIN comes from and what the
// module may do. Part of: common, and private to the parser, but for the profiles' names.
#include <algorithm>
#include <array>
#include <charconv>

#include "common/config_section.h"
#include "common/pkcs11_uri.h"

namespace sallyport {

namespace {

struct ProfileWords {
  ModuleProfile profile;
  std::string_view name;
};
constexpr std::array<ProfileWords, 8> PROFILES{{{ModuleProfile::Auto, "auto"},
                                                {ModuleProfile::SoftHsm, "softhsm"},
                                                {ModuleProfile::Nss, "nss"},
                                                {ModuleProfile::Tpm2, "tpm2"},
                                                {ModuleProfile::Pcscd, "pcscd"},
                                                {ModuleProfile::YubiHsmConnector, "yubihsm-connector"},
                                                {ModuleProfile::Network, "network"},
                                                {ModuleProfile::Custom, "custom"}}};

struct KnownModule {
  std::string_view inName;
  ModuleProfile profile;
};
constexpr std::array<KnownModule, 7> KNOWN_MODULES{{{"libsofthsm2", ModuleProfile::SoftHsm},
                                                    {"libsoftokn3", ModuleProfile::Nss},
                                                    {"libtpm2_pkcs11", ModuleProfile::Tpm2},
                                                    {"opensc-pkcs11", ModuleProfile::Pcscd},
                                                    {"libykcs11", ModuleProfile::Pcscd},
                                                    {"yubihsm_pkcs11", ModuleProfile::YubiHsmConnector},
                                                    {"nethsm", ModuleProfile::Network}}};

}  // namespace

std::string_view name(ModuleProfile profile) {
  const auto found = std::ranges::find(PROFILES, profile, &ProfileWords::profile);
  return found == PROFILES.end() ? "custom" : found->name;
}

ModuleProfile profileOf(const std::filesystem::path& module) {
  const auto file = module.filename().string();
  for (const auto& known : KNOWN_MODULES) {
    if (file.find(known.inName) != file.npos) return known.profile;
  }
  return ModuleProfile::Custom;
}

namespace config {

namespace {

constexpr auto PIN_RULE = "one of \"credential:NAME\", \"file:PATH\", \"fd:N\", \"ask\"";

// Where these would lead, the module's author doesn't decide but who writes the environment: they load code.
bool loadsCode(std::string_view variable) { return variable.starts_with("LD_") || variable.starts_with("GCONV_"); }

PinSource readPin(const Section& section) {
  const auto text = section.text("pin");
  if (!text) {
    if (section.find("pin") == nullptr) section.fail("pin", "is missing", PIN_RULE);
    return PinAsk{};
  }
  const auto colon = text->find(':');
  const auto kind = text->substr(0, colon);
  const auto rest = colon == text->npos ? std::string() : text->substr(colon + 1);
  if (*text == "ask") return PinAsk{};
  if (kind == "credential" && isName(rest)) return PinCredential{rest};
  if (kind == "file" && !rest.empty()) return PinFile{(section.reader().base / rest).lexically_normal()};
  int fd = -1;
  const auto [end, fault] = std::from_chars(rest.data(), rest.data() + rest.size(), fd);
  if (kind == "fd" && fault == std::errc() && end == rest.data() + rest.size() && fd >= 3 && fd < 1024)
    return PinDescriptor{fd};
  // It may be the PIN itself, so it isn't repeated.
  section.fail("pin", "is not where a PIN comes from", PIN_RULE);
  return PinAsk{};
}

void readUri(const Section& section, std::string& uri) {
  uri = section.required("uri", "\"pkcs11:token=sallyport\"");
  if (uri.empty()) return;
  const auto parsed = parsePkcs11Uri(uri);
  if (!parsed) return section.fail("uri", parsed.error().message, parsed.error().hint);
  if (parsed->namesObject())
    return section.fail("uri", "names an object: a token has many keys", "keep token=, serial=, model=, manufacturer=");
  if (!parsed->namesToken()) section.fail("uri", "names no token", "pkcs11:token=LABEL;serial=NUMBER");
}

void readProfile(const Section& section, TokenConfig& token) {
  token.profile = profileOf(token.module);
  const auto word = section.text("profile");
  if (!word || *word == "auto") return;
  const auto found = std::ranges::find(PROFILES, *word, &ProfileWords::name);
  if (found != PROFILES.end()) {
    token.profile = found->profile;
    return;
  }
  std::string known;
  for (const auto& profile : PROFILES) known += (known.empty() ? "" : ", ") + std::string(profile.name);
  section.fail("profile", "is " + ticked(*word), known);
}

void readEnvironment(const Section& section, TokenConfig& token) {
  const auto* node = section.find("env");
  if (node == nullptr) return;
  const auto* table = node->as_table();
  if (table == nullptr)
    return section.fail("env", "must be a table, not " + std::string(typeName(*node)), "env = { NAME = \"value\" }");
  for (const auto& [key, item] : *table) {
    const std::string variable(key.str());
    const auto* value = item.as_string();
    const bool named = !variable.empty() && variable.size() <= 64 &&
                       std::ranges::all_of(variable, [](unsigned char c) { return std::isalnum(c) || c == '_'; });
    if (!named) {
      section.fail("env", "has a name that is none: " + ticked(variable));
    } else if (loadsCode(variable)) {
      section.fail("env", "may not set " + ticked(variable), "it would load other code than the module's");
    } else if (value == nullptr || value->get().find('\0') != std::string::npos || value->get().size() > 4096) {
      section.fail("env", "needs a string for " + ticked(variable));
    } else {
      token.environment.emplace(variable, value->get());
    }
  }
}

void readPaths(const Section& section, std::string_view key, std::vector<fs::path>& paths) {
  const auto* node = section.find(key);
  if (node == nullptr) return;
  const auto* list = node->as_array();
  if (list == nullptr) return section.fail(key, "must be an array of paths, not " + std::string(typeName(*node)));
  for (const auto& item : *list) {
    const auto* value = item.as_string();
    if (value == nullptr || value->get().empty() || value->get().find('\0') != std::string::npos)
      return section.fail(key, "must hold paths as strings");
    paths.push_back((section.reader().base / value->get()).lexically_normal());
    if (paths.size() > 32) return section.fail(key, "has more than 32 paths");
  }
}

TokenConfig readToken(const Section& section, std::string name) {
  TokenConfig token;
  token.name = std::move(name);
  token.line = section.line();
  const auto module = section.required("module", "\"/usr/lib/softhsm/libsofthsm2.so\"");
  token.module = module;
  // dlopen looks for a bare name in places that the environment chooses; a path beside the file could be anybody's.
  if (!module.empty() && (!token.module.is_absolute() || token.module.lexically_normal() != token.module))
    section.fail("module", "must be an absolute path", "e.g. /usr/lib/softhsm/libsofthsm2.so");
  readUri(section, token.uri);
  token.pin = readPin(section);
  token.initArgs = section.text("init_args").value_or("");
  readProfile(section, token);
  readEnvironment(section, token);
  section.account("user", token.user);
  section.number("max_sessions", token.maxSessions, 2, 1024);
  section.number("workers", token.workers, 1, 16);
  section.number("deadline_ms", token.deadlineMs, 100, 600'000);
  section.number("memory_mib", token.memoryMiB, 16, 65'536);
  section.flag("session_copy", token.sessionCopy);
  section.choice("presence", token.presenceAlways, "always", "start");
  section.number("recheck_minutes", token.recheckMinutes, 1, 1440);
  readPaths(section, "read_paths", token.readPaths);
  readPaths(section, "write_paths", token.writePaths);
  // softoken asks its database for each use of a key that lives there, and two threads that do so take longer than one.
  if (section.find("workers") == nullptr && token.profile == ModuleProfile::Nss && !token.sessionCopy)
    token.workers = 1;
  // One session stays open for the login.
  if (token.workers + 1 > token.maxSessions && section.find("workers") != nullptr)
    section.fail("workers", "needs one session each, and one more for the login",
                 "max_sessions is larger than workers");
  token.workers = std::min(token.workers, token.maxSessions - 1);
  return token;
}

}  // namespace

void readTokens(const Section& root, Config& config) {
  const auto* node = root.find("token");
  if (node == nullptr) return;
  const auto* tables = node->as_table();
  if (tables == nullptr)
    return root.fail("token", "must be tables, not " + std::string(typeName(*node)), "write [token.NAME]");
  for (const auto& [key, item] : *tables) {
    const std::string name(key.str());
    const auto line = key.source().begin.line;
    if (!isName(name)) root.reader().fail(line, "token " + ticked(name) + " is not a name", NAME_RULE);
    const auto* table = item.as_table();
    if (table == nullptr) {
      root.reader().fail(line, "token " + ticked(name) + " must be a table, not " + std::string(typeName(item)),
                         "write [token.NAME]");
      continue;
    }
    const Section section(
        root.reader(), *table, "[token." + name + "]",
        {"module", "uri", "pin", "init_args", "profile", "env", "user", "max_sessions", "workers", "deadline_ms",
         "memory_mib", "session_copy", "presence", "recheck_minutes", "read_paths", "write_paths"});
    auto token = readToken(section, name);
    // It is read once, and its number is free then: for whatever is opened next.
    const auto* pin = std::get_if<PinDescriptor>(&token.pin);
    const auto sharesIt = [pin](const auto& other) {
      const auto* its = std::get_if<PinDescriptor>(&other.second.pin);
      return its != nullptr && its->fd == pin->fd;
    };
    if (pin != nullptr && std::ranges::any_of(config.tokens, sharesIt))
      section.fail("pin", "is the descriptor of another token's PIN", "each is read once: give each token its own");
    config.tokens.emplace(name, std::move(token));
  }
  if (config.tokens.size() > MAX_TOKENS)
    root.fail("token", "are more than " + std::to_string(MAX_TOKENS), "each has processes of its own");
}

}  // namespace config
}  // namespace sallyport
