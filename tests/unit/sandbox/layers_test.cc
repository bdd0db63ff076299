// layers_test.cc - the layers one by one. Part of: tests.
// Goal: each layer takes away what it says, keeps what a daemon needs, and says so when the host doesn't offer it.
// Method: children put layers up and then try; without the filter, so that the layer itself has to answer.
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "sandbox/layers.h"
#include "tests/unit/sandbox/in_child.h"

namespace sallyport::sandbox {
namespace {

namespace fs = std::filesystem;

// A folder that anyone may use, gone after the test.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/sandbox-test-XXXXXX";
    path_ = mkdtemp(name);
    fs::permissions(path_, fs::perms::all);
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const char* file) const { return path_ / file; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string openingSays(const fs::path& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) return strerrorname_np(errno);
  close(fd);
  return "opened";
}

std::string bindingSays(const fs::path& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 ? "bound" : strerrorname_np(errno);
}

// Not so inside a plain chroot.
bool rootIsMounted() {
  struct statx root {};
  return statx(AT_FDCWD, "/", 0, STATX_BASIC_STATS, &root) == 0 && (root.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

// In braces, so that they happen in order.
std::string join(std::initializer_list<std::string> words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

void writeFile(const fs::path& path) { std::ofstream(path) << "text"; }

// As somebody who was started without these capabilities.
bool giveUp(std::initializer_list<unsigned> capabilities) {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &head, data) != 0) return false;
  for (const unsigned capability : capabilities) {
    data[capability / 32].effective &= ~(1U << capability % 32);
    data[capability / 32].permitted &= ~(1U << capability % 32);
  }
  return syscall(SYS_capset, &head, data) == 0;
}

// Without the filter a test can look around; the layers are the same ones, in the same order, but for seccomp.
std::string lockDownWithoutFilter(Options options) {
  for (const Layer& layer : {becomeUser(options), forbidDumps(), setLimits(options), dropCapabilities(),
                             setNoNewPrivileges(), forbidNewCode(), restrictPaths(options)}) {
    if (layer.state != LayerState::Active) return layer.name + ": " + layer.detail;
  }
  return {};
}

TEST(LockDown, HoldsInFullOrSaysWhatTheHostLacks) {
  for (Profile profile :
       {Profile::Vaultd, Profile::Netd, Profile::NetdWorker, Profile::NetdResolver, Profile::HsmKeeper,
        Profile::HsmSoftHsm, Profile::HsmNss, Profile::HsmLocal, Profile::HsmNetwork}) {
    const ChildEnd end = inChild([&] {
      auto result = Sandbox(optionsFor(profile)).lockDown();
      if (!result) return outcomeOf(result);
      for (const Layer& layer : result->layers) {
        if (layer.detail.empty()) return "no detail: " + layer.name;
        if (layer.state == LayerState::Failed || layer.state == LayerState::Disabled) return describe(*result);
      }
      return std::string("good");
    });
    EXPECT_EQ(end.status, 0);
    EXPECT_EQ(end.text, "good");
  }
}

TEST(LockDown, WithRequirementNoneChangesNothingAndSaysSo) {
  const ChildEnd end = inChild([] {
    auto result = Sandbox(optionsFor(Profile::Vaultd, SandboxRequirement::None)).lockDown();
    if (!result || prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0 || openingSays("/etc/passwd", O_RDONLY) != "opened") {
      return std::string("something was put up");
    }
    for (const Layer& layer : result->layers) {
      if (layer.state != LayerState::Disabled) return layer.name + " isn't disabled";
    }
    return std::string(name(result->verdict()));
  });
  EXPECT_EQ(end.text, "none");
}

TEST(Enter, KeepsPathsUsableUntilLockDown) {
  Folder folder;
  const ChildEnd end = inChild([&] {
    Sandbox sandbox(optionsFor(Profile::Vaultd));
    sandbox.enter();
    sandbox.enter();  // once is enough, twice is harmless
    writeFile(folder / "state");
    const std::string before = join({openingSays(folder / "state", O_RDWR), bindingSays(folder / "socket")});
    auto result = sandbox.lockDown();
    return before + " " + (result ? std::to_string(result->layers.size()) : outcomeOf(result));
  });
  EXPECT_EQ(end.text, "opened bound 10");
}

TEST(Enter, LeavesOwnUidVisibleToPeers) {
  const ChildEnd end = inChild([] {
    Sandbox sandbox(optionsFor(Profile::Vaultd));
    sandbox.enter();
    int pair[2];
    ucred peer{};
    socklen_t size = sizeof peer;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return std::string("socketpair");
    if (getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::string("getsockopt");
    return std::string(peer.uid == geteuid() ? "own" : "other");
  });
  EXPECT_EQ(end.text, "own");
}

// The kernel's answer, in this process's user namespace, to who made the pair.
std::string makerOf(const int (&pair)[2]) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return "getsockopt";
  return "uid " + std::to_string(peer.uid);
}

TEST(Enter, OfAVaultOfRootLeavesEverybodyVisible) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const ChildEnd end = inChild([] {
    if (!giveUp({CAP_SYS_ADMIN})) return std::string("capset");
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return std::string("socketpair");
    Sandbox sandbox(optionsFor(Profile::Vaultd));
    sandbox.enter();
    const std::string before = join({geteuid() != 0 ? "not root," : "root,", makerOf(pair)});
    auto result = sandbox.lockDown();
    if (!result) return outcomeOf(result);
    const Layer* layer = result->find("namespaces");
    return join({before + ";", std::string(name(layer->state)), layer->detail});
  });
  EXPECT_EQ(end.text,
            "not root, uid 0; unavailable none: without CAP_SYS_ADMIN they need a user namespace, which would hide who "
            "connects");
}

// AppArmor's doing on some hosts; here /proc that can't be written keeps the map away.
TEST(Enter, OfAVaultThatCantBeMappedMakesNoUserNamespace) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const ChildEnd end = inChild([] {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount(nullptr, "/proc", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) != 0)
      return std::string("can't play it");
    if (setresgid(4321, 4321, 4321) != 0 || setresuid(4321, 4321, 4321) != 0) return std::string("setresuid");
    Sandbox sandbox(optionsFor(Profile::Vaultd));
    sandbox.enter();
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return std::string("socketpair");
    const std::string maker = makerOf(pair);
    auto result = sandbox.lockDown();
    if (!result) return outcomeOf(result);
    return join({maker, std::string(name(result->find("namespaces")->state))});
  });
  if (end.text == "can't play it") GTEST_SKIP() << "this host doesn't let /proc be made read-only";
  EXPECT_EQ(end.text, "uid 4321 unavailable");
}

TEST(LockDown, AsRootWithoutTheRightToBecomeAnotherStaysAndSaysSo) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const std::pair<unsigned, const char*> rights[] = {
      {CAP_SETUID, "CAP_SETUID"}, {CAP_SETGID, "CAP_SETGID"}, {CAP_CHOWN, "CAP_CHOWN"}};
  for (const auto& right : rights) {
    for (Profile profile : {Profile::Vaultd, Profile::Netd, Profile::NetdWorker, Profile::HsmKeeper}) {
      const ChildEnd end = inChild([&] {
        if (!giveUp({right.first})) return std::string("capset");
        if (targetIdentity(optionsFor(profile)).uid != 0) return std::string("somebody else is announced");
        auto result = Sandbox(optionsFor(profile)).lockDown();
        if (!result) return outcomeOf(result);
        const Layer* layer = result->find("user");
        return join({std::string(name(layer->state)), layer->detail, std::string(name(result->verdict()))});
      });
      EXPECT_EQ(end.status, 0) << explainExit(end.status, 0);
      EXPECT_TRUE(end.text.starts_with(std::string("unavailable uid 0, as started: without ") + right.second +
                                       " it can't become ") &&
                  end.text.ends_with(" degraded"))
          << end.text;
    }
  }
}

TEST(LockDown, AsRootOfANamespaceWithOneUserIsThatUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to be another user first";
  for (Profile profile : {Profile::Vaultd, Profile::Netd, Profile::NetdWorker, Profile::NetdResolver}) {
    const ChildEnd end = inChild([&] {
      if (setresgid(4321, 4321, 4321) != 0 || setresuid(4321, 4321, 4321) != 0) return std::string("setresuid");
      prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
      if (unshare(CLONE_NEWUSER) != 0) return std::string("can't play it");
      std::ofstream("/proc/self/setgroups") << "deny";
      std::ofstream("/proc/self/uid_map") << "0 4321 1";
      std::ofstream("/proc/self/gid_map") << "0 4321 1";
      if (geteuid() != 0) return std::string("can't play it");
      if (targetIdentity(optionsFor(profile)).uid != 0) return std::string("somebody else is announced");
      auto result = Sandbox(optionsFor(profile)).lockDown();
      if (!result) return outcomeOf(result);
      const Layer* layer = result->find("user");
      return join({std::string(name(layer->state)), layer->detail});
    });
    if (end.text == "can't play it") GTEST_SKIP() << "this host offers no user namespaces";
    EXPECT_EQ(end.text, "active uid 0 of a user namespace, 4321 outside, as started");
  }
}

TEST(LockDown, InANamespaceWithoutAMapIsRefusedWithTheRemedy) {
  const ChildEnd end = inChild([] {
    if (unshare(CLONE_NEWUSER) != 0) return std::string("can't play it");
    auto result = Sandbox(optionsFor(Profile::Netd)).lockDown();
    return result ? "served" : result.error().message + "\n" + result.error().hint;
  });
  if (end.text == "can't play it") GTEST_SKIP() << "this host offers no user namespaces";
  EXPECT_EQ(end.text,
            "the sandbox can't be put up: user: this user namespace has no map for the user who started it\n"
            "start it with a map, e.g. `unshare --user --map-current-user`, or outside of that namespace");
}

TEST(LockDown, AsAUserWhoIsRootIsRefusedWithTheRemedy) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  for (SandboxRequirement requirement : {SandboxRequirement::Full, SandboxRequirement::Available}) {
    const ChildEnd end = inChild([&] {
      Options options = optionsFor(Profile::Vaultd, requirement);
      options.user = "root";
      auto result = Sandbox(options).lockDown();
      return result ? "served" : result.error().message + "\n" + result.error().hint;
    });
    EXPECT_EQ(end.text,
              "the sandbox can't be put up: user: root is root\n"
              "`user` in [vault], [net] and [token] is for another user than root: name one, or leave it out");
  }
}

TEST(LockDown, EmptiesTheRoot) {
  const ChildEnd end = inChild([] {
    bool ownMounts = false;
    const Options options = optionsFor(Profile::Vaultd);
    becomeUser(options);
    const Layer namespaces = enterNamespaces(MustSee::Nobody, ownMounts);
    const Layer root = emptyRoot(ownMounts);
    if (root.state != LayerState::Active) return std::string("unavailable");
    return join({root.detail, openingSays("/etc/passwd", O_RDONLY), openingSays("/file", O_CREAT | O_WRONLY),
                 openingSays("../../etc/passwd", O_RDONLY), openingSays("/proc/self/status", O_RDONLY)});
  });
  if (end.text == "unavailable") GTEST_SKIP() << "this host offers no empty root";
  if (rootIsMounted())
    EXPECT_EQ(end.text, "empty, read-only ENOENT EROFS ENOENT ENOENT");
  else  // in somebody's chroot: such a root can't be exchanged, only left for another
    EXPECT_EQ(end.text, "empty, by chroot ESRCH ESRCH ESRCH ESRCH");
}

TEST(LockDown, EmptiesTheRootByChrootWhereMountingIsRefused) {
  const ChildEnd end = inChild([] {
    bool ownMounts = false;
    becomeUser(optionsFor(Profile::NetdWorker));
    enterNamespaces(MustSee::Nobody, ownMounts);
    pretend({{SCMP_SYS(mount), EPERM}});
    const Layer root = emptyRoot(ownMounts);
    if (root.state != LayerState::Active) return "unavailable: " + root.detail;
    return join({root.detail, openingSays("/etc/passwd", O_RDONLY), openingSays("/file", O_CREAT | O_WRONLY),
                 openingSays("../../etc/passwd", O_RDONLY)});
  });
  if (end.text.starts_with("unavailable")) GTEST_SKIP() << end.text;
  // The process whose folder this was is gone.
  EXPECT_EQ(end.text, "empty, by chroot ESRCH ESRCH ESRCH");
}

TEST(LockDown, GivesTheVaultAnEmptyNetwork) {
  const ChildEnd end = inChild([] {
    bool ownMounts = false;
    becomeUser(optionsFor(Profile::Vaultd));
    const Layer layer = enterNamespaces(MustSee::Nobody, ownMounts);
    if (layer.state != LayerState::Active) return std::string("unavailable");
    std::ifstream devices("/proc/net/dev");
    size_t lines = 0;
    for (std::string line; std::getline(devices, line);) ++lines;
    return std::to_string(lines - 2) + " device";  // lo, which is down
  });
  if (end.text == "unavailable") GTEST_SKIP() << "this host offers no namespaces";
  EXPECT_EQ(end.text, "1 device");
}

TEST(Landlock, LetsTheMonitorReachItsOwnPathsOnly) {
  Folder config, sockets, elsewhere;
  writeFile(config / "sallyport.toml");
  writeFile(elsewhere / "secret");
  const ChildEnd end = inChild([&] {
    Options options = optionsFor(Profile::Netd);
    options.paths = {{.path = config.path(), .access = PathAccess::Read},
                     {.path = sockets.path(), .access = PathAccess::Sockets}};
    if (std::string problem = lockDownWithoutFilter(options); !problem.empty()) return problem;
    return join({openingSays(config / "sallyport.toml", O_RDONLY), openingSays(config / "sallyport.toml", O_WRONLY),
                 openingSays(config / "new", O_CREAT | O_WRONLY), bindingSays(config / "socket"),
                 bindingSays(sockets / "socket"), std::to_string(unlink((sockets / "socket").c_str())),
                 openingSays(sockets / "new", O_CREAT | O_WRONLY), openingSays(elsewhere / "secret", O_RDONLY),
                 bindingSays(elsewhere / "socket")});
  });
  EXPECT_EQ(end.text, "opened EACCES EACCES EACCES bound 0 EACCES EACCES EACCES");
}

TEST(Landlock, LeavesTheVaultNoPathAndNoPort) {
  Folder folder;
  writeFile(folder / "file");
  const ChildEnd end = inChild([&] {
    if (std::string problem = lockDownWithoutFilter(optionsFor(Profile::Vaultd)); !problem.empty()) return problem;
    return join({openingSays(folder / "file", O_RDONLY), openingSays("/", O_RDONLY), bindingSays(folder / "socket")});
  });
  EXPECT_EQ(end.text, "EACCES EACCES EACCES");
}

TEST(Landlock, KeepsOpenFilesUsable) {
  Folder folder;
  writeFile(folder / "file");
  const ChildEnd end = inChild([&] {
    const int fd = open((folder / "file").c_str(), O_RDWR | O_CLOEXEC);
    auto result = Sandbox(optionsFor(Profile::Vaultd)).lockDown();
    if (!result) return outcomeOf(result);
    return std::string(pwrite(fd, "TEXT", 4, 0) == 4 && fdatasync(fd) == 0 ? "written" : "refused");
  });
  EXPECT_EQ(end.text, "written");
}

TEST(Landlock, FailsOnAMissingPathUnlessItIsOptional) {
  for (bool optional : {false, true}) {
    const ChildEnd end = inChild([&] {
      Options options = optionsFor(Profile::Netd);
      options.paths = {{.path = "/no/such/folder", .access = PathAccess::Read, .optional = optional}};
      return outcomeOf(Sandbox(options).lockDown());
    });
    if (optional)
      EXPECT_EQ(end.text, "full");
    else
      EXPECT_EQ(end.text, "refused: the sandbox can't be put up: landlock: /no/such/folder: No such file or directory");
  }
}

TEST(LockDown, AsRootBecomesAnotherUserWithoutAnyPower) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const ChildEnd end = inChild([] {
    Options options = optionsFor(Profile::Netd);
    options.user = "nobody";
    if (std::string problem = lockDownWithoutFilter(options); !problem.empty()) return problem;
    uid_t ids[3];
    getresuid(&ids[0], &ids[1], &ids[2]);
    if (ids[0] != 65534 || ids[1] != 65534 || ids[2] != 65534) return std::string("uid");
    if (getgroups(0, nullptr) != 0) return std::string("groups");
    if (setresuid(0, 0, 0) == 0) return std::string("came back");
    for (unsigned capability = 0; capability <= CAP_LAST_CAP; ++capability) {
      if (hasCapability(capability)) return "capability " + std::to_string(capability);
      if (prctl(PR_CAPBSET_READ, capability, 0, 0, 0) != 0) return "bounding " + std::to_string(capability);
    }
    if (prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) != 0xef) return std::string("securebits");
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) return std::string("dumpable");
    rlimit core{};
    getrlimit(RLIMIT_CORE, &core);
    return std::string(core.rlim_max == 0 ? "powerless" : "core");
  });
  EXPECT_EQ(end.text, "powerless");
}

TEST(Enter, OfTheMonitorKeepsTheRightToLowPortsUntilLockDown) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const ChildEnd end = inChild([] {
    Options options = optionsFor(Profile::Netd);
    becomeUser(options);
    const bool before =
        hasCapability(CAP_NET_BIND_SERVICE) && !hasCapability(CAP_DAC_OVERRIDE) && !hasCapability(CAP_SETUID);
    dropCapabilities();
    return std::string(before && !hasCapability(CAP_NET_BIND_SERVICE) ? "as meant" : "not so");
  });
  EXPECT_EQ(end.text, "as meant");
}

TEST(Limits, DoNotKillTheWriterOfALogFile) {
  Folder folder;
  const ChildEnd end = inChild([&] {
    const int log = open((folder / "log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(log, STDERR_FILENO);
    auto result = Sandbox(optionsFor(Profile::NetdWorker)).lockDown();
    if (!result) return outcomeOf(result);
    return std::string(write(STDERR_FILENO, "line\n", 5) == 5 ? "logged" : "lost");
  });
  EXPECT_EQ(end.status, 0);
  EXPECT_EQ(end.text, "logged");
}

TEST(Limits, LowerTheNumberOfOpenFiles) {
  const ChildEnd end = inChild([] {
    Options options = optionsFor(Profile::Vaultd);
    options.maxOpenFiles = 64;
    setLimits(options);
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    return std::to_string(files.rlim_cur) + " " + std::to_string(files.rlim_max);
  });
  EXPECT_EQ(end.text, "64 64");
}

}  // namespace
}  // namespace sallyport::sandbox
