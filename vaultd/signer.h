// signer.h - the only place where an Ed25519 seed is used. Process: vaultd alone. See docs/protocol.md §8.
// A signature is over the program's text as it is (RFC 8032, pure): nothing of ours signs under these keys, so there is
// no protocol that a program's text could be taken for. An X25519 key is never turned into a signing key or back.
#pragma once

#include "common/result.h"
#include "proto/vault.capnp.h"
#include "vaultd/key_format.h"
#include "vaultd/secret_arena.h"
#include "vaultd/token_results.h"

namespace sallyport::vaultd {

inline constexpr size_t SIGNATURE_BYTES = 64;

class LongTermSigner {
 public:
  // `seed`: RFC 8032's private key. `arena` must outlive this.
  LongTermSigner(SecretArena& arena, const LongTermSecret& seed);
  // A key in a token: its signatures are among `results`, which must outlive this, or there is none.
  LongTermSigner(SharedKeyCache::KeyId id, const TokenResults& results, const PublicKey& publicKey)
      : results_(&results), id_(id), publicKey_(publicKey) {}

  const PublicKey& publicKey() const { return publicKey_; }
  // For the nonce keys alone. Not of a key in a token.
  std::span<const std::byte, 32> secretForNonceKeys() const { return secret_.expose<64>().first<32>(); }

  // Refuses hsmUnavailable: the token has made no signature, or a wrong one.
  Result<void, proto::Refusal> sign(ByteSpan message, std::span<std::byte, SIGNATURE_BYTES> out) const;

 private:
  const TokenResults* results_ = nullptr;  // of a key in a token
  SharedKeyCache::KeyId id_ = 0;
  SecretSlot secret_;  // of any other, in libsodium's form: the seed, then the public key
  PublicKey publicKey_;
};

// A signature of anybody. Refuses badSignature; lowOrderKey for a key that is no point of the prime-order group.
Result<void, proto::Refusal> verifySignature(const PublicKey& signer, ByteSpan message,
                                             std::span<const std::byte, SIGNATURE_BYTES> signature);

}  // namespace sallyport::vaultd
