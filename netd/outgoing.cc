// outgoing.cc - see outgoing.h.
#include "netd/outgoing.h"

#include "netd/base_session.h"
#include "netd/socket_options.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

template <typename Link>
OutgoingOf<Link>::OutgoingOf(Worker& worker, std::shared_ptr<const Entry> entry, OnDone onDone)
    : Connection(worker, entry, entry->server), onDone_(kj::mv(onDone)) {
  worker_.outgoingStarted(entry_->id);
  dial_ = std::make_unique<DialedSocket>(worker_, entry->id,
                                         [this](kj::Maybe<kj::AutoCloseFd> socket) { onDialed(kj::mv(socket)); });
}

template <typename Link>
OutgoingOf<Link>::~OutgoingOf() noexcept(false) = default;

template <typename Link>
void OutgoingOf<Link>::release(bool failed) {
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

template <typename Link>
DropReason OutgoingOf<Link>::timeoutReason() const {
  return question_ != nullptr ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout;
}

template <typename Link>
void OutgoingOf<Link>::drop(DropReason reason) {
  if (!told_) {
    told_ = true;
    onDone_(refuse(reason));
  }
  fail(reason);
}

template <typename Link>
void OutgoingOf<Link>::onDialed(kj::Maybe<kj::AutoCloseFd> socket) {
  KJ_IF_MAYBE (connected, socket) {
    socket_ = kj::mv(*connected);
    worker_.stats().add(Counter::Connections);
    setNoDelay(socket_);
    setLiveness(socket_, worker_.limits());
    worker_.loop().add(socket_, EPOLLIN | EPOLLET, *this);
    start();
  } else {
    worker_.soon([this] {
      if (!over()) drop(DropReason::TargetUnavailable);
    });
  }
}

template <typename Link>
void OutgoingOf<Link>::onEvents(uint32_t) {
  if (question_ == nullptr) onReadable();
}

template <typename Link>
void OutgoingOf<Link>::established(Link link) {
  worker_.stats().add(Counter::ClientHandshakes);
  worker_.stats().add(entry().id, EntryCounter::Handshakes);
  worker_.loop().remove(socket_, *this);
  worker_.stats().subtract(Counter::Connections);  // the next owner counts it again
  told_ = true;
  onDone_(WireSessionOf<Link>{kj::mv(socket_), std::move(link), {}});
  finish();
}

template class OutgoingOf<CurveLink>;
template class OutgoingOf<PeerLink>;
template class OutgoingOf<BaseLink>;

}  // namespace sallyport::netd
