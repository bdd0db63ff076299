// long_term_nonce.h - nonces for boxes under long-term keys. Process: vaultd alone. See docs/protocol.md §6.
//
//   nonce     = AES-256(nonce key, be64 counter || 8 random bytes)                         one block, one permutation
//   nonce key = BLAKE2b-256(key = long-term secret, "sallyport nonce key 1" || domain || instance id)
//
// The domain, 8 bytes, is the prefix of the boxes that the nonces are for, or the name that a program gave its own
// (NonceDomain::named), padded with zeros: those never look like a prefix of ours.
//
// The counter comes from a NonceLedger, which never gives one out twice under the same instance id. AES is a
// permutation: distinct counters give distinct nonces with certainty; the random half covers what the ledger can't see
// (a restored virtual machine). curve_tun's text scrambles with a widened TEA; the peer can't tell the difference, and
// AES-256 is what NaCl's author wished for.
//
// What must never happen: a nonce of ours made outside NonceSource, used twice, or used under another prefix. So
// LongTermNonce has no public constructor, is move-only, carries its role in its type, and is spent by the seal that
// uses it. What DomainNonces draws is for programs: nothing in here seals under it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "common/secret_bytes.h"
#include "vaultd/nonce_ledger.h"

struct evp_cipher_ctx_st;

namespace sallyport::vaultd {

// The boxes under long-term keys: two of the protocol, and those of programs. The 8-byte prefix of the box nonce
// follows from the role: no caller names one.
enum class BoxRole : uint8_t { Cookie, Vouch, Application };
constexpr std::string_view prefixOf(BoxRole role) {
  switch (role) {
    case BoxRole::Cookie: return "CurveCPK";
    case BoxRole::Vouch: return "CurveCPV";
    case BoxRole::Application: return "SallyBox";
  }
  return {};
}

class NonceDomain {
 public:
  static NonceDomain of(BoxRole role) { return NonceDomain(prefixOf(role)); }
  // Nothing for a name that isNonceDomain() refuses: it could be taken for a prefix of ours.
  static std::optional<NonceDomain> named(std::string_view name);

  std::span<const std::byte, 8> span() const { return bytes_; }
  auto operator<=>(const NonceDomain&) const = default;

 private:
  explicit NonceDomain(std::string_view text) {
    CHECK(text.size() <= bytes_.size());
    std::memcpy(bytes_.data(), text.data(), text.size());
  }
  std::array<std::byte, 8> bytes_{};
};

struct NonceKeyTag;
using NonceKey = SecretBytes<NonceKeyTag, 32>;
// `secret`: the long-term secret key, where it lives.
NonceKey deriveNonceKey(std::span<const std::byte, 32> secret, const NonceDomain& domain, const InstanceId& instance);
inline NonceKey deriveNonceKey(std::span<const std::byte, 32> secret, BoxRole role, const InstanceId& instance) {
  return deriveNonceKey(secret, NonceDomain::of(role), instance);
}

// AES-256 on single blocks. The key schedule lies in OpenSSL's context, on the heap, and is wiped by it when it dies:
// so a cipher lives no longer than one call.
class NonceCipher {
 public:
  explicit NonceCipher(const NonceKey& key);
  NonceCipher(const NonceCipher&) = delete;
  std::array<std::byte, 16> encrypt(const std::array<std::byte, 16>& block) const;

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  std::unique_ptr<evp_cipher_ctx_st, Free> context_;
};
// To be called before lock-down: OpenSSL looks around on first use.
void prepareNonceCipher();

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

class DomainNonces;

// What the nonces of one call have in common. Their random halves, in one go: a system call for each would cost more
// than the box. And the cipher of their nonce key, derived once. Never kept beyond the call: a snapshot of this machine
// would clone the randomness, and the nonce key would lie on the heap.
class NonceBatch {
 public:
  static constexpr size_t MOST = 64;
  explicit NonceBatch(size_t howMany = 1);  // at most MOST
  NonceBatch(const NonceBatch&) = delete;

  std::span<const std::byte, 8> takeRandom();
  const NonceCipher& cipherOf(const DomainNonces& nonces);

 private:
  std::array<std::byte, 8 * MOST> random_;
  size_t left_;
  const DomainNonces* nonces_ = nullptr;  // whose cipher it is
  std::optional<NonceCipher> cipher_;
};

// be64 counter || 8 random bytes.
std::array<std::byte, 16> nonceBlock(uint64_t counter, std::span<const std::byte, 8> random);

// Draws nonces of one key in one domain that is a program's own.
class DomainNonces {
 public:
  // `ledger` and the secret key, where it lives, must outlive this.
  DomainNonces(NonceLedger& ledger, std::span<const std::byte, 32> secret, const NonceDomain& domain)
      : ledger_(ledger), secret_(secret), domain_(domain) {}

  // Nothing if no provably fresh nonce can be made; the ledger says why.
  std::optional<LongNonceBytes> draw(NonceBatch& batch) {
    const auto counter = ledger_.draw();
    if (!counter) return std::nullopt;
    return LongNonceBytes(batch.cipherOf(*this).encrypt(nonceBlock(*counter, batch.takeRandom())));
  }

 private:
  friend class NonceBatch;
  NonceLedger& ledger_;
  std::span<const std::byte, 32> secret_;
  NonceDomain domain_;
};

// Draws the nonces of one key in one role.
template <BoxRole R>
class NonceSource {
 public:
  // `ledger` and the secret key, where it lives, must outlive this.
  NonceSource(NonceLedger& ledger, std::span<const std::byte, 32> secret)
      : nonces_(ledger, secret, NonceDomain::of(R)) {}

  std::optional<LongTermNonce<R>> draw(NonceBatch& batch) {
    const auto bytes = nonces_.draw(batch);
    if (!bytes) return std::nullopt;
    return LongTermNonce<R>(*bytes);
  }
  std::optional<LongTermNonce<R>> draw() {
    NonceBatch batch;
    return draw(batch);
  }

 private:
  DomainNonces nonces_;
};

}  // namespace sallyport::vaultd
