// dice.h - everything random in a simulation, from one seed. Part of: tests/sim and tests/fuzz.
// installDice() puts the same generator behind libsodium, so that ephemeral keys, minute keys and nonces repeat with
// the seed; it remembers the secrets that it made, for tests of who still holds one.
#pragma once

#include <sodium.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/bytes.h"

namespace sallyport::sim {

// splitmix64: small, and good enough to shuffle a hostile network.
class Dice {
 public:
  explicit Dice(uint64_t seed = 0) : state_(seed) {}
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 .. end-1.
  uint64_t below(uint64_t end) { return end == 0 ? 0 : next() % end; }
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool oneIn(uint64_t n) { return below(n) == 0; }
  void fill(void* out, size_t bytes) {
    auto* to = static_cast<unsigned char*>(out);
    for (size_t at = 0; at < bytes; at += 8) {
      const uint64_t word = next();
      std::memcpy(to + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
  }
  std::vector<std::byte> bytes(size_t count) {
    std::vector<std::byte> result(count);
    fill(result.data(), count);
    return result;
  }

 private:
  uint64_t state_;
};

// The generator behind libsodium.
inline Dice sodiumDice;
using Drawn = std::array<std::byte, 32>;
inline std::vector<Drawn> drawnSecrets;  // 32-byte draws since they were last cleared

inline void installDice() {
  static randombytes_implementation implementation = {
      .implementation_name = [] { return "dice"; },
      .random = [] { return static_cast<uint32_t>(sodiumDice.next()); },
      .stir = nullptr,
      .uniform = nullptr,
      .buf =
          [](void* const out, const size_t bytes) {
            sodiumDice.fill(out, bytes);
            if (bytes == sizeof(Drawn)) std::memcpy(drawnSecrets.emplace_back().data(), out, bytes);
          },
      .close = nullptr,
  };
  CHECK(randombytes_set_implementation(&implementation) == 0);
  CHECK(sodium_init() >= 0);
}

}  // namespace sallyport::sim
