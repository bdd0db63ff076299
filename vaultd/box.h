// box.h - the only place where a long-term X25519 secret meets a peer's public key. Process: vaultd alone. See
// docs/protocol.md §2, §3, §8. (Ed25519 seeds: signer.h.)
//
// Two worlds that the nonce keeps apart. The steps of curve_tun take the fixed fields of a step and build their nonce
// from the prefix of that step ("CurveCP..."): netd, if it is taken over, can carry out handshakes and nothing else.
// The boxes of programs hold a text of the program's choice, so their nonces begin with "SallyBox", and a nonce to open
// with that begins otherwise is refused before any work: no program can make or open what the protocol would take for
// its own. Sealed boxes have a nonce that follows from the two public keys: nobody chooses it either.
//
// There is no nonce to seal under in any parameter, and no shared key in any result. No other file of vaultd may call
// crypto_box*, crypto_scalarmult or anything that takes LongTermBox's secret. (But token_proof.cc, for a pair that it
// makes and forgets.)
//
// A key that lives in a token has no secret here. What the token has derived comes from TokenResults, for the batch at
// hand alone, and goes on as the software's result does: HSalsa20, and nothing of it is kept or cached.
#pragma once

#include <optional>
#include <span>

#include "common/result.h"
#include "proto/vault.capnp.h"
#include "proto/wire/limits.h"
#include "vaultd/key_format.h"
#include "vaultd/long_term_nonce.h"
#include "vaultd/shared_key_cache.h"
#include "vaultd/token_results.h"

namespace sallyport::vaultd {

using Refusal = proto::Refusal;

// Overwrites the dead stack that crypto calls have left behind, below the caller's frame; once after each batch.
void wipeDeadStack();
// The same for the loading of keys, which goes deeper: their texts lie on the stack. Its memory is given back, too.
void wipeDeadStackOfLoading();

// One of the points whose product with any secret is all zeros: whoever multiplies refuses it.
bool isLowOrder(const PublicKey& point);

// Computes a known box and opens it again, with published test keys. False: this build or machine computes wrongly.
bool boxSelfTest();

struct AppNonceTag;
// The whole nonce of a program's box: "SallyBox" and what the vault drew.
using AppNonceBytes = Bytes<AppNonceTag, 24>;
// Does it begin as such nonces do?
bool isAppNonce(const AppNonceBytes& nonce);
inline constexpr size_t SEALED_BOX_BYTES = 48;  // how much longer than its text a sealed box is

class LongTermBox {
 public:
  // `id`: this key's name in the cache. `arena` and `cache` must outlive this.
  LongTermBox(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, const LongTermSecret& secret);
  // A key in a token: every step refuses hsmUnavailable if its derive isn't among `results`, which must outlive this.
  LongTermBox(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, const TokenResults& results,
              const PublicKey& publicKey);

  const PublicKey& publicKey() const { return publicKey_; }
  // For NonceSource's key derivation alone. Not of a key in a token.
  std::span<const std::byte, 32> secretForNonceKeys() const { return secret_.expose<32>(); }

  struct HelloStep {
    PublicKey clientEphemeral;  // EC
    std::span<const std::byte, wire::HELLO_BOX_BYTES> box;
    PublicKey serverEphemeral;                              // ES
    std::span<const std::byte, wire::COOKIE_BYTES> cookie;  // K
  };
  // Opens the Hello's box (64 zero bytes under "CurveCP-client-H" 0), then seals ES, K to EC. One X25519 for both.
  // Refuses lowOrderKey, badBox, nonceUnavailable; a nonce is drawn only for a genuine Hello.
  Result<LongNonceBytes, Refusal> sealCookie(const HelloStep& step, NonceSource<BoxRole::Cookie>& nonces,
                                             NonceBatch& batch,
                                             std::span<std::byte, wire::COOKIE_PACKET_BOX_BYTES> out);

  struct VouchStep {
    PublicKey client;                                   // C
    LongNonceBytes nonce;                               // R2
    std::span<const std::byte, wire::VOUCH_BYTES> box;  // V
    PublicKey clientEphemeral;                          // EC, as this connection has proved it
  };
  // Opens V and compares its content with EC. `mayRemember`: keep the shared key if the vouch is genuine.
  // Refuses lowOrderKey, badBox. `cached` says whether it cost an X25519.
  Result<void, Refusal> verifyVouch(const VouchStep& step, bool mayRemember, bool& cached);

  // Boxes EC to `server`. Its shared key is always remembered: servers come from the configuration alone.
  Result<LongNonceBytes, Refusal> makeVouch(const PublicKey& server, const PublicKey& clientEphemeral,
                                            NonceSource<BoxRole::Vouch>& nonces, NonceBatch& batch,
                                            std::span<std::byte, wire::VOUCH_BYTES> out, bool& cached);

  // --- the boxes of programs; `mayRemember`: keep the shared key of a box that was good, if it is of [peers]

  // NaCl's crypto_box of `text` to `peer`. `out` has the text's length + 16. Refuses lowOrderKey, nonceUnavailable.
  Result<AppNonceBytes, Refusal> sealText(const PublicKey& peer, ByteSpan text,
                                          NonceSource<BoxRole::Application>& nonces, NonceBatch& batch,
                                          MutableByteSpan out, bool mayRemember, bool& cached);

  // crypto_box_open: `out` has the box's length - 16. Refuses badNonce, lowOrderKey, badBox; then `out` is untouched.
  Result<void, Refusal> openText(const PublicKey& peer, const AppNonceBytes& nonce, ByteSpan box, MutableByteSpan out,
                                 bool mayRemember, bool& cached);

  // crypto_box_seal_open: `box` is the sender's ephemeral key, then the box. `out` has its length - 48.
  Result<void, Refusal> openAnonymous(ByteSpan box, MutableByteSpan out);

 private:
  // The shared key with `peer`, in the scratch slot (wipe it after use) or in the cache. Refuses lowOrderKey,
  // hsmUnavailable.
  Result<SharedKeyView, Refusal> sharedKey(const PublicKey& peer, bool& cached);
  Result<void, Refusal> multiply(const PublicKey& peer);  // into the scratch slot; refuses as above
  void remember(const PublicKey& peer, SharedKeyView key);

  SharedKeyCache& cache_;
  SharedKeyCache::KeyId id_;
  const TokenResults* results_ = nullptr;  // of a key in a token
  SecretSlot secret_;                      // of any other
  SecretSlot scratch_;
  PublicKey publicKey_;
};

}  // namespace sallyport::vaultd
