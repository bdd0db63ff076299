#include "vaultd/signer.h"

#include <sodium.h>

#include <algorithm>

namespace sallyport::vaultd {

static_assert(crypto_sign_BYTES == SIGNATURE_BYTES && crypto_sign_SEEDBYTES == 32 && crypto_sign_PUBLICKEYBYTES == 32);
static_assert(crypto_sign_SECRETKEYBYTES == SecretSlot::SLOT_BYTES);

LongTermSigner::LongTermSigner(SecretArena& arena, const LongTermSecret& seed) : secret_(arena.takeSlot()) {
  CHECK(crypto_sign_seed_keypair(publicKey_.data(), uchars(MutableByteSpan(secret_.exposeMutable<64>())),
                                 seed.exposeData()) == 0);
}

Result<void, proto::Refusal> LongTermSigner::sign(ByteSpan message, std::span<std::byte, SIGNATURE_BYTES> out) const {
  if (results_ != nullptr) {
    const auto* signature = results_->signature(id_, message);
    // Checked here, where it leaves: a wrong one could tell of the key.
    if (signature == nullptr || !verifySignature(publicKey_, message, *signature))
      return refuse(proto::Refusal::HSM_UNAVAILABLE);
    std::ranges::copy(*signature, out.begin());
    return {};
  }
  // The expanded key lives on libsodium's stack, which wipes it; wipeDeadStack() follows after the batch.
  CHECK(crypto_sign_detached(uchars(MutableByteSpan(out)), nullptr, uchars(message), message.size(),
                             uchars(ByteSpan(secret_.expose<64>()))) == 0);
  return {};
}

Result<void, proto::Refusal> verifySignature(const PublicKey& signer, ByteSpan message,
                                             std::span<const std::byte, SIGNATURE_BYTES> signature) {
  if (crypto_sign_verify_detached(uchars(ByteSpan(signature)), uchars(message), message.size(), signer.data()) == 0) {
    return {};
  }
  return refuse(crypto_core_ed25519_is_valid_point(signer.data()) == 1 ? proto::Refusal::BAD_SIGNATURE
                                                                       : proto::Refusal::LOW_ORDER_KEY);
}

}  // namespace sallyport::vaultd
