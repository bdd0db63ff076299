// passphrase_prompt.h - secrets from people and from files, never from arguments. Part of: cli.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/result.h"
#include "vaultd/problem.h"
#include "vaultd/secret_text.h"

namespace sallyport::cli {

using SecretOrProblem = Result<vaultd::SecretText, vaultd::Problem>;

// Is there one to ask at?
bool hasTerminal();
// Asks on the terminal without echo. Without a terminal: a problem whose hint is `withoutTerminal`.
SecretOrProblem askSecret(const std::string& question, const std::string& withoutTerminal);
// Asks twice, until both are the same; not empty.
SecretOrProblem askNewPassphrase(const std::string& question, const std::string& withoutTerminal);
// All of standard input; from a terminal one line without echo.
SecretOrProblem readSecretFromInput(const std::string& question);
// The first line of what an inherited descriptor gives.
SecretOrProblem readSecretFrom(int fd);
// The first line of a file that nobody else can read.
SecretOrProblem readPassphraseFile(const std::filesystem::path& file);

}  // namespace sallyport::cli
