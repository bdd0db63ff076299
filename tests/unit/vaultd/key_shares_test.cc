// Goal: any k of n shares give the secret back, fewer or foreign ones never; a mistyped one is told as such.
// Method: every subset of small sets, and each character of a line changed.
#include "vaultd/key_shares.h"

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

ShareSet someSet() {
  ShareSet set;
  fillRandom(set);
  return set;
}

Share copyOf(const Share& share) {
  Share copy{share.keyName, share.set, share.needed, share.total, share.x, ShareSecret(share.value.expose())};
  return copy;
}

std::vector<Share> chosen(const std::vector<Share>& shares, unsigned mask) {
  std::vector<Share> result;
  for (unsigned i = 0; i < shares.size(); ++i) {
    if ((mask >> i & 1) != 0) result.push_back(copyOf(shares[i]));
  }
  return result;
}

bool gives(const std::vector<Share>& shares, const ShareSecret& secret) {
  const auto joined = joinShares(shares);
  return joined && equalsConstantTime(asBytes(joined->text.expose()), secret.expose());
}

std::string problemOf(const std::vector<Share>& shares) {
  const auto joined = joinShares(shares);
  return joined ? "" : joined.error().message;
}

TEST(Shares, AnyEnoughOfThemGiveTheSecretBackAndFewerDoNot) {
  for (const auto& [needed, total] : {std::pair{2U, 2U}, {2U, 3U}, {3U, 5U}, {5U, 5U}, {4U, 7U}}) {
    const auto secret = ShareSecret::random();
    const auto shares = splitSecret(secret, "server", someSet(), needed, total);
    ASSERT_EQ(shares.size(), total);
    for (unsigned mask = 1; mask < 1U << total; ++mask) {
      const auto some = chosen(shares, mask);
      EXPECT_EQ(gives(some, secret), some.size() >= needed) << needed << "/" << total << " " << mask;
    }
  }
}

TEST(Shares, AsManyAsFit) {
  const auto secret = ShareSecret::random();
  const auto shares = splitSecret(secret, "server", someSet(), MAX_SHARES, MAX_SHARES);
  EXPECT_TRUE(gives(shares, secret));
}

// The arithmetic of FIPS 197, 4.2: with two shares, x = 1 and 2, the slope is their difference by 3 = 1 ^ 2. Known
// points: 0x57 * 0x83 = 0xc1, so the line through (1, 0x57 ^ c) and (2, 2 * 0x57 ^ c) meets 0 at c.
TEST(Shares, TheFieldIsThatOfAes) {
  std::vector<Share> shares(2);
  for (unsigned i = 0; i < 2; ++i) {
    shares[i].keyName = "server";
    shares[i].needed = shares[i].total = 2;
    shares[i].x = i + 1;
  }
  shares[0].value.exposeData()[0] = 0x57 ^ 0x0f;
  shares[1].value.exposeData()[0] = 0xae ^ 0x0f;  // 0x57 * 2
  shares[0].value.exposeData()[1] = 0xc1 ^ 0x0f;
  shares[1].value.exposeData()[1] = 0x99 ^ 0x0f;  // 0xc1 * 2 = 0x182, less 0x11b
  const auto joined = joinShares(shares);
  ASSERT_TRUE(joined.has_value());
  EXPECT_EQ(joined->text.expose()[0], '\x0f');
  EXPECT_EQ(joined->text.expose()[1], '\x0f');
}

TEST(Shares, TooFewTwiceAndMixedOnesAreToldApart) {
  const auto secret = ShareSecret::random();
  const auto shares = splitSecret(secret, "server", someSet(), 3, 5);
  const auto others = splitSecret(secret, "server", someSet(), 3, 5);
  EXPECT_TRUE(contains(problemOf(chosen(shares, 0b11)), "only 2 of 3"));
  EXPECT_TRUE(contains(problemOf({}), "no share"));
  auto twice = chosen(shares, 0b11);
  twice.push_back(copyOf(shares[0]));
  EXPECT_TRUE(contains(problemOf(twice), "share 1 is given twice"));
  auto mixed = chosen(shares, 0b11);
  mixed.push_back(copyOf(others[2]));
  EXPECT_TRUE(contains(problemOf(mixed), "different sets"));
}

TEST(Shares, OpenTheSlotThatTheyWereMadeForAlone) {
  const auto secret = ShareSecret::random();
  const auto set = someSet();
  const auto shares = splitSecret(secret, "server", set, 2, 3);
  const auto joined = joinShares(chosen(shares, 0b101));
  ASSERT_TRUE(joined.has_value());
  const auto fileKey = FileKey::random();
  Sealing sealing{SealKind::Shares, &joined->text, {}, {}, 2, 3, set};
  const auto slot = makeSlot("server", 1, sealing, fileKey);
  ASSERT_TRUE(slot.has_value());
  EXPECT_TRUE(openSlot("server", *slot, joined->text).has_value());
  auto forged = chosen(shares, 0b11);
  forged[1].value.exposeData()[7] ^= 1;
  const auto wrong = joinShares(forged);
  ASSERT_TRUE(wrong.has_value()) << "nothing tells yet";
  const auto opened = openSlot("server", *slot, wrong->text);
  ASSERT_FALSE(opened.has_value());
  EXPECT_TRUE(contains(opened.error().message, "shares don't open"));
}

TEST(Shares, ALineIsReadAgain) {
  const auto shares = splitSecret(ShareSecret::random(), "server", someSet(), 2, 3);
  const SecretText line = shareText(shares[1]);
  EXPECT_TRUE(line.expose().starts_with("sallyport-share-1 server 2 3 2 "));
  const auto again = parseShare("  " + std::string(line.expose()) + "\r\n");
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->x, 2u);
  EXPECT_EQ(again->set, shares[1].set);
  EXPECT_TRUE(equalsConstantTime(again->value.expose(), shares[1].value.expose()));
}

TEST(Shares, AnyMistypedCharacterIsNoticed) {
  const std::string line(shareText(splitSecret(ShareSecret::random(), "server", someSet(), 2, 3)[0]).expose());
  for (size_t at = 0; at < line.size(); ++at) {
    std::string changed = line;
    changed[at] = changed[at] == '7' ? '8' : '7';
    EXPECT_FALSE(parseShare(changed).has_value()) << changed;
    EXPECT_FALSE(parseShare(line.substr(0, at)).has_value()) << at;
  }
}

}  // namespace
}  // namespace sallyport::vaultd
