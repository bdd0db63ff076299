// long_term_secret.h - a long-term secret on its way between a file and the arena. Part of: vaultd's key library.
// 32 bytes (X25519 scalar, Ed25519 seed) or 128 (the block of the peer protocol); move-only and wiped as all secrets.
#pragma once

#include "common/secret_bytes.h"
#include "vaultd/key_version.h"

namespace sallyport::vaultd {

struct LongTermSecretTag;

class LongTermSecret {
 public:
  static constexpr size_t SIZE = 32;  // of all kinds but blocks
  static constexpr size_t MAX_SIZE = wire::PEER_BLOCK_BYTES;

  LongTermSecret() = default;  // SIZE zeros
  explicit LongTermSecret(ByteSpan bytes) : size_(bytes.size()) {
    CHECK(size_ == SIZE || size_ == MAX_SIZE);
    std::memcpy(bytes_.exposeData(), bytes.data(), size_);
  }
  static LongTermSecret zeros(KeyKind kind) {
    LongTermSecret secret;
    secret.size_ = secretBytes(kind);
    return secret;
  }
  static LongTermSecret random(KeyKind kind = KeyKind::X25519) {
    LongTermSecret secret = zeros(kind);
    fillRandom(secret.exposeMutable());
    return secret;
  }
  LongTermSecret(LongTermSecret&&) noexcept = default;
  LongTermSecret& operator=(LongTermSecret&&) noexcept = default;

  size_t size() const { return size_; }
  ByteSpan expose() const { return bytes_.expose().first(size_); }
  MutableByteSpan exposeMutable() { return bytes_.exposeMutable().first(size_); }
  const unsigned char* exposeData() const { return bytes_.exposeData(); }
  unsigned char* exposeData() { return bytes_.exposeData(); }

  bool operator==(const LongTermSecret&) const = delete;

 private:
  SecretBytes<LongTermSecretTag, MAX_SIZE> bytes_;
  size_t size_ = SIZE;
};

}  // namespace sallyport::vaultd
