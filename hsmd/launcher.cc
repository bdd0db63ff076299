// launcher.cc - see launcher.h. Part of: hsmd.
#include "hsmd/launcher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>

#include "common/check.h"
#include "hsmd/program.h"

namespace sallyport::hsmd {

namespace {

// SIGCHLD as something to poll for: a child that is stopped shows by nothing else.
class ChildSignals {
 public:
  ChildSignals() {
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    CHECK(sigprocmask(SIG_BLOCK, &child, &before_) == 0);
    fd_ = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    CHECK(fd_ >= 0);
  }
  ~ChildSignals() {
    close(fd_);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  ChildSignals(const ChildSignals&) = delete;
  ChildSignals& operator=(const ChildSignals&) = delete;

  int fd() const { return fd_; }
  void take() const {
    signalfd_siginfo info;
    while (read(fd_, &info, sizeof info) == sizeof info) continue;
  }
  static void unblock() {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
  }

 private:
  sigset_t before_{};
  int fd_ = -1;
};

class Launcher {
 public:
  explicit Launcher(const LauncherOptions& options) : options_(options) {
    for (const std::string& variable : options.environment) environment_.push_back(const_cast<char*>(variable.c_str()));
    environment_.push_back(nullptr);
  }

  Launched run() {
    // Processes that a module has left behind come to us, and go with the rest.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    const ChildSignals signals;
    while (!(launched_.keeperStopped = keeperIsStopped())) {
      std::array<pollfd, 3> waits{{{.fd = options_.socket, .events = POLLIN, .revents = 0},
                                   {.fd = signals.fd(), .events = POLLIN, .revents = 0},
                                   {.fd = ended_, .events = POLLIN, .revents = 0}}};
      if (poll(waits.data(), child_ > 0 ? 3 : 2, -1) < 0 && errno != EINTR) break;
      if (child_ > 0 && waits[2].revents != 0) reap();
      if (waits[1].revents != 0) signals.take();
      if (waits[0].revents == 0) continue;
      LauncherOrder order{};
      const ssize_t got = recv(options_.socket, &order, sizeof order, MSG_DONTWAIT);
      if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (got != sizeof order) break;
      obey(order);
    }
    // Before its workers: nobody decides about them any more, and it may only have closed its socket.
    endKeeper();
    if (child_ > 0) endGroup();
    return launched_;
  }

 private:
  void obey(const LauncherOrder& order) {
    *options_.lastEpoch = order.epoch;  // before anything of it is there
    if (order.order == Order::Kill) {
      if (child_ > 0) kill(-child_, SIGKILL);
    } else if (child_ > 0) {
      tell(Event::NotStarted, EBUSY);
    } else {
      start(order);
    }
  }

  void start(const LauncherOrder& order) {
    const std::string epoch = std::to_string(order.epoch);
    const char* mode = order.order == Order::Probe ? "probe" : "serve";
    std::array<char*, 4> arguments{const_cast<char*>("hsmd-worker"), const_cast<char*>(mode),
                                   const_cast<char*>(epoch.c_str()), nullptr};
    const pid_t self = getpid();
    const pid_t pid = fork();
    if (pid == 0) becomeWorker(self, arguments.data());
    if (pid < 0) return tell(Event::NotStarted, errno);
    setpgid(pid, pid);  // also done by the child: whoever comes first
    ended_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    CHECK(ended_ >= 0);
    child_ = pid;
    tell(Event::Started, pid);
  }

  // Between fork and exec: system calls alone.
  [[noreturn]] void becomeWorker(pid_t parent, char** arguments) {
    ChildSignals::unblock();
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    // What a module prints is nobody's output.
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) _exit(126);
    becomeProgram(options_.program, options_.childFds, arguments, environment_.data());
  }

  void reap() {
    // Before its number is free again: whatever it has started in its group.
    kill(-child_, SIGKILL);
    int status = 0;
    if (waitpid(child_, &status, 0) != child_) status = -1;
    close(ended_);
    ended_ = -1;
    child_ = 0;
    endStrays();
    tell(Event::Ended, status);
  }

  // What has left the group is ours since its parent died, and still has the client's page: it must not see the next
  // worker's secrets there. Without /proc nobody tells us of it.
  void endStrays() {
    constexpr int ROUNDS = 200;
    constexpr useconds_t PAUSE_US = 1000;
    for (int round = 0; round < ROUNDS; ++round) {
      int status = 0;
      for (pid_t pid = 0; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == options_.keeper) keeperEnded(status);
      }
      bool any = false;
      std::ifstream children("/proc/thread-self/children");
      for (pid_t pid = 0; children >> pid;) {
        if (pid == options_.keeper && !keeperEnded_) continue;
        kill(pid, SIGKILL);
        any = true;
      }
      if (!any) return;
      usleep(PAUSE_US);
    }
  }

  void endGroup() {
    kill(-child_, SIGKILL);
    int status = 0;
    while (waitpid(child_, &status, 0) < 0 && errno == EINTR) continue;
    close(ended_);
    ended_ = -1;
    child_ = 0;
    endStrays();
  }

  bool keeperIsStopped() const {
    siginfo_t info{};
    return options_.keeper > 0 && !keeperEnded_ &&
           waitid(P_PID, static_cast<id_t>(options_.keeper), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == options_.keeper;
  }

  void endKeeper() {
    if (keeperEnded_ || options_.keeper <= 0) return;
    kill(options_.keeper, SIGKILL);  // no harm to one that is on its way out: its status is what it has said
    int status = 0;
    while (waitpid(options_.keeper, &status, 0) < 0 && errno == EINTR) continue;
    keeperEnded(status);
  }

  void keeperEnded(int status) {
    keeperEnded_ = true;
    launched_.keeperStatus = status;
  }

  void tell(Event event, int value) {
    const LauncherEvent told{.event = event, .value = value};
    (void)!send(options_.socket, &told, sizeof told, MSG_NOSIGNAL);
  }

  const LauncherOptions& options_;
  std::vector<char*> environment_;
  pid_t child_ = 0;
  int ended_ = -1;
  bool keeperEnded_ = false;
  Launched launched_;
};

}  // namespace

Launched launch(const LauncherOptions& options) { return Launcher(options).run(); }

}  // namespace sallyport::hsmd
