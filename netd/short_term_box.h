// short_term_box.h - boxes under short-term keys: what a worker may do itself. Part of: netd-worker.
// docs/protocol.md §1. Long-term keys never come here: Hello, Cookie, Initiate and messages use ephemeral secrets, K
// the minute key.
//
// The first 16 bytes of a message's nonce are constant for a direction, so its HSalsa20 subkey is computed once
// (DirectionKey) and a message costs plain Salsa20 and Poly1305. Salsa20 is libsodium's, Poly1305 of all but short
// messages OpenSSL's, which is three times as fast: docs/decisions has the measurement. Both are run over the same
// 16 KiB while they are in the cache. libsodium computes eight blocks of key stream in the time of two single ones, so
// it is always asked for whole groups of eight, and what is too much is thrown away.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "common/bytes.h"
#include "common/secret_bytes.h"
#include "proto/wire/limits.h"

namespace sallyport::netd {

struct EphemeralSecretTag;
using EphemeralSecret = SecretBytes<EphemeralSecretTag, wire::KEY_BYTES>;
struct SharedKeyTag;
using SharedKey = SecretBytes<SharedKeyTag, wire::KEY_BYTES>;  // crypto_box_beforenm of one ephemeral pair
struct ClientToServerTag;
struct ServerToClientTag;
// The HSalsa20 subkey of one direction's messages. The direction is part of the type.
template <typename Direction>
using DirectionKey = SecretBytes<Direction, wire::KEY_BYTES>;
using ClientToServerKey = DirectionKey<ClientToServerTag>;
using ServerToClientKey = DirectionKey<ServerToClientTag>;

struct EphemeralPair {
  PublicKey publicKey;
  EphemeralSecret secret;
};
EphemeralPair makeEphemeralPair();

// X25519 and HSalsa20. Nothing if the peer's key is of low order.
std::optional<SharedKey> agree(const PublicKey& theirs, const EphemeralSecret& ours);

// Box and open of the handshake: nonce = 16-byte prefix || be64 counter. `out` has text.size() + 16 bytes; the box's
// 16-byte tag comes first. `open` is false, and `out` zero, if the box is not genuine.
enum class ShortPrefix : uint8_t { ClientHello, ClientInitiate };
void sealBox(MutableByteSpan out, ByteSpan text, ShortPrefix prefix, uint64_t counter, const SharedKey& key);
[[nodiscard]] bool openBox(MutableByteSpan out, ByteSpan box, ShortPrefix prefix, uint64_t counter,
                           const SharedKey& key);
// The Cookie packet's box, made by the server's vault: nonce = "CurveCPK" || R.
[[nodiscard]] bool openCookieBox(MutableByteSpan out, ByteSpan box, const LongNonceBytes& nonce, const SharedKey& key);

ClientToServerKey clientToServerKey(const SharedKey& key);
ServerToClientKey serverToClientKey(const SharedKey& key);

// Seals and opens in place: `box` is 16 bytes of tag, then the text. Made once a process, before lock-down (OpenSSL
// fetches its Poly1305 then); holds no key between calls.
class MessageCipher {
 public:
  MessageCipher();
  ~MessageCipher();

  void seal(MutableByteSpan box, uint64_t counter, std::span<const std::byte, wire::KEY_BYTES> key);
  // False if the tag is wrong; the text is then left encrypted.
  [[nodiscard]] bool open(MutableByteSpan box, uint64_t counter, std::span<const std::byte, wire::KEY_BYTES> key);

 private:
  using Key = std::span<const std::byte, wire::KEY_BYTES>;
  using Nonce = std::array<unsigned char, 8>;
  struct Poly1305;
  void begin(size_t textBytes, const Nonce& nonce, Key key);
  void cryptHead(unsigned char* text, size_t bytes) const;
  void cryptRest(unsigned char* text, size_t bytes, uint64_t block, const Nonce& nonce, Key key);

  std::unique_ptr<Poly1305> poly_;
  // The first blocks of a message's key stream: 32 bytes are the Poly1305 key, the text's begins behind them.
  std::array<unsigned char, 2048> stream_{};
};

}  // namespace sallyport::netd
