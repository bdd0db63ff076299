// Goal: the board, the settings, the plan of restarts, the source of a PIN and the page keep their promises when what
// is in them was written by somebody else.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "hsmd/board.h"
#include "hsmd/lockdown.h"
#include "hsmd/pin_source.h"
#include "hsmd/restart_plan.h"
#include "hsmd/settings.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::hsmd {
namespace {

using hsm::Trial;

// --- the board -------------------------------------------------------------------------------------------------------

TEST(BoardTest, NamesWhatIsTriedBeforeItIs) {
  Board board{};
  ASSERT_TRUE(board.begin("a"));
  EXPECT_EQ(board.find("a")->trial, Trial::Untried);
  board.end("a", Trial::Refused, 0x70, 12);
  EXPECT_EQ(board.find("a")->ckr, 0x70U);
  EXPECT_FALSE(board.begin("a")) << "it has its outcome";
  EXPECT_FALSE(board.works("a"));
  ASSERT_TRUE(board.begin("b"));
  board.end("b", Trial::Works, 0, 7);
  EXPECT_TRUE(board.works("b"));
}

TEST(BoardTest, WhatAProbeDiedOfIsNotBegunAgain) {
  Board board{};
  ASSERT_TRUE(board.begin("a"));
  EXPECT_TRUE(board.abandon(Trial::TimedOut));
  EXPECT_FALSE(board.abandon(Trial::Crashed));
  EXPECT_EQ(board.find("a")->trial, Trial::TimedOut);
  EXPECT_FALSE(board.begin("a"));
}

TEST(BoardTest, WhatHungMayBeTriedOnceMoreInANewRound) {
  Board board{};
  ASSERT_TRUE(board.begin("hangs"));
  board.abandon(Trial::TimedOut);
  ASSERT_TRUE(board.begin("crashes"));
  board.abandon(Trial::Crashed);
  board.retryTimedOut();
  EXPECT_TRUE(board.begin("hangs"));
  EXPECT_FALSE(board.begin("crashes"));
}

TEST(BoardTest, GrowsItsStepsWithEachBeginAndEnd) {
  Board board{};
  board.begin("a");
  const uint32_t begun = board.steps;
  board.end("a", Trial::Works, 0, 0);
  EXPECT_GT(board.steps, begun);
}

TEST(BoardTest, IsFullAtItsEnd) {
  Board board{};
  for (uint32_t i = 0; i < Board::MAX_ENTRIES; ++i) ASSERT_TRUE(board.begin("trial " + std::to_string(i)));
  EXPECT_FALSE(board.begin("one more"));
  EXPECT_EQ(board.size(), Board::MAX_ENTRIES);
}

TEST(BoardTest, BelievesNothingThatAModuleMayHaveWritten) {
  Board board{};
  board.begin("a");
  board.count = 4'000'000'000U;
  EXPECT_EQ(board.size(), Board::MAX_ENTRIES);
  board.entries[3].trial = 77;
  EXPECT_EQ(board.at(3).trial, Trial::Crashed);
  board.entries[4].name.fill('x');
  EXPECT_EQ(board.at(4).name.size(), 48U);
  EXPECT_FALSE(board.find("nothing"));
}

// --- settings --------------------------------------------------------------------------------------------------------

TEST(Settings, ComeOutAsTheyWentIn) {
  TokenConfig token;
  token.module = "/lib/a:b.so";
  token.uri = "pkcs11:token=a";
  token.initArgs = "configdir='sql:/x' 3:abc";
  token.profile = ModuleProfile::Nss;
  token.requireSandbox = SandboxRequirement::Available;
  token.workers = 3;
  token.maxSessions = 9;
  token.sessionCopy = true;
  token.readPaths = {"/r1", "/r2"};
  token.writePaths = {"/w"};
  const std::string text = WorkerSettings::of(token, true).write();
  const auto settings = WorkerSettings::parse(text);
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->module, "/lib/a:b.so");
  EXPECT_EQ(settings->initArguments, token.initArgs);
  EXPECT_EQ(settings->profile, ModuleProfile::Nss);
  EXPECT_EQ(settings->requirement, SandboxRequirement::Available);
  EXPECT_EQ(settings->workers, 3U);
  EXPECT_EQ(settings->maxSessions, 9U);
  EXPECT_TRUE(settings->sessionCopy && settings->operatorMode);
  EXPECT_EQ(settings->readPaths, (std::vector<std::string>{"/r1", "/r2"}));
  EXPECT_EQ(settings->write(), text);
}

TEST(Settings, DontSurviveACut) {
  const std::string text = WorkerSettings::of({}, false).write();
  for (size_t length = 0; length < text.size(); ++length)
    EXPECT_FALSE(WorkerSettings::parse(text.substr(0, length))) << length;
  EXPECT_FALSE(WorkerSettings::parse(text + "1:x"));
  EXPECT_FALSE(WorkerSettings::parse("99999999999999999999:x"));
  EXPECT_FALSE(WorkerSettings::parse("-1:x"));
}

TEST(Settings, OfALauncherComeOutOfTheirFileAsTheyWentIn) {
  LauncherSettings settings{
      .token = "hsm1", .stepMs = 5'000'000'000, .requirement = SandboxRequirement::None, .environment = {"A=b", "C="}};
  for (int i = 0; i < 100; ++i) settings.environment.push_back("V" + std::to_string(i) + "=" + std::string(1000, 'x'));
  const int fd = settingsFile(settings.write());
  ASSERT_GE(fd, 0);
  EXPECT_EQ(pwrite(fd, "x", 1, 0), -1) << "nobody writes there any more";
  const auto read = LauncherSettings::parse(readSettings(fd));
  close(fd);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->token, "hsm1");
  EXPECT_EQ(read->stepMs, 5'000'000'000U);
  EXPECT_EQ(read->requirement, SandboxRequirement::None);
  EXPECT_EQ(read->environment, settings.environment);
  const std::string text = LauncherSettings{}.write();
  for (size_t length = 0; length < text.size(); ++length)
    EXPECT_FALSE(LauncherSettings::parse(text.substr(0, length))) << length;
  EXPECT_FALSE(LauncherSettings::parse(text + "1:x"));
  EXPECT_EQ(readSettings(-1), "");
}

// --- restarts --------------------------------------------------------------------------------------------------------

TEST(Restarts, WaitLongerEachTimeButNotForever) {
  RestartPlan plan;
  uint32_t last = 0;
  for (int i = 0; i < 20; ++i) {
    const uint32_t delay = plan.ended(1000, false);
    EXPECT_GE(delay, last);
    EXPECT_GE(delay, RestartPlan::FIRST_MS);
    EXPECT_LE(delay, RestartPlan::MOST_MS);
    last = delay;
  }
  EXPECT_EQ(last, RestartPlan::MOST_MS);
}

TEST(Restarts, StartOverAfterAStableWhile) {
  RestartPlan plan;
  for (int i = 0; i < 10; ++i) plan.ended(1000, false);
  plan.cameUp(50'000);
  EXPECT_GT(plan.ended(50'000 + RestartPlan::STABLE_AFTER_MS - 1, false), RestartPlan::FIRST_MS);
  plan.cameUp(100'000);
  EXPECT_EQ(plan.ended(100'000 + RestartPlan::STABLE_AFTER_MS, false), RestartPlan::FIRST_MS);
}

TEST(Restarts, ComeAtOnceWhenWantedButNotInALoop) {
  RestartPlan plan;
  EXPECT_EQ(plan.ended(1000, true), 0U);
  EXPECT_GT(plan.ended(1001, true), 0U);
  EXPECT_EQ(plan.ended(5000, true), 0U);
}

TEST(Restarts, AWantedOneAfterFaultsDoesntWaitForThem) {
  RestartPlan plan;
  for (int i = 0; i < 10; ++i) plan.ended(1000, false);
  EXPECT_EQ(plan.ended(9000, true), 0U);
}

TEST(Restarts, ATokenThatWasAwayForLongIsNoReasonToWaitAfterACrash) {
  RestartPlan plan;
  uint32_t last = 0;
  for (int i = 0; i < 20; ++i) last = plan.absent();
  EXPECT_EQ(last, RestartPlan::MOST_MS) << "it is looked for ever more rarely";
  plan.cameUp(50'000);
  EXPECT_EQ(plan.ended(50'800, false), RestartPlan::FIRST_MS);
  EXPECT_EQ(plan.absent(), RestartPlan::FIRST_MS) << "it was there in between";
}

TEST(Restarts, CrashesAreCountedThroughAnAbsence) {
  RestartPlan plan;
  for (int i = 0; i < 20; ++i) plan.ended(1000, false);
  plan.absent();
  plan.cameUp(2000);
  EXPECT_EQ(plan.ended(2100, false), RestartPlan::MOST_MS);
}

// --- PINs ------------------------------------------------------------------------------------------------------------

class PinSources : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  PinRecord record_{};

  std::filesystem::path file(const std::string& content, mode_t mode = 0400) {
    const auto path = folder_.path() / "pin";
    std::filesystem::remove(path);
    std::ofstream(path) << content;
    chmod(path.c_str(), mode);
    return path;
  }
  std::string pin() const { return {reinterpret_cast<const char*>(record_.pin().data()), record_.pin().size()}; }
};

TEST_F(PinSources, AFileLosesItsNewline) {
  for (const char* text : {"12 34", "12 34\n", "12 34\r\n"}) {
    EXPECT_EQ(fetchPin(PinFile{file(text)}, geteuid(), record_), "");
    EXPECT_EQ(pin(), "12 34");
    EXPECT_EQ(record_.state, PinState::Untried);
  }
}

TEST_F(PinSources, AFileThatOthersReadIsRefused) {
  for (const mode_t mode : {0440, 0404, 0644, 0500, 0420}) {
    const std::string problem = fetchPin(PinFile{file("1234", mode)}, geteuid(), record_);
    EXPECT_NE(problem.find("others may read it"), std::string::npos) << mode << problem;
    EXPECT_EQ(problem.find("1234"), std::string::npos);
    EXPECT_EQ(record_.state, PinState::Missing);
    EXPECT_EQ(record_.reason(), problem) << "who waits for the PIN hears no reason";
  }
  EXPECT_EQ(fetchPin(PinFile{file("1234", 0600)}, geteuid(), record_), "");
  EXPECT_EQ(record_.reason(), "");
}

TEST_F(PinSources, TheReasonStandsBehindALongPathToo) {
  const std::filesystem::path path = "/" + std::string(150, 'a') + "/" + std::string(150, 'b');
  fetchPin(PinFile{path}, geteuid(), record_);
  EXPECT_EQ(record_.reason().size(), hsm::MAX_DETAIL_BYTES);
  EXPECT_NE(record_.reason().find("bbb: No such file or directory"), std::string::npos) << record_.reason();
}

TEST_F(PinSources, AFileOfSomebodyElseIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const auto path = file("1234");
  ASSERT_EQ(chown(path.c_str(), 4711, 4711), 0);
  EXPECT_NE(fetchPin(PinFile{path}, 4712, record_).find("belongs neither"), std::string::npos);
  EXPECT_EQ(fetchPin(PinFile{path}, 4711, record_), "");
}

TEST_F(PinSources, WhatIsNoPinLeavesNone) {
  EXPECT_NE(fetchPin(PinFile{file("")}, geteuid(), record_), "");
  EXPECT_NE(fetchPin(PinFile{file("\n")}, geteuid(), record_), "");
  EXPECT_NE(fetchPin(PinFile{file(std::string(65, '1'))}, geteuid(), record_), "");
  EXPECT_EQ(fetchPin(PinFile{file(std::string(64, '1') + "\r\n")}, geteuid(), record_), "");
  EXPECT_NE(fetchPin(PinFile{file(std::string(5000, '1'))}, geteuid(), record_), "");
  EXPECT_NE(fetchPin(PinFile{"/does/not/exist"}, geteuid(), record_), "");
  EXPECT_NE(fetchPin(PinFile{folder_.path()}, geteuid(), record_), "");
  EXPECT_EQ(record_.state, PinState::Missing);
}

TEST_F(PinSources, ALinkOrAPipeIsNoFile) {
  const auto target = file("1234");
  const auto link = folder_.path() / "link";
  std::filesystem::create_symlink(target, link);
  EXPECT_NE(fetchPin(PinFile{link}, geteuid(), record_).find("it is a symbolic link"), std::string::npos);
  const auto pipe = folder_.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0400), 0);
  EXPECT_NE(fetchPin(PinFile{pipe}, geteuid(), record_), "");
}

TEST_F(PinSources, ADescriptorIsReadToItsEndAndClosed) {
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  ASSERT_EQ(write(ends[1], "1234\n", 5), 5);
  close(ends[1]);
  EXPECT_EQ(fetchPin(PinDescriptor{ends[0]}, geteuid(), record_), "");
  EXPECT_EQ(pin(), "1234");
  EXPECT_EQ(fcntl(ends[0], F_GETFD), -1);
  EXPECT_NE(fetchPin(PinDescriptor{ends[0]}, geteuid(), record_), "");
}

TEST_F(PinSources, ACredentialIsSystemds) {
  unsetenv("CREDENTIALS_DIRECTORY");
  EXPECT_NE(fetchPin(PinCredential{"pin"}, geteuid(), record_).find("CREDENTIALS_DIRECTORY"), std::string::npos);
  file("1234");
  setenv("CREDENTIALS_DIRECTORY", folder_.path().c_str(), 1);
  EXPECT_EQ(fetchPin(PinCredential{"pin"}, geteuid(), record_), "");
  EXPECT_EQ(pin(), "1234");
  unsetenv("CREDENTIALS_DIRECTORY");
}

TEST_F(PinSources, AskingLeavesItToAnOperator) {
  ASSERT_TRUE(record_.give(asBytes("old")));
  EXPECT_EQ(fetchPin(PinAsk{}, geteuid(), record_), "");
  EXPECT_EQ(record_.state, PinState::Missing);
  EXPECT_EQ(record_.length, 0U);
}

TEST(SharedMemoryTest, IsZeroAndShared) {
  bool secret = false;
  const int fd = SharedMemory::create("test", PIN_PAGE_BYTES, secret);
  ASSERT_GE(fd, 0);
  auto one = SharedMemory::map(fd, PIN_PAGE_BYTES);
  auto two = SharedMemory::map(fd, PIN_PAGE_BYTES);
  ASSERT_TRUE(one && two);
  for (const std::byte byte : one->span()) ASSERT_EQ(byte, std::byte{0});
  one->as<PinRecord>().give(asBytes("1234"));
  EXPECT_EQ(two->as<PinRecord>().length, 4U);
  EXPECT_NE(ftruncate(fd, 0), 0) << "nobody may take it away";
  close(fd);
}

// --- what a module may touch -----------------------------------------------------------------------------------------

TEST(ModulePaths, FindNssFolder) {
  EXPECT_EQ(nssFolder("configdir='sql:/a b/c' flags=readOnly"), "/a b/c");
  EXPECT_EQ(nssFolder("flags= configdir=\"/x\""), "/x");
  EXPECT_EQ(nssFolder("configdir=dbm:/x flags="), "/x");
  EXPECT_EQ(nssFolder("flags="), "");
  EXPECT_EQ(nssFolder("configdir="), "");
}

TEST(ModulePaths, GiveOnlyWriteAccessWhereTheTokenIs) {
  WorkerSettings settings;
  settings.profile = ModuleProfile::Nss;
  settings.initArguments = "configdir='sql:/token'";
  settings.readPaths = {"/r"};
  settings.writePaths = {"/w"};
  std::vector<std::string> writable;
  for (const auto& rule : pathsOf(settings)) {
    if (rule.access == sandbox::PathAccess::Modify) writable.push_back(rule.path.string());
    EXPECT_NE(rule.access, sandbox::PathAccess::Execute);
  }
  EXPECT_EQ(writable, (std::vector<std::string>{"/token", "/w"}));
}

}  // namespace
}  // namespace sallyport::hsmd
