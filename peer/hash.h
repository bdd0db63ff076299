// hash.h - SHA-256 that goes on from a digest, and HMAC with its key prepared. Part of: peer (netd-worker, vaultd).
// docs/protocol.md §13. OpenSSL's low-level SHA-256 is used because a frame's hash starts from the digest of the frame
// before: EVP can't set the state, SHA256_CTX can, and it takes the same hardware path.
#pragma once

#include <array>
#include <cstddef>
#include <initializer_list>

#include "common/bytes.h"
#include "common/secret_bytes.h"

namespace sallyport::peer {

inline constexpr size_t DIGEST_BYTES = 32;
struct DigestTag;
// Of plain texts: as secret as they are.
using Digest = SecretBytes<DigestTag, DIGEST_BYTES>;

// One SHA-256, in pieces. Wiped when it goes.
class Hash {
 public:
  Hash() = default;  // of nothing that can be used: start() first
  ~Hash();
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;

  void start();  // the standard's start value
  // `state` is 32 bytes in the form of a digest; `before` bytes (a multiple of 64) count as hashed already.
  void startFrom(std::span<const std::byte, DIGEST_BYTES> state, size_t before = 0);
  void update(ByteSpan bytes);
  void finish(std::span<std::byte, DIGEST_BYTES> digest);
  // The state after a whole number of blocks, in the form of a digest.
  void state(std::span<std::byte, DIGEST_BYTES> out) const;

 private:
  // SHA256_CTX: OpenSSL's header stays out of ours.
  alignas(8) std::array<std::byte, 112> context_{};
};

// The digest of no bytes' start value: H(0) of a direction.
Digest initialDigest();

// HMAC-SHA256 under one key: both halves of the key are hashed once, so a short message costs two blocks and not four.
class HmacKey {
 public:
  HmacKey() = default;             // of no use: assign one that was made of a key
  explicit HmacKey(ByteSpan key);  // at most 64 bytes
  void mac(std::span<std::byte, DIGEST_BYTES> out, std::initializer_list<ByteSpan> message) const;

 private:
  void macLong(std::span<std::byte, DIGEST_BYTES> out, std::initializer_list<ByteSpan> message) const;

  struct StateTag;
  SecretBytes<StateTag, DIGEST_BYTES> inner_;
  SecretBytes<StateTag, DIGEST_BYTES> outer_;
};

}  // namespace sallyport::peer
