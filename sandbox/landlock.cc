// landlock.cc - which paths, ports and processes remain in reach. Part of: sandbox (any daemon).
// Own definitions: Debian 12's headers stop at ABI 2, the kernel may know more or less. What it doesn't know isn't
// asked for.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/layers.h"

namespace sallyport::sandbox {

namespace {

constexpr long CREATE_RULESET = 444;  // the same on all architectures
constexpr long ADD_RULE = 445;
constexpr long RESTRICT_SELF = 446;
constexpr unsigned CREATE_RULESET_VERSION = 1;
constexpr int RULE_PATH_BENEATH = 1;
constexpr unsigned LOG_NEW_EXEC_ON =
    1 << 1;  // ABI 7: the audit log hears of refusals in programs that the monitor runs, too
constexpr long NEWEST_KNOWN_ABI = 7;

struct RulesetAttributes {
  uint64_t handledFs = 0;
  uint64_t handledNet = 0;  // ABI 4
  uint64_t scoped = 0;      // ABI 6
};

struct [[gnu::packed]] PathBeneath {
  uint64_t allowed = 0;
  int32_t folder = -1;
};

enum : uint64_t {
  FS_EXECUTE = 1 << 0,
  FS_WRITE_FILE = 1 << 1,
  FS_READ_FILE = 1 << 2,
  FS_READ_DIR = 1 << 3,
  FS_REMOVE_DIR = 1 << 4,
  FS_REMOVE_FILE = 1 << 5,
  FS_MAKE_DIR = 1 << 7,
  FS_MAKE_REG = 1 << 8,
  FS_MAKE_SOCK = 1 << 9,
  FS_ABI_1 = (1 << 13) - 1,
  FS_REFER = 1 << 13,      // ABI 2
  FS_TRUNCATE = 1 << 14,   // ABI 3
  FS_IOCTL_DEV = 1 << 15,  // ABI 5
  FS_OF_FILES = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV,

  NET_BIND_TCP = 1 << 0,
  NET_CONNECT_TCP = 1 << 1,
  SCOPE_ABSTRACT_UNIX = 1 << 0,
  SCOPE_SIGNAL = 1 << 1,
};

uint64_t rightsOf(PathAccess access) {
  switch (access) {
    case PathAccess::Read: return FS_READ_FILE | FS_READ_DIR;
    case PathAccess::Execute: return FS_READ_FILE | FS_READ_DIR | FS_EXECUTE;
    case PathAccess::Write: return FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE;
    case PathAccess::Sockets: return FS_READ_FILE | FS_READ_DIR | FS_MAKE_SOCK | FS_REMOVE_FILE;
    case PathAccess::Modify:
      return FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE | FS_TRUNCATE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR |
             FS_MAKE_REG | FS_REFER;
    case PathAccess::Device: return FS_READ_FILE | FS_READ_DIR | FS_WRITE_FILE | FS_IOCTL_DEV;
  }
  return 0;
}

// What every program needs to start, and getaddrinfo to resolve. A worker takes it away from itself again.
std::vector<PathRule> pathsOfProfile(Profile profile) {
  std::vector<PathRule> rules;
  auto add = [&](PathAccess access, std::initializer_list<const char*> paths) {
    for (const char* path : paths) rules.push_back({.path = path, .access = access, .optional = true});
  };
  if (profile == Profile::Netd || profile == Profile::NetdResolver) {
    add(PathAccess::Read,
        {"/etc", "/usr/share/zoneinfo", "/dev/urandom", "/var/lib/sss", "/run/systemd/resolve", "/run/resolvconf",
         "/run/NetworkManager", "/run/connman", "/run/nscd", "/run/host", "/mnt/wsl"});
    add(PathAccess::Write, {"/dev/null"});
  }
  const PathAccess libraries = profile == Profile::Netd ? PathAccess::Execute : PathAccess::Read;
  if (profile == Profile::Netd || profile == Profile::NetdResolver) {
    add(libraries, {"/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib"});
  }
  // A worker writes its uid map there. What else is in /proc belongs to root or to this uid, and Landlock keeps
  // ptrace-like access to processes outside this sandbox shut.
  if (profile == Profile::Netd) add(PathAccess::Write, {"/proc"});
  return rules;
}

// Empty, or what is wrong.
std::string addRule(int ruleset, const PathRule& rule, uint64_t handled) {
  const int fd = open(rule.path.c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return rule.optional ? "" : problemOf(rule.path.string(), errno);
  struct stat status {};
  std::string problem;
  if (fstat(fd, &status) != 0) {
    problem = problemOf(rule.path.string(), errno);
  } else {
    PathBeneath attributes{.allowed = rightsOf(rule.access) & handled, .folder = fd};
    if (!S_ISDIR(status.st_mode)) attributes.allowed &= FS_OF_FILES;
    // A device that may be read may be used: /dev/null as standard input is asked whether it is a terminal.
    if (S_ISCHR(status.st_mode)) attributes.allowed |= FS_IOCTL_DEV & handled;
    if (syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, &attributes, 0) != 0)
      problem = problemOf(rule.path.string(), errno);
  }
  close(fd);
  return problem;
}

}  // namespace

Layer restrictPaths(const Options& options) {
  const long offeredAbi = syscall(CREATE_RULESET, nullptr, 0, CREATE_RULESET_VERSION);
  if (offeredAbi < 0) return notHeld("landlock", "landlock_create_ruleset", errno, false);
  const long abi = std::min(offeredAbi, NEWEST_KNOWN_ABI);
  const bool hasNetwork = options.profile == Profile::Netd || options.profile == Profile::NetdResolver;
  const bool hasPaths = options.profile == Profile::Netd || loadsModule(options.profile);

  RulesetAttributes attributes{.handledFs = FS_ABI_1};
  if (abi >= 2) attributes.handledFs |= FS_REFER;
  if (abi >= 3) attributes.handledFs |= FS_TRUNCATE;
  if (abi >= 5) attributes.handledFs |= FS_IOCTL_DEV;
  if (abi >= 4 && !hasNetwork)
    attributes.handledNet = options.profile == Profile::HsmNetwork ? NET_BIND_TCP : NET_BIND_TCP | NET_CONNECT_TCP;
  if (abi >= 6) attributes.scoped = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL;
  const size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;

  const int ruleset = static_cast<int>(syscall(CREATE_RULESET, &attributes, size, 0));
  if (ruleset < 0) return notHeld("landlock", "landlock_create_ruleset", errno, false);
  std::vector<PathRule> rules = pathsOfProfile(options.profile);
  if (hasPaths) rules.insert(rules.end(), options.paths.begin(), options.paths.end());
  for (const PathRule& rule : rules) {
    const std::string problem = addRule(ruleset, rule, attributes.handledFs);
    if (problem.empty()) continue;
    close(ruleset);
    return {.name = "landlock", .state = LayerState::Failed, .detail = problem};
  }
  const bool restricted = syscall(RESTRICT_SELF, ruleset, abi >= 7 ? LOG_NEW_EXEC_ON : 0) == 0;
  const int problem = errno;
  close(ruleset);
  if (!restricted) return notHeld("landlock", "landlock_restrict_self", problem, false);

  std::string detail = "abi " + std::to_string(abi) + ": ";
  detail += rules.empty() ? "no path" : hasPaths ? "its own paths" : "what a resolver reads";
  if (attributes.handledNet != 0)
    detail += attributes.handledNet == NET_BIND_TCP ? ", listens on no tcp port" : ", no tcp port";
  if (attributes.scoped != 0) detail += ", no signal or abstract socket outside";
  return offered("landlock", detail, false);
}

}  // namespace sallyport::sandbox
