// call_gate.h - how many calls for base mode are with the vault at once. Part of: netd-worker.
// Anybody can connect, and each connection in base mode asks the vault for itself. The vault cuts off a client that has
// more calls open than LinkLimits allow: without this bound strangers who send a byte each would end every session.
#pragma once

#include <algorithm>
#include <deque>
#include <exception>
#include <functional>
#include <memory>

#include "common/check.h"

namespace sallyport::netd {

class CallGate {
 public:
  // With all that the batches have under way far below LinkLimits::maxOpenQuestions.
  static constexpr size_t MOST = 64;

  // Calls `start` once, now or when there is room, unless `wanted` is gone by then. Who was started says leave() when
  // the call is answered, and not before `start` has returned. A `start` that throws has started nothing: it doesn't
  // say leave(), and who called the gate gets the exception. `start` is held as long as it waits, so it must not hold
  // the gate.
  void enter(std::weak_ptr<void> wanted, std::function<void()> start) {
    if (underWay_ < MOST) return begin(start);
    waiting_.push_back({std::move(wanted), std::move(start)});
    if (waiting_.size() < purgeAt_) return;
    // While the vault doesn't answer nobody takes them out, so those of connections that are gone must not pile up.
    std::erase_if(waiting_, [](const Waiting& each) { return each.wanted.expired(); });
    purgeAt_ = std::max(LEAST_PURGE, 2 * waiting_.size());
  }
  void leave() {
    CHECK(underWay_ > 0);
    --underWay_;
    std::exception_ptr failure;
    while (underWay_ < MOST && !waiting_.empty()) {
      const Waiting next = std::move(waiting_.front());
      waiting_.pop_front();
      if (next.wanted.expired()) continue;
      try {
        begin(next.start);
      } catch (...) {
        failure = std::current_exception();  // those behind it still have their turn
      }
    }
    if (failure) std::rethrow_exception(failure);
  }
  size_t underWay() const { return underWay_; }
  size_t waiting() const { return waiting_.size(); }

 private:
  static constexpr size_t LEAST_PURGE = 256;
  struct Waiting {
    std::weak_ptr<void> wanted;
    std::function<void()> start;
  };
  void begin(const std::function<void()>& start) {
    ++underWay_;
    try {
      start();
    } catch (...) {
      --underWay_;
      throw;
    }
  }
  size_t underWay_ = 0;
  size_t purgeAt_ = LEAST_PURGE;
  std::deque<Waiting> waiting_;
};

}  // namespace sallyport::netd
