// programs.cc - see programs.h.
#include "cli/programs.h"

#include <unistd.h>

#include "cli/terminal.h"

namespace sallyport::cli {

namespace fs = std::filesystem;

fs::path findProgram(std::string_view name) {
  std::error_code failure;
  const auto self = fs::read_symlink("/proc/self/exe", failure);
  if (failure) return {};
  const auto here = self.parent_path();
  const auto above = here.parent_path();
  for (const auto& candidate :
       {here / name, above / name / name, above / "sbin" / name, above / "libexec/sallyport" / name}) {
    if (fs::is_regular_file(candidate, failure) && ::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

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
