// load_config.cc - see load_config.h.
#include "cli/load_config.h"

#include "cli/terminal.h"

namespace sallyport::cli {

namespace fs = std::filesystem;

int failConfig(const ConfigError& error, const fs::path& file) {
  for (const auto& one : eachOf(error)) fail(format(one, file), one.hint);
  return EXIT_FAILED;
}

std::optional<Config> loadConfigOrFail(const Arguments& arguments) {
  const auto file = findConfigFile(arguments.get("--config"));
  auto config = loadConfig(file);
  if (config) return std::move(*config);
  failConfig(config.error(), file);
  return std::nullopt;
}

}  // namespace sallyport::cli
