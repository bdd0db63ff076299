// bytes.h - fixed-size public values with a type of their own, and text encodings. Part of: common (any process).
// Two kinds of 32 bytes never mix: Bytes<Tag, N> of different tags don't convert. For secrets see secret_bytes.h.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/check.h"

namespace sallyport {

using ByteSpan = std::span<const std::byte>;
using MutableByteSpan = std::span<std::byte>;

inline const unsigned char* uchars(ByteSpan bytes) { return reinterpret_cast<const unsigned char*>(bytes.data()); }
inline unsigned char* uchars(MutableByteSpan bytes) { return reinterpret_cast<unsigned char*>(bytes.data()); }
inline ByteSpan asBytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }

template <typename Tag, size_t N>
class Bytes {
 public:
  static constexpr size_t SIZE = N;

  constexpr Bytes() = default;
  // `bytes` has exactly N bytes; anything else is a bug of the caller.
  explicit Bytes(ByteSpan bytes) {
    CHECK(bytes.size() == N);
    std::memcpy(data_.data(), bytes.data(), N);
  }
  static std::optional<Bytes> tryFrom(ByteSpan bytes) {
    if (bytes.size() != N) return std::nullopt;
    return Bytes(bytes);
  }

  std::span<const std::byte, N> span() const { return data_; }
  std::span<std::byte, N> mutableSpan() { return data_; }
  const unsigned char* data() const { return reinterpret_cast<const unsigned char*>(data_.data()); }
  unsigned char* data() { return reinterpret_cast<unsigned char*>(data_.data()); }

  // Ordinary comparison: for public values only, e.g. as a map's key.
  auto operator<=>(const Bytes&) const = default;

 private:
  std::array<std::byte, N> data_{};
};

struct PublicKeyTag;
// An X25519 public key, long-term or ephemeral.
using PublicKey = Bytes<PublicKeyTag, 32>;
struct SigningKeyTag;
// An Ed25519 public key.
using SigningKey = Bytes<SigningKeyTag, 32>;
struct LongNonceTag;
// The 16 bytes of a long-term nonce that travel with the box.
using LongNonceBytes = Bytes<LongNonceTag, 16>;

struct PublicKeyHash {
  // Keys are uniformly distributed only if honest: mixed with a per-process secret against chosen collisions.
  size_t operator()(const PublicKey& key) const;
};

std::string toHex(ByteSpan bytes);
std::string toBase64(ByteSpan bytes);  // standard alphabet, padded
std::optional<std::vector<std::byte>> fromHex(std::string_view text);
std::optional<std::vector<std::byte>> fromBase64(std::string_view text);  // standard alphabet, padding optional

}  // namespace sallyport
