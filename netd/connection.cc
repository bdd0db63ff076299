// connection.cc - see connection.h.
#include "netd/connection.h"

#include "netd/worker.h"

namespace sallyport::netd {

Connection::Connection(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer)
    : worker_(worker),
      entry_(std::move(entry)),
      peer_(peer),
      startedMs_(worker.loop().nowMs()),
      lastActiveMs_(startedMs_) {}

Connection::~Connection() noexcept(false) = default;

void Connection::touch() { lastActiveMs_ = worker_.loop().nowMs(); }

void Connection::end(bool failed) {
  over_ = true;
  waitingHook.unlink();
  runHook.unlink();
  release(failed);
  worker_.bury(*this);
}

void Connection::finish() {
  if (!over_) end(false);
}

void Connection::fail(wire::DropReason reason) {
  if (over_) return;
  failure_ = reason;
  worker_.drop(describe(reason));
  end(true);
}

bool Connection::hasPeer() const {
  static constexpr PublicKey UNKNOWN;
  return peer_ != UNKNOWN;
}

Dropped Connection::describe(wire::DropReason reason) const {
  return {.reason = reason, .entry = *entry_, .peer = hasPeer() && entry_->isListen ? &peer_ : nullptr};
}

void Connection::reconsider(std::shared_ptr<const Entry> fresh) {
  // The same name with another key, service or server is another entry: what it authorised is gone.
  const bool same = fresh != nullptr && fresh->vaultKey == entry_->vaultKey && fresh->service == entry_->service &&
                    fresh->framing == entry_->framing;
  if (!same || (hasPeer() && !fresh->allows(peer_))) return fail(wire::DropReason::PeerRevoked);
  entry_ = std::move(fresh);
}

}  // namespace sallyport::netd
