// incoming_curve.h - the server's side of a curve_tun handshake. Part of: netd-worker (edge).
// docs/protocol.md §3. Reads no byte beyond the packet that the state expects, so what a client sends right behind its
// Initiate is still in the socket when the session begins. Holds 226 bytes and a hash.
#pragma once

#include "netd/handshake.h"
#include "netd/incoming.h"

namespace sallyport::netd {

class IncomingHandshake final : public IncomingOf<CurveLink> {
 public:
  using IncomingOf::IncomingOf;

  wire::DropReason timeoutReason() const override;
  Dropped describe(wire::DropReason reason) const override;

 private:
  void onHandshakeEvents() override;
  void readPacket();
  void perform(ServerHandshake::Step step);
  void onEstablished(Established established);

  ServerHandshake machine_;
  PublicKey claimed_;  // the long-term key in the Initiate; the vault says whether the peer has it
  std::array<std::byte, wire::FRAME_HEADER_BYTES + wire::INITIATE_BYTES> packet_;
  size_t have_ = 0;
};

}  // namespace sallyport::netd
