// config_section.h - one table of sallyport.toml, read strictly. Part of: common, and private to config_parse.cc and
// its parts (config_grants.cc, config_key.cc, config_peer.cc). A Section knows the keys it may have and takes each with
// its type and range; the Reader keeps the problems.
#pragma once

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <toml++/toml.h>

#include "common/config.h"

namespace sallyport::config {

namespace fs = std::filesystem;

inline constexpr auto NAME_RULE = "names are 1 to 64 letters, digits, `_`, `.`, `-`, and begin with a letter or digit";

using Texts = std::vector<std::string_view>;

inline std::string ticked(std::string_view text) {
  std::string result = "`";
  for (const char c : text.substr(0, 80)) result += (c >= 0x20 && c < 0x7f) ? c : '?';
  return result + (text.size() > 80 ? "...`" : "`");
}

inline std::string joined(const Texts& texts) {
  std::string result;
  for (const auto text : texts) result += (result.empty() ? "" : ", ") + std::string(text);
  return result;
}

// --- the reader: keeps the problems ----------------------------------------------------------------------------------

struct Reader {
  fs::path base;
  std::vector<ConfigError> errors;
  std::set<std::string, std::less<>> brokenPeers;  // told of already: who names them is told of nothing
  bool peersUnknown = false;                       // [peers] is no table

  bool ok() const { return errors.empty(); }
  void fail(unsigned line, std::string message, std::string hint = {}) {
    if (errors.size() < MAX_CONFIG_ERRORS) errors.push_back({std::move(message), line, std::move(hint)});
  }
  // In the order of the file. There is at least one.
  ConfigError result() {
    std::ranges::stable_sort(errors, {}, &ConfigError::line);
    ConfigError first = std::move(errors.front());
    first.further.assign(std::make_move_iterator(errors.begin() + 1), std::make_move_iterator(errors.end()));
    return first;
  }
};

inline std::string_view typeName(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::none: return "nothing";
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a floating-point number";
    case toml::node_type::boolean: return "a boolean";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time: return "a date or time";
  }
  return "something else";
}

inline unsigned lineOf(const toml::node& node) { return node.source().begin.line; }

// One table of the file with the keys that it may have.
class Section {
 public:
  Section(Reader& reader, const toml::table& table, std::string title, const Texts& known)
      : reader_(reader), table_(table), title_(std::move(title)) {
    for (const auto& [key, node] : table_) {
      if (std::ranges::find(known, key.str()) != known.end()) continue;
      const auto guess = nearest(key.str(), known);
      reader_.fail(key.source().begin.line, "unknown key " + ticked(key.str()) + in(),
                   guess.empty() ? "known here: " + joined(known) : "did you mean `" + std::string(guess) + "`?");
    }
  }

  Reader& reader() const { return reader_; }
  unsigned line() const { return lineOf(table_); }
  // The line of a key, or of the section where the key is missing.
  unsigned line(std::string_view key) const {
    const auto* node = table_.get(key);
    return node == nullptr ? line() : lineOf(*node);
  }
  std::string in() const { return title_.empty() ? "" : " in " + title_; }
  std::string at(std::string_view key) const { return "`" + std::string(key) + "`" + in(); }
  void fail(std::string_view key, std::string_view problem, std::string hint = {}) const {
    reader_.fail(line(key), at(key) + " " + std::string(problem), std::move(hint));
  }

  const toml::node* find(std::string_view key) const { return table_.get(key); }

  std::optional<std::string> text(std::string_view key) const {
    const auto* node = find(key);
    if (node == nullptr) return std::nullopt;
    const auto* value = node->as_string();
    if (value == nullptr) {
      fail(key, "must be a string, not " + std::string(typeName(*node)));
      return std::nullopt;
    }
    const auto& content = value->get();
    const bool printable = std::ranges::none_of(content, [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (content.empty() || !printable) {
      fail(key, content.empty() ? "is empty" : "holds a control character");
      return std::nullopt;
    }
    return content;
  }

  std::string required(std::string_view key, std::string_view example) const {
    if (find(key) == nullptr) fail(key, "is missing", "write e.g. " + std::string(key) + " = " + std::string(example));
    return text(key).value_or("");
  }

  std::string requiredName(std::string_view key, std::string_view example) const {
    auto name = required(key, example);
    checkName(key, name);
    return name;
  }

  void checkName(std::string_view key, const std::string& name) const {
    if (!name.empty() && !isName(name)) fail(key, "is not a name: " + ticked(name), NAME_RULE);
  }

  bool boolean(std::string_view key) const {
    const auto* node = find(key);
    if (node == nullptr) return false;
    const auto* value = node->as_boolean();
    if (value == nullptr) fail(key, "must be true or false, not " + std::string(typeName(*node)));
    return value != nullptr && value->get();
  }

  void number(std::string_view key, uint32_t& value, uint32_t least, uint32_t most) const {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* integer = node->as_integer();
    if (integer == nullptr) return fail(key, "must be an integer, not " + std::string(typeName(*node)));
    if (integer->get() < least || integer->get() > most) {
      return fail(key, "is out of range: " + std::to_string(integer->get()),
                  std::to_string(least) + " to " + std::to_string(most));
    }
    value = static_cast<uint32_t>(integer->get());
  }

  void flag(std::string_view key, bool& value) const {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* truth = node->as_boolean();
    if (truth == nullptr) return fail(key, "must be true or false, not " + std::string(typeName(*node)));
    value = truth->get();
  }

  // One of two words; `value` becomes true by `yes`.
  void choice(std::string_view key, bool& value, std::string_view yes, std::string_view no) const {
    const auto word = text(key);
    if (!word) return;
    if (*word != yes && *word != no)
      return fail(key, "is " + ticked(*word), "one of \"" + std::string(yes) + "\", \"" + std::string(no) + "\"");
    value = *word == yes;
  }

  void path(std::string_view key, fs::path& value) const {
    if (const auto given = text(key)) value = *given;
    if (!value.empty()) value = (reader_.base / value).lexically_normal();
  }

  // A bad path leaves the default: what is made of it is told of once.
  void socketPath(std::string_view key, fs::path& value) const {
    fs::path given = value;
    path(key, given);
    value = (reader_.base / value).lexically_normal();
    if (given.native().size() > MAX_UNIX_PATH_BYTES) {
      fail(key, "is too long for a Unix socket: " + given.string(), "at most 107 bytes, folder included");
    } else if (!given.has_filename()) {
      fail(key, "names no socket file");
    } else {
      value = std::move(given);
    }
  }

  std::optional<Address> address(std::string_view key, std::string_view content) const {
    if (content.empty()) return std::nullopt;
    auto parsed = parseAddress(content, reader_.base);
    if (parsed) return std::move(*parsed);
    fail(key, parsed.error().message, parsed.error().hint);
    return std::nullopt;
  }

  void sandbox(SandboxRequirement& value) const {
    const auto word = text("require_sandbox");
    if (!word) return;
    if (*word == "full")
      value = SandboxRequirement::Full;
    else if (*word == "available")
      value = SandboxRequirement::Available;
    else if (*word == "none")
      value = SandboxRequirement::None;
    else
      fail("require_sandbox", "is " + ticked(*word), "one of \"full\", \"available\", \"none\"");
  }

  // The name of a user or a group of the system.
  void account(std::string_view key, std::string& value) const {
    const auto given = text(key);
    if (!given) return;
    const bool good = given->size() <= 32 && given->front() != '-' && std::ranges::all_of(*given, [](char c) {
                        return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
                      });
    if (!good) return fail(key, "is not the name of a user or group: " + ticked(*given));
    value = *given;
  }

  // Nothing where the word is wrong: then nobody knows which other keys belong here, and only the word is told of.
  std::optional<Protocol> protocol() const {
    if (find("protocol") == nullptr) return Protocol::Curve;
    const auto word = text("protocol");
    if (!word) return std::nullopt;
    if (*word == "curve") return Protocol::Curve;
    if (*word == "peer") return Protocol::Peer;
    fail("protocol", "is " + ticked(*word), "one of \"curve\", \"peer\"");
    return std::nullopt;
  }

 private:
  Reader& reader_;
  const toml::table& table_;
  std::string title_;
};

// A table by its name, or an empty one, or the error that it is something else.
inline const toml::table& tableOf(const Section& root, std::string_view key) {
  static const toml::table EMPTY;
  const auto* node = root.find(key);
  if (node == nullptr) return EMPTY;
  if (const auto* table = node->as_table()) return *table;
  root.fail(key, "must be a table, not " + std::string(typeName(*node)), "write [" + std::string(key) + "]");
  return EMPTY;
}

// Calls `read` for each table of an array of tables.
template <typename Read>
void forEachEntry(const Section& root, std::string_view kind, const Texts& known, Read&& read) {
  const auto* node = root.find(kind);
  if (node == nullptr) return;
  const auto header = "[[" + std::string(kind) + "]]";
  const auto* array = node->as_array();
  if (array == nullptr) return root.fail(kind, "must be an array of tables", "write " + header + " in double brackets");
  for (const auto& item : *array) {
    const auto* table = item.as_table();
    if (table == nullptr)
      return root.fail(kind, "must hold tables, not " + std::string(typeName(item)), "write " + header);
    // The name in the title, where there is one, tells which of the entries is meant.
    const auto* name = table->get_as<std::string>("name");
    const auto title = header + (name != nullptr && isName(name->get()) ? " " + ticked(name->get()) : "");
    read(Section(root.reader(), *table, title, known));
  }
}

// The problem of a name that [peers] doesn't have.
void checkPeer(const Section& section, std::string_view key, const std::string& name, const Config& config,
               unsigned line);

// --- config_peer.cc: `protocol = "peer"` ----------------------------------------------------------------------------

inline constexpr std::string_view PEER_KEYS[] = {"mode", "max_frame_bytes", "rotate_frames"};
// Reads them; `other` is the key that has no meaning in such an entry. An entry of another protocol must have none.
void readFraming(const Section& section, Protocol protocol, std::string_view other, PeerFraming& framing);
void refuseBaseTunnel(const Section& section, std::string_view key, const PeerFraming& framing);
void checkBlocks(const Section& root, Config& config);  // after the entries

// --- config_grants.cc: who may have the vault do what ----------------------------------------------------------------

void readVaultSockets(const Section& root, Config& config);
void readGrants(const Section& root, Config& config);            // after the peers and the sockets
void checkHoneyKeys(const Section& root, const Config& config);  // after the entries and [key.NAME]

// --- config_token.cc: hardware tokens --------------------------------------------------------------------------------

void readTokens(const Section& root, Config& config);

}  // namespace sallyport::config
