// Goal: each version is in the state that its times say, at each second, and each change leads from one state to the
// next as the rules allow; what is refused changes nothing. Method: a key in memory, and a clock that is an argument.
#include "vaultd/key_life.h"

#include <algorithm>

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using enum VersionState;

constexpr int64_t T = 1'795'000'000;
constexpr int64_t DAY = 86'400;

class KeyLife : public testing::Test {
 protected:
  OpenedKey key = std::move(newKey("server", KeyKind::X25519, LongTermSecret::random(), {}, T)->opened);

  // The states of all versions, oldest first.
  std::vector<VersionState> at(int64_t now) const {
    std::vector<VersionState> states;
    for (const auto& version : key.header.versions) states.push_back(stateOf(version, now));
    return states;
  }
  void rotated(const Rotation& rotation, int64_t now) {
    ASSERT_TRUE(rotate(key, LongTermSecret::random(), rotation, now).has_value());
  }
  // The problem of a change, which has left the key as it was.
  template <typename Run>
  Problem refused(Run&& run) {
    const auto before = key.header.versions;
    const auto secrets = key.versions.size();
    const Result<void, Problem> done = run();
    EXPECT_FALSE(done.has_value());
    EXPECT_EQ(key.header.versions, before);
    EXPECT_EQ(key.versions.size(), secrets);
    return done ? Problem{} : done.error();
  }
  using States = std::vector<VersionState>;
};

TEST_F(KeyLife, AStateFollowsFromTheTimesAtEachSecond) {
  const KeyVersion version{1, {}, 100, 200, 300, 0, 400};
  const std::pair<int64_t, VersionState> expected[] = {
      {0, Pending},    {99, Pending},  {100, Active},  {199, Active},    {200, OpenOnly},
      {299, OpenOnly}, {300, Retired}, {399, Retired}, {400, Destroyed}, {INT64_MAX, Destroyed}};
  for (const auto& [now, state] : expected) EXPECT_EQ(stateOf(version, now), state) << now;
}

TEST_F(KeyLife, WithoutTimesAVersionIsActiveForEver) {
  for (const int64_t now : {int64_t{0}, T, INT64_MAX}) EXPECT_EQ(stateOf({}, now), Active);
}

TEST_F(KeyLife, ARotationWithDelayAndGraceRunsByTheClockAlone) {
  rotated({2 * DAY, 7 * DAY}, T);
  EXPECT_EQ(at(T), (States{Active, Pending}));
  EXPECT_EQ(at(T + 2 * DAY - 1), (States{Active, Pending}));
  EXPECT_EQ(at(T + 2 * DAY), (States{OpenOnly, Active}));
  EXPECT_EQ(at(T + 9 * DAY - 1), (States{OpenOnly, Active}));
  EXPECT_EQ(at(T + 9 * DAY), (States{Retired, Active}));
  EXPECT_EQ(key.versions.size(), 2u) << "a retired version is kept";
  EXPECT_EQ(key.versions[0].version, key.header.versions[0]) << "what a vault is given is the same";
}

TEST_F(KeyLife, AtMostOneVersionIsActiveAtAnyTime) {
  for (int i = 0; i < 6; ++i) rotated({i * 10, 25}, T + i * 100);
  for (int64_t now = T - 10; now < T + 1000; ++now) {
    const auto states = at(now);
    EXPECT_EQ(std::ranges::count(states, Active), now < T ? 0 : 1) << now;
  }
}

TEST_F(KeyLife, WithoutDelayAndGraceTheOldOneIsRetiredAtOnce) {
  rotated({0, 0}, T + 5);
  EXPECT_EQ(at(T + 5), (States{Retired, Active}));
  EXPECT_EQ(activeVersion(key.header, T + 5)->number, 2u);
}

TEST_F(KeyLife, OnePendingVersionAtATime) {
  rotated({DAY, DAY}, T);
  const auto problem = refused([&] { return rotate(key, LongTermSecret::random(), {}, T + 1); });
  EXPECT_TRUE(contains(problem.message, "version 2 of `server` is pending"));
  EXPECT_TRUE(contains(problem.hint, "sallyport key retire server 2"));
}

TEST_F(KeyLife, APendingVersionCanBeTakenBack) {
  const auto before = key.header.versions[0];
  rotated({DAY, DAY}, T);
  ASSERT_TRUE(retire(key, 2, T + 1).has_value());
  EXPECT_EQ(key.header.versions[0], before);
  EXPECT_EQ(at(T + 100 * DAY), (States{Active, Retired}));
  rotated({}, T + 2);
  EXPECT_EQ(key.header.versions.back().number, 3u) << "numbers are never used again";
}

TEST_F(KeyLife, AGraceCanBeEnded) {
  rotated({0, 7 * DAY}, T);
  ASSERT_TRUE(retire(key, 1, T + 10).has_value());
  EXPECT_EQ(at(T + 10), (States{Retired, Active}));
  EXPECT_TRUE(contains(refused([&] { return retire(key, 1, T + 11); }).message, "retired already"));
}

TEST_F(KeyLife, TheActiveVersionIsNotRetired) {
  EXPECT_TRUE(contains(refused([&] { return retire(key, 1, T); }).message, "is the active one"));
  EXPECT_TRUE(contains(refused([&] { return retire(key, 9, T); }).message, "no version 9"));
}

TEST_F(KeyLife, ADeletedKeyIsNotUsedAndComesBackWithinItsWindow) {
  rotated({0, DAY}, T);
  const auto before = key.header.versions;
  ASSERT_TRUE(markDeleted(key, std::nullopt, 7 * DAY, T + 1).has_value());
  EXPECT_EQ(at(T + 1), (States{Retired, Retired}));
  EXPECT_EQ(activeVersion(key.header, T + 1), nullptr);
  EXPECT_EQ(at(T + 1 + 7 * DAY), (States{Destroyed, Destroyed}));
  EXPECT_TRUE(contains(refused([&] { return rotate(key, LongTermSecret::random(), {}, T + 2); }).hint, "undelete"));
  ASSERT_TRUE(undelete(key, std::nullopt, T + 7 * DAY).has_value());
  EXPECT_EQ(key.header.versions, before);
  EXPECT_EQ(key.versions[1].version, before[1]);
}

TEST_F(KeyLife, AfterTheWindowNothingComesBack) {
  ASSERT_TRUE(markDeleted(key, std::nullopt, DAY, T).has_value());
  EXPECT_TRUE(contains(refused([&] { return undelete(key, std::nullopt, T + DAY); }).hint, "restore"));
  EXPECT_EQ(dropDestroyed(key, T + DAY - 1), 0u);
  EXPECT_EQ(dropDestroyed(key, T + DAY), 1u);
  EXPECT_TRUE(key.versions.empty());
  EXPECT_EQ(key.header.versions.size(), 1u) << "the line stays: what it was is still to be read";
}

TEST_F(KeyLife, ARunningWindowIsNeitherProlongedNorCut) {
  ASSERT_TRUE(markDeleted(key, std::nullopt, DAY, T).has_value());
  EXPECT_TRUE(contains(refused([&] { return markDeleted(key, std::nullopt, 0, T + 1); }).message, "nothing is left"));
}

TEST_F(KeyLife, AWindowOfZeroDestroysAtOnce) {
  ASSERT_TRUE(markDeleted(key, std::nullopt, 0, T).has_value());
  EXPECT_TRUE(key.versions.empty());
  EXPECT_EQ(at(T), States{Destroyed});
}

TEST_F(KeyLife, OneOldVersionCanBeDeletedButNotTheActiveOne) {
  rotated({0, DAY}, T);
  ASSERT_TRUE(markDeleted(key, 1, DAY, T + 1).has_value());
  EXPECT_EQ(at(T + 1), (States{Retired, Active}));
  EXPECT_TRUE(contains(refused([&] { return markDeleted(key, 2, DAY, T + 1); }).message, "is active"));
  EXPECT_TRUE(contains(refused([&] { return markDeleted(key, 7, DAY, T + 1); }).message, "no version 7"));
  EXPECT_TRUE(contains(refused([&] { return undelete(key, 2, T + 1); }).message, "deletion window"));
  ASSERT_TRUE(undelete(key, 1, T + 2).has_value());
  EXPECT_EQ(at(T + 2), (States{OpenOnly, Active}));
}

TEST_F(KeyLife, APeriodIsDueWhenItIsOverAndNothingWaits) {
  EXPECT_FALSE(rotationDue(key.header, 90 * DAY, T + 90 * DAY - 1));
  EXPECT_TRUE(rotationDue(key.header, 90 * DAY, T + 90 * DAY));
  rotated({DAY, DAY}, T + 90 * DAY);
  EXPECT_FALSE(rotationDue(key.header, 90 * DAY, T + 90 * DAY + 1)) << "a successor is planned";
  EXPECT_TRUE(rotationDue(key.header, 90 * DAY, T + 181 * DAY));
}

TEST_F(KeyLife, AFullSetMakesRoomByDestroyedVersionsAlone) {
  for (size_t i = 1; i < MAX_VERSIONS; ++i) rotated({}, T + static_cast<int64_t>(i));
  const auto problem = refused([&] { return rotate(key, LongTermSecret::random(), {}, T + 1000); });
  EXPECT_TRUE(contains(problem.hint, "sallyport key delete server VERSION"));
  ASSERT_TRUE(markDeleted(key, 5, 0, T + 1000).has_value());
  rotated({}, T + 1001);
  EXPECT_EQ(key.header.versions.size(), MAX_VERSIONS);
  EXPECT_EQ(key.header.versions.back().number, MAX_VERSIONS + 1);
}

}  // namespace
}  // namespace sallyport::vaultd
