// Expect: use of deleted function .*operator<<
#include <ostream>

#include "netd/short_term_box.h"

void print(std::ostream& out, const sallyport::netd::SharedKey& key) { out << key; }
