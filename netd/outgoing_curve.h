// outgoing_curve.h - the client's side of a curve_tun handshake. Part of: netd-worker (edge).
// docs/protocol.md §3: Hello, Cookie, vouch from the vault, Initiate.
#pragma once

#include "netd/handshake.h"
#include "netd/outgoing.h"

namespace sallyport::netd {

class OutgoingHandshake final : public OutgoingOf<CurveLink> {
 public:
  OutgoingHandshake(Worker& worker, std::shared_ptr<const Entry> entry, OnDone onDone)
      : OutgoingOf(worker, entry, kj::mv(onDone)), machine_(entry->server) {}

 private:
  void start() override { perform(machine_.start()); }
  void onReadable() override;
  void perform(ClientHandshake::Step step);

  ClientHandshake machine_;
  std::array<std::byte, wire::FRAME_HEADER_BYTES + wire::COOKIE_PACKET_BYTES> packet_;
  size_t have_ = 0;
};

}  // namespace sallyport::netd
