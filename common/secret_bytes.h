// secret_bytes.h - fixed-size secrets: move-only, wiped, unprintable. Part of: common (any process).
// The value lives inside the object, so an object of 32 bytes costs 32 bytes; long-term secrets live in the vault's
// arena instead (vaultd/secret_arena.h). Tags keep kinds and directions of keys apart. The bytes are reached only
// through `expose()`, which is easy to search for. There is no == : use equalsConstantTime.
#pragma once

#include <array>
#include <cstddef>
#include <iosfwd>
#include <span>

#include "common/bytes.h"

namespace sallyport {

// Overwrites memory in a way that the compiler keeps.
void wipe(MutableByteSpan bytes);
// Compares in time that depends on the length alone. Different lengths are unequal.
bool equalsConstantTime(ByteSpan left, ByteSpan right);
// The one gate by which a bit that follows from secrets becomes public: is this box genuine, is this mac right. No
// branch and no index may depend on a secret elsewhere; tests/timing holds the vault to it. See docs/threat-model.md.
bool reveal(bool verdict);
// Cryptographic randomness from the kernel.
void fillRandom(MutableByteSpan bytes);

template <typename Tag, size_t N>
class SecretBytes {
 public:
  static constexpr size_t SIZE = N;

  SecretBytes() = default;  // all zero
  explicit SecretBytes(ByteSpan bytes) {
    CHECK(bytes.size() == N);
    std::memcpy(data_.data(), bytes.data(), N);
  }
  static SecretBytes random() {
    SecretBytes result;
    fillRandom(result.data_);
    return result;
  }
  SecretBytes(SecretBytes&& other) noexcept : data_(other.data_) { other.wipe(); }
  SecretBytes& operator=(SecretBytes&& other) noexcept {
    if (this != &other) {
      data_ = other.data_;
      other.wipe();
    }
    return *this;
  }
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;
  ~SecretBytes() { wipe(); }

  void wipe() { sallyport::wipe(data_); }
  std::span<const std::byte, N> expose() const { return data_; }
  std::span<std::byte, N> exposeMutable() { return data_; }
  const unsigned char* exposeData() const { return reinterpret_cast<const unsigned char*>(data_.data()); }
  unsigned char* exposeData() { return reinterpret_cast<unsigned char*>(data_.data()); }

  bool operator==(const SecretBytes&) const = delete;
  friend std::ostream& operator<<(std::ostream&, const SecretBytes&) = delete;

 private:
  std::array<std::byte, N> data_{};
};

}  // namespace sallyport
