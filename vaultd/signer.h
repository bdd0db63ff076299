// signer.h - the only place where an Ed25519 seed is used. Process: vaultd alone. See docs/protocol.md §8.
// A signature is over the program's text as it is (RFC 8032, pure): nothing of ours signs under these keys, so there is
// no protocol that a program's text could be taken for. An X25519 key is never turned into a signing key or back.
#pragma once

#include "common/result.h"
#include "proto/vault.capnp.h"
#include "vaultd/key_format.h"
#include "vaultd/secret_arena.h"

namespace sallyport::vaultd {

inline constexpr size_t SIGNATURE_BYTES = 64;

class LongTermSigner {
 public:
  // `seed`: RFC 8032's private key. `arena` must outlive this.
  LongTermSigner(SecretArena& arena, const LongTermSecret& seed);

  const PublicKey& publicKey() const { return publicKey_; }
  // For the nonce keys alone.
  std::span<const std::byte, 32> secretForNonceKeys() const { return secret_.expose<64>().first<32>(); }

  void sign(ByteSpan message, std::span<std::byte, SIGNATURE_BYTES> out) const;

 private:
  SecretSlot secret_;  // libsodium's form: the seed, then the public key
  PublicKey publicKey_;
};

// A signature of anybody. Refuses badSignature; lowOrderKey for a key that is no point of the prime-order group.
Result<void, proto::Refusal> verifySignature(const PublicKey& signer, ByteSpan message,
                                             std::span<const std::byte, SIGNATURE_BYTES> signature);

}  // namespace sallyport::vaultd
