// Expect: discards qualifiers|no matching function
#include "vaultd/long_term_nonce.h"

using namespace sallyport::vaultd;
sallyport::LongNonceBytes keep(LongTermNonce<BoxRole::Vouch>& nonce) { return nonce.spend(); }
