// box.h - the only place where a long-term secret meets a peer's public key. Process: vaultd alone. See
// docs/protocol.md §2, §3.
//
// There is no "box", "open" or "shared key" here, only whole steps of curve_tun: each takes the fixed fields of that
// step, builds the nonce prefix from the role, and gives out what goes on the wire. A caller that is taken over can
// carry out handshakes, and nothing else: it can't have a text of its choice sealed, nor a recorded box of another kind
// opened. No other file of vaultd may call crypto_box*, crypto_scalarmult or anything that takes LongTermBox's secret.
#pragma once

#include <optional>
#include <span>

#include "common/result.h"
#include "proto/vault.capnp.h"
#include "proto/wire/limits.h"
#include "vaultd/key_format.h"
#include "vaultd/long_term_nonce.h"
#include "vaultd/shared_key_cache.h"

namespace sallyport::vaultd {

using Refusal = proto::Refusal;

// Overwrites the dead stack that crypto calls have left behind; once after each batch.
void wipeDeadStack();

// Computes a known box and opens it again, with published test keys. False: this build or machine computes wrongly.
bool boxSelfTest();

class LongTermBox {
 public:
  // `id`: this key's name in the cache. `arena` and `cache` must outlive this.
  LongTermBox(SecretArena& arena, SharedKeyCache& cache, SharedKeyCache::KeyId id, const LongTermSecret& secret);

  const PublicKey& publicKey() const { return publicKey_; }
  // For NonceSource's key derivation alone.
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
                                             std::span<std::byte, wire::COOKIE_PACKET_BOX_BYTES> out);

  struct VouchStep {
    PublicKey client;                                   // C
    LongNonceBytes nonce;                               // R2
    std::span<const std::byte, wire::VOUCH_BYTES> box;  // V
    PublicKey clientEphemeral;                          // EC, as this connection has proved it
  };
  // Opens V and compares its content with EC. `remember`: keep the shared key if the vouch is genuine.
  // Refuses lowOrderKey, badBox. `cached` says whether it cost an X25519.
  Result<void, Refusal> verifyVouch(const VouchStep& step, bool remember, bool& cached);

  // Boxes EC to `server`. Its shared key is always remembered: servers come from the configuration alone.
  Result<LongNonceBytes, Refusal> makeVouch(const PublicKey& server, const PublicKey& clientEphemeral,
                                            NonceSource<BoxRole::Vouch>& nonces,
                                            std::span<std::byte, wire::VOUCH_BYTES> out, bool& cached);

 private:
  // The shared key with `peer`, in the scratch slot (wipe it after use) or in the cache. Nothing if `peer` is of low
  // order.
  std::optional<SharedKeyView> sharedKey(const PublicKey& peer, bool& cached);

  SharedKeyCache& cache_;
  SharedKeyCache::KeyId id_;
  SecretSlot secret_;
  SecretSlot scratch_;
  PublicKey publicKey_;
};

}  // namespace sallyport::vaultd
