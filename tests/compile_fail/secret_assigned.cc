// Expect: use of deleted function .*operator=\(const
#include "netd/message_box.h"

void assign(sallyport::netd::SharedKey& to, const sallyport::netd::SharedKey& from) { to = from; }
