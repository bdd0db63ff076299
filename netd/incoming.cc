// incoming.cc - see incoming.h.
#include "netd/incoming.h"

#include <cerrno>

#include "common/match.h"
#include "netd/channel_service.h"
#include "netd/echo.h"
#include "netd/socket_options.h"
#include "netd/tunnel.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

IncomingHandshake::IncomingHandshake(Worker& worker, std::shared_ptr<const Entry> entry, kj::AutoCloseFd socket,
                                     const sockaddr_storage& address, Sources::Ticket ticket)
    : Connection(worker, std::move(entry), {}), socket_(kj::mv(socket)), address_(address), ticket_(std::move(ticket)) {
  ticket_.heldBy(*this);
  worker_.stats().add(Counter::HalfOpen);
  worker_.stats().add(Counter::Connections);
  worker_.loop().add(socket_, EPOLLIN | EPOLLET, *this);
}

IncomingHandshake::~IncomingHandshake() noexcept(false) = default;

void IncomingHandshake::release(bool) {
  if (counted_) worker_.stats().subtract(Counter::HalfOpen);
  counted_ = false;
  question_ = nullptr;
  dial_ = nullptr;
  if (socket_.get() >= 0) {
    worker_.stats().subtract(Counter::Connections);
    worker_.loop().remove(socket_, *this);
    socket_ = nullptr;
  }
  ticket_ = {};
}

DropReason IncomingHandshake::timeoutReason() const {
  return machine_.awaitsVault() ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout;
}

Dropped IncomingHandshake::describe(DropReason reason) const {
  Dropped dropped = Connection::describe(reason);
  dropped.from = &address_;
  // The vault says this of a genuine vouch alone: whoever sent it has the key.
  if (reason == DropReason::PeerNotAllowed) dropped.peer = &claimed_;
  return dropped;
}

void IncomingHandshake::onEvents(uint32_t events) {
  if (established_) {
    // The service is being dialled; what the peer sends waits in the socket. A peer that is gone is not waited for.
    if ((events & (EPOLLHUP | EPOLLERR)) != 0) fail(DropReason::TransportError);
    return;
  }
  if (machine_.awaitsVault()) return;
  readPacket();
}

void IncomingHandshake::readPacket() {
  while (!over()) {
    const size_t expected = machine_.expectedPacketBytes();
    if (expected == 0) return;
    const ssize_t got =
        recv(socket_, packet_.data() + have_, wire::FRAME_HEADER_BYTES + expected - have_, MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) fail(DropReason::ClosedInHandshake);
      return;
    }
    if (got == 0) return fail(DropReason::ClosedInHandshake);
    have_ += static_cast<size_t>(got);
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
                   question_ = worker_.vault().sealCookie(entry().name, std::move(request),
                                                          [this](auto answer) { perform(machine_.onVault(answer)); });
                 },
                 [this](wire::CookieFrame& frame) {
                   // A fresh socket takes 170 bytes at once; one that doesn't has failed.
                   if (send(socket_, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) !=
                       static_cast<ssize_t>(frame.size())) {
                     return fail(DropReason::TransportError);
                   }
                   readPacket();
                 },
                 [this](VerifyVouchRequest& request) {
                   claimed_ = request.client;
                   question_ = worker_.vault().verifyVouch(entry().name, std::move(request), [this](auto answer) {
                     perform(machine_.onVault(std::move(answer)));
                   });
                 },
                 [this](Established& established) { onEstablished(std::move(established)); },
             },
             step);
}

void IncomingHandshake::onEstablished(Established established) {
  // The vault has judged; netd judges again by its own copy: a reload may be half-way.
  if (!entry().allows(established.peerKey)) return fail(DropReason::PeerNotAllowed);
  worker_.stats().add(Counter::ServerHandshakes);
  worker_.stats().add(entry().id, EntryCounter::Handshakes);
  worker_.stats().subtract(Counter::HalfOpen);
  counted_ = false;
  waitingHook.unlink();
  ticket_.settle();
  peer_ = established.peerKey;
  setLiveness(socket_, worker_.limits());
  if (entry().service == EntryService::Target) {
    established_ = std::move(established);
    dial_ = std::make_unique<DialedSocket>(worker_, entry().id,
                                           [this](kj::Maybe<kj::AutoCloseFd> target) { onDialed(kj::mv(target)); });
    return;
  }
  worker_.loop().remove(socket_, *this);
  worker_.stats().subtract(Counter::Connections);  // the next owner counts it again
  WireSession session{kj::mv(socket_), CurveLink(std::move(established.session)), std::move(ticket_)};
  if (entry().service == EntryService::Echo) {
    worker_.own(std::make_unique<EchoSession>(worker_, entry_, peer_, std::move(session)));
  } else if (worker_.channels() != nullptr) {
    worker_.channels()->offer(entry_, peer_, established.peer, printable(address_), std::move(session));
  } else {
    worker_.drop(describe(DropReason::NoAcceptor));
  }
  finish();
}

void IncomingHandshake::onDialed(kj::Maybe<kj::AutoCloseFd> target) {
  KJ_IF_MAYBE (local, target) {
    worker_.loop().remove(socket_, *this);
    worker_.stats().subtract(Counter::Connections);
    WireSession session{kj::mv(socket_), CurveLink(std::move(established_->session)), std::move(ticket_)};
    worker_.own(std::make_unique<Tunnel>(worker_, entry_, peer_, std::move(session), kj::mv(*local)));
    // Not now: `dial_` is the caller.
    worker_.soon([this] { finish(); });
    return;
  }
  worker_.soon([this] { fail(DropReason::TargetUnavailable); });
}

}  // namespace sallyport::netd
