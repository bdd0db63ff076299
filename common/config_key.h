// config_key.h - [key.NAME] of sallyport.toml: when a key is rotated. Part of: common, and private to the parser, but
// for durations, which the CLI reads too. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "common/config_section.h"

namespace sallyport {

inline constexpr int64_t DAY_S = 86'400;
inline constexpr int64_t MAX_DURATION_S = 100 * 365 * DAY_S;

// "90d", "12h", "30m", "45s": a number and its unit; at most a hundred years.
std::optional<int64_t> parseDuration(std::string_view text);
inline constexpr auto DURATION_RULE = "a number and a unit: `90d`, `12h`, `30m` or `45s`";

namespace config {

void readKeys(const Section& root, Config& config);

}  // namespace config
}  // namespace sallyport
