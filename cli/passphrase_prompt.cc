// passphrase_prompt.cc - see passphrase_prompt.h.
#include "cli/passphrase_prompt.h"

#include <unistd.h>

#include <algorithm>

#include "vaultd/private_file.h"
#include "vaultd/terminal_prompt.h"

namespace sallyport::cli {
namespace {

using vaultd::Problem;

}  // namespace

bool hasTerminal() { return vaultd::openTerminal().get() >= 0; }

SecretOrProblem askSecret(const std::string& question, const std::string& withoutTerminal) {
  const kj::AutoCloseFd terminal = vaultd::openTerminal();
  if (terminal.get() < 0) return refuse(Problem{"there is no terminal to ask for the " + question, withoutTerminal});
  return vaultd::askOnTerminal(terminal, question);
}

SecretOrProblem askNewPassphrase(const std::string& question, const std::string& withoutTerminal) {
  auto first = askSecret(question, withoutTerminal);
  if (!first) return first;
  if (first->empty())
    return refuse(Problem{"the passphrase is empty", "without --passphrase the key is a plain file of mode 0600"});
  auto second = askSecret(question + ", again", withoutTerminal);
  if (!second) return second;
  if (!equalsConstantTime(asBytes(first->expose()), asBytes(second->expose()))) {
    return refuse(Problem{"the two passphrases differ", {}});
  }
  return first;
}

SecretOrProblem readSecretFromInput(const std::string& question) {
  if (::isatty(STDIN_FILENO) != 0) return vaultd::askOnTerminal(STDIN_FILENO, question);
  return vaultd::readSecret(STDIN_FILENO, false, "standard input");
}

SecretOrProblem readSecretFrom(int fd) { return vaultd::readSecret(fd, true, "descriptor " + std::to_string(fd)); }

SecretOrProblem readPassphraseFile(const std::filesystem::path& file) {
  bool missing = false;
  auto text = vaultd::readPrivate(file, {}, &missing);
  if (missing) {
    return refuse(Problem{file.string() + ": there is no such file",
                          "write it first: its first line is the passphrase, and its mode 0600"});
  }
  if (!text) return text;
  text->shrinkTo(std::min(text->expose().find('\n'), text->size()));
  if (text->empty())
    return refuse(Problem{file.string() + ": the passphrase is empty", "its first line is the passphrase"});
  return text;
}

}  // namespace sallyport::cli
