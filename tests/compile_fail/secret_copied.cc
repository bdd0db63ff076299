// Expect: use of deleted function .*SecretBytes\(const
#include "netd/message_box.h"

sallyport::netd::SharedKey copyOf(const sallyport::netd::SharedKey& key) { return key; }
