// Expect: could not convert|conversion from
#include "netd/message_box.h"

sallyport::PublicKey publish(const sallyport::netd::EphemeralSecret& secret) { return secret; }
