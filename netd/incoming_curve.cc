// incoming_curve.cc - see incoming_curve.h.
#include "netd/incoming_curve.h"

#include "common/match.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

DropReason IncomingHandshake::timeoutReason() const {
  return machine_.awaitsVault() ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout;
}

Dropped IncomingHandshake::describe(DropReason reason) const {
  Dropped dropped = IncomingOf::describe(reason);
  // The vault says this of a genuine vouch alone: whoever sent it has the key.
  if (reason == DropReason::PeerNotAllowed) dropped.peer = &claimed_;
  return dropped;
}

void IncomingHandshake::onHandshakeEvents() {
  if (!machine_.awaitsVault()) readPacket();
}

void IncomingHandshake::readPacket() {
  while (!over()) {
    const size_t expected = machine_.expectedPacketBytes();
    if (expected == 0) return;
    const auto room = MutableByteSpan(packet_).first(wire::FRAME_HEADER_BYTES + expected);
    const Received received = receiveInto(socket_, room, have_);
    if (received == Received::NothingYet) return;
    if (received == Received::Closed) return fail(DropReason::ClosedInHandshake);
    if (have_ < wire::FRAME_HEADER_BYTES) continue;
    // protocol §1: the length is judged before the content arrives.
    if (wire::readFrameLength(std::span(packet_).first<wire::FRAME_HEADER_BYTES>()) != expected)
      return fail(DropReason::BadLength);
    if (have_ < wire::FRAME_HEADER_BYTES + expected) continue;
    have_ = 0;
    perform(machine_.onPacket(ByteSpan(packet_).subspan(wire::FRAME_HEADER_BYTES, expected), worker_.cookieKeys()));
  }
}

void IncomingHandshake::perform(ServerHandshake::Step step) {
  std::visit(Match{
                 [this](Drop& drop) { fail(drop.reason); },
                 [this](SealCookieRequest& request) {
                   question_ = worker_.vault().sealCookie(entry(), std::move(request),
                                                          [this](auto answer) { perform(machine_.onVault(answer)); });
                 },
                 [this](wire::CookieFrame& frame) {
                   if (!sendWhole(socket_, frame)) return fail(DropReason::TransportError);
                   readPacket();
                 },
                 [this](VerifyVouchRequest& request) {
                   claimed_ = request.client;
                   question_ = worker_.vault().verifyVouch(entry(), std::move(request), [this](auto answer) {
                     perform(machine_.onVault(std::move(answer)));
                   });
                 },
                 [this](Established& established) { onEstablished(std::move(established)); },
             },
             step);
}

void IncomingHandshake::onEstablished(Established done) {
  // The vault has judged; netd judges again by its own copy: a reload may be half-way.
  if (!entry().allows(done.peerKey)) return fail(DropReason::PeerNotAllowed);
  established(CurveLink(std::move(done.session)), done.peerKey, done.peer);
}

}  // namespace sallyport::netd
