// session.cc - see session.h.
#include "clients/cpp/session.h"

namespace sallyport::client {

Turn Session::begin() {
  if (closed_) throw Error(Code::closed);
  if (!wire_ || !wire_->alive()) {
    wire_.reset();
    wire_ = std::make_unique<Wire>(path_, options_.timeout);
    ++connections_;
  }
  Turn turn(*wire_, connections_);
  sendReleases(turn);
  return turn;
}

void Session::sendReleases(Turn& turn) noexcept {
  const std::lock_guard lock(releasesMutex_);
  for (const Handle& handle : releases_) turn.release(handle);
  releases_.clear();
}

void Session::releaseLater(Handle handle) noexcept {
  try {
    const std::lock_guard lock(releasesMutex_);
    releases_.push_back(handle);
  } catch (...) { return; }  // no memory: the capability ends with the connection
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || !wire_ || !wire_->alive()) return;
  Turn turn(*wire_, connections_);
  sendReleases(turn);
}

void Session::close() noexcept {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  wire_.reset();
}

}  // namespace sallyport::client
