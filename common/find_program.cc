#include "common/find_program.h"

#include <unistd.h>

namespace sallyport {

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

}  // namespace sallyport
