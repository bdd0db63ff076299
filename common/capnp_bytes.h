// capnp_bytes.h - Cap'n Proto's Data as our byte spans and back. Part of: common (edges that speak a schema).
#pragma once

#include <capnp/blob.h>

#include "common/bytes.h"

namespace sallyport {

inline capnp::Data::Reader toData(ByteSpan bytes) { return {uchars(bytes), bytes.size()}; }
inline ByteSpan toBytes(capnp::Data::Reader data) { return std::as_bytes(std::span(data.begin(), data.size())); }

}  // namespace sallyport
