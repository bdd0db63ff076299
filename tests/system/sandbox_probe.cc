// sandbox_probe.cc - takes over each kind of daemon and tries what must not be possible. Part of: tests (a program, not
// installed).
//
//   sandbox_probe [--unprivileged] [--container] [PROFILE...]
//
// For every attack a child locks down as the daemon does and makes one system call; it must end as the table of
// sandbox_probe_attacks.cc says. And each profile must be able to do its own work. --unprivileged gives up root before;
// --container refuses namespaces and mounts as Docker's default profile does. Ends with "ok" and status 0.
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <grp.h>
#include <vector>

#include "tests/system/sandbox_probe.h"

namespace sallyport::probe {

namespace {

constexpr int NOT_LOCKED = 254;
constexpr int SUCCEEDED = 253;
constexpr unsigned ATTACK_SECONDS = 10;

struct ProfileUnderTest {
  const char* name;
  sandbox::Profile profile;
  End Attack::*expected;
  std::string (*load)();
};

constexpr ProfileUnderTest PROFILES[] = {
    {"vaultd", sandbox::Profile::Vaultd, &Attack::vaultd, vaultLoad},
    {"netd-worker", sandbox::Profile::NetdWorker, &Attack::worker, workerLoad},
    {"netd", sandbox::Profile::Netd, &Attack::monitor, monitorLoad},
    {"netd-resolver", sandbox::Profile::NetdResolver, &Attack::resolver, resolverLoad},
};

[[noreturn]] void endNow(int status) {
  syscall(SYS_exit_group, status);
  std::abort();
}

std::string howItEnded(int status, const Attack& attack, End& end) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_LOCKED) {
    end = End::Skip;
    return "not locked down";
  }
  if (WIFEXITED(status)) {
    const bool succeeded = WEXITSTATUS(status) == SUCCEEDED;
    end = succeeded ? End::Allowed : End::Refused;
    return succeeded ? "went through" : strerrorname_np(WEXITSTATUS(status));
  }
  const int signal = WTERMSIG(status);
  // A kernel without the old ABI answers int 0x80 with a fault.
  const bool foreign = std::string_view(attack.name).starts_with("foreign");
  end = signal == SIGSYS || (foreign && signal == SIGSEGV) ? End::Killed : End::Skip;
  return "SIG" + std::string(sigabbrev_np(signal));
}

const char* wordFor(End end) {
  switch (end) {
    case End::Killed: return "killed";
    case End::Refused: return "refused";
    case End::Allowed: return "allowed";
    case End::Skip: return "-";
  }
  return "?";
}

// What a sanitizer's run-time must be able to do after lock-down (sandbox/sanitizer.policy).
bool isSanitizersOwn(const Attack& attack) {
  static const bool SANITIZED = [] {
    sandbox::Options nothing;
    nothing.requirement = SandboxRequirement::None;
    auto report = sandbox::Sandbox(nothing).lockDown();
    return report && report->sanitizerBuild;
  }();
  const std::string_view name = attack.name;
  return SANITIZED && (name == "mmap at a fixed address" || name == "rt_sigaction SIGSEGV");
}

// What a root that can't become another user keeps, whatever is taken from it: its number, and its files beneath /etc
// for those who resolve names. The root of a namespace reads only what its user outside may.
bool isRootsOwn(const Attack& attack) {
  if (sandbox::targetIdentity({}).uid != 0) return false;
  const std::string_view name = attack.name;
  return name == "setresuid 0" || (name == "openat /etc/shadow" && access("/etc/shadow", R_OK) == 0);
}

bool tryAttack(const ProfileUnderTest& under, const Attack& attack) {
  const End expected = attack.*under.expected;
  if (expected == End::Skip) return true;
  const pid_t child = fork();
  if (child == 0) {
    prepareAttacks();
    alarm(ATTACK_SECONDS);
    lockDownOrExit(under.profile, false);
    errno = 0;
    const long result = attack.attempt();
    endNow(result == -1 ? errno : SUCCEEDED);
  }
  int status = 0;
  waitpid(child, &status, 0);
  End end = End::Skip;
  const std::string how = howItEnded(status, attack, end);
  // The dangerous thing is to go through; where the table says killed, only a kill will do.
  const bool good = end == expected || (expected == End::Allowed && end == End::Refused) || isSanitizersOwn(attack) ||
                    (expected == End::Refused && isRootsOwn(attack));
  std::printf("  %-5s %-32s %-8s %s\n", good ? "ok" : "WRONG", attack.name, wordFor(expected), how.c_str());
  return good;
}

// The work of the profile, locked down; and an abort that must end as one.
bool tryLoad(const ProfileUnderTest& under) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    prepareLoads();
    lockDownOrExit(under.profile, true);
    const std::string problem = under.load();
    if (problem.empty()) endNow(0);
    const std::string line = "  its own work fails: " + problem + "\n";
    (void)!write(STDERR_FILENO, line.data(), line.size());
    endNow(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) {
    std::printf("  WRONG its own work: %s\n", sandbox::explainExit(status, child).c_str());
    return false;
  }
  const pid_t aborting = fork();
  if (aborting == 0) {
    lockDownOrExit(under.profile, false);
    std::abort();
  }
  waitpid(aborting, &status, 0);
  const bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
  std::printf("  %-5s its own work\n  %-5s abort ends with SIGABRT\n", "ok", aborted ? "ok" : "WRONG");
  return aborted;
}

void becomeUnprivileged() {
  if (geteuid() != 0) return;
  if (setgroups(0, nullptr) != 0 || setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) {
    std::perror("sandbox_probe: giving up root");
    std::exit(2);
  }
}

// What Docker's default profile refuses, without its other three hundred lines.
void becomeContained() {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  for (int call : {SCMP_SYS(unshare), SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(setns)}) {
    seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0);
  }
  if (seccomp_load(filter) != 0) {
    std::fprintf(stderr, "sandbox_probe: no container to play\n");
    std::exit(2);
  }
  seccomp_release(filter);
}

bool isWanted(const ProfileUnderTest& under, const std::vector<std::string_view>& wanted) {
  if (wanted.empty()) return true;
  for (std::string_view name : wanted) {
    if (name == under.name) return true;
  }
  return false;
}

}  // namespace

std::string ownProgram() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

sandbox::Report lockDownOrExit(sandbox::Profile profile, bool verbose) {
  sandbox::Options options;
  options.profile = profile;
  if (profile == sandbox::Profile::Netd) {
    options.paths.push_back({.path = ownProgram(), .access = sandbox::PathAccess::Execute});
  }
  auto result = sandbox::Sandbox(options).lockDown();
  if (!result || verbose) {
    const sandbox::Report& report = result ? *result : result.error().report;
    const std::string text = (result ? "" : "  refused: " + result.error().message + "\n") + describe(report);
    if (write(STDOUT_FILENO, text.data(), text.size()) < 0) endNow(NOT_LOCKED);
  }
  if (!result) endNow(NOT_LOCKED);
  return std::move(*result);
}

// What the monitor's load runs: a worker or a resolver beneath the monitor's own filter and Landlock rules.
int asChild(std::string_view mode) {
  const bool worker = mode == CHILD_WORKER;
  if (worker) prepareLoads();
  lockDownOrExit(worker ? sandbox::Profile::NetdWorker : sandbox::Profile::NetdResolver, true);
  const std::string problem = worker ? workerLoad() : resolverLoad();
  if (problem.empty()) endNow(0);
  const std::string line =
      std::string("  ") + (worker ? "the worker's" : "the resolver's") + " work fails: " + problem + "\n";
  (void)!write(STDERR_FILENO, line.data(), line.size());
  endNow(1);
}

int run(int argc, char** argv) {
  std::vector<std::string_view> wanted;
  bool unprivileged = false;
  bool container = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == CHILD_WORKER || argument == CHILD_RESOLVER) return asChild(argument);
    if (argument == "--unprivileged")
      unprivileged = true;
    else if (argument == "--container")
      container = true;
    else
      wanted.push_back(argument);
  }
  if (unprivileged) becomeUnprivileged();
  if (container) becomeContained();
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  size_t wrong = 0;
  size_t tried = 0;
  for (const ProfileUnderTest& under : PROFILES) {
    if (!isWanted(under, wanted)) continue;
    std::printf("%s\n", under.name);
    if (!tryLoad(under)) ++wrong;
    for (const Attack& attack : attacks()) {
      if (attack.*under.expected == End::Skip) continue;
      ++tried;
      if (!tryAttack(under, attack)) ++wrong;
    }
  }
  if (tried == 0) return std::fprintf(stderr, "sandbox_probe: no such profile\n"), 2;
  std::printf("%zu attacks, %zu wrong\n", tried, wrong);
  if (wrong == 0) std::printf("ok\n");
  return wrong == 0 ? 0 : 1;
}

}  // namespace sallyport::probe

int main(int argc, char** argv) { return sallyport::probe::run(argc, argv); }
