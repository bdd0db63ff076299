// Expect: could not convert|conversion from
#include "netd/short_term_box.h"

using namespace sallyport::netd;
ServerToClientKey wrongWay(const SharedKey& key) { return clientToServerKey(key); }
