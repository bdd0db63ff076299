// Goal: secrets live where no other process looks, and slots are never shared.
// Method: children, a debugger and the guard pages try.
#include "vaultd/secret_arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

constexpr size_t SMALL = 8192;

std::unique_ptr<SecretArena> make(SecretArena::Want want = SecretArena::Want::Best, size_t bytes = SMALL) {
  auto arena = SecretArena::create(bytes, want);
  EXPECT_TRUE(arena.has_value());
  return std::move(*arena);
}

bool allZero(ByteSpan bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

TEST(SecretArena, IsMemfdSecretWhereTheKernelHasIt) {
  const int fd = static_cast<int>(syscall(447, O_CLOEXEC));
  const bool offered = fd >= 0;
  if (fd >= 0) close(fd);
  EXPECT_EQ(make()->kind(), offered ? SecretArena::Kind::MemfdSecret : SecretArena::Kind::LockedMemory);
}

TEST(SecretArena, FallsBackToLockedMemoryAndSaysSo) {
  auto arena = make(SecretArena::Want::LockedMemory);
  EXPECT_EQ(arena->kind(), SecretArena::Kind::LockedMemory);
  EXPECT_EQ(arena->describe(), "locked memory");
  SecretSlot slot = arena->takeSlot();
  slot.exposeMutable<32>()[0] = std::byte{1};
  EXPECT_EQ(slot.expose<32>()[0], std::byte{1});
}

TEST(SecretArena, SlotsAreZeroDistinctAndReused) {
  auto arena = make();
  std::byte* where = nullptr;
  {
    SecretSlot first = arena->takeSlot();
    SecretSlot second = arena->takeSlot();
    where = first.exposeMutable<64>().data();
    EXPECT_TRUE(allZero(first.expose<64>()));
    EXPECT_GE(std::abs(second.exposeMutable<64>().data() - where), 64);
    std::fill_n(where, 64, std::byte{0xaa});
  }
  EXPECT_TRUE(allZero({where, 64})) << "a slot given back is wiped";
  SecretSlot again = arena->takeSlot();
  EXPECT_TRUE(allZero(again.expose<64>()));
}

TEST(SecretArena, AMovedFromSlotHasNothing) {
  auto arena = make();
  SecretSlot slot = arena->takeSlot();
  slot.exposeMutable<64>()[0] = std::byte{7};
  SecretSlot taken = std::move(slot);
  EXPECT_EQ(taken.expose<64>()[0], std::byte{7});
  EXPECT_DEATH((void)slot.expose<64>(), "invariant broken");
}

TEST(SecretArena, RunningOutEndsTheProcess) {
  auto arena = make();
  EXPECT_DEATH(
      {
        std::vector<SecretSlot> slots;
        for (;;) slots.push_back(arena->takeSlot());
      },
      "invariant broken");
}

TEST(SecretArena, GuardPagesStandOnBothSides) {
  auto arena = make();
  std::byte* data = arena->takeBlock(SMALL).data();
  EXPECT_DEATH({ *(volatile std::byte*)(data - 1) = std::byte{1}; }, "");
  EXPECT_DEATH({ *(volatile std::byte*)(data + SMALL) = std::byte{1}; }, "");
}

// The child reports by its exit status: 0 zero, 77 the secret, or a signal.
int whatAChildSees(const std::byte* memory) {
  const pid_t child = fork();
  if (child == 0) std::signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would print pages
  if (child == 0) _exit(*static_cast<const volatile std::byte*>(memory) == std::byte{0x5a} ? 77 : 0);
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(SecretArena, AChildDoesNotInheritMemfdSecret) {
  auto arena = make();
  if (arena->kind() != SecretArena::Kind::MemfdSecret) GTEST_SKIP() << "no memfd_secret here";
  SecretSlot slot = arena->takeSlot();
  slot.exposeMutable<32>()[0] = std::byte{0x5a};
  const int status = whatAChildSees(slot.expose<32>().data());
  EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == 77);
}

TEST(SecretArena, AChildFindsLockedMemoryWiped) {
  auto arena = make(SecretArena::Want::LockedMemory);
  SecretSlot slot = arena->takeSlot();
  slot.exposeMutable<32>()[0] = std::byte{0x5a};
  const int status = whatAChildSees(slot.expose<32>().data());
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SecretArena, TheKernelReadsNoMemfdSecretForADebugger) {
  auto arena = make();
  if (arena->kind() != SecretArena::Kind::MemfdSecret) GTEST_SKIP() << "no memfd_secret here";
  SecretSlot slot = arena->takeSlot();
  const int fd = open("/proc/self/mem", O_RDONLY);
  ASSERT_GE(fd, 0);
  std::byte out[32];
  EXPECT_LT(pread(fd, out, sizeof out, static_cast<off_t>(reinterpret_cast<uintptr_t>(slot.expose<32>().data()))), 0);
  close(fd);
}

TEST(SecretArena, ASealedMappingCanNotBeReplacedOrOpened) {
  auto arena = make();
  if (!arena->sealedMapping()) GTEST_SKIP() << "no mseal here";
  std::byte* data = arena->takeBlock(SMALL).data();
  EXPECT_NE(munmap(data, SMALL), 0);
  EXPECT_NE(mprotect(data, SMALL, PROT_READ | PROT_EXEC), 0);
  EXPECT_EQ(mmap(data, SMALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), MAP_FAILED);
}

}  // namespace
}  // namespace sallyport::vaultd
