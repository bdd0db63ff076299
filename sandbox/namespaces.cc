// namespaces.cc - an own, empty network and an empty root folder. Part of: sandbox (vaultd and netd-worker; never the
// monitor, which binds, dials and runs programs on the host).
//
// As root the capabilities that becomeUser() kept suffice. Without them an own user namespace provides them, with this
// one uid mapped to itself; all other users then look like 65534 to SO_PEERCRED. That is enough to tell "me" from "not
// me", and no more: who must tell others apart goes without.
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include "sandbox/layers.h"

namespace sallyport::sandbox {

namespace {

bool writeText(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
  return written == static_cast<ssize_t>(text.size());
}

// Runs `work` in a child that shares `what` with us. Its status, or -1.
template <typename Work>
int inHelper(unsigned long what, Work&& work) {
  const long child = syscall(SYS_clone, what, 0, 0, 0, 0);  // no exit signal: the daemon's SIGCHLD handling sleeps on
  if (child == 0) syscall(SYS_exit_group, work());
  if (child < 0) return -1;
  int status = 0;
  pid_t ended;
  do ended = waitpid(static_cast<pid_t>(child), &status, __WALL);
  while (ended < 0 && errno == EINTR);
  return ended == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

enum UserNamespace : int { MAPPED, REFUSED, UNMAPPED };

UserNamespace enterUserNamespace() {
  const std::string uid = std::to_string(geteuid());
  const std::string gid = std::to_string(getegid());
  // A process that isn't dumpable doesn't own its files in /proc. No secret is loaded yet.
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (unshare(CLONE_NEWUSER) != 0) return REFUSED;
  writeText("/proc/self/setgroups", "deny");
  return writeText("/proc/self/uid_map", uid + " " + uid + " 1") &&
                 writeText("/proc/self/gid_map", gid + " " + gid + " 1")
             ? MAPPED
             : UNMAPPED;
}

// The capabilities for the other namespaces. Nothing, or why they aren't to be had; `held` hears of the own one.
std::optional<Layer> makeCapable(MustSee users, std::string& held) {
  if (hasCapability(CAP_SYS_ADMIN)) return std::nullopt;
  const auto goWithout = [](const char* why) {
    return Layer{.name = "namespaces", .state = LayerState::Unavailable, .detail = why};
  };
  if (users == MustSee::Everybody)
    return goWithout("none: without CAP_SYS_ADMIN they need a user namespace, which would hide who connects");
  // Tried by another first: there is no way back out of a namespace without a map. AppArmor, for one, lets an ordinary
  // user make it, but not write the map.
  if (users == MustSee::Itself && inHelper(0, enterUserNamespace) == UNMAPPED)
    return goWithout(
        "none: they need a user namespace, which can't be given a uid map here and would hide who connects");
  const UserNamespace entered = enterUserNamespace();
  if (entered == REFUSED) return notHeld("namespaces", "unshare(user)", errno == EINVAL ? ENOSYS : errno, false);
  held = entered == MAPPED ? "user" : "user (without a uid map)";
  return std::nullopt;
}

// A tmpfs without room for a file becomes the root, the old one is detached. False if the host doesn't allow it here.
bool pivotToEmpty() {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  // Any folder will do as mount point. Nobody else sees it.
  for (const char* folder : {"/tmp", "/proc", "/run", "/dev", "/mnt"}) {
    constexpr unsigned long FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount("none", folder, "tmpfs", FLAGS, "size=4k,nr_inodes=2,mode=0555") != 0) continue;
    if (chdir(folder) != 0 || syscall(SYS_pivot_root, ".", ".") != 0) return false;
    if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return false;
    return mount("none", "/", nullptr, MS_REMOUNT | MS_RDONLY | FLAGS, nullptr) == 0;
  }
  return false;
}

// Where mounting isn't allowed, but chroot is (Landlock of the monitor forbids its workers to mount): the folder
// /proc/PID/fdinfo of a process that has ended is empty, and stays so. The child shares our root and working folder, so
// its chroot is ours.
bool chrootToEmpty() {
  return inHelper(CLONE_FS, [] { return chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0 ? 0 : 1; }) == 0;
}

}  // namespace

Layer enterNamespaces(MustSee users, bool& ownMounts) {
  std::string held;
  if (std::optional<Layer> without = makeCapable(users, held)) return *std::move(without);
  struct Kind {
    const char* what;
    int flag;
  };
  std::string refused;
  int worst = 0;
  for (const Kind kind : {Kind{"network", CLONE_NEWNET}, Kind{"ipc", CLONE_NEWIPC}, Kind{"uts", CLONE_NEWUTS},
                          Kind{"mount", CLONE_NEWNS}}) {
    if (unshare(kind.flag) == 0) {
      held += (held.empty() ? "" : ", ") + std::string(kind.what);
      if (kind.flag == CLONE_NEWNS) ownMounts = true;
      continue;
    }
    refused += "; no " + problemOf(kind.what, errno);
    if (worst == 0 || !isRefusedByHost(errno)) worst = errno;
  }
  if (worst == 0) return offered("namespaces", held, false);
  Layer layer = notHeld("namespaces", "unshare", worst == EINVAL ? ENOSYS : worst, false);
  layer.detail = (held.empty() ? "none" : held) + refused;
  return layer;
}

Layer emptyRoot(bool ownMounts) {
  if (ownMounts && pivotToEmpty()) return offered("root", "empty, read-only", false);
  const int problem = errno;
  if (hasCapability(CAP_SYS_CHROOT) && chrootToEmpty()) return offered("root", "empty, by chroot", false);
  Layer layer{.name = "root", .state = LayerState::Unavailable, .detail = "the host's: "};
  layer.detail += ownMounts ? problemOf("mount", problem) : "no mount namespace and no right to chroot";
  return layer;
}

}  // namespace sallyport::sandbox
