// token_bucket.h - so many a second, with a burst of one second's worth. Process: vaultd alone. Pure: time comes in.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sallyport::vaultd {

class TokenBucket {
 public:
  // Starts full. `perSecond` >= 1.
  TokenBucket(uint32_t perSecond, uint64_t nowMs) : perSecond_(perSecond), milliTokens_(full()), lastMs_(nowMs) {}

  bool take(uint64_t nowMs, uint32_t howMany = 1) {
    if (nowMs > lastMs_) {
      // Longer than a second fills it anyway: cut before multiplying.
      const uint64_t elapsedMs = std::min<uint64_t>(nowMs - lastMs_, 1000);
      milliTokens_ = std::min(full(), milliTokens_ + elapsedMs * perSecond_);
      lastMs_ = nowMs;
    }
    const uint64_t wanted = uint64_t{howMany} * 1000;
    if (milliTokens_ < wanted) return false;
    milliTokens_ -= wanted;
    enter(nowMs / 1000);
    takenNow_ += howMany;
    return true;
  }

  // How many were taken in the last whole second of the clock.
  uint64_t lastSecond(uint64_t nowMs) {
    enter(nowMs / 1000);
    return takenBefore_;
  }

  void setRate(uint32_t perSecond) {
    perSecond_ = perSecond;
    milliTokens_ = std::min(milliTokens_, full());
  }

 private:
  uint64_t full() const { return uint64_t{perSecond_} * 1000; }
  void enter(uint64_t second) {
    if (second <= second_) return;
    takenBefore_ = second == second_ + 1 ? takenNow_ : 0;
    takenNow_ = 0;
    second_ = second;
  }

  uint64_t perSecond_;
  uint64_t milliTokens_;
  uint64_t lastMs_;
  uint64_t second_ = 0;
  uint64_t takenNow_ = 0;     // in that second
  uint64_t takenBefore_ = 0;  // in the one before
};

}  // namespace sallyport::vaultd
