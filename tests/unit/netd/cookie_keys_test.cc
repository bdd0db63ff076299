// Goal: a cookie opens under the two newest minute keys and no others, and only as it was sealed.
// Method: the original's K, keys rotated again and again, each bit flipped.
#include "netd/cookie_keys.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/netd/test_vault.h"

namespace sallyport::netd {
namespace {

using test::vec;

class ACookie : public testing::Test {
 protected:
  CookieKeys keys;
  const EphemeralPair pair = makeEphemeralPair();
  const PublicKey EC = makeEphemeralPair().publicKey;

  bool opens(const Cookie& cookie) { return keys.open(cookie).has_value(); }
};

TEST_F(ACookie, OfTheOriginalOpens) {
  keys.rotate(MinuteKey(test::vector("minute_key")));
  Cookie cookie;
  std::ranges::copy(test::vector("K"), cookie.begin());
  const auto content = keys.open(cookie);
  ASSERT_TRUE(content.has_value());
  EXPECT_EQ(vec(content->clientEphemeral.span()), test::vector("EC"));
  EXPECT_EQ(vec(content->secret.expose()), test::vector("ESs"));
}

TEST_F(ACookie, HoldsWhatWasSealedAndIsAnotherEachTime) {
  keys.rotate(MinuteKey::random());
  const Cookie cookie = keys.seal(EC, pair.secret);
  const auto content = keys.open(cookie);
  ASSERT_TRUE(content.has_value());
  EXPECT_EQ(content->clientEphemeral, EC);
  EXPECT_TRUE(equalsConstantTime(content->secret.expose(), pair.secret.expose()));
  EXPECT_NE(keys.seal(EC, pair.secret), cookie);
}

TEST_F(ACookie, OpensUnderTwoKeysAndNotUnderTheThird) {
  keys.rotate(MinuteKey::random());
  const Cookie first = keys.seal(EC, pair.secret);
  keys.rotate(MinuteKey::random());
  const Cookie second = keys.seal(EC, pair.secret);
  EXPECT_TRUE(opens(first));
  EXPECT_TRUE(opens(second));
  keys.rotate(MinuteKey::random());
  EXPECT_FALSE(opens(first));
  EXPECT_TRUE(opens(second));
  keys.rotate(MinuteKey::random());
  EXPECT_FALSE(opens(second));
}

TEST_F(ACookie, DoesNotOpenAfterAnyFlippedBit) {
  keys.rotate(MinuteKey::random());
  const Cookie cookie = keys.seal(EC, pair.secret);
  for (size_t bit = 0; bit < 8 * cookie.size(); ++bit) {
    Cookie changed = cookie;
    changed[bit / 8] ^= std::byte(1 << bit % 8);
    ASSERT_FALSE(opens(changed)) << bit;
  }
}

TEST_F(ACookie, OfAnotherServerDoesNotOpen) {
  keys.rotate(MinuteKey::random());
  CookieKeys other;
  other.rotate(MinuteKey::random());
  EXPECT_FALSE(opens(other.seal(EC, pair.secret)));
}

TEST_F(ACookie, DoesNotOpenWithoutAKey) {
  EXPECT_FALSE(keys.ready());
  EXPECT_FALSE(opens(Cookie{}));
  keys.rotate(MinuteKey::random());
  EXPECT_TRUE(keys.ready());
  EXPECT_FALSE(opens(Cookie{}));
}

TEST_F(ACookie, ShowsNeitherSecretNorKey) {
  keys.rotate(MinuteKey::random());
  const Cookie cookie = keys.seal(EC, pair.secret);
  const std::string bytes = test::text(cookie);
  EXPECT_EQ(bytes.find(test::text(pair.secret.expose())), std::string::npos);
  EXPECT_EQ(bytes.find(test::text(EC.span())), std::string::npos);
}

// A minute key that left must be nowhere in the object that held it.
TEST_F(ACookie, KeyThatLeftIsWiped) {
  const auto holds = [&](ByteSpan needle) {
    return test::text({reinterpret_cast<const std::byte*>(&keys), sizeof keys}).find(test::text(needle)) !=
           std::string::npos;
  };
  const std::vector<std::byte> first(32, std::byte{0x5a});
  keys.rotate(MinuteKey(first));
  EXPECT_TRUE(holds(first));
  keys.rotate(MinuteKey::random());
  EXPECT_TRUE(holds(first));
  keys.rotate(MinuteKey::random());
  EXPECT_FALSE(holds(first));
}

using ACookieDeathTest = ACookie;
TEST_F(ACookieDeathTest, IsNotSealedWithoutAKey) {
  EXPECT_DEATH(static_cast<void>(keys.seal(EC, pair.secret)), "invariant broken");
}

}  // namespace
}  // namespace sallyport::netd
