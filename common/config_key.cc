// config_key.cc - see config_key.h. Part of: common.
#include "common/config_key.h"

#include <algorithm>
#include <charconv>

namespace sallyport {

std::optional<int64_t> parseDuration(std::string_view text) {
  if (text.size() < 2) return std::nullopt;
  int64_t unit = 0;
  switch (text.back()) {
    case 's': unit = 1; break;
    case 'm': unit = 60; break;
    case 'h': unit = 3600; break;
    case 'd': unit = DAY_S; break;
    default: return std::nullopt;
  }
  int64_t number = 0;
  const char* end = text.data() + text.size() - 1;
  const auto [stop, fault] = std::from_chars(text.data(), end, number);
  if (fault != std::errc() || stop != end || number < 0 || number > MAX_DURATION_S / unit) return std::nullopt;
  return number * unit;
}

namespace config {
namespace {

std::optional<int64_t> duration(const Section& section, std::string_view key) {
  const auto text = section.text(key);
  if (!text) return std::nullopt;
  const auto seconds = parseDuration(*text);
  if (!seconds) section.fail(key, "is not a duration: " + ticked(*text), DURATION_RULE);
  return seconds;
}

}  // namespace

void readKeys(const Section& root, Config& config) {
  const auto* node = root.find("key");
  if (node == nullptr) return;
  const auto* tables = node->as_table();
  if (tables == nullptr)
    return root.fail("key", "must be tables, not " + std::string(typeName(*node)), "write [key.NAME]");
  for (const auto& [key, item] : *tables) {
    const std::string name(key.str());
    const auto line = key.source().begin.line;
    if (!isName(name)) root.reader().fail(line, "key " + ticked(name) + " is not a name", NAME_RULE);
    const auto* table = item.as_table();
    if (table == nullptr) {
      root.reader().fail(line, "key " + ticked(name) + " must be a table, not " + std::string(typeName(item)),
                         "write [key.NAME]");
      continue;
    }
    const Section section(root.reader(), *table, "[key." + name + "]", {"rotate_every", "grace", "honey"});
    RotationRule rule;
    rule.everyS = duration(section, "rotate_every").value_or(0);
    // A period that is shorter than the usual grace has a grace of its own length.
    if (rule.everyS != 0) rule.graceS = std::min(rule.graceS, rule.everyS);
    rule.graceS = duration(section, "grace").value_or(rule.graceS);
    if (rule.everyS != 0 && rule.everyS < 60) {
      section.fail("rotate_every", "is less than a minute", "write e.g. rotate_every = \"90d\"");
    } else if (rule.everyS != 0 && rule.graceS > rule.everyS * 8) {
      section.fail("grace", "is more than eight times `rotate_every`", "more than eight versions would open at a time");
    }
    config.rotations.emplace(name, rule);
    if (section.boolean("honey")) config.honeyKeys.insert(name);
  }
}

}  // namespace config
}  // namespace sallyport
