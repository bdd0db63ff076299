// Goal: the file beneath the ledger is private, locked, whole from the start, and never overwritten when damaged.
// Method: real files: copied, cut, deleted, locked by another, and on a full disk.
#include "vaultd/nonce_file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using test::readFile;
using test::writeFile;
namespace fs = std::filesystem;

class NonceFiles : public testing::Test {
 protected:
  test::TemporaryFolder temporary;
  fs::path file = temporary.path() / "server.nonces";
  LedgerId key;

  std::unique_ptr<NonceLedger> open() {
    auto ledger = openNonceFile(file, key);
    EXPECT_TRUE(ledger.has_value());
    return ledger ? std::move(*ledger) : nullptr;
  }
  NonceFileProblem problem() {
    auto ledger = openNonceFile(file, key);
    EXPECT_FALSE(ledger.has_value());
    return ledger ? NonceFileProblem{} : ledger.error();
  }
};

TEST_F(NonceFiles, AMissingFileIsMadePrivateAndWhole) {
  auto ledger = open();
  EXPECT_TRUE(ledger->ready());
  struct stat status;
  ASSERT_EQ(stat(file.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_EQ(static_cast<size_t>(status.st_size), NonceLedger::FILE_BYTES);
  EXPECT_GE(static_cast<size_t>(status.st_blocks) * 512, NonceLedger::FILE_BYTES) << "allocated, not sparse";
  EXPECT_EQ(std::distance(fs::directory_iterator(temporary.path()), {}), 1);
}

TEST_F(NonceFiles, CountersGrowOverRestarts) {
  uint64_t last = 0;
  InstanceId instance{};
  for (int i = 0; i < 20; ++i) {
    auto ledger = open();
    EXPECT_EQ(ledger->renewed(), "");
    if (i > 0) { EXPECT_EQ(ledger->instance(), instance); }
    instance = ledger->instance();
    const uint64_t counter = *ledger->draw();
    EXPECT_GT(counter, last);
    last = counter;
  }
}

TEST_F(NonceFiles, ASecondVaultIsTurnedAway) {
  auto first = open();
  const NonceFileProblem second = problem();
  EXPECT_EQ(second.kind, NonceFileProblem::Kind::InUse);
  EXPECT_TRUE(contains(second.problem.message, "another vaultd"));
  first = nullptr;
  EXPECT_TRUE(open()->ready());
}

TEST_F(NonceFiles, ACopyGetsAFreshNonceKey) {
  const InstanceId instance = open()->instance();
  writeFile(temporary.path() / "backup", readFile(file));
  fs::rename(temporary.path() / "backup", file);
  auto ledger = open();
  EXPECT_NE(ledger->instance(), instance);
  EXPECT_TRUE(contains(ledger->renewed(), "copied, restored"));
}

TEST_F(NonceFiles, ADeletedFileGetsAFreshNonceKey) {
  const InstanceId instance = open()->instance();
  fs::remove(file);
  EXPECT_NE(open()->instance(), instance);
}

TEST_F(NonceFiles, ARotatedKeyGetsAFreshNonceKey) {
  const InstanceId instance = open()->instance();
  key.data()[0] = 1;
  EXPECT_NE(open()->instance(), instance);
}

TEST_F(NonceFiles, TruncationAndDamageAreRefusedAndNothingIsOverwritten) {
  open();
  const std::string good = readFile(file);
  std::string garbled = good;
  garbled[50] ^= 1;
  garbled[4096 + 50] ^= 1;
  for (const std::string& bad : {std::string(), good.substr(0, 100), good.substr(0, 4096), good.substr(0, 8191),
                                 garbled, std::string(8192, '\0'), std::string(8192, 'x')}) {
    writeFile(file, bad);
    const NonceFileProblem p = problem();
    EXPECT_EQ(p.kind, NonceFileProblem::Kind::Unusable);
    EXPECT_TRUE(contains(p.problem.message, "server.nonces: ")) << p.problem.message;
    EXPECT_TRUE(contains(p.problem.hint, "move the file away"));
    EXPECT_EQ(readFile(file), bad);
  }
}

TEST_F(NonceFiles, AFileThatOthersCanWriteIsRefused) {
  open();
  chmod(file.c_str(), 0666);
  EXPECT_EQ(problem().kind, NonceFileProblem::Kind::Unusable);
}

TEST_F(NonceFiles, WhatIsNoFileIsRefusedWithItsRemedy) {
  open();
  const auto expectProblem = [&](const std::string& what) {
    for (const Problem& each : {problem().problem, inspectNonceFile(file).error()}) {
      EXPECT_EQ(each.message, file.string() + " is " + what + ", not a file");
      EXPECT_TRUE(contains(each.hint, "the next start makes a new nonce file")) << each.hint;
    }
  };
  fs::rename(file, temporary.path() / "elsewhere");
  fs::create_symlink(temporary.path() / "elsewhere", file);
  expectProblem("a symbolic link");
  fs::remove(file);
  fs::create_directory(file);
  expectProblem("a folder");
  fs::remove(file);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  expectProblem("a FIFO");  // at once: nobody writes into it
}

TEST_F(NonceFiles, WithoutTheFolderThereIsALedgerThatSaysWhy) {
  file = temporary.path() / "missing" / "server.nonces";
  auto ledger = open();
  EXPECT_FALSE(ledger->ready());
  EXPECT_FALSE(ledger->draw());
  EXPECT_TRUE(contains(ledger->describe(), "can't create"));
}

// A limit on file sizes stands in for a full disk.
class FullDisk {
 public:
  FullDisk() {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit none = old_;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_{};
};

TEST_F(NonceFiles, AFullDiskAtCreationLeavesNothingBehindAndSaysWhy) {
  std::unique_ptr<NonceLedger> ledger;
  {
    FullDisk full;
    ledger = open();
  }
  EXPECT_FALSE(ledger->ready());
  EXPECT_FALSE(ledger->draw());
  EXPECT_TRUE(fs::is_empty(temporary.path()));
  EXPECT_TRUE(open()->ready()) << "the next start finds room";
}

TEST_F(NonceFiles, AFullDiskAtTheReservationLeavesTheStateAsItWas) {
  const uint64_t before = *open()->draw();
  const std::string content = readFile(file);
  {
    FullDisk full;
    auto ledger = open();
    EXPECT_FALSE(ledger->ready());
    EXPECT_TRUE(contains(ledger->describe(), "can't write"));
  }
  EXPECT_EQ(readFile(file), content);
  EXPECT_GT(*open()->draw(), before);
}

}  // namespace
}  // namespace sallyport::vaultd
