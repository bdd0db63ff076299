// peer_edit.h - one line of [peers] more or less, and every other byte of the file as it was. Part of: cli.
// Pure: text in, text out. What must never happen here: a comment lost, another key touched, a file that means
// something else.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/bytes.h"
#include "common/config.h"

namespace sallyport::cli {

// The text with a line `NAME = "KEY"` at the end of its [peers] table; a missing table is added at the end of the file.
// The name is not in it yet. `file` is for messages.
Result<std::string, ConfigError> withPeer(std::string_view text, std::string_view name, const PublicKey& key,
                                          const std::filesystem::path& file);
// The text without the line of this peer, which is in it.
Result<std::string, ConfigError> withoutPeer(std::string_view text, std::string_view name,
                                             const std::filesystem::path& file);

}  // namespace sallyport::cli
