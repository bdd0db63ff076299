// spelling.h - how modules spell Curve25519, as a table of byte strings. Part of: hsmd (worker). Pure.
// Matched as bytes, never parsed: one vendor's are not even DER. What must never happen: CKK_EC with any parameters but
// NSS's. SoftHSM takes such a key and dies of it at the first derive, which is why there is no row for it.
#pragma once

#include <span>

#include "common/bytes.h"
#include "hsmd/pkcs11.h"
#include "proto/hsm/frames.h"

namespace sallyport::hsmd {

struct SpellingRow {
  hsm::Spelling spelling;
  CK_KEY_TYPE keyType;
  CK_MECHANISM_TYPE generate;
  std::string_view parameters;  // CKA_EC_PARAMS when a key is made
};

// In the order in which they are tried.
std::span<const SpellingRow> spellings();
const SpellingRow& rowOf(hsm::Spelling spelling);  // not None

// What a key with these attributes is; None if it isn't Curve25519 in a spelling that may be touched.
hsm::Spelling spellingOf(CK_KEY_TYPE keyType, ByteSpan parameters);
bool isEd25519(CK_KEY_TYPE keyType, ByteSpan parameters);

struct Ed25519Spelling {
  std::string_view parameters;
};
std::span<const Ed25519Spelling> ed25519Spellings();

// The 32 bytes in a CKA_EC_POINT: raw, or in an OCTET STRING.
std::optional<hsm::Block32> pointOf(ByteSpan attribute);
// The other side's point as the module wants it: 32 or 34 bytes of `buffer`.
ByteSpan pointFor(hsm::PointForm form, std::span<const std::byte, 32> point, std::span<std::byte, 34> buffer);

}  // namespace sallyport::hsmd
