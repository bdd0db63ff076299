// codes.h - the schema's refusals as codes of the library. Part of: libsallyport (the caller's process).
#pragma once

#include "clients/cpp/include/sallyport/vault.h"
#include "proto/vault.capnp.h"

namespace sallyport::client {

constexpr Code codeOf(proto::Refusal refusal) {
  return refusal == proto::Refusal::UNSPECIFIED ? Code::unspecified : static_cast<Code>(refusal);
}

}  // namespace sallyport::client
