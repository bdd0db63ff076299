// Expect: could not convert|conversion from
#include "vaultd/long_term_nonce.h"

using namespace sallyport::vaultd;
LongTermNonce<BoxRole::Vouch> swap(LongTermNonce<BoxRole::Cookie> nonce) { return std::move(nonce); }
