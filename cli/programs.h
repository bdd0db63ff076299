// programs.h - where the daemons are, and which configuration is meant. Part of: cli.
#pragma once

#include <filesystem>
#include <string_view>

#include "cli/arguments.h"
#include "common/config.h"

namespace sallyport::cli {

// The program `name` ("vaultd", "netd") next to this one: in the same folder, in ../NAME/NAME (the build tree), in
// ../sbin, or in ../libexec/sallyport (installed). Empty if it is in none of them: PATH is not asked.
std::filesystem::path findProgram(std::string_view name);

// The configuration of -c, or the default one, loaded. On failure the error has been printed.
std::optional<Config> loadConfigOrFail(const Arguments& arguments);
// Prints a configuration's problems, and gives EXIT_FAILED.
int failConfig(const ConfigError& error, const std::filesystem::path& file);

}  // namespace sallyport::cli
