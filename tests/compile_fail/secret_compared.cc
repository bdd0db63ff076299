// Expect: use of deleted function .*operator==
#include "netd/short_term_box.h"

bool same(const sallyport::netd::SharedKey& left, const sallyport::netd::SharedKey& right) { return left == right; }
