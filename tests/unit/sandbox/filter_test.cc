// filter_test.cc - lock-down on other kernels, and the compiled-in policies. Part of: tests.
// Goal: a layer that fails is refused or reported as require_sandbox says, and the filter does what its policy says.
// Method: a filter of the test's own plays another kernel: single calls answer with an errno.
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <set>

#include "sandbox/policy.h"
#include "tests/unit/sandbox/in_child.h"

namespace sallyport::sandbox {
namespace {

constexpr uint64_t SET_MDWE = 65;
constexpr Profile PROFILES[] = {Profile::Vaultd,       Profile::Netd,      Profile::NetdWorker,
                                Profile::NetdResolver, Profile::HsmKeeper, Profile::HsmSoftHsm,
                                Profile::HsmNss,       Profile::HsmLocal,  Profile::HsmNetwork};

// Locks down where the calls answer so. The layer's state and detail, and the outcome.
std::string lockDownOn(std::initializer_list<Answer> answers, Profile profile, const char* layerName,
                       SandboxRequirement requirement = SandboxRequirement::Full) {
  const ChildEnd end = inChild([&] {
    pretend(answers);
    auto result = Sandbox(optionsFor(profile, requirement)).lockDown();
    const Report& report = result ? *result : result.error().report;
    const Layer* layer = report.find(layerName);
    return (layer == nullptr ? "missing" : std::string(name(layer->state)) + ": " + layer->detail) + "; " +
           outcomeOf(result);
  });
  EXPECT_EQ(end.status, 0) << explainExit(end.status, 0);
  return end.text;
}

TEST(LockDown, FullRefusesWhenALayerFails) {
  EXPECT_EQ(lockDownOn({{SCMP_SYS(prctl), EIO, SET_MDWE}}, Profile::Vaultd, "w^x"),
            "failed: prctl(PR_SET_MDWE): Input/output error; "
            "refused: the sandbox can't be put up: w^x: prctl(PR_SET_MDWE): Input/output error");
  EXPECT_EQ(lockDownOn({{SCMP_SYS(landlock_restrict_self), E2BIG}}, Profile::NetdWorker, "landlock"),
            "failed: landlock_restrict_self: Argument list too long; "
            "refused: the sandbox can't be put up: landlock: landlock_restrict_self: Argument list too long");
}

TEST(LockDown, AvailableServesWhenALayerFails) {
  EXPECT_EQ(lockDownOn({{SCMP_SYS(prctl), EIO, SET_MDWE}}, Profile::Vaultd, "w^x", SandboxRequirement::Available),
            "failed: prctl(PR_SET_MDWE): Input/output error; degraded");
}

TEST(LockDown, RefusalNamesEveryProblemAndHasAHint) {
  const ChildEnd end = inChild([] {
    pretend({{SCMP_SYS(prctl), EIO, SET_MDWE}, {SCMP_SYS(landlock_restrict_self), E2BIG}});
    auto result = Sandbox(optionsFor(Profile::Vaultd)).lockDown();
    return result ? "served" : result.error().message + "\n" + result.error().hint;
  });
  EXPECT_EQ(end.text,
            "the sandbox can't be put up: w^x: prctl(PR_SET_MDWE): Input/output error; landlock: "
            "landlock_restrict_self: Argument "
            "list too long\nrequire_sandbox = \"available\" serves with the layers that could be had");
}

TEST(LockDown, OnAKernelWithoutMdweTheFilterAloneKeepsCodeOut) {
  EXPECT_EQ(lockDownOn({{SCMP_SYS(prctl), EINVAL, SET_MDWE}}, Profile::Netd, "w^x"),
            "active: by the syscall filter alone: this kernel is older than 6.3; full");
}

TEST(LockDown, InAContainerServesWithoutNamespaces) {
  const ChildEnd end = inChild([] {
    pretendContainer();
    auto result = Sandbox(optionsFor(Profile::Vaultd)).lockDown();
    if (!result) return outcomeOf(result);
    return std::string(name(result->find("namespaces")->state)) + " " + std::string(name(result->find("root")->state)) +
           " " + outcomeOf(result);
  });
  EXPECT_EQ(end.text, "unavailable unavailable degraded");
}

TEST(LockDown, WithoutLandlockServesWithAnEmptyRoot) {
  const std::string text =
      lockDownOn({{SCMP_SYS(landlock_create_ruleset), EOPNOTSUPP}}, Profile::NetdWorker, "landlock");
  if (text.find("neither an empty root") != std::string::npos) GTEST_SKIP() << "this host offers no empty root";
  EXPECT_EQ(text, "unavailable: landlock_create_ruleset: Operation not supported; degraded");
}

TEST(LockDown, WithoutLandlockAndEmptyRootIsRefused) {
  EXPECT_EQ(lockDownOn({{SCMP_SYS(landlock_create_ruleset), EOPNOTSUPP},
                        {SCMP_SYS(unshare), EPERM},
                        {SCMP_SYS(mount), EPERM},
                        {SCMP_SYS(chroot), EPERM}},
                       Profile::Vaultd, "landlock"),
            "unavailable: landlock_create_ruleset: Operation not supported; "
            "refused: the sandbox can't be put up: neither an empty root nor landlock is to be had");
}

TEST(LockDown, WithoutSeccompIsRefused) {
  // What gVisor and kernels without CONFIG_SECCOMP_FILTER say.
  const std::string text = lockDownOn({{SCMP_SYS(seccomp), ENOSYS}}, Profile::Vaultd, "seccomp");
  EXPECT_NE(text.find("refused: the sandbox can't be put up: seccomp: "), std::string::npos) << text;
}

TEST(LockDown, AvailableRefusesWithoutWhatMustHold) {
  const SandboxRequirement available = SandboxRequirement::Available;
  const std::string filter = lockDownOn({{SCMP_SYS(seccomp), ENOSYS}}, Profile::Vaultd, "seccomp", available);
  EXPECT_NE(filter.find("refused: the sandbox can't be put up: seccomp: "), std::string::npos) << filter;
  EXPECT_EQ(lockDownOn({{SCMP_SYS(landlock_create_ruleset), EOPNOTSUPP},
                        {SCMP_SYS(unshare), EPERM},
                        {SCMP_SYS(mount), EPERM},
                        {SCMP_SYS(chroot), EPERM}},
                       Profile::NetdWorker, "landlock", available),
            "unavailable: landlock_create_ruleset: Operation not supported; "
            "refused: the sandbox can't be put up: neither an empty root nor landlock is to be had");
}

TEST(LockDown, RefusalWithoutWhatMustHoldDoesNotAdviseAvailable) {
  for (SandboxRequirement requirement : {SandboxRequirement::Full, SandboxRequirement::Available}) {
    const ChildEnd end = inChild([&] {
      pretend({{SCMP_SYS(seccomp), ENOSYS}});
      auto result = Sandbox(optionsFor(Profile::Vaultd, requirement)).lockDown();
      return result ? "served" : result.error().hint;
    });
    EXPECT_EQ(end.text,
              "no daemon serves without these layers, except with require_sandbox = \"none\", which is for debugging");
  }
}

TEST(LockDown, AsRootThatMayNotChangeItsUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const std::string text = lockDownOn({{SCMP_SYS(setresuid), EPERM}}, Profile::Vaultd, "user");
  EXPECT_TRUE(text.starts_with("unavailable: setresuid: Operation not permitted (becoming uid 65201); refused"))
      << text;
}

TEST(Filter, KillsBySigsys) {
  const ChildEnd end = inChild([] {
    auto result = Sandbox(optionsFor(Profile::Vaultd)).lockDown();
    syscall(SYS_getppid);
    return std::string("survived");
  });
  EXPECT_TRUE(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSYS) << end.text;
}

TEST(Filter, LooksAtAllSixtyFourBits) {
  const ChildEnd end = inChild([] {
    auto result = Sandbox(optionsFor(Profile::NetdWorker)).lockDown();
    syscall(SYS_mmap, 0, 4096, PROT_READ | 1UL << 32, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return std::string("survived");
  });
  EXPECT_TRUE(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGSYS) << end.text;
}

TEST(Filter, AnswersClone3AsAnOldKernelDoes) {
  const ChildEnd end = inChild([] {
    auto result = Sandbox(optionsFor(Profile::Vaultd)).lockDown();
    return std::string(syscall(SYS_clone3, nullptr, 0) == -1 && errno == ENOSYS ? "ENOSYS" : "other");
  });
  EXPECT_EQ(end.text, "ENOSYS");
}

TEST(Policy, OfHoldersOfKeysAndNetworkBytesHasNoPathSocketOrProcess) {
  for (Profile profile : {Profile::Vaultd, Profile::NetdWorker}) {
    EXPECT_EQ(policyOf(profile).defaultAction, Action::Kill);
    for (const Rule& rule : policyOf(profile).rules) {
      if (rule.action != Action::Allow) continue;
      for (int call :
           {SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(openat2), SCMP_SYS(socket), SCMP_SYS(connect), SCMP_SYS(bind),
            SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(clone), SCMP_SYS(fork), SCMP_SYS(kill), SCMP_SYS(ptrace)}) {
        EXPECT_NE(rule.syscall, call);
      }
    }
  }
}

TEST(Policy, OfEveryProfileIsBoundedAndHasADefault) {
  for (Profile profile : PROFILES) {
    EXPECT_NE(policyOf(profile).defaultAction, Action::Allow);
    EXPECT_FALSE(policyOf(profile).rules.empty());
    for (const Rule& rule : policyOf(profile).rules) {
      EXPECT_LE(rule.conditionCount, MAX_CONDITIONS);
      std::set<int> arguments;
      for (unsigned i = 0; i < rule.conditionCount; ++i) {
        EXPECT_LT(rule.conditions[i].argument, 6);
        EXPECT_TRUE(arguments.insert(rule.conditions[i].argument).second);
        EXPECT_EQ(rule.conditions[i].value & ~rule.conditions[i].mask, 0u) << "could never hold";
      }
    }
  }
}

}  // namespace
}  // namespace sallyport::sandbox
