// preamble.h - the exchange of salts that opens a connection in hard mode. Part of: peer (netd-worker; sans-IO).
// docs/protocol.md §13.1. Both parties send at once and neither waits; garbage is told by its first wrong byte.
#pragma once

#include <algorithm>

#include "proto/wire/peer_frame.h"

namespace sallyport::peer {

class Preamble {
 public:
  // `ownSalt` was drawn by the vault for this connection alone.
  Preamble(wire::PeerParty own, const wire::PeerSalt& ownSalt)
      : own_(own), outgoing_(wire::writePeerPreamble(own, ownSalt)) {}

  // What to send, before anything else.
  const wire::PeerPreambleBytes& outgoing() const { return outgoing_; }

  // The bytes that came, from where the last call stopped: how many of them belong to the preamble (what is behind them
  // is the first frame's), or why the connection ends. Dead is dead.
  Result<size_t, wire::DropReason> arrived(ByteSpan bytes) {
    if (dead_) return refuse(*dead_);
    const size_t taken = std::min(bytes.size(), wire::PEER_PREAMBLE_BYTES - have_);
    std::copy_n(bytes.begin(), taken, incoming_.begin() + static_cast<ptrdiff_t>(have_));
    have_ += taken;
    if ((dead_ = wire::checkPeerPreamble(ByteSpan(incoming_).first(have_), own_))) return refuse(*dead_);
    return taken;
  }
  bool complete() const { return have_ == wire::PEER_PREAMBLE_BYTES && !dead_; }
  // Only when complete.
  wire::PeerSalt peerSalt() const {
    CHECK(complete());
    auto salt = wire::parsePeerPreamble(incoming_, own_);
    return *std::move(salt);
  }

 private:
  wire::PeerParty own_;
  wire::PeerPreambleBytes outgoing_;
  wire::PeerPreambleBytes incoming_{};
  size_t have_ = 0;
  std::optional<wire::DropReason> dead_;
};

}  // namespace sallyport::peer
