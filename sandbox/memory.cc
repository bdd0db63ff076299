// memory.cc - what can be had out of and put into the process's memory, and how much of everything it may use.
// Part of: sandbox (any daemon).
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/layers.h"

namespace sallyport::sandbox {

namespace {

// Linux 6.3; Debian 12's headers don't know them.
constexpr int SET_MDWE = 65;
constexpr unsigned long MDWE_REFUSE_EXEC_GAIN = 1;

constexpr uint64_t VAULT_MEMORY_BYTES = uint64_t{1} << 30;  // third line behind the limits of each link

bool lower(int resource, rlim_t want) {
  rlimit now{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &now) != 0) return false;
  const rlim_t value = std::min(want, now.rlim_max);
  const rlimit next{.rlim_cur = value, .rlim_max = value};
  return setrlimit(static_cast<__rlimit_resource>(resource), &next) == 0;
}

// A log in a file grows; a limit on file sizes would kill its writer with SIGXFSZ.
bool logsToFile() {
  struct stat status {};
  for (int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) return true;
  }
  return false;
}

}  // namespace

Layer forbidDumps() {
  if (!lower(RLIMIT_CORE, 0)) return notHeld("dumps", "setrlimit(RLIMIT_CORE)", errno, true);
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return notHeld("dumps", "prctl(PR_SET_DUMPABLE)", errno, true);
  if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return {.name = "dumps", .state = LayerState::Failed, .detail = "still dumpable", .mandatory = true};
  }
  return offered("dumps", "no core dump, no debugger of the same user", true);
}

Layer forbidNewCode() {
  if (prctl(SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0)
    return offered("w^x", "by the kernel and by the syscall filter", false);
  // An older kernel: the filter refuses PROT_EXEC with the same effect.
  if (errno == EINVAL) return offered("w^x", "by the syscall filter alone: this kernel is older than 6.3", false);
  return notHeld("w^x", "prctl(PR_SET_MDWE)", errno, false);
}

Layer setLimits(const Options& options) {
  std::string detail;
  auto limit = [&](const char* what, int resource, uint64_t value) {
    if (!lower(resource, value)) return false;
    detail += (detail.empty() ? "" : ", ") + std::string(what) + " " + std::to_string(value);
    return true;
  };
  // Threads count as well: a module has some.
  const bool startsSome = options.profile == Profile::Netd || loadsModule(options.profile);
  if (!startsSome && !limit("processes", RLIMIT_NPROC, 0)) {
    return notHeld("rlimits", "setrlimit(RLIMIT_NPROC)", errno, false);
  }
  const bool writesNoFile = options.profile == Profile::NetdWorker || options.profile == Profile::NetdResolver;
  if (writesNoFile && !logsToFile() && !limit("file bytes", RLIMIT_FSIZE, 0)) {
    return notHeld("rlimits", "setrlimit(RLIMIT_FSIZE)", errno, false);
  }
  uint64_t memoryBytes = options.maxMemoryBytes;
  if (memoryBytes == 0 && options.profile == Profile::Vaultd) memoryBytes = VAULT_MEMORY_BYTES;
  if (memoryBytes != 0 && !SANITIZED && !limit("memory bytes", RLIMIT_AS, memoryBytes)) {
    return notHeld("rlimits", "setrlimit(RLIMIT_AS)", errno, false);
  }
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return notHeld("rlimits", "getrlimit(RLIMIT_NOFILE)", errno, false);
  const uint64_t openFiles =
      options.maxOpenFiles == 0 ? files.rlim_max : std::min<uint64_t>(options.maxOpenFiles, files.rlim_max);
  if (!limit("open files", RLIMIT_NOFILE, openFiles))
    return notHeld("rlimits", "setrlimit(RLIMIT_NOFILE)", errno, false);
  return offered("rlimits", detail, false);
}

}  // namespace sallyport::sandbox
