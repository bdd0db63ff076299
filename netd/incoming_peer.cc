// incoming_peer.cc - see incoming_peer.h.
#include "netd/incoming_peer.h"

#include <cerrno>

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
  if (question_ != nullptr) return;
  if (opening_)
    readFirstFrame();
  else
    readPreamble();
}

void IncomingPeer::readPreamble() {
  while (have_ < preamble_.size()) {
    const ssize_t got = recv(socket_, preamble_.data() + have_, preamble_.size() - have_, MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) fail(DropReason::ClosedInHandshake);
      return;
    }
    if (got == 0) return fail(DropReason::ClosedInHandshake);
    have_ += static_cast<size_t>(got);
    // Garbage is told by its first byte. Which party may speak is the vault's to say: not yet.
    const auto beginning = ByteSpan(preamble_).first(have_);
    if (wire::checkPeerPreamble(beginning, wire::PeerParty::A) &&
        wire::checkPeerPreamble(beginning, wire::PeerParty::B))
      return fail(DropReason::BadPreamble);
  }
  question_ = worker_.vault().drawPeerSalt(entry().name, {.listen = true}, [this](auto drawn) {
    question_ = nullptr;
    if (!drawn) return fail(drawn.error());
    onSalt(*drawn);
  });
}

void IncomingPeer::onSalt(const PeerSaltDrawn& drawn) {
  const auto theirs = wire::parsePeerPreamble(preamble_, drawn.party);
  if (!theirs) return fail(theirs.error());
  own_ = drawn;
  const auto ours = wire::writePeerPreamble(drawn.party, drawn.salt);
  // A fresh socket takes 40 bytes at once; one that doesn't has failed.
  if (send(socket_, ours.data(), ours.size(), MSG_NOSIGNAL | MSG_DONTWAIT) != static_cast<ssize_t>(ours.size()))
    return fail(DropReason::TransportError);
  question_ = worker_.vault().derivePeerKeys(entry().name, {.listen = true, .ownSalt = drawn.salt, .peerSalt = *theirs},
                                             [this](auto secrets) {
                                               question_ = nullptr;
                                               if (!secrets) return fail(secrets.error());
                                               onSecrets(*secrets);
                                             });
}

void IncomingPeer::onSecrets(PeerSecrets& secrets) {
  const EntryFraming& framing = *entry().framing;
  opening_.emplace(
      peer::hardSealer(std::move(secrets.send), own_->party, framing.rotateFrames),
      peer::hardOpener(std::move(secrets.receive), own_->party, framing.maxFrameBytes, framing.rotateFrames),
      own_->blockVersion);
  readFirstFrame();
}

void IncomingPeer::readFirstFrame() {
  while (opening_->opened() == 0) {
    const WireRead read = opening_->readOneFrame(socket_, worker_.scratch(), worker_.budget());
    if (read.state == ReadState::Eof || read.state == ReadState::EofInside || read.state == ReadState::Failed)
      return fail(DropReason::ClosedInHandshake);
    if (read.bytes.empty()) return;
    const auto keep = [this](const OpenedFrame& opened) -> std::optional<DropReason> {
      opening_->keep(opened, worker_.budget());
      return std::nullopt;
    };
    if (auto fault = opening_->openEach(worker_.ciphers(), read, worker_.budget(), keep)) return fail(*fault);
    if (worker_.budget().exceeded()) return fail(DropReason::MemoryLimit);
  }
  PeerLink link = std::move(*opening_);
  opening_.reset();
  established(std::move(link), {}, "");
}

}  // namespace sallyport::netd
