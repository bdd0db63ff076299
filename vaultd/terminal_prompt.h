// terminal_prompt.h - a secret that a person types, or that a descriptor gives. Part of: vaultd's key library (the
// vault before lock-down, and the CLI).
#pragma once

#include <string>

#include <kj/io.h>

#include "common/result.h"
#include "vaultd/problem.h"
#include "vaultd/secret_text.h"

namespace sallyport::vaultd {

// What a descriptor gives up to its end, or with `oneLine` up to the first newline, which is not part of it. `from`
// names it in the problem.
Result<SecretText, Problem> readSecret(int fd, bool oneLine, const std::string& from);

// The terminal of this process, to read and write; -1 if it has none.
kj::AutoCloseFd openTerminal();
// One line without echo. A signal of the terminal (Ctrl-C, Ctrl-Z) or SIGTERM ends the question as a problem, also
// where it is ignored otherwise, and leaves the terminal as it was.
Result<SecretText, Problem> askOnTerminal(int terminal, const std::string& question);

}  // namespace sallyport::vaultd
