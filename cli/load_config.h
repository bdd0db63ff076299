// load_config.h - which configuration is meant. Part of: cli.
#pragma once

#include <filesystem>

#include "cli/arguments.h"
#include "common/config.h"

namespace sallyport::cli {

// The configuration of -c, or the default one, loaded. On failure the error has been printed.
std::optional<Config> loadConfigOrFail(const Arguments& arguments);
// Prints a configuration's problems, and gives EXIT_FAILED.
int failConfig(const ConfigError& error, const std::filesystem::path& file);

}  // namespace sallyport::cli
