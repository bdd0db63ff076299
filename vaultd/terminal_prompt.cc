// terminal_prompt.cc - see terminal_prompt.h.
#include "vaultd/terminal_prompt.h"

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace sallyport::vaultd {
namespace {

volatile std::sig_atomic_t interrupted = 0;

// No echo while it lives. A signal must not leave a terminal without echo: it only interrupts the wait for a line, and
// is held back until there is one, or it could come just before and be missed.
class NoEcho {
 public:
  explicit NoEcho(int fd) : fd_(fd) {
    interrupted = 0;
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : SIGNALS) sigaddset(&held, signal);
    ::sigprocmask(SIG_BLOCK, &held, &oldMask_);
    waitMask_ = oldMask_;
    for (const int signal : SIGNALS) sigdelset(&waitMask_, signal);
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
    ::sigprocmask(SIG_SETMASK, &oldMask_, nullptr);
  }
  NoEcho(const NoEcho&) = delete;
  NoEcho& operator=(const NoEcho&) = delete;
  bool ok() const { return ok_; }
  // False if a signal came first.
  bool waitForLine() const {
    pollfd terminal{.fd = fd_, .events = POLLIN, .revents = 0};
    while (interrupted == 0) {
      if (::ppoll(&terminal, 1, nullptr, &waitMask_) >= 0 || errno != EINTR) return true;
    }
    return false;
  }

 private:
  static constexpr int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};

  int fd_;
  bool ok_ = false;
  termios old_{};
  sigset_t oldMask_{};
  sigset_t waitMask_{};
  struct sigaction oldActions_[std::size(SIGNALS)]{};
};

}  // namespace

Result<SecretText, Problem> readSecret(int fd, bool oneLine, const std::string& from) {
  SecretText text;
  for (;;) {
    if (text.size() == SecretText::CAPACITY)
      return refuse(Problem{from + ": longer than " + std::to_string(SecretText::CAPACITY) + " bytes", {}});
    const auto room = text.room();
    // A terminal gives at most a line.
    const auto got = ::read(fd, room.data(), room.size());
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

Result<SecretText, Problem> askOnTerminal(int terminal, const std::string& question) {
  const NoEcho quiet(terminal);
  if (!quiet.ok()) return refuse(Problem{"the terminal can't be asked without echo", {}});
  const auto prompt = "sallyport: " + question + ": ";
  if (::write(terminal, prompt.data(), prompt.size()) < 0) return refuse(Problem{"can't write to the terminal", {}});
  if (!quiet.waitForLine()) return refuse(Problem{"interrupted", {}});
  return readSecret(terminal, true, "the terminal");
}

}  // namespace sallyport::vaultd
