// cryptoki.h - the PKCS#11 interface as the tests see it: Debian's p11-kit header, plus what version 3.0 added. Not the
// header of hsmd: what either adds by hand, the other has to have read in the standard for itself.
#pragma once

#include <p11-kit/pkcs11.h>

namespace sallyport::mock {

inline constexpr CK_KEY_TYPE MOCK_CKK_EC_MONTGOMERY = 0x41;
inline constexpr CK_MECHANISM_TYPE MOCK_CKM_EC_MONTGOMERY_KEY_PAIR_GEN = 0x1056;
inline constexpr CK_ULONG MOCK_UNAVAILABLE = ~CK_ULONG{0};  // CK_UNAVAILABLE_INFORMATION

}  // namespace sallyport::mock
