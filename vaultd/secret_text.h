// secret_text.h - secret text of variable length: passphrases, credentials, the text of a key file. Part of: vaultd's
// key library. A fixed buffer inside the object, wiped when it dies or is moved from; never a std::string, which would
// leave copies on the heap when it grows.
#pragma once

#include <string_view>
#include <utility>

#include "common/secret_bytes.h"

namespace sallyport::vaultd {

struct SecretTextTag;

class SecretText {
 public:
  static constexpr size_t CAPACITY = 36 * 1024;  // a key file with all versions and slots that one may have

  SecretText() = default;
  SecretText(SecretText&& other) noexcept : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
  SecretText& operator=(SecretText&& other) noexcept {
    bytes_ = std::move(other.bytes_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  static SecretText copyOf(std::string_view text) {
    SecretText result;
    CHECK(result.append(text));
    return result;
  }

  // False, and nothing appended, when it doesn't fit.
  bool append(std::string_view text) {
    if (text.size() > CAPACITY - size_) return false;
    std::memcpy(room().data(), text.data(), text.size());
    size_ += text.size();
    return true;
  }
  // The unused rest of the buffer, to be filled by read(2) or an encoder; then `grow` by what was written.
  std::span<std::byte> room() { return bytes_.exposeMutable().subspan(size_); }
  void grow(size_t bytes) {
    CHECK(bytes <= CAPACITY - size_);
    size_ += bytes;
  }
  void shrinkTo(size_t size) {
    CHECK(size <= size_);
    sallyport::wipe(bytes_.exposeMutable().subspan(size, size_ - size));
    size_ = size;
  }

  std::string_view expose() const { return {reinterpret_cast<const char*>(bytes_.exposeData()), size_}; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  SecretBytes<SecretTextTag, CAPACITY> bytes_;
  size_t size_ = 0;
};

}  // namespace sallyport::vaultd
