// find_program.h - where the other programs of this installation are. Part of: common (CLI, vaultd before lock-down).
#pragma once

#include <filesystem>
#include <string_view>

namespace sallyport {

// The program `name` ("vaultd", "netd", "hsmd") next to this one: in the same folder, in ../NAME/NAME (the build tree),
// in ../sbin, or in ../libexec/sallyport (installed). Empty if it is in none of them: PATH is not asked.
std::filesystem::path findProgram(std::string_view name);

}  // namespace sallyport
