// program.h - becoming another program of hsmd's, with the descriptors that it is to have and no others. Part of: hsmd
// (guard and launcher).
#pragma once

#include <span>
#include <vector>

namespace sallyport::hsmd {

// What a program's first descriptor becomes: standard input, output and error stay in front of it.
inline constexpr int FIRST_CHILD_FD = 3;

// Between fork and exec: system calls alone. `program`: of O_PATH. `fds` become 3, 4, ...; so none of them, nor
// `program`, may have such a number: see highCopy(). What can't be done is exit status 126.
[[noreturn]] void becomeProgram(int program, std::span<const int> fds, char* const* arguments,
                                char* const* environment);

// The same descriptor under a number far from those, or -1.
int highCopy(int fd);

// Standard input, output and error stay as well. Nobody is to read what a library has left open.
void closeAllBut(std::vector<int> kept);

}  // namespace sallyport::hsmd
