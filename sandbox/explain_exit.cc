// explain_exit.cc - why a child ended, in words. Part of: sandbox (supervisors: `sallyport up`, netd's monitor, tests).
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <optional>

#include "sandbox/sandbox.h"

namespace sallyport::sandbox {

namespace {

std::optional<uint64_t> numberAfter(std::string_view text, std::string_view key, int base) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string digits(text.substr(at + key.size(), 20));
  char* end = nullptr;
  const uint64_t value = std::strtoull(digits.c_str(), &end, base);
  return end == digits.c_str() ? std::nullopt : std::optional(value);
}

// The kernel logs "audit: type=1326 … pid=123 … sig=31 arch=c000003e syscall=59 …" for every kill by a filter.
std::string syscallOfRecord(std::string_view record, pid_t pid) {
  if (record.find("type=1326") == std::string_view::npos) return {};
  if (numberAfter(record, " pid=", 10) != static_cast<uint64_t>(pid)) return {};
  const auto arch = numberAfter(record, " arch=", 16);
  const auto number = numberAfter(record, " syscall=", 10);
  if (!arch || !number) return {};
  char* resolved = seccomp_syscall_resolve_num_arch(static_cast<uint32_t>(*arch), static_cast<int>(*number));
  const std::string result = resolved != nullptr ? resolved : "system call " + std::to_string(*number);
  std::free(resolved);
  return result;
}

std::string killedSyscall(pid_t pid) {
  const int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return {};
  std::string found;
  char record[8192];
  for (;;) {
    const ssize_t got = read(fd, record, sizeof record);  // one record a read; EPIPE: records were lost, go on
    if (got < 0 && (errno == EPIPE || errno == EINTR)) continue;
    if (got <= 0) break;
    std::string named = syscallOfRecord({record, static_cast<size_t>(got)}, pid);
    if (!named.empty()) found = std::move(named);  // pids come around: the last one counts
  }
  close(fd);
  return found;
}

}  // namespace

std::string explainExit(int waitStatus, pid_t pid) {
  if (WIFEXITED(waitStatus)) return "exited with status " + std::to_string(WEXITSTATUS(waitStatus));
  if (!WIFSIGNALED(waitStatus)) return "changed its state";
  const int signal = WTERMSIG(waitStatus);
  if (signal != SIGSYS) {
    const char* abbreviation = sigabbrev_np(signal);
    return "was killed by " +
           (abbreviation != nullptr ? "SIG" + std::string(abbreviation) : "signal " + std::to_string(signal));
  }
  const std::string call = killedSyscall(pid);
  if (!call.empty()) return "was killed by its syscall filter: " + call + " is not allowed there";
  return "was killed by its syscall filter (the kernel's log names the call: journalctl -k --grep type=1326)";
}

}  // namespace sallyport::sandbox
