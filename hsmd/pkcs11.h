// pkcs11.h - PKCS#11 as p11-kit's header of 2.40 declares it, and what came later. Part of: hsmd (the worker alone).
// Only names and layouts: nothing of p11-kit is linked.
#pragma once

#include <p11-kit/pkcs11.h>

namespace sallyport::hsmd {

// PKCS#11 3.0.
inline constexpr CK_KEY_TYPE KEY_EC_MONTGOMERY = 0x41;
inline constexpr CK_MECHANISM_TYPE EC_MONTGOMERY_KEY_PAIR_GEN = 0x1056;
// NSS: the public key that goes with a private one that is imported.
inline constexpr CK_ATTRIBUTE_TYPE ATTRIBUTE_NSS_DB = 0xD5A0DB00;

}  // namespace sallyport::hsmd
