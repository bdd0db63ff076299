// Expect: could not convert|conversion from
#include "netd/short_term_box.h"

sallyport::netd::SharedKey keyFrom(sallyport::ByteSpan bytes) { return bytes; }
