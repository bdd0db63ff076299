// privileges.cc - whose power the process has: uid, capabilities, no_new_privs. Part of: sandbox (any daemon).
// Never: come back from here with a capability or a way to one.
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <utility>

#include "sandbox/layers.h"

// Of linux/securebits.h, which mixes badly with C++.
namespace {
constexpr unsigned long ALL_SECUREBITS_LOCKED = 0xef;  // all but KEEP_CAPS itself, each with its lock
}

namespace sallyport::sandbox {

namespace {

struct Capabilities {
  uint64_t effective = 0;
  uint64_t permitted = 0;
  uint64_t inheritable = 0;
};

__user_cap_header_struct header() { return {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0}; }

bool getCapabilities(Capabilities& result) {
  auto head = header();
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &head, data) != 0) return false;
  auto join = [](uint32_t low, uint32_t high) { return uint64_t{high} << 32 | low; };
  result = {.effective = join(data[0].effective, data[1].effective),
            .permitted = join(data[0].permitted, data[1].permitted),
            .inheritable = join(data[0].inheritable, data[1].inheritable)};
  return true;
}

bool setCapabilities(uint64_t kept) {
  auto head = header();
  const auto low = static_cast<uint32_t>(kept);
  const auto high = static_cast<uint32_t>(kept >> 32);
  __user_cap_data_struct data[2] = {{.effective = low, .permitted = low, .inheritable = 0},
                                    {.effective = high, .permitted = high, .inheritable = 0}};
  return syscall(SYS_capset, &head, data) == 0;
}

constexpr uint64_t bit(unsigned capability) { return uint64_t{1} << capability; }

// What lockDown() still needs: namespaces and the empty root, and to empty the bounding set; for the monitor, ports
// below 1024.
uint64_t neededUntilLockDown(Profile profile) {
  uint64_t needed = bit(CAP_SYS_ADMIN) | bit(CAP_SYS_CHROOT) | bit(CAP_SETPCAP);
  if (profile == Profile::Netd) needed |= bit(CAP_NET_BIND_SERVICE);
  return needed;
}

}  // namespace

std::string problemOf(std::string_view call, int errorNumber) {
  return std::string(call) + ": " + std::strerror(errorNumber);
}

bool isRefusedByHost(int errorNumber) {
  return errorNumber == EPERM || errorNumber == EACCES || errorNumber == ENOSYS || errorNumber == EOPNOTSUPP ||
         errorNumber == ENOSPC || errorNumber == EUSERS;
}

Layer offered(std::string layerName, std::string detail, bool mandatory) {
  return {
      .name = std::move(layerName), .state = LayerState::Active, .detail = std::move(detail), .mandatory = mandatory};
}

Layer notHeld(std::string layerName, std::string_view call, int errorNumber, bool mandatory) {
  return {.name = std::move(layerName),
          .state = isRefusedByHost(errorNumber) ? LayerState::Unavailable : LayerState::Failed,
          .detail = problemOf(call, errorNumber),
          .mandatory = mandatory};
}

bool hasCapability(unsigned capability) {
  Capabilities now;
  return getCapabilities(now) && (now.effective & bit(capability)) != 0;
}

bool namesId(const char* mapFile, uint32_t id) {
  std::ifstream map(mapFile);
  if (!map) return true;  // without /proc nothing is known; then the kernel says it
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t count = 0;
  while (map >> inside >> outside >> count) {
    if (id >= inside && id - inside < count) return true;
  }
  return false;
}

std::string obstacleTo(const Identity& target) {
  // All three, so that the daemons of one start agree: the vault gives its socket to netd's user.
  for (const auto& [capability, called] :
       {std::pair(CAP_SETUID, "CAP_SETUID"), std::pair(CAP_SETGID, "CAP_SETGID"), std::pair(CAP_CHOWN, "CAP_CHOWN")}) {
    if (!hasCapability(capability)) return std::string("without ") + called + " it can't become " + target.name;
  }
  if (!namesId("/proc/self/uid_map", target.uid)) return target.name + " isn't mapped in this user namespace";
  if (!namesId("/proc/self/gid_map", target.gid))
    return "gid " + std::to_string(target.gid) + " isn't mapped in this user namespace";
  std::ifstream rule("/proc/self/setgroups");
  std::string word;
  if (rule >> word && word == "deny")
    return "this user namespace keeps root's groups, so it can't become " + target.name;
  return {};
}

namespace {

// What uid 0 is outside of this user namespace; 0 if that can't be told.
uint64_t rootOutside() {
  std::ifstream map("/proc/self/uid_map");
  uint64_t inside = 0;
  uint64_t outside = 0;
  uint64_t count = 0;
  while (map >> inside >> outside >> count) {
    if (inside == 0) return outside;
  }
  return 0;
}

// `held`, or what failed. A set-uid start would leave a way back.
Layer forgetSavedIds(Layer held) {
  const char* call = setresgid(getegid(), getegid(), getegid()) != 0   ? "setresgid"
                     : setresuid(geteuid(), geteuid(), geteuid()) != 0 ? "setresuid"
                                                                       : nullptr;
  if (call == nullptr) return held;
  const int problem = errno;
  Layer layer = notHeld("user", call, problem, true);
  if (problem == EINVAL && !namesId("/proc/self/uid_map", geteuid())) {
    layer.detail = "this user namespace has no map for the user who started it";
    layer.remedy = "start it with a map, e.g. `unshare --user --map-current-user`, or outside of that namespace";
  }
  return layer;
}

// Like an ordinary user's start; what root is without the right to become another depends on whose root it is.
Layer stayRoot(const std::string& obstacle) {
  if (const uint64_t outside = rootOutside(); outside != 0) {
    return offered("user", "uid 0 of a user namespace, " + std::to_string(outside) + " outside, as started", true);
  }
  return {.name = "user", .state = LayerState::Unavailable, .detail = "uid 0, as started: " + obstacle};
}

}  // namespace

Layer becomeUser(const Options& options) {
  if (geteuid() != 0) return forgetSavedIds(offered("user", "uid " + std::to_string(geteuid()) + ", as started", true));
  const Identity target = configuredIdentity(options);
  if (const std::string obstacle = obstacleTo(target); !obstacle.empty()) return forgetSavedIds(stayRoot(obstacle));
  if (target.uid == 0) {
    return {.name = "user",
            .state = LayerState::Failed,
            .detail = target.name + " is root",
            .mandatory = true,
            .remedy = "`user` in [vault], [net] and [token] is for another user than root: name one, or leave it out"};
  }
  auto failed = [&](const char* call) {
    Layer layer = notHeld("user", call, errno, true);
    layer.detail += " (becoming " + target.name + ")";
    return layer;
  };
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return failed("prctl(PR_SET_KEEPCAPS)");
  if (setgroups(0, nullptr) != 0) return failed("setgroups");
  if (setresgid(target.gid, target.gid, target.gid) != 0) return failed("setresgid");
  if (setresuid(target.uid, target.uid, target.uid) != 0) return failed("setresuid");
  Capabilities now;
  if (!getCapabilities(now) || !setCapabilities(now.permitted & neededUntilLockDown(options.profile)))
    return failed("capset");
  if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0) return failed("prctl(PR_SET_KEEPCAPS)");
  return offered("user", target.name + ", no groups", true);
}

Layer dropCapabilities() {
  std::string detail = "none";
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);  // before Linux 4.3 there is no such set
  if (hasCapability(CAP_SETPCAP)) {
    for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; ++capability) {
      if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
        return notHeld("capabilities", "prctl(PR_CAPBSET_DROP)", errno, true);
    }
    if (prctl(PR_SET_SECUREBITS, ALL_SECUREBITS_LOCKED, 0, 0, 0) != 0) {
      return notHeld("capabilities", "prctl(PR_SET_SECUREBITS)", errno, true);
    }
    detail += ", bounding set empty, securebits locked";
  }
  if (!setCapabilities(0)) return notHeld("capabilities", "capset", errno, true);
  Capabilities now;
  if (!getCapabilities(now)) return notHeld("capabilities", "capget", errno, true);
  if ((now.effective | now.permitted | now.inheritable) != 0) {
    return {.name = "capabilities", .state = LayerState::Failed, .detail = "some are left", .mandatory = true};
  }
  return offered("capabilities", detail, true);
}

Layer setNoNewPrivileges() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return notHeld("no_new_privs", "prctl(PR_SET_NO_NEW_PRIVS)", errno, true);
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) {
    return {
        .name = "no_new_privs", .state = LayerState::Failed, .detail = "was set, but doesn't hold", .mandatory = true};
  }
  return offered("no_new_privs", "set", true);
}

}  // namespace sallyport::sandbox
