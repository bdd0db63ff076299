// spelling.cc - see spelling.h. Part of: hsmd (worker).
#include "hsmd/spelling.h"

#include <algorithm>
#include <array>

namespace sallyport::hsmd {

using hsm::PointForm;
using hsm::Spelling;

namespace {

using namespace std::string_view_literals;

constexpr auto OID = "\x06\x03\x2b\x65\x6e"sv;  // 1.3.101.110
constexpr auto NAME =
    "\x13\x0a"
    "curve25519"sv;                                                         // PrintableString
constexpr auto NSS_OID = "\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01"sv;  // 1.3.6.1.4.1.11591.15.1
constexpr auto BROKEN_NAME =
    "\x13\x0b"
    "curve25519"sv;                                                                 // ykcs11: a length that isn't
constexpr auto OPENPGP_OID = "\x06\x0a\x2b\x06\x01\x04\x01\x97\x55\x01\x05\x01"sv;  // 1.3.6.1.4.1.3029.1.5.1

constexpr std::array<SpellingRow, 5> ROWS{{
    {Spelling::Montgomery, KEY_EC_MONTGOMERY, EC_MONTGOMERY_KEY_PAIR_GEN, OID},
    {Spelling::MontgomeryName, KEY_EC_MONTGOMERY, EC_MONTGOMERY_KEY_PAIR_GEN, NAME},
    {Spelling::EdwardsName, CKK_EC_EDWARDS, CKM_EC_EDWARDS_KEY_PAIR_GEN, NAME},
    {Spelling::Edwards, CKK_EC_EDWARDS, CKM_EC_EDWARDS_KEY_PAIR_GEN, OID},
    {Spelling::Weierstrass, CKK_EC, CKM_EC_KEY_PAIR_GEN, NSS_OID},
}};

// Read, never written.
struct Alias {
  CK_KEY_TYPE keyType;
  std::string_view parameters;
  Spelling spelling;
};
constexpr std::array<Alias, 2> ALIASES{{
    {KEY_EC_MONTGOMERY, BROKEN_NAME, Spelling::MontgomeryName},
    {KEY_EC_MONTGOMERY, OPENPGP_OID, Spelling::Montgomery},
}};

constexpr std::array<Ed25519Spelling, 2> ED25519{{
    {"\x06\x03\x2b\x65\x70"sv},  // 1.3.101.112
    {"\x13\x0c"
     "edwards25519"sv},
}};

bool same(ByteSpan bytes, std::string_view text) { return std::ranges::equal(bytes, asBytes(text)); }

}  // namespace

std::span<const SpellingRow> spellings() { return ROWS; }

const SpellingRow& rowOf(Spelling spelling) {
  const auto found = std::ranges::find(ROWS, spelling, &SpellingRow::spelling);
  CHECK(found != ROWS.end());
  return *found;
}

Spelling spellingOf(CK_KEY_TYPE keyType, ByteSpan parameters) {
  for (const auto& row : ROWS) {
    if (row.keyType == keyType && same(parameters, row.parameters)) return row.spelling;
  }
  for (const auto& alias : ALIASES) {
    if (alias.keyType == keyType && same(parameters, alias.parameters)) return alias.spelling;
  }
  return Spelling::None;
}

bool isEd25519(CK_KEY_TYPE keyType, ByteSpan parameters) {
  return keyType == CKK_EC_EDWARDS &&
         std::ranges::any_of(ED25519, [&](const auto& spelling) { return same(parameters, spelling.parameters); });
}

std::span<const Ed25519Spelling> ed25519Spellings() { return ED25519; }

std::optional<hsm::Block32> pointOf(ByteSpan attribute) {
  if (attribute.size() == 34 && attribute[0] == std::byte{0x04} && attribute[1] == std::byte{0x20})
    attribute = attribute.subspan(2);
  if (attribute.size() != 32) return std::nullopt;
  hsm::Block32 point;
  std::ranges::copy(attribute, point.begin());
  return point;
}

ByteSpan pointFor(PointForm form, std::span<const std::byte, 32> point, std::span<std::byte, 34> buffer) {
  buffer[0] = std::byte{0x04};
  buffer[1] = std::byte{0x20};
  std::ranges::copy(point, buffer.begin() + 2);
  return form == PointForm::Octets ? ByteSpan(buffer) : ByteSpan(buffer).subspan(2);
}

}  // namespace sallyport::hsmd
