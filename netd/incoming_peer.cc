// incoming_peer.cc - see incoming_peer.h.
#include "netd/incoming_peer.h"

#include <algorithm>

#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

DropReason IncomingPeer::timeoutReason() const {
  return question_ != nullptr ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout;
}

void IncomingPeer::release(bool failed) {
  if (opening_) opening_->clear(worker_.budget());
  IncomingOf::release(failed);
}

void IncomingPeer::onHandshakeEvents() {
  if (question_ != nullptr) return;  // what comes meanwhile is read when the vault has answered
  if (opening_ || !candidates_.empty())
    readFirst();
  else
    readPreamble();
}

void IncomingPeer::readPreamble() {
  while (have_ < preamble_.size()) {
    const Received received = receiveInto(socket_, preamble_, have_);
    if (received == Received::NothingYet) return;
    if (received == Received::Closed) return fail(DropReason::ClosedInHandshake);
    // Garbage is told by its first byte. Which party may speak is the vault's to say.
    const auto beginning = ByteSpan(preamble_).first(have_);
    if (wire::checkPeerPreamble(beginning, wire::PeerParty::A) &&
        wire::checkPeerPreamble(beginning, wire::PeerParty::B))
      return fail(DropReason::BadPreamble);
  }
  const auto ofA = wire::parsePeerPreamble(preamble_, wire::PeerParty::B);
  const auto theirs = ofA ? ofA : wire::parsePeerPreamble(preamble_, wire::PeerParty::A);
  theirParty_ = ofA ? wire::PeerParty::A : wire::PeerParty::B;
  askedUnder_ = worker_.configNumber();
  question_ = worker_.vault().acceptPeer(entry(), {.peerSalt = *theirs}, [this](auto accepted) {
    question_ = nullptr;
    if (!accepted) return fail(accepted.error());
    onAccepted(*accepted);
  });
}

void IncomingPeer::onAccepted(PeerAccepted& accepted) {
  if (accepted.party == theirParty_) return fail(DropReason::SameParty);
  if (!sendWhole(socket_, wire::writePeerPreamble(accepted.party, accepted.ownSalt)))
    return fail(DropReason::TransportError);
  candidates_ = std::move(accepted.others);
  candidates_.insert(candidates_.begin(), std::move(accepted.secrets));
  if (candidates_.size() == 1) choose(candidates_[0]);
  if (askedUnder_ != worker_.configNumber()) worker_.recheckBlocksSoon();
  // What came with the preamble, its end perhaps, was told of before, and isn't told of again.
  readFirst();
}

void IncomingPeer::choose(PeerSecrets& secrets) {
  const EntryFraming& framing = *entry().framing;
  const wire::PeerParty own = wire::otherParty(theirParty_);
  opening_.emplace(peer::hardSealer(std::move(secrets.send), own, framing.rotateFrames),
                   peer::hardOpener(std::move(secrets.receive), own, framing.maxFrameBytes, framing.rotateFrames),
                   secrets.blockVersion);
  candidates_.clear();
}

// protocol §14: while a block is being rotated the first header tells which version the peer has. It is taken out of
// the socket: who only looks at half of one doesn't see that nothing follows.
bool IncomingPeer::chooseByHeader() {
  while (headerHave_ < header_.size()) {
    const Received received = receiveInto(socket_, header_, headerHave_);
    if (received == Received::NothingYet) return false;
    if (received == Received::Closed) return fail(DropReason::ClosedInHandshake), false;
  }
  const EntryFraming& framing = *entry().framing;
  const auto opens = [&](const PeerSecrets& secrets) {
    auto opener = peer::hardOpener(peer::ReceiveSecret(secrets.receive.expose()), wire::otherParty(theirParty_),
                                   framing.maxFrameBytes, framing.rotateFrames);
    return opener.openHeader(worker_.ciphers().frame, header_).has_value();
  };
  const auto found = std::ranges::find_if(candidates_, opens);
  choose(found == candidates_.end() ? candidates_.front() : *found);
  return open({.bytes = header_});
}

void IncomingPeer::readFirst() {
  if (!opening_ && !chooseByHeader()) return;
  while (opening_->opened() == 0) {
    const WireRead read = opening_->readOneFrame(socket_, worker_.scratch(), worker_.budget());
    if (read.state == ReadState::Eof || read.state == ReadState::EofInside || read.state == ReadState::Failed)
      return fail(DropReason::ClosedInHandshake);
    if (read.bytes.empty()) return;
    if (!open(read)) return;
  }
  PeerLink link = std::move(*opening_);
  opening_.reset();
  established(std::move(link), {}, "");
}

// A piece of the first frame. False: it ended the connection.
bool IncomingPeer::open(const WireRead& read) {
  const auto keep = [this](const OpenedFrame& opened) -> std::optional<DropReason> {
    opening_->keep(opened, worker_.budget());
    return std::nullopt;
  };
  if (auto fault = opening_->openEach(worker_.ciphers(), read, worker_.budget(), keep)) return fail(*fault), false;
  firstBytes_ += read.bytes.size();
  if (!worker_.mayHold(firstBytes_)) return fail(DropReason::MemoryLimit), false;
  return true;
}

}  // namespace sallyport::netd
