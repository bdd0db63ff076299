// Goal: bytes of the wrong length never become a key, and only the one right spelling of hex and base64 is read.
// Method: round trips of every length, then every way in which such a text goes wrong.
#include "common/bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace sallyport {
namespace {

std::vector<std::byte> counted(size_t bytes) {
  std::vector<std::byte> result(bytes);
  for (size_t i = 0; i < bytes; ++i) result[i] = static_cast<std::byte>(i * 37 + 250);
  return result;
}

TEST(AFixedSizeValue, IsMadeOfExactlyItsBytes) {
  const auto bytes = counted(33);
  const auto key = PublicKey::tryFrom(ByteSpan(bytes).first(32));
  ASSERT_TRUE(key.has_value());
  EXPECT_TRUE(std::ranges::equal(key->span(), ByteSpan(bytes).first(32)));
  for (const size_t wrong : {size_t{0}, size_t{1}, size_t{31}, size_t{33}}) {
    EXPECT_FALSE(PublicKey::tryFrom(ByteSpan(bytes).first(wrong)).has_value()) << wrong;
  }
}

TEST(AFixedSizeValueDeathTest, OfAnotherLengthIsABug) {
  const auto bytes = counted(33);
  EXPECT_DEATH(PublicKey(ByteSpan(bytes).first(31)), "invariant broken");
  EXPECT_DEATH(PublicKey{ByteSpan(bytes)}, "invariant broken");
}

TEST(AFixedSizeValue, IsZeroFromTheStartAndComparesByItsBytes) {
  PublicKey zero;
  EXPECT_EQ(zero, PublicKey(std::array<std::byte, 32>{}));
  for (size_t i = 0; i < 32; ++i) {
    PublicKey other;
    other.mutableSpan()[i] = std::byte{1};
    EXPECT_NE(other, zero) << i;
    EXPECT_LT(zero, other);
  }
}

TEST(AFixedSizeValue, HasAHashThatDependsOnEveryByte) {
  std::set<size_t> hashes;
  for (size_t i = 0; i < 32; ++i) {
    PublicKey key;
    key.mutableSpan()[i] = std::byte{1};
    hashes.insert(PublicKeyHash()(key));
    EXPECT_EQ(PublicKeyHash()(key), PublicKeyHash()(key));
  }
  EXPECT_EQ(hashes.size(), 32u);
}

TEST(Hex, OfEveryLengthComesBack) {
  for (size_t length = 0; length <= 70; ++length) {
    const auto bytes = counted(length);
    const std::string text = toHex(bytes);
    EXPECT_EQ(text.size(), 2 * length);
    EXPECT_EQ(fromHex(text), bytes);
  }
  EXPECT_EQ(toHex(std::array{std::byte{0x0f}, std::byte{0xa0}}), "0fa0");
  EXPECT_EQ(fromHex("0FA0"), fromHex("0fa0"));
}

TEST(Hex, ThatIsNotHexIsNotRead) {
  for (const std::string_view text : {"0", "000", "0g", "g0", "zz", " 00", "00 ", "0 0", "00\n", "0x00", "00:11", "-1",
                                      "+1", "\xc3\xa4", "0o", "O0", "١١"}) {
    EXPECT_FALSE(fromHex(text).has_value()) << text;
  }
  EXPECT_FALSE(fromHex(std::string_view("\0\0", 2)).has_value());
  EXPECT_FALSE(fromHex(std::string_view("00\0\0", 4)).has_value());
}

TEST(Base64, OfEveryLengthComesBackWithAndWithoutPadding) {
  for (size_t length = 0; length <= 70; ++length) {
    const auto bytes = counted(length);
    std::string text = toBase64(bytes);
    EXPECT_EQ(text.size(), (length + 2) / 3 * 4);
    EXPECT_EQ(fromBase64(text), bytes) << text;
    while (text.ends_with('=')) text.pop_back();
    EXPECT_EQ(fromBase64(text), bytes) << text;
  }
}

TEST(Base64, KnownAnswersHold) {
  EXPECT_EQ(toBase64(asBytes("")), "");
  EXPECT_EQ(toBase64(asBytes("f")), "Zg==");
  EXPECT_EQ(toBase64(asBytes("foob")), "Zm9vYg==");
  EXPECT_EQ(toBase64(asBytes("fooba")), "Zm9vYmE=");
  EXPECT_EQ(toBase64(std::array{std::byte{0xfb}, std::byte{0xff}, std::byte{0xbf}}), "+/+/");
}

TEST(Base64, OfAnotherShapeIsNotRead) {
  for (const std::string_view text : {"=", "==", "===", "====", "Z", "Z===", "Zg=", "Zg===", "Zg====", "=Zg=",
                                      "Zg==Zg==", "Zm9=v", "Zm9v=", "Zm9v==", "Zm9v====", "Zm9vYmE==", "Zm9vYg=A"}) {
    EXPECT_FALSE(fromBase64(text).has_value()) << text;
  }
}

TEST(Base64, OfAnotherAlphabetIsNotRead) {
  for (const std::string_view text :
       {"-_-_", "Zm9v\n", "Zm9v\r\n", " Zm9v", "Zm 9", "Zm9.", "Zm9\xff", "Zm9,", "****", "Zm9v\tZm9v"}) {
    EXPECT_FALSE(fromBase64(text).has_value()) << text;
  }
}

TEST(Base64, HasNoDigitsBesideItsOwn) {
  static constexpr std::string_view DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int value = 0; value < 256; ++value) {
    for (size_t at = 0; at < 4; ++at) {
      std::string text = "AAAA";
      text[at] = static_cast<char>(value);
      const bool digit = DIGITS.find(static_cast<char>(value)) != std::string_view::npos;
      EXPECT_EQ(fromBase64(text).has_value(), digit || (value == '=' && at == 3)) << value << " at " << at;
    }
  }
}

TEST(Base64, WithBitsLeftOverIsNotRead) {
  // "Zg==" is the only spelling of "f": the last four bits of its last character are zero.
  EXPECT_TRUE(fromBase64("Zg==").has_value());
  for (const char last : std::string_view("hijklmnopqrstuv")) {
    EXPECT_FALSE(fromBase64(std::string("Z") + last + "==").has_value()) << last;
    EXPECT_FALSE(fromBase64(std::string("Z") + last).has_value()) << last;
  }
  EXPECT_FALSE(fromBase64("Zm9vYmF=").has_value());
}

}  // namespace
}  // namespace sallyport
