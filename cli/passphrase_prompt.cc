// passphrase_prompt.cc - see passphrase_prompt.h.
#include "cli/passphrase_prompt.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include <kj/io.h>

#include "vaultd/private_file.h"

namespace sallyport::cli {
namespace {

using vaultd::Problem;
using vaultd::SecretText;

volatile std::sig_atomic_t interrupted = 0;

// No echo while it lives. A signal must not leave a terminal without echo: it only interrupts the read.
class NoEcho {
 public:
  explicit NoEcho(int fd) : fd_(fd) {
    interrupted = 0;
    struct sigaction note {};
    note.sa_handler = [](int) { interrupted = 1; };  // without SA_RESTART
    for (size_t i = 0; i < std::size(SIGNALS); ++i) ::sigaction(SIGNALS[i], &note, &oldActions_[i]);
    ok_ = ::tcgetattr(fd_, &old_) == 0;
    termios quiet = old_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    quiet.c_lflag |= ICANON | ISIG | ECHONL;
    ok_ = ok_ && ::tcsetattr(fd_, TCSAFLUSH, &quiet) == 0;
  }
  ~NoEcho() {
    if (ok_) ::tcsetattr(fd_, TCSAFLUSH, &old_);
    for (size_t i = 0; i < std::size(SIGNALS); ++i) ::sigaction(SIGNALS[i], &oldActions_[i], nullptr);
  }
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;
  bool ok() const { return ok_; }

 private:
  static constexpr int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};

  int fd_;
  bool ok_ = false;
  termios old_{};
  struct sigaction oldActions_[std::size(SIGNALS)]{};
};

// Up to the end, or the first newline. The newline is not part of it.
SecretOrProblem readSecret(int fd, bool oneLine, const std::string& from) {
  SecretText text;
  for (;;) {
    if (text.size() == SecretText::CAPACITY) return refuse(Problem{from + ": longer than 4096 bytes", {}});
    const auto room = text.room();
    // A terminal gives at most a line.
    const auto got = ::read(fd, room.data(), room.size());
    if (got < 0 && errno == EINTR && interrupted != 0) return refuse(Problem{"interrupted", {}});
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return refuse(Problem{from + ": can't be read: " + std::strerror(errno), {}});
    if (got == 0) break;
    text.grow(static_cast<size_t>(got));
    if (oneLine && text.expose().find('\n') != std::string_view::npos) break;
  }
  if (oneLine) text.shrinkTo(std::min(text.expose().find('\n'), text.size()));
  return text;
}

kj::AutoCloseFd openTerminal() { return kj::AutoCloseFd(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)); }

SecretOrProblem askOn(int fd, const std::string& question) {
  const NoEcho quiet(fd);
  if (!quiet.ok()) return refuse(Problem{"the terminal can't be asked without echo", {}});
  const auto prompt = "sallyport: " + question + ": ";
  if (::write(fd, prompt.data(), prompt.size()) < 0) return refuse(Problem{"can't write to the terminal", {}});
  return readSecret(fd, true, "the terminal");
}

}  // namespace

bool hasTerminal() { return openTerminal().get() >= 0; }

SecretOrProblem askSecret(const std::string& question, const std::string& withoutTerminal) {
  const kj::AutoCloseFd terminal = openTerminal();
  if (terminal.get() < 0) return refuse(Problem{"there is no terminal to ask for the " + question, withoutTerminal});
  return askOn(terminal, question);
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
  if (::isatty(STDIN_FILENO) != 0) return askOn(STDIN_FILENO, question);
  return readSecret(STDIN_FILENO, false, "standard input");
}

SecretOrProblem readSecretFrom(int fd) { return readSecret(fd, true, "descriptor " + std::to_string(fd)); }

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
