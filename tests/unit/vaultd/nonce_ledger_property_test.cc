// Goal: no counter repeats, whatever the disk does and wherever the process dies.
// Method: the ledger against a disk that fails, tears, reorders and loses writes, and a process that dies at any point.
// A schedule is a list of lives; each opens the ledger of one of two vaults that share a key, draws, meets the faults
// planned for it, and is killed. Copies of a state are put back, and clocks step. Promises checked:
//   no (instance, counter) is ever given out twice, by whichever vault;
//   a counter is given out only while it is below the bound that is durable at that moment;
//   that bound never goes down, but by a restore;
//   without faults, the next life draws again, unless both slots were damaged (never by crashes alone).
// The same harness must find the fault in ledgers that we know to be wrong: else it proves nothing.
// A failure is shrunk and printed; put into a file that SALLYPORT_NONCE_SCHEDULE names, it is played again.
// tests/model tries every order of events, with fewer kinds of them.
#include <gtest/gtest.h>

#include <sodium.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
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
constexpr std::array<std::string_view, 5> FAULT_NAMES = {"none", "crash-before", "crash-after", "error", "short-write"};

struct Life {
  unsigned vault = 0;              // 0, or 1: another with the same key
  unsigned copy = 0, restore = 0;  // 1: before it starts its state is copied, or the last copy put in its place
  unsigned draws = 0;
  unsigned powerCut = 0;             // 1: at its end what isn't durable may be lost; else the cache lives on
  unsigned seed = 0;                 // which sectors survive
  int clock = 0;                     // a step, before it starts
  std::map<unsigned, Fault> faults;  // by number of the system call in this life
  bool operator==(const Life&) const = default;
};
using Scenario = std::vector<Life>;

// Calls f(name, field) for each number of a life: the one list for printing, parsing and shrinking.
template <typename L, typename F>
void eachField(L& life, F f) {
  f("vault", life.vault), f("copy", life.copy), f("restore", life.restore), f("draws", life.draws);
  f("power-cut", life.powerCut), f("seed", life.seed), f("clock", life.clock);
}

// A line for each life, of what isn't zero: "life draws=3 power-cut=1 2:short-write".
std::string print(const Scenario& scenario) {
  std::ostringstream text;
  for (const Life& life : scenario) {
    text << "life";
    eachField(life, [&](const char* name, auto value) {
      if (value != 0) text << " " << name << "=" << value;
    });
    for (const auto& [call, fault] : life.faults) text << " " << call << ":" << FAULT_NAMES[static_cast<size_t>(fault)];
    text << "\n";
  }
  return text.str();
}

Scenario parse(std::istream& text) {
  Scenario scenario;
  for (std::string word; text >> word;) {
    if (word == "life") {
      scenario.emplace_back();
      continue;
    }
    CHECK(!scenario.empty());
    bool known = false;
    eachField(scenario.back(), [&](const std::string& name, auto& field) {
      if (!word.starts_with(name + "=")) return;
      known = static_cast<bool>(std::istringstream(word.substr(name.size() + 1)) >> field);
    });
    for (size_t i = 0; i < FAULT_NAMES.size() && !known; ++i) {
      if (!word.ends_with(":" + std::string(FAULT_NAMES[i]))) continue;
      scenario.back().faults[static_cast<unsigned>(std::stoul(word))] = static_cast<Fault>(i);
      known = true;
    }
    CHECK(known);
  }
  return scenario;
}

uint64_t be64At(const NonceLedger::Image& image, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(image[at + i]);
  return value;
}

// A disk with a volatile cache. Dirty sectors are written back at any time, in any order; a power cut loses the others.
class FaultyDisk {
 public:
  NonceLedger::Image cached{};

  void put(const NonceLedger::Image& image) {
    cached = durable_ = image;
    dirtySectors_.clear();
    bound_.reset();
  }
  // The highest bound of a whole slot that a power cut would leave.
  uint64_t durableBound() {
    if (bound_) return *bound_;
    bound_ = 0;
    for (size_t at : {size_t{0}, NonceLedger::SLOT_BYTES}) {
      std::array<std::byte, 32> sum;
      const size_t sumAt = NonceLedger::SLOT_BYTES - sum.size();
      crypto_generichash_blake2b(reinterpret_cast<unsigned char*>(sum.data()), sum.size(),
                                 uchars(ByteSpan(durable_).subspan(at)), sumAt, nullptr, 0);
      const bool whole = std::equal(sum.begin(), sum.end(), durable_.begin() + static_cast<long>(at + sumAt));
      if (whole) bound_ = std::max(*bound_, be64At(durable_, at + 16));
    }
    return *bound_;
  }

  void start(const Life& life) {
    life_ = &life;
    random_.seed(life.seed);
    calls_ = 0;
  }
  void powerCut() {
    writeBack(2);
    dirtySectors_.clear();
    cached = durable_;
  }
  ssize_t write(size_t offset, ByteSpan bytes) {
    const Fault fault = next();
    writeBack(4);
    if (fault == Fault::CrashBefore) throw Crash();
    if (fault == Fault::Error && random_() % 2 == 0) return -ENOSPC;
    size_t size = bytes.size();
    if (fault == Fault::ShortWrite || fault == Fault::Error) size = random_() % size;
    std::copy_n(bytes.begin(), size, cached.begin() + static_cast<long>(offset));
    for (size_t sector = offset / SECTOR; sector * SECTOR < offset + size; ++sector) dirtySectors_.insert(sector);
    if (fault == Fault::CrashAfter) throw Crash();
    return fault == Fault::Error ? -EIO : static_cast<ssize_t>(size);
  }
  int sync() {
    const Fault fault = next();
    if (fault == Fault::CrashBefore) throw Crash();
    if (fault == Fault::Error || fault == Fault::ShortWrite) {
      // As Linux does: some pages were written, the others are marked clean and forgotten; the cache still shows them.
      writeBack(2);
      dirtySectors_.clear();
      return -EIO;
    }
    writeBack(1);
    if (fault == Fault::CrashAfter) throw Crash();
    return 0;
  }

 private:
  Fault next() {
    const auto planned = life_->faults.find(calls_++);
    return planned == life_->faults.end() ? Fault::None : planned->second;
  }

  // One dirty sector in `oneIn`.
  void writeBack(unsigned oneIn) {
    std::erase_if(dirtySectors_, [&](size_t sector) {
      if (random_() % oneIn != 0) return false;
      const auto from = cached.begin() + static_cast<long>(sector * SECTOR);
      std::copy_n(from, SECTOR, durable_.begin() + static_cast<long>(sector * SECTOR));
      bound_.reset();
      return true;
    });
  }

  NonceLedger::Image durable_{};
  std::set<size_t> dirtySectors_;
  std::optional<uint64_t> bound_;  // of `durable_` as it is
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
  static constexpr bool RESERVES = true;       // promises a durable bound
  static constexpr bool ONE_INSTANCE = false;  // both vaults start from the same state
  virtual ~Subject() = default;
  virtual bool open() = 0;  // false: it refuses this state
  virtual std::optional<Counter> draw() = 0;
};

template <typename View = DiskView>
struct Ours : Subject {
  Ours(FaultyDisk& ourDisk, const uint64_t& ourWall, const NonceFacts& ourFacts)
      : disk(ourDisk), wall(ourWall), facts(ourFacts) {}
  bool open() override {
    auto opened = NonceLedger::open(
        std::make_unique<View>(disk), facts, [this] { return wall; }, SMALL_R);
    if (!opened) return false;
    ledger = std::move(*opened);
    return true;
  }
  std::optional<Counter> draw() override {
    const auto counter = ledger->draw();
    if (!counter) return std::nullopt;
    return Counter{ledger->instance(), *counter};
  }
  FaultyDisk& disk;
  const uint64_t& wall;
  NonceFacts facts;
  std::unique_ptr<NonceLedger> ledger;
};

// "Whenever the counter C passes a multiple of B we store C + 2 B on disk, and start from there": read literally, the
// first counters after a start are used before anything is stored.
struct LiteralCurveTun : Subject {
  static constexpr bool RESERVES = false;
  static constexpr bool ONE_INSTANCE = true;
  LiteralCurveTun(FaultyDisk& itsDisk, const uint64_t&, const NonceFacts&) : disk(itsDisk) {}
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

// Our ledger that doesn't notice that its state was copied or restored.
struct KeepsItsKey : Ours<> {
  KeepsItsKey(FaultyDisk& itsDisk, const uint64_t& itsWall, const NonceFacts&) : Ours<>(itsDisk, itsWall, {}) {}
};
// Our ledger where a vault's first state came with the key.
struct SharesItsInstance : KeepsItsKey {
  static constexpr bool ONE_INSTANCE = true;
  using KeepsItsKey::KeepsItsKey;
};

// --- the harness -----------------------------------------------------------------------------------------------------

struct Machine {
  FaultyDisk disk;
  NonceFacts facts;
  uint64_t bound = 0;  // the highest that was durable
};

// What went wrong, or nothing.
template <typename S>
std::optional<std::string> run(const Scenario& scenario) {
  std::array<Machine, 2> machines;
  unsigned char places = 0;
  uint64_t wall = 1000;  // before 2020: no help from the clock floor
  const auto newPlace = [&](Machine& machine) { machine.facts.place.fill(std::byte{places++}); };
  NonceLedger::Image copy{};
  for (Machine& machine : machines) {
    newPlace(machine);
    if (S::RESERVES && !(S::ONE_INSTANCE && &machine != &machines[0]))
      copy = NonceLedger::newImage(std::is_base_of_v<KeepsItsKey, S> ? NonceFacts{} : machine.facts, wall);
    machine.disk.put(copy);
  }
  std::set<Counter> seen;
  for (const Life& life : scenario) {
    Machine& machine = machines[life.vault];
    if (life.copy != 0) copy = machine.disk.cached;
    if (life.restore != 0) {
      machine.disk.put(copy);
      machine.bound = 0;
      newPlace(machine);
    }
    machine.disk.start(life);
    wall = static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(wall) + life.clock));
    S subject(machine.disk, wall, machine.facts);
    const auto boundWentDown = [&] {
      const uint64_t before = std::exchange(machine.bound, machine.disk.durableBound());
      return S::RESERVES && machine.bound < before;
    };
    try {
      if (!subject.open()) return "a state that came from crashes alone was refused";
      bool drew = false;
      for (unsigned i = 0; i < life.draws; ++i) {
        const auto counter = subject.draw();
        if (!counter) break;
        drew = true;
        if (S::RESERVES && counter->second >= machine.disk.durableBound()) return "a counter above the durable bound";
        if (boundWentDown()) return "the durable bound went down";
        if (!seen.insert(*counter).second) return "counter " + std::to_string(counter->second) + " was given out twice";
      }
      if (!drew && life.draws > 0 && life.faults.empty()) return "nothing given out though nothing failed";
    } catch (const Crash&) {}
    if (life.powerCut != 0) machine.disk.powerCut();
    if (boundWentDown()) return "the durable bound went down";
  }
  return std::nullopt;
}

Scenario random(unsigned seed) {
  std::mt19937 random(seed);
  Scenario scenario(2 + random() % 5);
  for (Life& life : scenario) {
    life.draws = random() % 30;
    life.vault = random() % 4 == 0;
    life.copy = random() % 4 == 0;
    life.restore = random() % 6 == 0;
    life.powerCut = random() % 3 != 0;
    life.seed = static_cast<unsigned>(random());
    life.clock = random() % 4 == 0 ? static_cast<int>(random() % 200) - 100 : 0;
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
    for (size_t i = 0; i < scenario.size() && !smaller; ++i) {
      Scenario candidate = scenario;
      candidate.erase(candidate.begin() + static_cast<long>(i));
      if (attempt(std::move(candidate))) break;
      for (const auto& [call, fault] : scenario[i].faults) {
        candidate = scenario;
        candidate[i].faults.erase(call);
        if (attempt(std::move(candidate))) break;
      }
      const Life life = scenario[i];
      if (!smaller && i + 1 < scenario.size()) {  // this life and the next in one
        candidate = scenario;
        eachField(life, [&](std::string_view name, auto value) {
          eachField(candidate[i + 1], [&](std::string_view other, auto& field) {
            if (other == name && field == 0) field = static_cast<std::decay_t<decltype(field)>>(value);
          });
        });
        candidate.erase(candidate.begin() + static_cast<long>(i));
        if (attempt(std::move(candidate))) break;
      }
      // Each number to zero, or halfway, or one less.
      eachField(life, [&](std::string_view name, auto value) {
        for (const auto less : {value - value, value / 2, value - (value > 0) + (value < 0)}) {
          if (smaller || static_cast<decltype(value)>(less) == value) continue;
          candidate = scenario;
          eachField(candidate[i], [&](std::string_view other, auto& field) {
            if (other == name) field = static_cast<std::decay_t<decltype(field)>>(less);
          });
          attempt(std::move(candidate));
        }
      });
    }
  }
  return scenario;
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
  EXPECT_EQ(print(*failure), "life draws=1\nlife draws=1\n");
}

TEST(NonceLedgerProperty, FindsACopyThatKeepsItsNonceKey) {
  const auto failure = findFailure<KeepsItsKey>();
  ASSERT_TRUE(failure.has_value());
  // The shortest: a copy is made, used, and put back.
  EXPECT_EQ(failure->size(), 2u) << print(*failure);
  EXPECT_EQ(failure->back().restore, 1u) << print(*failure);
}

TEST(NonceLedgerProperty, FindsVaultsThatShareAnInstance) {
  const auto failure = findFailure<SharesItsInstance>();
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->size(), 2u) << print(*failure);
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

TEST(NonceLedgerProperty, ASchedulePrintedCanBePlayedAgain) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    const Scenario scenario = random(seed);
    std::istringstream text(print(scenario));
    EXPECT_EQ(parse(text), scenario) << print(scenario);
  }
}

TEST(NonceLedgerProperty, PlaysTheScheduleOfTheEnvironment) {
  // Without one: killed between write and fdatasync, then a power cut in the next life.
  std::stringstream text("life draws=9 4:crash-after\nlife draws=9 power-cut=1 2:crash-after\nlife draws=9\n");
  if (const char* const path = std::getenv("SALLYPORT_NONCE_SCHEDULE")) {
    std::ifstream file(path);
    ASSERT_TRUE(file.is_open()) << path;
    text.str("");
    text << file.rdbuf();
  }
  EXPECT_EQ(run<Ours<>>(parse(text)), std::nullopt);
}

}  // namespace
}  // namespace sallyport::vaultd
