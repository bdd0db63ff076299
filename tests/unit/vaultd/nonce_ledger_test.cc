// Goal: counters go up, only below a durable bound, and any doubt about the state gives a fresh nonce key.
// Method: a disk in memory whose writes can fail, and whose slots can be changed.
#include "vaultd/nonce_ledger.h"

#include <cerrno>

#include "tests/unit/vaultd/memory_disk.h"
#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

constexpr uint64_t R = NonceLedger::RESERVATION;
constexpr uint64_t Y2026 = 1767225600;
constexpr uint64_t FLOOR_2026 = (Y2026 - 1577836800) << 21;

class Ledger : public testing::Test {
 protected:
  test::DiskState disk;
  NonceFacts facts;
  uint64_t wall = 0;

  void SetUp() override {
    facts.keyId.fill(std::byte{1});
    facts.place.fill(std::byte{2});
    disk.image = NonceLedger::newImage(facts, wall);
  }
  Result<std::unique_ptr<NonceLedger>, Problem> tryOpen(uint64_t reservation = R) {
    return NonceLedger::open(
        std::make_unique<test::MemoryDisk>(disk), facts, [this] { return wall; }, reservation);
  }
  std::unique_ptr<NonceLedger> open(uint64_t reservation = R) {
    auto ledger = tryOpen(reservation);
    EXPECT_TRUE(ledger.has_value());
    return ledger ? std::move(*ledger) : nullptr;
  }
  MutableByteSpan slot(size_t index) {
    return MutableByteSpan(disk.image).subspan(index * NonceLedger::SLOT_BYTES, NonceLedger::SLOT_BYTES);
  }
  uint64_t field(size_t index, size_t at) {
    uint64_t value = 0;
    for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(slot(index)[at + i]);
    return value;
  }
  uint64_t boundOnDisk() { return std::max(field(0, 16), field(1, 16)); }
  // Changes a field of a slot and makes its checksum right again.
  void forge(size_t index, size_t at, uint64_t value) {
    for (size_t i = 0; i < 8; ++i) slot(index)[at + i] = static_cast<std::byte>(value >> (56 - 8 * i));
    crypto_generichash_blake2b(uchars(slot(index).subspan(4064)), 32, uchars(ByteSpan(slot(index))), 4064, nullptr, 0);
  }
};

TEST_F(Ledger, CountsUpFromItsFloor) {
  auto ledger = open();
  EXPECT_EQ(ledger->draw(), 0u);
  EXPECT_EQ(ledger->draw(), 1u);
  EXPECT_EQ(ledger->describe(), "ready");
  EXPECT_EQ(ledger->renewed(), "");
}

TEST_F(Ledger, ReservesDurablyBeforeTheFirstCounter) {
  auto ledger = open();
  EXPECT_EQ(disk.writes, 2);
  EXPECT_EQ(disk.syncs, 2) << "what was read is made durable first";
  EXPECT_EQ(boundOnDisk(), 2 * R);
}

TEST_F(Ledger, SkipsAheadAfterACrash) {
  open()->draw();
  EXPECT_EQ(open()->draw(), 2 * R);
  EXPECT_EQ(open()->draw(), 4 * R);
}

TEST_F(Ledger, RefillsWhenHalfIsUsedAndNeverEarlier) {
  auto ledger = open(8);
  for (uint64_t i = 0; i < 8; ++i) ledger->draw();
  EXPECT_EQ(disk.writes, 2);
  EXPECT_EQ(ledger->draw(), 8u);
  EXPECT_EQ(disk.writes, 3);
  EXPECT_EQ(boundOnDisk(), 8u + 16u);
  for (uint64_t i = 9; i < 1000; ++i) {
    EXPECT_EQ(ledger->draw(), i);
    EXPECT_GT(boundOnDisk(), i);
  }
}

TEST_F(Ledger, AlternatesBetweenTheSlots) {
  auto ledger = open(8);
  for (int i = 0; i < 200; ++i) ledger->draw();
  const uint64_t zero = field(0, 8);
  const uint64_t one = field(1, 8);
  EXPECT_EQ(zero % 2, 0u);
  EXPECT_EQ(one % 2, 1u);
  EXPECT_EQ(std::max(zero, one) - std::min(zero, one), 1u);
}

TEST_F(Ledger, KeepsItsInstanceOverCleanRestarts) {
  const InstanceId instance = open()->instance();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(open()->instance(), instance);
}

TEST_F(Ledger, StartsAtTheClockFloor) {
  wall = Y2026;
  SetUp();
  EXPECT_EQ(open()->draw(), FLOOR_2026);
}

TEST_F(Ledger, AnOldBackupStartsAboveEverythingUsedSince) {
  wall = Y2026;
  SetUp();
  const NonceLedger::Image backup = disk.image;
  uint64_t last = 0;
  for (int day = 0; day < 30; ++day) {
    wall += 86400;
    auto ledger = open();
    for (int i = 0; i < 1000; ++i) last = *ledger->draw();
  }
  disk.image = backup;
  wall += 1;
  EXPECT_GT(*open()->draw(), last);
}

TEST_F(Ledger, AFailedWriteStopsItForGood) {
  auto ledger = open(8);
  disk.failWriteWith = ENOSPC;
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(ledger->draw());
  EXPECT_FALSE(ledger->draw());
  EXPECT_TRUE(contains(ledger->describe(), "No space left"));
  disk.failWriteWith = 0;
  const int writes = disk.writes;
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(ledger->draw());
  EXPECT_EQ(disk.writes, writes) << "never tried again on this descriptor";
}

TEST_F(Ledger, AFailedSyncStopsItForGood) {
  auto ledger = open(8);
  disk.failSyncWith = EIO;
  for (int i = 0; i < 8; ++i) ledger->draw();
  EXPECT_FALSE(ledger->draw());
  EXPECT_TRUE(contains(ledger->describe(), "durable"));
  disk.failSyncWith = 0;
  EXPECT_FALSE(ledger->draw());
  EXPECT_EQ(disk.syncs, 3) << "fsync is never retried";
}

TEST_F(Ledger, AShortWriteStopsIt) {
  auto ledger = open(8);
  disk.shortWriteBytes = 512;
  for (int i = 0; i < 8; ++i) ledger->draw();
  EXPECT_FALSE(ledger->draw());
  EXPECT_TRUE(contains(ledger->describe(), "short write"));
}

TEST_F(Ledger, AFullDiskAtTheStartOpensItPoisoned) {
  disk.failWriteWith = ENOSPC;
  auto ledger = open();
  EXPECT_FALSE(ledger->ready());
  EXPECT_FALSE(ledger->draw());
}

TEST_F(Ledger, ARestartAfterAFailureGoesOnAboveEverything) {
  auto ledger = open(8);
  disk.failSyncWith = EIO;
  uint64_t last = 0;
  while (const auto counter = ledger->draw()) last = *counter;
  disk.failSyncWith = 0;
  EXPECT_GT(*open(8)->draw(), last);
}

TEST_F(Ledger, OneDamagedSlotMeansAFreshNonceKey) {
  const InstanceId instance = open()->instance();
  for (size_t index : {0u, 1u}) {
    open();
    slot(index)[100] ^= std::byte{1};
    auto ledger = open();
    EXPECT_NE(ledger->instance(), instance);
    EXPECT_TRUE(contains(ledger->renewed(), "damaged"));
    EXPECT_TRUE(ledger->draw());
    EXPECT_EQ(open()->renewed(), "") << "healed";
  }
}

TEST_F(Ledger, TwoDamagedSlotsRefuseToStart) {
  slot(0)[5000 % 4096] ^= std::byte{1};
  slot(1)[17] ^= std::byte{1};
  auto ledger = tryOpen();
  ASSERT_FALSE(ledger.has_value());
  EXPECT_TRUE(contains(ledger.error().message, "damaged"));
  EXPECT_TRUE(contains(ledger.error().hint, "move the file away"));
  EXPECT_EQ(disk.writes, 0) << "nothing is overwritten";
}

TEST_F(Ledger, EveryFlippedBitOfASlotIsNoticed) {
  for (size_t at = 0; at < NonceLedger::SLOT_BYTES; ++at) {
    SetUp();
    slot(0)[at] ^= std::byte{0x10};
    EXPECT_NE(open()->renewed(), "") << at;
  }
}

TEST_F(Ledger, SwappedSlotsAreNotOurs) {
  NonceLedger::Image swapped;
  std::memcpy(swapped.data(), slot(1).data(), NonceLedger::SLOT_BYTES);
  std::memcpy(swapped.data() + NonceLedger::SLOT_BYTES, slot(0).data(), NonceLedger::SLOT_BYTES);
  disk.image = swapped;
  EXPECT_FALSE(tryOpen().has_value());
}

TEST_F(Ledger, ZerosAreNotAState) {
  disk.image = {};
  EXPECT_FALSE(tryOpen().has_value());
}

TEST_F(Ledger, AnotherVersionIsNamedAndLeftAlone) {
  slot(0)[7] = std::byte{'2'};
  slot(1)[7] = std::byte{'2'};
  forge(0, 8, 2);
  forge(1, 8, 3);
  auto ledger = tryOpen();
  ASSERT_FALSE(ledger.has_value());
  EXPECT_TRUE(contains(ledger.error().message, "another version"));
  EXPECT_EQ(disk.writes, 0);
}

TEST_F(Ledger, GenerationsThatDoNotFollowMeanAFreshNonceKey) {
  open();
  forge(0, 8, field(0, 8) + 20);
  EXPECT_TRUE(contains(open()->renewed(), "don't follow"));
}

TEST_F(Ledger, ABoundThatWentDownMeansAFreshNonceKeyAndIsNotUsed) {
  open();
  open();
  const size_t newest = field(0, 8) > field(1, 8) ? 0 : 1;
  const uint64_t older = field(1 - newest, 16);
  forge(newest, 16, 3);
  auto ledger = open();
  EXPECT_TRUE(contains(ledger->renewed(), "bound went down"));
  EXPECT_GE(*ledger->draw(), older);
}

TEST_F(Ledger, AClockBehindTheStoredTimeMeansAFreshNonceKey) {
  wall = Y2026;
  SetUp();
  const uint64_t first = *open()->draw();
  wall -= 3600;
  auto ledger = open();
  EXPECT_TRUE(contains(ledger->renewed(), "clock"));
  EXPECT_GT(*ledger->draw(), first) << "and counting goes on";
}

TEST_F(Ledger, AClockWithoutABatteryIsSurvived) {
  wall = Y2026;
  SetUp();
  const uint64_t first = *open()->draw();
  wall = 0;
  EXPECT_GT(*open()->draw(), first);
}

TEST_F(Ledger, AClockGoneWildIsNotBelieved) {
  wall = Y2026;
  SetUp();
  open();
  wall = Y2026 + uint64_t{50} * 365 * 86400;
  EXPECT_LT(*open()->draw(), FLOOR_2026 + (uint64_t{1} << 40));
  wall = Y2026 + 60;
  auto ledger = open();
  EXPECT_EQ(ledger->renewed(), "") << "its time was not stored either";
  wall = UINT64_MAX;
  EXPECT_TRUE(open()->draw());
}

TEST_F(Ledger, AnAbsurdClockAtCreationStillGivesALedger) {
  wall = UINT64_MAX;
  SetUp();
  EXPECT_TRUE(open()->draw());
}

TEST_F(Ledger, AnotherPlaceMeansAFreshNonceKey) {
  open();
  facts.place.fill(std::byte{3});
  EXPECT_TRUE(contains(open()->renewed(), "another machine"));
  EXPECT_EQ(open()->renewed(), "") << "once";
}

TEST_F(Ledger, AnotherKeyMeansAFreshNonceKey) {
  open();
  facts.keyId.fill(std::byte{9});
  EXPECT_TRUE(contains(open()->renewed(), "another key"));
}

TEST_F(Ledger, TheLastCountersAreNeverReached) {
  forge(0, 16, NonceLedger::END - 10);
  forge(1, 16, NonceLedger::END - 10);
  auto ledger = open(4);
  EXPECT_TRUE(ledger->draw());
  uint64_t last = 0;
  while (const auto counter = ledger->draw()) last = *counter;
  EXPECT_LT(last, NonceLedger::END);
  EXPECT_TRUE(contains(ledger->describe(), "rotate"));
  EXPECT_FALSE(open(4)->ready());
}

TEST_F(Ledger, ABoundBeyondTheEndIsDamage) {
  forge(0, 16, UINT64_MAX);
  forge(1, 16, UINT64_MAX);
  EXPECT_FALSE(tryOpen().has_value());
}

TEST_F(Ledger, TwoNewStatesHaveDifferentInstances) {
  const InstanceId first = open()->instance();
  SetUp();
  EXPECT_NE(open()->instance(), first);
}

}  // namespace
}  // namespace sallyport::vaultd
