// Expect: invalid initialization of reference|could not convert|no matching function
#include "netd/cookie_keys.h"

using namespace sallyport::netd;
ClientToServerKey fromMinuteKey(const MinuteKey& key) { return clientToServerKey(key); }
