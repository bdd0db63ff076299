// namespaces.cc - an own, empty network and an empty root folder. Part of: sandbox (vaultd and netd-worker; never the
// monitor, which binds, dials and runs programs on the host).
//
// As root the capabilities that becomeUser() kept suffice. Without them an own user namespace provides them, with this
// one uid mapped to itself; all other users then look like 65534 to SO_PEERCRED, which is enough to tell "me" from "not
// me".
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

// 0, or the errno of unshare(). `detail` hears of a map that couldn't be written; the namespace holds all the same.
int enterUserNamespace(std::string& detail) {
  const std::string uid = std::to_string(geteuid());
  const std::string gid = std::to_string(getegid());
  // A process that isn't dumpable doesn't own its files in /proc. No secret is loaded yet.
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  if (unshare(CLONE_NEWUSER) != 0) return errno;
  writeText("/proc/self/setgroups", "deny");
  detail = "user";
  if (!writeText("/proc/self/uid_map", uid + " " + uid + " 1") ||
      !writeText("/proc/self/gid_map", gid + " " + gid + " 1")) {
    detail += " (without a uid map)";
  }
  return 0;
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
  const long child =
      syscall(SYS_clone, CLONE_FS, 0, 0, 0, 0);  // no exit signal: the daemon's SIGCHLD handling sleeps on
  if (child == 0) {
    const bool done = chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0;
    syscall(SYS_exit_group, done ? 0 : 1);
  }
  if (child < 0) return false;
  int status = 0;
  pid_t ended;
  do ended = waitpid(static_cast<pid_t>(child), &status, __WALL);
  while (ended < 0 && errno == EINTR);
  return ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

Layer enterNamespaces(bool& ownMounts) {
  std::string held;
  if (!hasCapability(CAP_SYS_ADMIN)) {
    if (const int problem = enterUserNamespace(held); problem != 0) {
      return notHeld("namespaces", "unshare(user)", problem == EINVAL ? ENOSYS : problem, false);
    }
  }
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
