// Expect: could not convert|conversion from
#include "netd/message_box.h"

sallyport::netd::SharedKey keyFrom(sallyport::ByteSpan bytes) { return bytes; }
