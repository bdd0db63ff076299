// report_test.cc - the judgement over layers. Part of: tests.
// Goal: nobody serves with less than the mandatory layers, and `full` not with a failed one; people can read why.
// Method: reports made by hand; nothing is locked down.
#include <signal.h>

#include <gtest/gtest.h>

#include "sandbox/sandbox.h"
#include "tests/unit/sandbox/in_child.h"

namespace sallyport::sandbox {
namespace {

Layer layer(const char* layerName, LayerState state, bool mandatory = false) {
  return {.name = layerName, .state = state, .detail = "because", .mandatory = mandatory};
}

Report reportOf(Profile profile, std::vector<Layer> layers) {
  Report report;
  report.profile = profile;
  report.layers = std::move(layers);
  return report;
}

TEST(Report, IsFullOnlyIfEveryLayerIsActive) {
  EXPECT_EQ(reportOf(Profile::Vaultd, {layer("root", LayerState::Active)}).verdict(), Verdict::Full);
  EXPECT_EQ(
      reportOf(Profile::Vaultd, {layer("root", LayerState::Active), layer("x", LayerState::Unavailable)}).verdict(),
      Verdict::Degraded);
  EXPECT_EQ(reportOf(Profile::Vaultd, {layer("root", LayerState::Active), layer("x", LayerState::Failed)}).verdict(),
            Verdict::Degraded);
}

TEST(Report, IsNoneIfNothingWasPutUp) {
  EXPECT_EQ(reportOf(Profile::Vaultd, {}).verdict(), Verdict::None);
  EXPECT_EQ(reportOf(Profile::Vaultd, {layer("root", LayerState::Disabled)}).verdict(), Verdict::None);
}

TEST(Report, FindsALayerByName) {
  const Report report =
      reportOf(Profile::Vaultd, {layer("root", LayerState::Active), layer("seccomp", LayerState::Failed)});
  ASSERT_NE(report.find("seccomp"), nullptr);
  EXPECT_EQ(report.find("seccomp")->state, LayerState::Failed);
  EXPECT_EQ(report.find("moat"), nullptr);
}

TEST(Report, DescribesOneLineALayer) {
  Report report =
      reportOf(Profile::Vaultd, {layer("root", LayerState::Active), layer("landlock", LayerState::Unavailable)});
  EXPECT_EQ(describe(report),
            "sandbox degraded\n"
            "  root         active      because\n"
            "  landlock     unavailable because\n");
  report.sanitizerBuild = true;
  EXPECT_NE(describe(report).find("(sanitizer build)"), std::string::npos);
}

TEST(Problems, FullRefusesAFailedLayer) {
  const Report report =
      reportOf(Profile::Vaultd, {layer("root", LayerState::Active), layer("rlimits", LayerState::Failed)});
  ASSERT_EQ(problems(report, SandboxRequirement::Full).size(), 1u);
  EXPECT_EQ(problems(report, SandboxRequirement::Full)[0], "rlimits: because");
}

TEST(Problems, FullAcceptsWhatTheHostDoesNotOffer) {
  const Report report =
      reportOf(Profile::Vaultd, {layer("root", LayerState::Unavailable), layer("landlock", LayerState::Active)});
  EXPECT_TRUE(problems(report, SandboxRequirement::Full).empty());
}

TEST(Problems, FullRefusesAMandatoryLayerThatTheHostDoesNotOffer) {
  const Report report = reportOf(Profile::Netd, {layer("seccomp", LayerState::Unavailable, true)});
  EXPECT_EQ(problems(report, SandboxRequirement::Full).size(), 1u);
}

TEST(Problems, KeysAndNetworkBytesNeedPathsShutOneWayOrTheOther) {
  for (Profile profile : {Profile::Vaultd, Profile::NetdWorker}) {
    const Report neither =
        reportOf(profile, {layer("root", LayerState::Unavailable), layer("landlock", LayerState::Unavailable)});
    EXPECT_EQ(problems(neither, SandboxRequirement::Full).size(), 1u);
    const Report root =
        reportOf(profile, {layer("root", LayerState::Active), layer("landlock", LayerState::Unavailable)});
    EXPECT_TRUE(problems(root, SandboxRequirement::Full).empty());
  }
  const Report monitor = reportOf(Profile::Netd, {layer("landlock", LayerState::Unavailable)});
  EXPECT_TRUE(problems(monitor, SandboxRequirement::Full).empty());
}

TEST(Problems, AvailableRefusesTheSameButFailedLayersThatAreNotMandatory) {
  const SandboxRequirement available = SandboxRequirement::Available;
  const Layer landlock = layer("landlock", LayerState::Active);
  for (LayerState state : {LayerState::Unavailable, LayerState::Failed}) {
    const auto found = problems(reportOf(Profile::Vaultd, {landlock, layer("seccomp", state, true)}), available);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0], "seccomp: because");
    EXPECT_TRUE(problems(reportOf(Profile::Vaultd, {landlock, layer("rlimits", state)}), available).empty());
    for (Profile profile : {Profile::Vaultd, Profile::NetdWorker}) {
      const auto open = problems(reportOf(profile, {layer("root", state), layer("landlock", state)}), available);
      ASSERT_EQ(open.size(), 1u);
      EXPECT_EQ(open[0], "neither an empty root nor landlock is to be had");
    }
    EXPECT_TRUE(problems(reportOf(Profile::Netd, {layer("landlock", state)}), available).empty());
  }
}

TEST(Problems, ARootThatStaysNeedsPathsShutInEveryDaemon) {
  const Layer user = layer("user", LayerState::Unavailable);
  for (Profile profile : {Profile::Vaultd, Profile::Netd, Profile::NetdResolver, Profile::HsmKeeper}) {
    for (SandboxRequirement requirement : {SandboxRequirement::Full, SandboxRequirement::Available}) {
      EXPECT_EQ(problems(reportOf(profile, {user, layer("landlock", LayerState::Unavailable)}), requirement).size(),
                1u);
      EXPECT_TRUE(problems(reportOf(profile, {user, layer("landlock", LayerState::Active)}), requirement).empty());
    }
  }
}

TEST(Problems, NoneAcceptsAnything) {
  const Report report = reportOf(Profile::Vaultd, {layer("seccomp", LayerState::Failed, true)});
  EXPECT_TRUE(problems(report, SandboxRequirement::None).empty());
}

TEST(TargetIdentity, IsOneselfUnlessRoot) {
  const ChildEnd end = inChild([] {
    if (geteuid() == 0 && setresuid(4321, 4321, 4321) != 0) return std::string("setresuid");
    const Identity identity = targetIdentity(optionsFor(Profile::Vaultd));
    return std::string(identity.uid == geteuid() ? "oneself" : "other");
  });
  EXPECT_EQ(end.text, "oneself");
}

TEST(TargetIdentity, OfRootIsTheUserOrAFixedNumber) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Options options = optionsFor(Profile::Vaultd);
  options.user = "nobody";
  EXPECT_EQ(targetIdentity(options).name, "nobody");
  EXPECT_EQ(targetIdentity(options).uid, 65534u);
  options.user = "no-such-user-here";
  EXPECT_EQ(targetIdentity(options).uid, FALLBACK_VAULT_ID);
  EXPECT_EQ(targetIdentity(options).gid, FALLBACK_VAULT_ID);
  options.profile = Profile::Netd;
  EXPECT_EQ(targetIdentity(options).uid, FALLBACK_NET_ID);
  options.requirement = SandboxRequirement::None;
  EXPECT_EQ(targetIdentity(options).uid, 0u);
}

TEST(ExplainExit, SaysHowAChildEnded) {
  EXPECT_EQ(explainExit(0, 1), "exited with status 0");
  EXPECT_EQ(explainExit(3 << 8, 1), "exited with status 3");
  EXPECT_EQ(explainExit(SIGKILL, 1), "was killed by SIGKILL");
  EXPECT_EQ(explainExit(SIGSEGV | 0x80, 1), "was killed by SIGSEGV");
  EXPECT_EQ(explainExit(SIGRTMIN + 3, 1), "was killed by signal " + std::to_string(SIGRTMIN + 3));
}

TEST(ExplainExit, NamesTheFilterForSigsys) {
  const std::string text = explainExit(SIGSYS, 1);
  EXPECT_TRUE(text.starts_with("was killed by its syscall filter")) << text;
}

}  // namespace
}  // namespace sallyport::sandbox
