// Expect: could not convert|conversion from
#include "netd/short_term_box.h"

using namespace sallyport::netd;
ClientToServerKey direction(SharedKey key) { return std::move(key); }
