// vault_refusal.h - what a refusal of the vault means for a connection. Part of: netd-worker.
#pragma once

#include "proto/vault.capnp.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::netd {

inline wire::DropReason dropReasonOf(proto::Refusal refusal) {
  using wire::DropReason;
  switch (refusal) {
    case proto::Refusal::PEER_NOT_ALLOWED: return DropReason::PeerNotAllowed;
    case proto::Refusal::BAD_BOX: return DropReason::BadBox;
    case proto::Refusal::LOW_ORDER_KEY: return DropReason::LowOrderKey;
    case proto::Refusal::RATE_LIMITED: return DropReason::RateLimited;
    case proto::Refusal::NONCE_UNAVAILABLE: return DropReason::NonceUnavailable;
    case proto::Refusal::HSM_UNAVAILABLE: return DropReason::HsmUnavailable;
    case proto::Refusal::BLOCK_USED: return DropReason::BlockUsed;
    default: return DropReason::VaultRefused;  // what no step of a handshake is to be answered
  }
}

}  // namespace sallyport::netd
