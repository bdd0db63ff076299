// Goal: a secret is in one place, and gone from every place that it left.
// Method: objects in memory of the test's own, looked at byte by byte after moves and destruction.
#include "common/secret_bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <new>

namespace sallyport {
namespace {

struct TestTag;
using Secret = SecretBytes<TestTag, 32>;
static_assert(sizeof(Secret) == 32);

constexpr std::array<std::byte, 32> PATTERN = [] {
  std::array<std::byte, 32> bytes{};
  bytes.fill(std::byte{0xa5});
  return bytes;
}();

bool isZero(ByteSpan bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// A place whose bytes can be looked at when nothing lives there any more.
struct Place {
  alignas(Secret) std::array<std::byte, sizeof(Secret)> memory;
  Secret* make() { return new (memory.data()) Secret(PATTERN); }
  bool wiped() const {
    const volatile std::byte* at = memory.data();
    for (size_t i = 0; i < memory.size(); ++i) {
      if (at[i] != std::byte{0}) return false;
    }
    return true;
  }
};

TEST(ASecret, HoldsItsBytes) {
  const Secret secret(PATTERN);
  EXPECT_TRUE(equalsConstantTime(secret.expose(), PATTERN));
  EXPECT_TRUE(isZero(Secret().expose()));
}

TEST(ASecret, IsGoneFromItsPlaceWhenItDies) {
  Place place;
  Secret* secret = place.make();
  EXPECT_FALSE(place.wiped());
  secret->~Secret();
  EXPECT_TRUE(place.wiped());
}

TEST(ASecret, ThatMovedIsGoneFromWhereItWas) {
  Place place;
  Secret* secret = place.make();
  const Secret next(std::move(*secret));
  EXPECT_TRUE(place.wiped());
  EXPECT_TRUE(equalsConstantTime(next.expose(), PATTERN));
}

TEST(ASecret, ThatWasMovedOverAnotherReplacesIt) {
  Place place;
  Secret* secret = place.make();
  Secret target = Secret::random();
  target = std::move(*secret);
  EXPECT_TRUE(place.wiped());
  EXPECT_TRUE(equalsConstantTime(target.expose(), PATTERN));
}

TEST(ASecret, SurvivesAMoveOverItself) {
  Secret secret(PATTERN);
  Secret& same = secret;
  secret = std::move(same);
  EXPECT_TRUE(equalsConstantTime(secret.expose(), PATTERN));
}

TEST(ASecret, CanBeWipedEarly) {
  Secret secret(PATTERN);
  secret.wipe();
  EXPECT_TRUE(isZero(secret.expose()));
}

TEST(ASecretDeathTest, OfAnotherLengthIsABug) {
  EXPECT_DEATH(Secret(ByteSpan(PATTERN).first(31)), "invariant broken");
  EXPECT_DEATH(Secret{ByteSpan{}}, "invariant broken");
}

TEST(ASecret, ThatIsRandomIsNeitherZeroNorTheLastOne) {
  const Secret first = Secret::random();
  EXPECT_FALSE(isZero(first.expose()));
  EXPECT_FALSE(equalsConstantTime(first.expose(), Secret::random().expose()));
}

TEST(AConstantTimeComparison, SeesEveryBit) {
  const std::vector<std::byte> one(PATTERN.begin(), PATTERN.end());
  for (size_t bit = 0; bit < 8 * one.size(); ++bit) {
    auto other = one;
    other[bit / 8] ^= std::byte(1 << bit % 8);
    EXPECT_FALSE(equalsConstantTime(one, other)) << bit;
  }
  EXPECT_TRUE(equalsConstantTime(one, one));
}

TEST(AConstantTimeComparison, OfDifferentLengthsIsUnequal) {
  EXPECT_FALSE(equalsConstantTime(PATTERN, ByteSpan(PATTERN).first(31)));
  EXPECT_FALSE(equalsConstantTime(ByteSpan(PATTERN).first(31), PATTERN));
  EXPECT_FALSE(equalsConstantTime(ByteSpan{}, PATTERN));
  EXPECT_TRUE(equalsConstantTime(ByteSpan{}, ByteSpan{}));
}

}  // namespace
}  // namespace sallyport
