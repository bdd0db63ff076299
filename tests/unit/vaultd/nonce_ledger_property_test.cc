// Goal: no counter repeats, whatever the disk does and wherever the process dies.
// Method: the ledger against a disk that fails, tears, reorders and loses writes, and a process that dies at any point.
// A scenario is a list of lives; each opens the ledger, draws, and meets the faults planned for it. Promises checked:
//   no (instance, counter) is ever given out twice;
//   a counter is given out only while it is below the bound that is durable at that moment;
//   without faults, the next life draws again, unless both slots were damaged (never by crashes alone).
// The same harness must find the fault in ledgers that we know to be wrong: else it proves nothing.
#include <gtest/gtest.h>

#include <cerrno>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <sstream>

#include "vaultd/nonce_ledger.h"

namespace sallyport::vaultd {
namespace {

constexpr size_t SECTOR = 512;
constexpr uint64_t SMALL_R = 4;
constexpr unsigned SEEDS = 4000;

struct Crash {};

enum class Fault { None, CrashBefore, CrashAfter, Error, ShortWrite };

struct Life {
  unsigned draws = 0;
  std::map<unsigned, Fault> faults;  // by number of the system call in this life
  bool powerCut = false;  // at its end, or where it crashes: what isn't durable may be lost; else the cache lives on
  unsigned seed = 0;      // which sectors survive
  int clockStep = 0;
};
using Scenario = std::vector<Life>;

// A disk with a volatile cache. A crash keeps any subset of the sectors of unsynced writes, in any order.
class FaultyDisk {
 public:
  NonceLedger::Image durable{};
  NonceLedger::Image cached{};
  std::vector<size_t> dirtySectors;

  void start(const Life& life) {
    life_ = &life;
    random_.seed(life.seed);
    calls_ = 0;
  }
  void crash() {
    for (size_t sector : dirtySectors) {
      if (random_() % 2 == 0)
        std::copy_n(cached.begin() + static_cast<long>(sector * SECTOR), SECTOR,
                    durable.begin() + static_cast<long>(sector * SECTOR));
    }
    dirtySectors.clear();
    cached = durable;
  }
  ssize_t write(size_t offset, ByteSpan bytes) {
    const Fault fault = next();
    if (fault == Fault::CrashBefore) throw Crash();
    if (fault == Fault::Error && random_() % 2 == 0) return -ENOSPC;
    size_t size = bytes.size();
    if (fault == Fault::ShortWrite || fault == Fault::Error) size = random_() % size;
    std::copy_n(bytes.begin(), size, cached.begin() + static_cast<long>(offset));
    for (size_t sector = offset / SECTOR; sector * SECTOR < offset + size; ++sector) dirtySectors.push_back(sector);
    if (fault == Fault::CrashAfter) throw Crash();
    return fault == Fault::Error ? -EIO : static_cast<ssize_t>(size);
  }
  int sync() {
    const Fault fault = next();
    if (fault == Fault::CrashBefore) throw Crash();
    if (fault == Fault::Error || fault == Fault::ShortWrite) {
      // As Linux does: some pages were written, the others are marked clean and forgotten; the cache still shows them.
      const NonceLedger::Image seen = cached;
      crash();
      cached = seen;
      return -EIO;
    }
    for (size_t sector : dirtySectors)
      std::copy_n(cached.begin() + static_cast<long>(sector * SECTOR), SECTOR,
                  durable.begin() + static_cast<long>(sector * SECTOR));
    dirtySectors.clear();
    if (fault == Fault::CrashAfter) throw Crash();
    return 0;
  }

 private:
  Fault next() {
    const auto planned = life_->faults.find(calls_++);
    return planned == life_->faults.end() ? Fault::None : planned->second;
  }

  const Life* life_ = nullptr;
  unsigned calls_ = 0;
  std::minstd_rand random_;
};

class DiskView : public NonceDisk {
 public:
  explicit DiskView(FaultyDisk& disk) : disk_(disk) {}
  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    std::copy_n(disk_.cached.begin() + static_cast<long>(offset), bytes.size(), bytes.begin());
    return static_cast<ssize_t>(bytes.size());
  }
  ssize_t write(size_t offset, ByteSpan bytes) override { return disk_.write(offset, bytes); }
  int sync() override { return disk_.sync(); }

 protected:
  FaultyDisk& disk_;
};

// --- the ledger under test, and ledgers that are wrong -----------------------------------------------------

using Counter = std::pair<InstanceId, uint64_t>;

struct Subject {
  virtual ~Subject() = default;
  virtual bool open() = 0;  // false: it refuses this state
  virtual std::optional<Counter> draw() = 0;
  virtual uint64_t durableBound(const FaultyDisk& disk) { return UINT64_MAX; }  // for subjects that promise one
};

uint64_t be64At(const NonceLedger::Image& image, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(image[at + i]);
  return value;
}

template <typename View = DiskView>
struct Ours : Subject {
  Ours(FaultyDisk& ourDisk, const uint64_t& ourWall) : disk(ourDisk), wall(ourWall) {}
  bool open() override {
    auto opened = NonceLedger::open(
        std::make_unique<View>(disk), {}, [this] { return wall; }, SMALL_R);
    if (!opened) return false;
    ledger = std::move(*opened);
    return true;
  }
  std::optional<Counter> draw() override {
    const auto counter = ledger->draw();
    if (!counter) return std::nullopt;
    return Counter{ledger->instance(), *counter};
  }
  uint64_t durableBound(const FaultyDisk& d) override {
    return std::max(be64At(d.durable, 16), be64At(d.durable, NonceLedger::SLOT_BYTES + 16));
  }
  FaultyDisk& disk;
  const uint64_t& wall;
  std::unique_ptr<NonceLedger> ledger;
};

// "Whenever the counter C passes a multiple of B we store C + 2 B on disk, and start from there": read literally, the
// first counters after a start are used before anything is stored.
struct LiteralCurveTun : Subject {
  LiteralCurveTun(FaultyDisk& itsDisk, const uint64_t&) : disk(itsDisk) {}
  bool open() override {
    counter = be64At(disk.cached, 0);
    return true;
  }
  std::optional<Counter> draw() override {
    const uint64_t drawn = counter++;
    if (counter % SMALL_R == 0) {
      std::array<std::byte, 8> bytes;
      for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>((counter + 2 * SMALL_R) >> (56 - 8 * i));
      disk.write(0, bytes);
      disk.sync();
    }
    return Counter{{}, drawn};
  }
  FaultyDisk& disk;
  uint64_t counter = 0;
};

// Our ledger on a disk whose sync does nothing: "write without fsync".
struct NeverSyncs : DiskView {
  using DiskView::DiskView;
  int sync() override { return 0; }
};
// Our ledger with the classic mistake: try fsync again, and believe it.
struct RetriesSync : DiskView {
  using DiskView::DiskView;
  int sync() override {
    int result = disk_.sync();
    if (result < 0) result = disk_.sync();
    return result;
  }
};
// Our ledger with another: a short write counts as done.
struct IgnoresShortWrites : DiskView {
  using DiskView::DiskView;
  ssize_t write(size_t offset, ByteSpan bytes) override {
    const ssize_t written = disk_.write(offset, bytes);
    return written < 0 ? written : static_cast<ssize_t>(bytes.size());
  }
};

// --- the harness -----------------------------------------------------------------------------------------------------

// What went wrong, or nothing.
template <typename S>
std::optional<std::string> run(const Scenario& scenario) {
  FaultyDisk disk;
  uint64_t wall = 1000;  // before 2020: no help from the clock floor
  disk.durable = disk.cached =
      std::is_base_of_v<LiteralCurveTun, S> ? NonceLedger::Image{} : NonceLedger::newImage({}, wall);
  std::set<Counter> seen;
  for (const Life& life : scenario) {
    disk.start(life);
    wall = static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(wall) + life.clockStep));
    S subject(disk, wall);
    try {
      if (!subject.open()) return "a state that came from crashes alone was refused";
      bool drew = false;
      for (unsigned i = 0; i < life.draws; ++i) {
        const auto counter = subject.draw();
        if (!counter) break;
        drew = true;
        if (counter->second >= subject.durableBound(disk)) return "a counter above the durable bound";
        if (!seen.insert(*counter).second) return "counter " + std::to_string(counter->second) + " was given out twice";
      }
      if (!drew && life.draws > 0 && life.faults.empty()) return "nothing given out though nothing failed";
    } catch (const Crash&) {}
    if (life.powerCut) disk.crash();
  }
  return std::nullopt;
}

Scenario random(unsigned seed) {
  std::mt19937 random(seed);
  Scenario scenario(2 + random() % 5);
  for (Life& life : scenario) {
    life.draws = random() % 30;
    life.powerCut = random() % 3 != 0;
    life.seed = static_cast<unsigned>(random());
    life.clockStep = random() % 4 == 0 ? static_cast<int>(random() % 200) - 100 : 0;
    const unsigned faults = random() % 3;
    for (unsigned i = 0; i < faults; ++i) life.faults[random() % 12] = static_cast<Fault>(1 + random() % 4);
  }
  return scenario;
}

// Takes away what isn't needed for the failure, as long as anything can be taken.
template <typename S>
Scenario shrink(Scenario scenario) {
  const auto stillFails = [](const Scenario& candidate) { return run<S>(candidate).has_value(); };
  for (bool smaller = true; smaller;) {
    smaller = false;
    const auto attempt = [&](Scenario candidate) {
      if (!stillFails(candidate)) return false;
      scenario = std::move(candidate);
      return smaller = true;
    };
    for (size_t i = 0; i < scenario.size(); ++i) {
      Scenario candidate = scenario;
      candidate.erase(candidate.begin() + static_cast<long>(i));
      if (attempt(std::move(candidate))) break;
      if (scenario[i].draws > 0) {
        candidate = scenario;
        --candidate[i].draws;
        if (attempt(std::move(candidate))) break;
      }
      if (!scenario[i].faults.empty()) {
        candidate = scenario;
        candidate[i].faults.erase(candidate[i].faults.begin());
        if (attempt(std::move(candidate))) break;
      }
      if (scenario[i].clockStep != 0) {
        candidate = scenario;
        candidate[i].clockStep = 0;
        if (attempt(std::move(candidate))) break;
      }
    }
  }
  return scenario;
}

std::string print(const Scenario& scenario) {
  static const char* const NAMES[] = {"none", "crash before", "crash after", "error", "short write"};
  std::ostringstream text;
  for (const Life& life : scenario) {
    text << "  life: " << life.draws << " draws, clock " << life.clockStep << ", seed " << life.seed
         << (life.powerCut ? ", power cut" : "");
    for (const auto& [call, fault] : life.faults) text << ", call " << call << ": " << NAMES[static_cast<int>(fault)];
    text << "\n";
  }
  return text.str();
}

// The first failing scenario, shrunk.
template <typename S>
std::optional<Scenario> findFailure(unsigned seeds = SEEDS) {
  for (unsigned seed = 1; seed <= seeds; ++seed) {
    const Scenario scenario = random(seed);
    if (run<S>(scenario)) return shrink<S>(scenario);
  }
  return std::nullopt;
}

TEST(NonceLedgerProperty, NeverRepeatsACounterOnAFaultyDisk) {
  const auto failure = findFailure<Ours<>>();
  ASSERT_FALSE(failure.has_value()) << *run<Ours<>>(*failure) << "\n" << print(*failure);
}

TEST(NonceLedgerProperty, FindsThatTheLiteralCurveTunRuleRepeats) {
  const auto failure = findFailure<LiteralCurveTun>();
  ASSERT_TRUE(failure.has_value());
  // The shortest counter-example: start, draw, crash, start, draw.
  EXPECT_EQ(failure->size(), 2u) << print(*failure);
  EXPECT_EQ((*failure)[0].draws + (*failure)[1].draws, 2u) << print(*failure);
}

TEST(NonceLedgerProperty, FindsAMissingFsync) { EXPECT_TRUE(findFailure<Ours<NeverSyncs>>().has_value()); }

TEST(NonceLedgerProperty, FindsARetriedFsync) { EXPECT_TRUE(findFailure<Ours<RetriesSync>>().has_value()); }

TEST(NonceLedgerProperty, FindsAnIgnoredShortWrite) {
  EXPECT_TRUE(findFailure<Ours<IgnoresShortWrites>>().has_value());
}

// Not random: every crash point of a run with several refills, with many choices of what survives.
TEST(NonceLedgerProperty, SurvivesACrashAtEachSystemCall) {
  for (unsigned call = 0; call < 24; ++call) {
    for (const Fault fault : {Fault::CrashBefore, Fault::CrashAfter, Fault::Error, Fault::ShortWrite}) {
      for (unsigned seed = 0; seed < 40; ++seed) {
        Scenario scenario(4);
        for (size_t i = 0; i < scenario.size(); ++i) {
          scenario[i].draws = 50;
          scenario[i].powerCut = seed % 3 != 0;
          scenario[i].seed = seed * 7 + static_cast<unsigned>(i);
          if (i < 2) scenario[i].faults[call] = fault;
        }
        const auto problem = run<Ours<>>(scenario);
        ASSERT_FALSE(problem.has_value()) << *problem << "\n" << print(scenario);
      }
    }
  }
}

}  // namespace
}  // namespace sallyport::vaultd
