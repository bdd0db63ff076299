// config_view.h - a configuration in words, and what of the outside world it needs. Part of: cli.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"
#include "vaultd/problem.h"

namespace sallyport::cli {

// "tcp 127.0.0.1:5432", "unix:/run/x", "programs that accept `db`", "an echo".
std::string describeService(const ListenEntry& entry);
// One line each: what listens, what is dialled, who is allowed.
std::vector<std::string> describeEntries(const Config& config);
// One line for `sallyport up`: what listens.
std::string describeListeners(const Config& config);
// False: the vault alone is wanted, as a service to programs.
inline bool needsNetd(const Config& config) { return !config.listens.empty() || !config.connects.empty(); }
// The folders in which sockets are to be made.
std::vector<std::filesystem::path> socketFolders(const Config& config);

// The keys that entries use, each with an entry for messages: "[[listen]] `db`".
std::map<std::string, std::string> keysInUse(const Config& config);

// Behind why base mode can't use a block.
inline constexpr std::string_view USED_BLOCK_ADVICE =
    "in base mode one serves one connection: pair anew, or import one with --unused";

// What keeps the daemons from starting with this configuration, and what is only doubtful: key files, folders.
struct Findings {
  std::vector<vaultd::Problem> errors;
  std::vector<std::string> warnings;
};
Findings inspectSurroundings(const Config& config);

}  // namespace sallyport::cli
