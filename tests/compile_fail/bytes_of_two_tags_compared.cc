// Expect: no match for .operator==
#include "common/bytes.h"

struct OtherTag;
bool same(const sallyport::PublicKey& key, const sallyport::Bytes<OtherTag, 32>& other) { return key == other; }
