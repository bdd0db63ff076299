// Goal: what one process counts another reads, and a refused key is read whole or not at all.
// Method: one page mapped twice, for writing and for reading; a writer in a thread of its own.
#include "netd/stats.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>

namespace sallyport::netd {
namespace {

class AStatsPage : public testing::Test {
 protected:
  const int fd_ = Stats::create();
  Stats& written_ = Stats::map(fd_);
  const Stats& read_ = Stats::mapReadOnly(Stats::reopenReadOnly(fd_));
};

PublicKey keyOf(uint64_t number) {
  const std::array<uint64_t, 4> words{number, number, number, number};
  return PublicKey(std::as_bytes(std::span(words)));
}

TEST_F(AStatsPage, CountsForEachEntry) {
  written_.add(3, EntryCounter::Accepted);
  written_.add(3, EntryCounter::Accepted);
  written_.add(3, EntryCounter::Drops);
  EXPECT_EQ(read_.get(3, EntryCounter::Accepted), 2u);
  EXPECT_EQ(read_.get(3, EntryCounter::Handshakes), 0u);
  EXPECT_EQ(read_.get(3, EntryCounter::Drops), 1u);
  EXPECT_EQ(read_.get(4, EntryCounter::Accepted), 0u);
}

TEST_F(AStatsPage, TakesNoEntryBeyondItsEnd) {
  for (const uint32_t id : {uint32_t{MAX_COUNTED_ENTRIES}, UINT32_MAX}) {
    written_.add(id, EntryCounter::Accepted);
    written_.setRefused(id, {keyOf(1), 1});
    EXPECT_EQ(read_.get(id, EntryCounter::Accepted), 0u);
    EXPECT_FALSE(read_.refused(id));
  }
}

TEST_F(AStatsPage, KeepsTheLastRefusedKey) {
  EXPECT_FALSE(read_.refused(1));
  written_.setRefused(1, {keyOf(7), 100});
  written_.setRefused(1, {keyOf(8), 200});
  const auto refused = read_.refused(1);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->key, keyOf(8));
  EXPECT_EQ(refused->atMs, 200u);
  EXPECT_FALSE(read_.refused(2));
}

TEST_F(AStatsPage, GivesAKeyWholeOrNotAtAll) {
  std::jthread writer([this](const std::stop_token& stop) {
    for (uint64_t number = 1; !stop.stop_requested(); ++number) written_.setRefused(1, {keyOf(number), number});
  });
  size_t whole = 0;
  for (size_t i = 0; i < 200'000 || whole == 0; ++i) {
    const auto refused = read_.refused(1);
    if (!refused) continue;
    ++whole;
    ASSERT_EQ(refused->key, keyOf(refused->atMs));
  }
}

}  // namespace
}  // namespace sallyport::netd
