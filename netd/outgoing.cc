// outgoing.cc - see outgoing.h.
#include "netd/outgoing.h"

#include <sys/socket.h>

#include <cerrno>

#include "common/match.h"
#include "netd/socket_options.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

OutgoingHandshake::OutgoingHandshake(Worker& worker, std::shared_ptr<const Entry> entry, OnDone onDone)
    : Connection(worker, entry, entry->server), onDone_(kj::mv(onDone)), machine_(entry->server) {
  worker_.outgoingStarted(entry_->id);
  dial_ = std::make_unique<DialedSocket>(worker_, entry->id,
                                         [this](kj::Maybe<kj::AutoCloseFd> socket) { onDialed(kj::mv(socket)); });
}

OutgoingHandshake::~OutgoingHandshake() noexcept(false) = default;

void OutgoingHandshake::release(bool failed) {
  question_ = nullptr;
  dial_ = nullptr;
  if (socket_.get() >= 0) {
    worker_.loop().remove(socket_, *this);
    worker_.stats().subtract(Counter::Connections);
    socket_ = nullptr;
  }
  worker_.outgoingEnded(entry_->id);
  if (!told_) {
    told_ = true;
    onDone_(refuse(failed ? DropReason::HandshakeTimeout : DropReason::ShuttingDown));
  }
}

DropReason OutgoingHandshake::timeoutReason() const {
  return question_ != nullptr ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout;
}

void OutgoingHandshake::drop(DropReason reason) {
  if (!told_) {
    told_ = true;
    onDone_(refuse(reason));
  }
  fail(reason);
}

void OutgoingHandshake::onDialed(kj::Maybe<kj::AutoCloseFd> socket) {
  KJ_IF_MAYBE (connected, socket) {
    socket_ = kj::mv(*connected);
    worker_.stats().add(Counter::Connections);
    setNoDelay(socket_);
    setLiveness(socket_, worker_.limits());
    worker_.loop().add(socket_, EPOLLIN | EPOLLET, *this);
    perform(machine_.start());
  } else {
    worker_.soon([this] {
      if (!over()) drop(DropReason::TargetUnavailable);
    });
  }
}

void OutgoingHandshake::onEvents(uint32_t) {
  if (question_ == nullptr) readCookie();
}

void OutgoingHandshake::readCookie() {
  while (!over() && machine_.expectedPacketBytes() != 0) {
    const ssize_t got = recv(socket_, packet_.data() + have_, packet_.size() - have_, MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) drop(DropReason::ClosedInHandshake);
      return;
    }
    if (got == 0) return drop(DropReason::ClosedInHandshake);
    have_ += static_cast<size_t>(got);
    if (have_ < wire::FRAME_HEADER_BYTES) continue;
    if (wire::readFrameLength(std::span(packet_).first<wire::FRAME_HEADER_BYTES>()) != wire::COOKIE_PACKET_BYTES) {
      return drop(DropReason::BadLength);
    }
    if (have_ == packet_.size()) perform(machine_.onPacket(ByteSpan(packet_).subspan(wire::FRAME_HEADER_BYTES)));
  }
}

bool OutgoingHandshake::sendWhole(ByteSpan frame) {
  return send(socket_, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(frame.size());
}

void OutgoingHandshake::perform(ClientHandshake::Step step) {
  std::visit(Match{
                 [this](Drop& fault) { drop(fault.reason); },
                 [this](wire::HelloFrame& frame) {
                   if (!sendWhole(frame)) drop(DropReason::TransportError);
                 },
                 [this](MakeVouchRequest& request) {
                   question_ = worker_.vault().makeVouch(entry().name, request,
                                                         [this](auto answer) { perform(machine_.onVault(answer)); });
                 },
                 [this](std::pair<wire::InitiateFrame, Established>& done) {
                   if (!sendWhole(done.first)) return drop(DropReason::TransportError);
                   worker_.stats().add(Counter::ClientHandshakes);
                   worker_.stats().add(entry().id, EntryCounter::Handshakes);
                   worker_.loop().remove(socket_, *this);
                   worker_.stats().subtract(Counter::Connections);  // the next owner counts it again
                   told_ = true;
                   onDone_(WireSession{kj::mv(socket_), CurveLink(std::move(done.second.session)), {}});
                   finish();
                 },
             },
             step);
}

}  // namespace sallyport::netd
