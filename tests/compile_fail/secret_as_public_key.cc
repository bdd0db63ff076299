// Expect: could not convert|conversion from
#include "netd/short_term_box.h"

sallyport::PublicKey publish(const sallyport::netd::EphemeralSecret& secret) { return secret; }
