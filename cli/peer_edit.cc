// peer_edit.cc - see peer_edit.h. The parser tells where things are; the edit itself is on lines of text; and the
// result is parsed again and compared with what was meant.
#include "cli/peer_edit.h"

#include <toml++/toml.h>

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;

using Peers = decltype(Config::peers);

// Lines with their ends: "a\r\n", "b". Joined again they are the text.
std::vector<std::string_view> splitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto size = end == text.npos ? text.size() : end + 1;
    lines.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return lines;
}

// Where [peers] is in the file: lines count from 1.
struct Place {
  bool found = false;
  unsigned headerLine = 0;
  unsigned lastLine = 0;     // of its last key, or the header's
  unsigned firstOfName = 0;  // the lines of the peer that is looked for; 0 if it isn't there
  unsigned lastOfName = 0;
};

// The text has been parsed by parseVaultAndPeers before, so that it is TOML, and not too deep.
Result<Place, ConfigError> locate(std::string_view text, const std::vector<std::string_view>& lines,
                                  std::string_view name) {
  Place place;
  const auto root = toml::parse(text);
  const auto* node = root.get("peers");
  if (node == nullptr) return place;
  place.found = true;
  const auto& peers = *node->as_table();
  place.headerLine = place.lastLine = peers.source().begin.line;
  const auto header = lines.at(place.headerLine - 1);
  const auto start = header.find_first_not_of(" \t");
  if (peers.is_inline() || start == header.npos || header[start] != '[') {
    return refuse(ConfigError{"[peers] is not a table with a line of its own for each peer", place.headerLine,
                              "write it as [peers], then one NAME = \"KEY\" a line"});
  }
  for (const auto& [key, value] : peers) {
    place.lastLine = std::max(place.lastLine, value.source().end.line);
    if (key.str() != name) continue;
    place.firstOfName = key.source().begin.line;
    place.lastOfName = value.source().end.line;
  }
  return place;
}

std::string peerLine(std::string_view name, const PublicKey& key) {
  // A dot in a bare key would make a table of it.
  const auto quote = name.find('.') == name.npos ? "" : "\"";
  return quote + std::string(name) + quote + " = \"" + toBase64(key.span()) + "\"";
}

Result<std::string, ConfigError> checked(std::string text, const Peers& wanted, const fs::path& file) {
  const auto again = parseVaultAndPeers(text, file);
  if (again && again->peers == wanted) return text;
  return refuse(ConfigError{"can't be edited safely" + (again ? "" : ": " + again.error().message), 0,
                            "change [peers] with an editor"});
}

}  // namespace

Result<std::string, ConfigError> withPeer(std::string_view text, std::string_view name, const PublicKey& key,
                                          const fs::path& file) {
  const auto before = parseVaultAndPeers(text, file);
  if (!before) return refuse(before.error());
  const auto lines = splitLines(text);
  const auto place = locate(text, lines, name);
  if (!place) return refuse(place.error());

  const std::string newline = text.find("\r\n") == text.npos ? "\n" : "\r\n";
  const auto line = peerLine(name, key) + newline;
  std::string result;
  const auto append = [&](std::string_view part) {
    if (!result.empty() && result.back() != '\n') result += newline;
    result += part;
  };
  for (size_t i = 0; i < lines.size(); ++i) {
    result += lines[i];
    if (place->found && i + 1 == place->lastLine) append(line);
  }
  if (!place->found) {
    if (!result.empty()) append(newline);
    append("[peers]" + newline);
    append(line);
  }
  auto wanted = before->peers;
  wanted.emplace(name, key);
  return checked(std::move(result), wanted, file);
}

Result<std::string, ConfigError> withoutPeer(std::string_view text, std::string_view name, const fs::path& file) {
  const auto before = parseVaultAndPeers(text, file);
  if (!before) return refuse(before.error());
  const auto lines = splitLines(text);
  const auto place = locate(text, lines, name);
  if (!place) return refuse(place.error());

  std::string result;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i + 1 < place->firstOfName || i + 1 > place->lastOfName) result += lines[i];
  }
  auto wanted = before->peers;
  wanted.erase(std::string(name));
  return checked(std::move(result), wanted, file);
}

}  // namespace sallyport::cli
