#include "tests/mock_pkcs11/side_effects.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace sallyport::mock {

void sleepMs(unsigned ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

void hang() {
  for (;;) pause();
}

void segfault() {
  // As a library does it: no handler of ours, no abort message, and no report of a sanitizer about what was asked for.
  signal(SIGSEGV, SIG_DFL);
  volatile int* nowhere = nullptr;
  *nowhere = 1;
  abort();
}

void forkHelper() {
  std::array<int, 2> life;
  if (pipe2(life.data(), O_CLOEXEC) != 0) return;
  const pid_t child = fork();
  if (child == 0) {
    close(life[1]);
    char byte;
    while (read(life[0], &byte, 1) < 0 && errno == EINTR) {}
    _exit(0);
  }
  close(life[0]);  // the other end stays open as long as this process lives
}

void startThreads(unsigned n) {
  for (unsigned i = 0; i < n; ++i) std::thread([] { hang(); }).detach();
}

void logToSyslog() {
  openlog("mock-pkcs11", LOG_PID, LOG_USER);
  syslog(LOG_ERR, "the mock module complains");
  closelog();
}

void leak(size_t kib) {
  void* lost = mmap(nullptr, kib * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (lost != MAP_FAILED) memset(lost, 1, kib * 1024);
}

void babble(int fd) {
  constexpr int MUCH = 500;
  constexpr std::array<char, 256> NOTHING{};
  for (int i = 0; i < MUCH && send(fd, NOTHING.data(), NOTHING.size(), MSG_NOSIGNAL) >= 0; ++i) continue;
}

namespace {

// The result as of a system call: -1 and errno, or not.
int tryConnect(int family) {
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int done = connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  const int error = errno;
  close(fd);
  errno = error;
  // That nobody listens there is an answer of the network: it was reached.
  return done == 0 || error == ECONNREFUSED ? 0 : -1;
}

int tryOpen(const char* path, int flags) {
  const int fd = open(path, flags | O_CLOEXEC, 0600);
  if (fd < 0) return -1;
  close(fd);
  return 0;
}

int tryFork() {
  const pid_t child = fork();
  if (child < 0) return -1;
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  return 0;
}

int tryExec() {
  // The process image changes if that is allowed, which no test would miss.
  static char program[] = "/bin/true";
  std::array<char*, 2> arguments = {program, nullptr};
  std::array<char*, 1> environment = {nullptr};
  return execve(program, arguments.data(), environment.data());
}

int tryCodeInMemory() {
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return -1;
  munmap(page, 4096);
  return 0;
}

int tryMemoryFile() {
  const auto fd = static_cast<int>(syscall(SYS_memfd_create, "mock", MFD_CLOEXEC));
  if (fd < 0) return -1;
  close(fd);
  return 0;
}

struct Attempt {
  std::string_view name;
  int (*run)();
};

constexpr std::array ATTEMPTS = {
    Attempt{"socket-inet",
            [] {
              const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
              return fd < 0 ? -1 : close(fd);
            }},
    Attempt{"socket-unix",
            [] {
              const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
              return fd < 0 ? -1 : close(fd);
            }},
    Attempt{"connect-inet", [] { return tryConnect(AF_INET); }},
    Attempt{"open-passwd", [] { return tryOpen("/etc/passwd", O_RDONLY); }},
    Attempt{"open-self-mem", [] { return tryOpen("/proc/self/mem", O_RDWR); }},
    Attempt{"create-tmp", [] { return tryOpen("/tmp/mock-pkcs11-was-here", O_RDWR | O_CREAT); }},
    Attempt{"fork", tryFork},
    Attempt{"exec", tryExec},
    Attempt{"ptrace-parent", [] { return static_cast<int>(ptrace(PTRACE_SEIZE, getppid(), nullptr, nullptr)); }},
    Attempt{"kill-parent", [] { return kill(getppid(), 0); }},
    Attempt{"code-in-memory", tryCodeInMemory},
    Attempt{"memory-file", tryMemoryFile},
    Attempt{"io-uring", [] { return static_cast<int>(syscall(SYS_io_uring_setup, 1, nullptr)); }},
    Attempt{"bpf", [] { return static_cast<int>(syscall(SYS_bpf, 0, nullptr, 0)); }},
    Attempt{"unshare-user", [] { return static_cast<int>(syscall(SYS_unshare, 0x10000000)); }},
};

}  // namespace

void attempt(std::string_view name, Counters& counters) {
  const std::string prefix = "syscall:" + std::string(name) + ":";
  for (const Attempt& each : ATTEMPTS) {
    if (each.name != name) continue;
    errno = 0;
    const bool allowed = each.run() != -1;
    counters.add(prefix + (allowed ? "ok" : strerrorname_np(errno)));
    return;
  }
  counters.add(prefix + "unknown");
}

}  // namespace sallyport::mock
