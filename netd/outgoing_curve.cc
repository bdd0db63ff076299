// outgoing_curve.cc - see outgoing_curve.h.
#include "netd/outgoing_curve.h"

#include "common/match.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

void OutgoingHandshake::onReadable() {
  while (!over() && machine_.expectedPacketBytes() != 0) {
    const Received received = receiveInto(socket_, packet_, have_);
    if (received == Received::NothingYet) return;
    if (received == Received::Closed) return drop(DropReason::ClosedInHandshake);
    if (have_ < wire::FRAME_HEADER_BYTES) continue;
    if (wire::readFrameLength(std::span(packet_).first<wire::FRAME_HEADER_BYTES>()) != wire::COOKIE_PACKET_BYTES) {
      return drop(DropReason::BadLength);
    }
    if (have_ == packet_.size()) perform(machine_.onPacket(ByteSpan(packet_).subspan(wire::FRAME_HEADER_BYTES)));
  }
}

void OutgoingHandshake::perform(ClientHandshake::Step step) {
  std::visit(Match{
                 [this](Drop& fault) { drop(fault.reason); },
                 [this](wire::HelloFrame& frame) {
                   if (!sendWhole(socket_, frame)) drop(DropReason::TransportError);
                 },
                 [this](MakeVouchRequest& request) {
                   question_ = worker_.vault().makeVouch(entry(), request,
                                                         [this](auto answer) { perform(machine_.onVault(answer)); });
                 },
                 [this](std::pair<wire::InitiateFrame, Established>& done) {
                   if (!sendWhole(socket_, done.first)) return drop(DropReason::TransportError);
                   established(CurveLink(std::move(done.second.session)));
                 },
             },
             step);
}

}  // namespace sallyport::netd
