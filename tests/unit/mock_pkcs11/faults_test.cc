// Goal: the mock module goes wrong exactly as its control file says, while it runs, and tells what it was asked.
// Method: each fault once; what kills or hangs a process, in a child.
#include <gtest/gtest.h>
#include <signal.h>
#include <sodium.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <set>
#include <thread>

#include "tests/mock_pkcs11/faults.h"
#include "tests/unit/mock_pkcs11/mock_fixture.h"

namespace sallyport::test {
namespace {

class MockFaults : public MockFixture {
 protected:
  void startWithKey() {
    start();
    CK_OBJECT_HANDLE publicKey = 0;
    ASSERT_EQ(module->generate(session, MONTGOMERY, {1}, publicKey, key), CKR_OK);
  }
  CK_RV derive() { return module->derive(session, key, Octets(32, 9), shared); }

  CK_OBJECT_HANDLE key = 0;
  Octets shared;
};

// How a child of ours that does `what` ends.
int inChild(const std::function<void()>& what) {
  const pid_t child = fork();
  if (child == 0) {
    what();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

size_t threadCount() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}));
}

TEST_F(MockFaults, ReturnsAnyCkrFromAnyFunctionAndWorksAgainAfterwards) {
  startWithKey();
  faults("C_DeriveKey return=CKR_DEVICE_REMOVED\n");
  EXPECT_EQ(derive(), CKR_DEVICE_REMOVED);
  faults("* return=0x99\n");
  EXPECT_EQ(derive(), 0x99u);
  CK_SESSION_INFO info;
  EXPECT_EQ((*module)->C_GetSessionInfo(session, &info), 0x99u);
  faults("C_DeriveKey return=CKR_GENERAL_ERROR");  // the line isn't whole yet
  EXPECT_EQ(derive(), CKR_OK);
}

TEST_F(MockFaults, EveryNameOfACkrIsKnown) {
  EXPECT_EQ(mock::ckrByName("CKR_SESSION_HANDLE_INVALID"), CKR_SESSION_HANDLE_INVALID);
  EXPECT_EQ(mock::ckrByName("CKR_FUNCTION_REJECTED"), CKR_FUNCTION_REJECTED);
  EXPECT_EQ(mock::ckrByName("CKR_NONSENSE"), std::nullopt);
}

TEST_F(MockFaults, HitsTheCallsItIsToldAndNoOthersOverRestarts) {
  startWithKey();
  faults("C_DeriveKey after=2 times=2 return=CKR_DEVICE_ERROR\n");
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(derive(), CKR_DEVICE_ERROR);
  restart();  // as the next worker
  ASSERT_EQ(module->login(session, "1234"), CKR_OK);
  key = module->find(session, Attributes().number(CKA_CLASS, CKO_PRIVATE_KEY)).at(0);
  EXPECT_EQ(derive(), CKR_DEVICE_ERROR);
  EXPECT_EQ(derive(), CKR_OK);
  faults("C_DeriveKey after=2 times=2 return=CKR_DEVICE_ERROR  # once more\n");
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(derive(), CKR_DEVICE_ERROR);
  EXPECT_EQ(counter("C_DeriveKey"), 8u);
}

TEST_F(MockFaults, ResultsAreWrongZeroShortOrLongerThanTheBuffer) {
  startWithKey();
  ASSERT_EQ(derive(), CKR_OK);
  const Octets right = shared;
  faults("C_DeriveKey wrong\n");
  ASSERT_EQ(derive(), CKR_OK);
  EXPECT_NE(shared, right);
  EXPECT_EQ(shared.size(), 32u);
  faults("C_DeriveKey zero\n");
  ASSERT_EQ(derive(), CKR_OK);
  EXPECT_EQ(shared, Octets(32, 0));
  faults("C_DeriveKey zero strip=first\n");
  ASSERT_EQ(derive(), CKR_OK);
  EXPECT_EQ(shared.size(), 31u);
  faults("C_DeriveKey strip=first strip=last\n");
  ASSERT_EQ(derive(), CKR_OK);
  EXPECT_EQ(shared, right) << "nothing to strip here";
  faults("C_GetAttributeValue length=1000000\n");
  std::array<unsigned char, 32> value = {};
  CK_ATTRIBUTE attribute = {CKA_ID, value.data(), value.size()};
  ASSERT_EQ((*module)->C_GetAttributeValue(session, key, &attribute, 1), CKR_OK);
  EXPECT_EQ(attribute.ulValueLen, 1000000u);
  EXPECT_EQ(value[0], 1) << "only the length lies";
}

TEST_F(MockFaults, ADerivedSecretLosesItsZeroByteInStrippingOnly) {
  startWithKey();
  faults("C_DeriveKey strip=first\n");
  for (int stripped = 0; stripped == 0;) {
    Octets peer(32);
    randombytes_buf(peer.data(), peer.size());
    ASSERT_EQ(module->derive(session, key, peer, shared), CKR_OK);
    ASSERT_TRUE(shared.size() == 32 || shared.size() == 31);
    stripped += shared.size() == 31;
  }
}

TEST_F(MockFaults, LostSessionsAreReallyGoneAndSoAreLoginAndHandles) {
  startWithKey();
  faults("C_DeriveKey after=1 times=1 lose-sessions\n");
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(derive(), CKR_SESSION_HANDLE_INVALID);
  ASSERT_EQ(module->openSession(session), CKR_OK);
  EXPECT_EQ(derive(), CKR_KEY_HANDLE_INVALID) << "a new session, but nobody is logged in";
  ASSERT_EQ(module->login(session, "1234"), CKR_OK);
  EXPECT_EQ(derive(), CKR_KEY_HANDLE_INVALID) << "handles are of the login before";
  key = module->find(session, Attributes().number(CKA_CLASS, CKO_PRIVATE_KEY)).at(0);
  EXPECT_EQ(derive(), CKR_OK);
}

TEST_F(MockFaults, SixteenSessionsAndNoMore) {
  faults("token max_sessions=16\n");
  start();
  CK_SESSION_HANDLE more = 0;
  for (int i = 1; i < 16; ++i) ASSERT_EQ(module->openSession(more), CKR_OK);
  EXPECT_EQ(module->openSession(more), CKR_SESSION_COUNT);
  ASSERT_EQ((*module)->C_CloseSession(more), CKR_OK) << "the sixteenth";
  EXPECT_EQ(module->openSession(more), CKR_OK);
}

TEST_F(MockFaults, APulledTokenIsGoneUntilItIsBack) {
  startWithKey();
  faults("token removed=1\n");
  EXPECT_EQ(derive(), CKR_DEVICE_REMOVED);
  CK_SESSION_HANDLE other = 0;
  EXPECT_EQ(module->openSession(other), CKR_TOKEN_NOT_PRESENT);
  faults("");
  EXPECT_EQ(derive(), CKR_SESSION_HANDLE_INVALID);
  EXPECT_EQ(module->openSession(session), CKR_OK);
}

TEST_F(MockFaults, LacksWhatItIsToldToLack) {
  faults("token without=CKM_ECDH1_DERIVE,CKM_AES_GCM\n");
  startWithKey();
  EXPECT_EQ(derive(), CKR_MECHANISM_INVALID);
  std::vector<CK_MECHANISM_TYPE> types(32);
  CK_ULONG count = types.size();
  ASSERT_EQ((*module)->C_GetMechanismList(module->slot(), types.data(), &count), CKR_OK);
  EXPECT_EQ(std::set<CK_MECHANISM_TYPE>(types.begin(), types.begin() + static_cast<ptrdiff_t>(count)),
            (std::set<CK_MECHANISM_TYPE>{0x1056, 0x1055, 0x1057, 0x1080, 0, 9}));
}

TEST_F(MockFaults, TakesItsTime) {
  startWithKey();
  faults("C_DeriveKey latency=200\n");
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(200));
}

TEST_F(MockFaults, DiesInEveryWay) {
  startWithKey();
  faults("C_DeriveKey segfault\n");
  int status = inChild([this] { derive(); });
  // A sanitizer turns the signal into a report and an exit.
  EXPECT_TRUE((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) || (WIFEXITED(status) && WEXITSTATUS(status) != 0));
  faults("C_DeriveKey abort\n");
  status = inChild([this] { derive(); });
  EXPECT_TRUE((WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) || (WIFEXITED(status) && WEXITSTATUS(status) != 0));
  faults("C_DeriveKey exit=3\n");
  status = inChild([this] { derive(); });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_NE(WEXITSTATUS(status), 0);
}

TEST_F(MockFaults, DiesWhileItIsLoaded) {
  faults("dlopen segfault\n");
  const int status = inChild([this] { library(); });
  EXPECT_TRUE(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0));
}

TEST_F(MockFaults, HangsUntilItIsKilled) {
  startWithKey();
  faults("C_DeriveKey hang\n");
  const pid_t child = fork();
  if (child == 0) {
    derive();
    _exit(0);
  }
  while (counter("C_DeriveKey") == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, WNOHANG), 0);
  kill(child, SIGKILL);
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
}

TEST_F(MockFaults, StartsThreadsAndForksAChildThatEndsWithIt) {
  startWithKey();
  const size_t before = threadCount();
  faults("C_DeriveKey threads=2\n");
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(threadCount(), before + 2);
  faults("C_DeriveKey fork\n");
  // The child that the fault leaves holds the write end of this pipe, and lets go when its own parent is gone.
  std::array<int, 2> ends;
  ASSERT_EQ(pipe(ends.data()), 0);
  const int status = inChild([this] { derive(); });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  close(ends[1]);
  char byte;
  EXPECT_EQ(read(ends[0], &byte, 1), 0);
  close(ends[0]);
}

TEST_F(MockFaults, TriesForbiddenThingsAndTellsHowItWent) {
  startWithKey();
  faults("C_DeriveKey syscall=socket-unix syscall=open-passwd syscall=ptrace-nobody\n");
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_EQ(counter("syscall:socket-unix:ok"), 1u);
  EXPECT_EQ(counter("syscall:open-passwd:ok"), 1u);
  EXPECT_EQ(counter("syscall:ptrace-nobody:unknown"), 1u);
}

TEST_F(MockFaults, LeaksAsMuchAsItIsTold) {
  startWithKey();
  const auto resident = [] {
    long total = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> total >> pages;
    return pages * sysconf(_SC_PAGESIZE) / 1024;
  };
  const long before = resident();
  faults("C_DeriveKey times=1 leak=16384\n");
  EXPECT_EQ(derive(), CKR_OK);
  EXPECT_GE(resident(), before + 16384);
}

TEST_F(MockFaults, NoticesACallerWhoBreaksTheRules) {
  startWithKey();
  EXPECT_EQ(counter("violation:used-after-fork"), 0u);
  inChild([this] { derive(); });
  EXPECT_GE(counter("violation:used-after-fork"), 1u);
  faults("C_DeriveKey latency=200\n");
  std::thread other([this] {
    Octets mine;
    module->derive(session, key, Octets(32, 9), mine);
  });
  while (counter("C_DeriveKey") < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CK_SESSION_INFO info;
  (*module)->C_GetSessionInfo(session, &info);
  other.join();
  EXPECT_EQ(counter("violation:concurrent-session"), 1u);
}

TEST_F(MockFaults, AFunctionListMayBeMissingOrHaveHoles) {
  faults("C_GetFunctionList null\n");
  load();
  EXPECT_FALSE(module->hasList());
  module.reset();
  faults("C_GetFunctionList holes\n");
  load();
  ASSERT_TRUE(module->hasList());
  EXPECT_EQ((*module)->C_DeriveKey, nullptr);
  module.reset();
  faults("C_GetFunctionList return=CKR_HOST_MEMORY\n");
  load();
  EXPECT_EQ(module->loadResult(), CKR_HOST_MEMORY);
}

}  // namespace
}  // namespace sallyport::test
