// incoming.cc - see incoming.h.
#include "netd/incoming.h"

#include "netd/channel_service.h"
#include "netd/echo.h"
#include "netd/socket_options.h"
#include "netd/tunnel.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

template <typename Link>
IncomingOf<Link>::IncomingOf(Worker& worker, std::shared_ptr<const Entry> entry, kj::AutoCloseFd socket,
                             const Origin& origin, Sources::Ticket ticket)
    : Connection(worker, std::move(entry), {}), socket_(kj::mv(socket)), origin_(origin), ticket_(std::move(ticket)) {
  ticket_.heldBy(*this);
  worker_.stats().add(Counter::HalfOpen);
  worker_.stats().add(Counter::Connections);
  worker_.loop().add(socket_, EPOLLIN | EPOLLET, *this);
}

template <typename Link>
IncomingOf<Link>::~IncomingOf() noexcept(false) = default;

template <typename Link>
void IncomingOf<Link>::release(bool) {
  if (counted_) worker_.stats().subtract(Counter::HalfOpen);
  counted_ = false;
  question_ = nullptr;
  dial_ = nullptr;
  if (link_) link_->clear(worker_.budget());
  if (socket_.get() >= 0) {
    worker_.stats().subtract(Counter::Connections);
    worker_.loop().remove(socket_, *this);
    socket_ = nullptr;
  }
  ticket_ = {};
}

template <typename Link>
Dropped IncomingOf<Link>::describe(DropReason reason) const {
  Dropped dropped = Connection::describe(reason);
  dropped.from = &origin_;
  return dropped;
}

template <typename Link>
void IncomingOf<Link>::onEvents(uint32_t events) {
  gone_ = gone_ || (events & (EPOLLHUP | EPOLLERR)) != 0;
  if (!link_) return onHandshakeEvents();
  // The service is being dialled; what the peer sends waits in the socket. A peer that is gone is not waited for.
  if (gone_) fail(DropReason::TransportError);
}

template <typename Link>
WireSessionOf<Link> IncomingOf<Link>::takeSession() {
  worker_.loop().remove(socket_, *this);
  worker_.stats().subtract(Counter::Connections);  // the next owner counts it again
  WireSessionOf<Link> session{kj::mv(socket_), std::move(*link_), std::move(ticket_)};
  link_.reset();
  return session;
}

template <typename Link>
void IncomingOf<Link>::established(Link link, const PublicKey& peer, const std::string& name) {
  worker_.stats().add(Counter::ServerHandshakes);
  worker_.stats().add(entry().id, EntryCounter::Handshakes);
  worker_.stats().subtract(Counter::HalfOpen);
  counted_ = false;
  waitingHook.unlink();
  ticket_.settle();
  peer_ = peer;
  link_.emplace(std::move(link));
  if (entry().service == EntryService::Target) {
    if (gone_) return fail(DropReason::TransportError);  // the loop has told so, and doesn't again
    dial_ = std::make_unique<DialedSocket>(worker_, entry().id,
                                           [this](kj::Maybe<kj::AutoCloseFd> target) { onDialed(kj::mv(target)); });
    return;
  }
  if (entry().service == EntryService::Echo) {
    worker_.own(std::make_unique<EchoSessionOf<Link>>(worker_, entry_, peer_, takeSession()));
  } else if (worker_.channels() != nullptr) {
    worker_.channels()->offer(entry(), peer_, name, printable(origin_), [this](std::shared_ptr<ChannelState> state) {
      return std::make_unique<ChannelConnectionOf<Link>>(worker_, entry_, peer_, takeSession(), std::move(state));
    });
  } else {
    worker_.drop(describe(DropReason::NoAcceptor));
  }
  finish();
}

template <typename Link>
void IncomingOf<Link>::onDialed(kj::Maybe<kj::AutoCloseFd> target) {
  KJ_IF_MAYBE (local, target) {
    setNoDelay(*local);
    setAbruptClose(*local);
    worker_.own(std::make_unique<TunnelOf<Link>>(worker_, entry_, peer_, takeSession(), kj::mv(*local)));
    // Not now: `dial_` is the caller.
    worker_.soon([this] { finish(); });
    return;
  }
  worker_.soon([this] { fail(DropReason::TargetUnavailable); });
}

template class IncomingOf<CurveLink>;
template class IncomingOf<PeerLink>;

}  // namespace sallyport::netd
