// Expect: use of deleted function .*LongTermNonce\(const
#include "vaultd/long_term_nonce.h"

using namespace sallyport::vaultd;
LongTermNonce<BoxRole::Cookie> twice(const LongTermNonce<BoxRole::Cookie>& nonce) { return nonce; }
