// Expect: use of deleted function .*SecretBytes\(const
#include "netd/short_term_box.h"

sallyport::netd::SharedKey copyOf(const sallyport::netd::SharedKey& key) { return key; }
