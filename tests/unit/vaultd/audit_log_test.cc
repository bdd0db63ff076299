// Goal: no record is lost in silence, no key of the past stays, and the chain goes on over files, crashes and bad
// disks. Method: the log on files in memory, with faults at every call; an independent reader holds all of it against
// the first key after each life.
#include "vaultd/audit_log.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/vaultd/memory_audit.h"
#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::boxRecord;
using test::contains;
using test::Crash;
using test::MemoryFolder;
using test::openLog;
using test::readBack;
using Fault = MemoryFolder::Fault;

constexpr AuditLimits SMALL{8192, false};  // about 20 records a file

unsigned countOf(const std::vector<AuditRecord>& records, std::string_view verb) {
  return static_cast<unsigned>(std::ranges::count(records, verb, &AuditRecord::verb));
}

std::string openProblem(MemoryFolder& folder) {
  const auto log = openLog(folder);
  return log ? "" : log.error().message;
}

// A log of `count` records, closed in order.
MemoryFolder written(unsigned count, AuditLimits limits = {}, size_t segments = 3) {
  MemoryFolder folder(segments);
  auto log = openLog(folder, limits);
  CHECK(log.has_value());
  for (unsigned i = 0; i < count; ++i) CHECK((*log)->append(boxRecord()));
  CHECK((*log)->sync(0));
  return folder;
}

TEST(AuditLog, WritesRecordsThatAReaderTakes) {
  MemoryFolder folder = written(5);
  const auto records = readBack(folder);
  ASSERT_TRUE(records.has_value()) << records.error();
  EXPECT_EQ(records->size(), 5u);
  EXPECT_EQ((*records)[4].seq, 5u);
}

TEST(AuditLog, GoesOnAfterARestart) {
  MemoryFolder folder = written(5);
  for (int life = 0; life < 4; ++life) {
    auto log = openLog(folder);
    ASSERT_TRUE(log.has_value()) << log.error().message;
    ASSERT_TRUE((*log)->append(boxRecord()));
    ASSERT_TRUE((*log)->sync(0));
  }
  EXPECT_EQ(readBack(folder)->size(), 9u);
}

TEST(AuditLog, KeepsTheChainOverFilesAndOverwritesTheOldest) {
  MemoryFolder folder = written(200, SMALL);
  const auto records = readBack(folder);
  ASSERT_TRUE(records.has_value()) << records.error();
  EXPECT_EQ(records->back().seq, 200u);
  EXPECT_GT(records->front().seq, 100u);
  EXPECT_EQ(openProblem(folder), "");
}

TEST(AuditLog, RefusesToOverwriteWhatWasNotExported) {
  MemoryFolder folder;
  auto log = openLog(folder, {SMALL.segmentBytes, true});
  unsigned taken = 0;
  while ((*log)->append(boxRecord())) ++taken;
  EXPECT_TRUE(contains((*log)->problem(), "not exported")) << (*log)->problem();
  EXPECT_FALSE((*log)->append(boxRecord()));
  EXPECT_FALSE((*log)->recover(0));
  EXPECT_EQ((*log)->lost(), 2u);
  EXPECT_FALSE((*log)->markExported(taken + 1, 0));  // there is no such record
  ASSERT_TRUE((*log)->markExported(taken, 0));
  EXPECT_EQ((*log)->problem(), "");
  EXPECT_TRUE((*log)->append(boxRecord()));
  ASSERT_TRUE((*log)->sync(0));
  const auto records = readBack(folder);
  ASSERT_TRUE(records.has_value()) << records.error();
  EXPECT_EQ(countOf(*records, "lost"), 1u);
  EXPECT_EQ(openLog(folder).value()->exported(), taken);  // remembered
}

TEST(AuditLog, CountsWhatAFullDiskLosesAndTellsItLater) {
  MemoryFolder folder;
  auto log = openLog(folder);
  ASSERT_TRUE((*log)->append(boxRecord()) && (*log)->sync(0));
  folder.failAllWith = ENOSPC;
  unsigned kept = 0;
  while ((*log)->append(boxRecord())) ++kept;
  for (int i = 0; i < 9; ++i) EXPECT_FALSE((*log)->append(boxRecord()));
  EXPECT_TRUE(contains((*log)->problem(), "No space left"));
  EXPECT_EQ((*log)->lost(), 10u);
  folder.failAllWith = 0;
  EXPECT_TRUE((*log)->recover(5));
  EXPECT_EQ((*log)->problem(), "");
  const auto records = readBack(folder);
  ASSERT_TRUE(records.has_value()) << records.error();
  EXPECT_EQ(countOf(*records, "box"), kept + 1);  // what waited came too
  EXPECT_EQ(records->back().verb, "lost");
  EXPECT_EQ(records->back().items, 10u);
}

TEST(AuditLog, WritesAgainWhatAFailedSyncMayHaveDropped) {
  MemoryFolder folder;
  auto log = openLog(folder);
  folder.failSyncWith = EIO;
  ASSERT_TRUE((*log)->append(boxRecord()));
  EXPECT_FALSE((*log)->sync(0));
  EXPECT_FALSE((*log)->problem().empty());
  for (auto& file : folder.files) file.cached = file.durable;  // as the kernel may
  EXPECT_TRUE((*log)->write(0));
  EXPECT_FALSE((*log)->problem().empty()) << "a write proves nothing about a disk that can't sync";
  folder.failSyncWith = 0;
  EXPECT_TRUE((*log)->sync(0));
  EXPECT_EQ((*log)->problem(), "");
  log.value().reset();
  folder.powerCut();
  EXPECT_EQ(readBack(folder)->size(), 1u);
}

TEST(AuditLog, LeavesNoKeyOfThePastInTheState) {
  MemoryFolder folder;
  auto log = openLog(folder);
  AuditKey key = test::firstKey();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE((*log)->append(boxRecord()) && (*log)->sync(0));
    const std::string state = folder.files.back().cached;
    EXPECT_FALSE(contains(state, {reinterpret_cast<const char*>(key.exposeData()), AuditKey::SIZE})) << i;
    advance(key);
    EXPECT_TRUE(contains(state, {reinterpret_cast<const char*>(key.exposeData()), AuditKey::SIZE})) << i;
  }
}

// --- at the start ----------------------------------------------------------------------------------------------------

TEST(AuditLog, CutsOffHalfALineAndSaysSo) {
  MemoryFolder folder = written(3);
  folder.files[0].cached += "{\"seq\":4,\"ti";
  auto log = openLog(folder);
  ASSERT_TRUE(log.has_value()) << log.error().message;
  const auto records = readBack(folder);
  ASSERT_TRUE(records.has_value()) << records.error();
  EXPECT_EQ(records->back().verb, "torn");
  EXPECT_EQ(records->back().bytes, 12u);
}

TEST(AuditLog, RefusesALogThatWasChanged) {
  struct Case {
    const char* what;
    std::function<void(MemoryFolder&)> change;
    const char* found;
  };
  const auto line = [](std::string& text, unsigned number) {  // [begin, end) with its newline
    size_t begin = 0;
    for (unsigned i = 1; i < number; ++i) begin = text.find('\n', begin) + 1;
    return std::pair{begin, text.find('\n', begin) + 1};
  };
  const std::vector<Case> cases = {
      {"an edit", [](MemoryFolder& f) { f.files[0].cached[f.files[0].cached.find("1200")] = '9'; }, "0.log:2: "},
      {"a deletion",
       [&](MemoryFolder& f) {
         const auto [begin, end] = line(f.files[0].cached, 5);
         f.files[0].cached.erase(begin, end - begin);
       },
       "0.log:5: this is record 5, but record 4 is missing"},
      {"the end cut off at a line",
       [&](MemoryFolder& f) {
         auto& text = f.files[2].cached;
         text.resize(text.rfind('\n', text.size() - 2) + 1);
       },
       "its end was cut off"},
      {"the end cut off in a line", [](MemoryFolder& f) { f.files[2].cached.resize(f.files[2].cached.size() - 9); },
       "ends in the middle of a line"},
      {"swapped files", [](MemoryFolder& f) { std::swap(f.files[0].cached, f.files[1].cached); }, "0.log:1: "},
      {"a file emptied", [](MemoryFolder& f) { f.files[1].cached.clear(); }, "are missing"},
      {"a file's first line lost",
       [&](MemoryFolder& f) { f.files[1].cached.erase(0, line(f.files[1].cached, 1).second); }, "1.log:1: "},
      {"a foreign line", [](MemoryFolder& f) { f.files[0].cached.insert(f.files[0].cached.find('\n') + 1, "hi\n"); },
       "0.log:2: this is not a line"},
      {"all files emptied",
       [](MemoryFolder& f) {
         for (int i = 0; i < 3; ++i) f.files[static_cast<size_t>(i)].cached.clear();
       },
       "its end was cut off"},
      {"the oldest file filled with noise", [](MemoryFolder& f) { f.files[0].cached.assign(5000, 'x'); },
       "1.log:1: records 1 to "},
      {"the state damaged", [](MemoryFolder& f) { f.files[3].cached.assign(8192, 'x'); }, "state: is damaged"},
      {"the state cut off", [](MemoryFolder& f) { f.files[3].cached.resize(100); }, "state: is damaged"},
  };
  for (const Case& each : cases) {
    MemoryFolder folder = written(45, SMALL);
    ASSERT_FALSE(folder.files[2].cached.empty());
    each.change(folder);
    const auto before = folder.files[0].cached;
    EXPECT_TRUE(contains(openProblem(folder), each.found)) << each.what << ": " << openProblem(folder);
    EXPECT_EQ(folder.files[0].cached, before) << "a file was changed";
  }
}

TEST(AuditLog, RefusesAWholeLineThatItDidNotWriteBehindTheState) {
  MemoryFolder folder = written(3);
  AuditChecker checker(1, {});
  AuditLines lines(folder.files[0].cached);
  lines.next();
  while (const auto line = lines.next()) ASSERT_TRUE(checker.take(*line).has_value());
  AuditChain chain = checker.head().chain;
  AuditKey guessed = AuditKey::random();
  AuditRecord record = boxRecord();
  record.seq = 4;
  folder.files[0].cached += sealRecord(record, chain, guessed) + "\n";
  EXPECT_TRUE(contains(openProblem(folder), "0.log:5: this line was not written by this vault")) << openProblem(folder);
}

// --- every disk that misbehaves --------------------------------------------------------------------------------------

// Lives of a vault that records, with faults at planned calls. A record counts as promised once its sync succeeded.
std::optional<std::string> run(unsigned seed, unsigned faults, bool powerCuts) {
  std::mt19937 random(seed);
  MemoryFolder folder;
  folder.random.seed(seed);
  uint64_t promised = 0;  // number of the last record that a sync succeeded for
  for (int life = 0; life < 5; ++life) {
    folder.faults.clear();
    folder.calls = 0;
    for (unsigned i = 0; i < faults; ++i) folder.faults[random() % 40] = static_cast<Fault>(1 + random() % 4);
    try {
      auto log = openLog(folder, SMALL);
      if (!log) {
        // A disk that fails just then may keep it from starting, but nothing else.
        const std::string& why = log.error().message;
        const bool disk = contains(why, "Input/output") || contains(why, "No space left");
        if (folder.faults.empty() || !disk) return "refused: " + why;
        continue;
      }
      const unsigned uses = random() % 40;
      for (unsigned i = 0; i < uses; ++i) {
        (*log)->append(boxRecord());
        if (random() % 2 == 0) (*log)->write(0);
        if (random() % 3 == 0 && (*log)->sync(0)) promised = (*log)->head().seq;
      }
    } catch (const Crash&) {}
    if (powerCuts && random() % 2 == 0) folder.powerCut();
  }
  folder.faults.clear();
  auto log = openLog(folder, SMALL);
  if (!log) return "refused at the end: " + log.error().message;
  if (!(*log)->append(boxRecord()) || !(*log)->sync(0)) return "records nothing though nothing fails";
  const auto records = readBack(folder);
  if (!records) return "not whole: " + records.error();
  if (records->back().seq <= promised) return "a record that was promised is gone";
  return std::nullopt;
}

TEST(AuditLogProperty, KeepsItsPromisesOnAFaultyDisk) {
  for (unsigned seed = 1; seed <= 1500; ++seed) {
    const auto problem = run(seed, seed % 4, seed % 3 != 0);
    ASSERT_FALSE(problem.has_value()) << *problem << ", seed " << seed;
  }
}

TEST(AuditLogProperty, SurvivesACrashAtEachSystemCall) {
  for (unsigned call = 0; call < 60; ++call) {
    for (const Fault fault : {Fault::CrashBefore, Fault::CrashAfter, Fault::Error, Fault::ShortWrite}) {
      for (const bool powerCut : {false, true}) {
        MemoryFolder folder;
        folder.random.seed(call + 1);
        folder.faults[call] = fault;
        uint64_t promised = 0;
        try {
          auto log = openLog(folder, SMALL);
          for (int i = 0; log && i < 60; ++i) {
            (*log)->append(boxRecord());
            if (i % 4 == 0 && (*log)->sync(0)) promised = (*log)->head().seq;
          }
        } catch (const Crash&) {}
        if (powerCut) folder.powerCut();
        folder.faults.clear();
        auto log = openLog(folder, SMALL);
        ASSERT_TRUE(log.has_value()) << log.error().message << ", call " << call;
        ASSERT_TRUE((*log)->append(boxRecord()) && (*log)->sync(0));
        const auto records = readBack(folder);
        ASSERT_TRUE(records.has_value()) << records.error() << ", call " << call;
        ASSERT_GT(records->back().seq, promised);
      }
    }
  }
}

}  // namespace
}  // namespace sallyport::vaultd
