// alarm_clock.h - "call me in so many milliseconds", once, and again if asked. Part of: hsmlink (vaultd, CLI).
// The call may set it anew: a promise may not replace itself while it runs, so the new one is made right after.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "common/event_loop.h"

namespace sallyport::hsmlink {

class AlarmClock {
 public:
  AlarmClock(EventLoop& loop, std::function<void()> onTime) : loop_(loop), onTime_(std::move(onTime)) {}
  AlarmClock(const AlarmClock&) = delete;

  bool isSet() const { return set_; }
  // Instead of what it was set to before.
  void set(uint64_t inMs) {
    set_ = true;
    if (ringing_) {
      again_ = inMs;
      return;
    }
    start(inMs);
  }
  void unset() {
    set_ = false;
    again_.reset();
    if (!ringing_) waiting_ = nullptr;
  }

 private:
  void start(uint64_t inMs) {
    waiting_ = loop_.timer().afterDelay(inMs * kj::MILLISECONDS).then([this] { ring(); }).eagerlyEvaluate(nullptr);
  }
  void ring() {
    set_ = false;
    ringing_ = true;
    loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
      if (alive.expired()) return;
      ringing_ = false;
      if (const auto inMs = std::exchange(again_, std::nullopt)) start(*inMs);
    });
    onTime_();
  }

  EventLoop& loop_;
  std::function<void()> onTime_;
  bool set_ = false;
  bool ringing_ = false;
  std::optional<uint64_t> again_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>();
  kj::Promise<void> waiting_ = nullptr;
};

}  // namespace sallyport::hsmlink
