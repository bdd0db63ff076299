// Expect: use of deleted function .*operator=
#include "vaultd/long_term_nonce.h"

using namespace sallyport::vaultd;
using Nonce = LongTermNonce<BoxRole::Cookie>;
void replace(Nonce& nonce, Nonce other) { nonce = std::move(other); }
