// outgoing_peer.cc - see outgoing_peer.h.
#include "netd/outgoing_peer.h"

#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

void OutgoingPeer::start() {
  if (const auto ready = worker_.vault().takePeerSalt(entry(), worker_.limits().handshakeTimeoutMs))
    return onSalt(*ready);
  question_ = worker_.vault().drawPeerSalt(entry(), {.listen = false}, [this](auto drawn) {
    question_ = nullptr;
    if (!drawn) return drop(drawn.error());
    onSalt(*drawn);
    if (!over()) onReadable();  // a peer that spoke first
  });
}

void OutgoingPeer::onSalt(const PeerSaltDrawn& drawn) {
  own_ = drawn;
  if (!sendWhole(socket_, wire::writePeerPreamble(own_->party, own_->salt))) drop(DropReason::TransportError);
}

void OutgoingPeer::onReadable() {
  if (!own_ || have_ == preamble_.size()) return;
  while (have_ < preamble_.size()) {
    const Received received = receiveInto(socket_, preamble_, have_);
    if (received == Received::NothingYet) return;
    if (received == Received::Closed) return drop(DropReason::ClosedInHandshake);
    if (auto fault = wire::checkPeerPreamble(ByteSpan(preamble_).first(have_), own_->party)) return drop(*fault);
  }
  onPreamble();
}

void OutgoingPeer::onPreamble() {
  const auto theirs = wire::parsePeerPreamble(preamble_, own_->party);
  if (!theirs) return drop(theirs.error());
  askedUnder_ = worker_.configNumber();
  question_ = worker_.vault().derivePeerKeys(entry(), {.listen = false, .ownSalt = own_->salt, .peerSalt = *theirs},
                                             [this](auto secrets) {
                                               question_ = nullptr;
                                               if (!secrets) return drop(secrets.error());
                                               onSecrets(*secrets);
                                             });
}

void OutgoingPeer::onSecrets(PeerSecrets& secrets) {
  const EntryFraming& framing = *entry().framing;
  PeerLink link(peer::hardSealer(std::move(secrets.send), own_->party, framing.rotateFrames),
                peer::hardOpener(std::move(secrets.receive), own_->party, framing.maxFrameBytes, framing.rotateFrames),
                secrets.blockVersion);
  link.dialled();
  if (askedUnder_ != worker_.configNumber()) worker_.recheckBlocksSoon();
  established(std::move(link));
}

}  // namespace sallyport::netd
