// input.h - a fuzzer's bytes as decisions: the end of the input gives zeros, so every input is a whole script.
// Part of: tests/fuzz.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/bytes.h"

namespace sallyport::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<uint8_t>(rest_[0]);
    rest_ = rest_.subspan(1);
    return value;
  }
  uint16_t word() {
    const uint16_t high = byte();
    return static_cast<uint16_t>(high << 8 | byte());
  }
  // At most `count` bytes.
  ByteSpan take(size_t count) {
    const ByteSpan taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  // Exactly `count` bytes, zeros behind the end.
  std::vector<std::byte> block(size_t count) {
    const ByteSpan taken = take(count);
    std::vector<std::byte> result(taken.begin(), taken.end());
    result.resize(count);
    return result;
  }
  ByteSpan rest() { return take(rest_.size()); }
  // 0 to 3 bytes of `target` are changed: a count, then position and what is added to the byte. True if it is another
  // text now.
  bool mutate(MutableByteSpan target) {
    const std::vector<std::byte> before(target.begin(), target.end());
    for (int count = byte() % 4; count > 0 && !target.empty(); --count) {
      auto& changed = target[word() % target.size()];
      changed = static_cast<std::byte>(static_cast<uint8_t>(changed) + byte());
    }
    return !std::ranges::equal(before, target);
  }

 private:
  ByteSpan rest_;
};

}  // namespace sallyport::fuzz
