// Expect: use of deleted function .*operator=\(const
#include "netd/short_term_box.h"

void assign(sallyport::netd::SharedKey& to, const sallyport::netd::SharedKey& from) { to = from; }
