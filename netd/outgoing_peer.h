// outgoing_peer.h - a connection of the peer protocol to a configured host. Part of: netd-worker (edge).
// docs/protocol.md §13, hard mode: salt from the vault, our preamble, theirs, the secrets from the vault, and a first
// frame that says we hold the block.
#pragma once

#include "netd/outgoing.h"

namespace sallyport::netd {

class OutgoingPeer final : public OutgoingOf<PeerLink> {
 public:
  using OutgoingOf::OutgoingOf;

 private:
  void start() override;
  void onReadable() override;
  void onSalt(const PeerSaltDrawn& drawn);
  void onPreamble();
  void onSecrets(PeerSecrets& secrets);

  std::optional<PeerSaltDrawn> own_;
  wire::PeerPreambleBytes preamble_;
  size_t have_ = 0;
  uint64_t askedUnder_ = 0;  // which configuration was in force when the keys were asked for
};

}  // namespace sallyport::netd
