// log_ration.h - a line of the log that somebody else can cause as often as he likes. Part of: common (any process).
// Pure: time comes in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace sallyport {

// Lets one line through a period. What is left out is counted in the next one.
class LogRation {
 public:
  static constexpr uint64_t PERIOD_MS = 1000;

  // The end of the line: "", or " unlogged=12" for the lines left out since the last one. Nothing: leave this one out.
  std::optional<std::string> take(uint64_t nowMs) {
    if (lastMs_ && nowMs < *lastMs_ + PERIOD_MS) {
      ++unlogged_;
      return std::nullopt;
    }
    lastMs_ = nowMs;
    const uint64_t unlogged = std::exchange(unlogged_, 0);
    return unlogged == 0 ? "" : " unlogged=" + std::to_string(unlogged);
  }

 private:
  std::optional<uint64_t> lastMs_;
  uint64_t unlogged_ = 0;
};

}  // namespace sallyport
