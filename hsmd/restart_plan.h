// restart_plan.h - when a module's process is started again. Part of: hsmd (keeper). Pure: the time is given.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sallyport::hsmd {

class RestartPlan {
 public:
  static constexpr uint32_t FIRST_MS = 100;
  // A module that fails at every start is tried twice a minute: that is the breaker. A token that is put back is found.
  static constexpr uint32_t MOST_MS = 30'000;
  static constexpr uint64_t STABLE_AFTER_MS = 10'000;

  void cameUp(uint64_t nowMs) {
    upSinceMs_ = nowMs;
    absentMs_ = 0;
  }
  // How long to wait. `wanted`: it ended because it was to (a PIN came, its memory had grown), not for a fault.
  uint32_t ended(uint64_t nowMs, bool wanted) {
    const bool stable = upSinceMs_ != 0 && nowMs - upSinceMs_ >= STABLE_AFTER_MS;
    upSinceMs_ = 0;
    if (stable) delayMs_ = 0;
    // Wanted ends come at once, but not in a loop.
    if (wanted) {
      const bool loops = nowMs - lastWantedMs_ < FIRST_MS;
      lastWantedMs_ = nowMs;
      return loops ? FIRST_MS : 0;
    }
    return grown(delayMs_);
  }
  // It has not come up, for its token isn't there: no fault of the module's, so a later one doesn't wait longer for it.
  uint32_t absent() { return grown(absentMs_); }

 private:
  static uint32_t grown(uint32_t& delayMs) {
    delayMs = delayMs == 0 ? FIRST_MS : std::min(delayMs * 2, MOST_MS);
    return delayMs;
  }

  uint64_t upSinceMs_ = 0;
  uint64_t lastWantedMs_ = 0;
  uint32_t delayMs_ = 0;
  uint32_t absentMs_ = 0;
};

}  // namespace sallyport::hsmd
