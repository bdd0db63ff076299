// Goal: Curve25519 is known in every spelling of the table, in the order of the table, and CKK_EC with other parameters
// than NSS's is nothing that may be touched.
#include <gtest/gtest.h>

#include <cstring>

#include "hsmd/spelling.h"

namespace sallyport::hsmd {
namespace {

using hsm::PointForm;
using hsm::Spelling;
using namespace std::string_view_literals;

TEST(Spellings, AreTriedInTheDocumentedOrder) {
  const Spelling expected[] = {Spelling::Montgomery, Spelling::MontgomeryName, Spelling::EdwardsName, Spelling::Edwards,
                               Spelling::Weierstrass};
  ASSERT_EQ(spellings().size(), std::size(expected));
  for (size_t i = 0; i < std::size(expected); ++i) EXPECT_EQ(spellings()[i].spelling, expected[i]);
}

TEST(Spellings, AreFoundByTypeAndParameters) {
  for (const SpellingRow& row : spellings()) {
    EXPECT_EQ(spellingOf(row.keyType, asBytes(row.parameters)), row.spelling) << hsm::name(row.spelling);
    EXPECT_EQ(&rowOf(row.spelling), &row);
  }
}

TEST(Spellings, TakeAVendorsBrokenOnes) {
  EXPECT_EQ(spellingOf(KEY_EC_MONTGOMERY, asBytes("\x13\x0b"
                                                  "curve25519"sv)),
            Spelling::MontgomeryName);
  EXPECT_EQ(spellingOf(KEY_EC_MONTGOMERY, asBytes("\x06\x0a\x2b\x06\x01\x04\x01\x97\x55\x01\x05\x01"sv)),
            Spelling::Montgomery);
}

TEST(Spellings, NeverTouchCkkEcWithOtherParameters) {
  for (const SpellingRow& row : spellings()) {
    if (row.spelling == Spelling::Weierstrass) continue;
    EXPECT_EQ(spellingOf(CKK_EC, asBytes(row.parameters)), Spelling::None) << hsm::name(row.spelling);
  }
  EXPECT_EQ(spellingOf(CKK_EC, asBytes("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"sv)), Spelling::None);  // P-256
  EXPECT_EQ(spellingOf(CKK_EC, {}), Spelling::None);
}

TEST(Spellings, DontMixTypes) {
  EXPECT_EQ(spellingOf(CKK_EC_EDWARDS, asBytes(rowOf(Spelling::Weierstrass).parameters)), Spelling::None);
  EXPECT_EQ(spellingOf(KEY_EC_MONTGOMERY, asBytes(rowOf(Spelling::Weierstrass).parameters)), Spelling::None);
  EXPECT_EQ(spellingOf(CKK_RSA, asBytes(rowOf(Spelling::Montgomery).parameters)), Spelling::None);
}

TEST(Spellings, NeedAllOfTheBytes) {
  for (const SpellingRow& row : spellings()) {
    const auto bytes = asBytes(row.parameters);
    for (size_t length = 0; length < bytes.size(); ++length)
      EXPECT_EQ(spellingOf(row.keyType, bytes.first(length)), Spelling::None);
    const std::string longer = std::string(row.parameters) + '\0';
    EXPECT_EQ(spellingOf(row.keyType, asBytes(longer)), Spelling::None);
  }
}

TEST(Spellings, TellEd25519FromX25519) {
  for (const auto& spelling : ed25519Spellings()) {
    EXPECT_TRUE(isEd25519(CKK_EC_EDWARDS, asBytes(spelling.parameters)));
    EXPECT_FALSE(isEd25519(CKK_EC, asBytes(spelling.parameters)));
    EXPECT_EQ(spellingOf(CKK_EC_EDWARDS, asBytes(spelling.parameters)), Spelling::None);
  }
  EXPECT_FALSE(isEd25519(CKK_EC_EDWARDS, asBytes(rowOf(Spelling::Edwards).parameters)));
}

hsm::Block32 somePoint() {
  hsm::Block32 point;
  for (size_t i = 0; i < point.size(); ++i) point[i] = static_cast<std::byte>(i + 4);
  return point;
}

TEST(Points, ComeRawOrInOctets) {
  const hsm::Block32 point = somePoint();
  std::array<std::byte, 34> buffer;
  for (const PointForm form : {PointForm::Raw, PointForm::Octets}) {
    const ByteSpan written = pointFor(form, point, buffer);
    EXPECT_EQ(written.size(), form == PointForm::Raw ? 32U : 34U);
    EXPECT_EQ(pointOf(written), point);
  }
}

TEST(Points, AreNothingElse) {
  std::array<std::byte, 40> bytes{};
  for (size_t length = 0; length <= bytes.size(); ++length) {
    EXPECT_EQ(pointOf(ByteSpan(bytes).first(length)).has_value(), length == 32) << length;
  }
  // An OCTET STRING of another length inside, another tag.
  bytes[0] = std::byte{4};
  bytes[1] = std::byte{0x1f};
  EXPECT_FALSE(pointOf(ByteSpan(bytes).first(34)));
  bytes[0] = std::byte{3};
  bytes[1] = std::byte{0x20};
  EXPECT_FALSE(pointOf(ByteSpan(bytes).first(34)));
}

}  // namespace
}  // namespace sallyport::hsmd
