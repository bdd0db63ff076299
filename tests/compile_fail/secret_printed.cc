// Expect: use of deleted function .*operator<<
#include <ostream>

#include "netd/message_box.h"

void print(std::ostream& out, const sallyport::netd::SharedKey& key) { out << key; }
