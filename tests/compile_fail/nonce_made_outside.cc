// Expect: is private within this context
#include "vaultd/long_term_nonce.h"

using namespace sallyport::vaultd;
LongTermNonce<BoxRole::Cookie> invent() { return LongTermNonce<BoxRole::Cookie>(sallyport::LongNonceBytes()); }
