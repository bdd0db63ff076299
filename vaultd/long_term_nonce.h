// long_term_nonce.h - nonces for boxes under long-term keys. Process: vaultd alone. See docs/protocol.md §6.
//
//   nonce     = AES-256(nonce key, be64 counter || 8 random bytes)                         one block, one permutation
//   nonce key = BLAKE2b-256(key = long-term secret, "sallyport nonce key 1" || prefix || instance id)
//
// The counter comes from a NonceLedger, which never gives one out twice under the same instance id. AES is a
// permutation: distinct counters give distinct nonces with certainty; the random half covers what the ledger can't see
// (a restored virtual machine). curve_tun's text scrambles with a widened TEA; the peer can't tell the difference, and
// AES-256 is what NaCl's author wished for.
//
// What must never happen: a nonce made outside NonceSource, used twice, or used under another prefix. So LongTermNonce
// has no public constructor, is move-only, carries its role in its type, and is spent by the seal that uses it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "common/secret_bytes.h"
#include "vaultd/nonce_ledger.h"

struct evp_cipher_ctx_st;

namespace sallyport::vaultd {

// The protocol's long-term boxes. The 8-byte prefix of the box nonce follows from the role: no caller names one.
enum class BoxRole : uint8_t { Cookie, Vouch };
constexpr std::string_view prefixOf(BoxRole role) { return role == BoxRole::Cookie ? "CurveCPK" : "CurveCPV"; }

struct NonceKeyTag;
using NonceKey = SecretBytes<NonceKeyTag, 32>;
// `secret`: the long-term secret key, where it lives.
NonceKey deriveNonceKey(std::span<const std::byte, 32> secret, BoxRole role, const InstanceId& instance);

// AES-256 on single blocks. The key schedule lives in OpenSSL's context (wiped by it when it dies): it hides the
// counter, it is not a box key. Make it before lock-down: OpenSSL reads its configuration on first use.
class NonceCipher {
 public:
  explicit NonceCipher(const NonceKey& key);
  NonceCipher(NonceCipher&&) noexcept = default;
  std::array<std::byte, 16> encrypt(const std::array<std::byte, 16>& block) const;

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  std::unique_ptr<evp_cipher_ctx_st, Free> context_;
};

template <BoxRole R>
class NonceSource;

template <BoxRole R>
class LongTermNonce {
 public:
  LongTermNonce(LongTermNonce&& other) noexcept : bytes_(other.bytes_), spent_(std::exchange(other.spent_, true)) {}
  LongTermNonce& operator=(LongTermNonce&&) = delete;
  LongTermNonce(const LongTermNonce&) = delete;

  // For the one seal that uses it.
  LongNonceBytes spend() && {
    CHECK(!spent_);
    spent_ = true;
    return bytes_;
  }

 private:
  friend class NonceSource<R>;
  explicit LongTermNonce(const LongNonceBytes& bytes) : bytes_(bytes) {}

  LongNonceBytes bytes_;
  bool spent_ = false;
};

// be64 counter || 8 fresh random bytes.
std::array<std::byte, 16> nonceBlock(uint64_t counter);

// Draws the nonces of one key in one role.
template <BoxRole R>
class NonceSource {
 public:
  // `ledger` must outlive this.
  NonceSource(NonceLedger& ledger, std::span<const std::byte, 32> secret)
      : ledger_(ledger), cipher_(deriveNonceKey(secret, R, ledger.instance())) {}

  // Nothing if no provably fresh nonce can be made; ledger.state() says why.
  std::optional<LongTermNonce<R>> draw() {
    const auto counter = ledger_.draw();
    if (!counter) return std::nullopt;
    return LongTermNonce<R>(LongNonceBytes(cipher_.encrypt(nonceBlock(*counter))));
  }

 private:
  NonceLedger& ledger_;
  NonceCipher cipher_;
};

}  // namespace sallyport::vaultd
