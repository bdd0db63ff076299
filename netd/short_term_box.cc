// short_term_box.cc - see short_term_box.h.
#include "netd/short_term_box.h"

#include <openssl/evp.h>
#include <openssl/params.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "proto/wire/packet.h"

namespace sallyport::netd {

namespace {

constexpr size_t TAG = wire::BOX_TAG_BYTES;
constexpr size_t PREFIX_BYTES = 16;
constexpr size_t CACHE_CHUNK_BYTES = 16 * 1024;
// Below this libsodium's one-shot Poly1305 beats OpenSSL's set-up cost.
constexpr size_t SMALL_MESSAGE_BYTES = 512;
constexpr size_t POLY_KEY_BYTES = 32;
constexpr size_t BLOCK_BYTES = 64;
constexpr size_t GROUP_BYTES = 8 * BLOCK_BYTES;
constexpr std::string_view CLIENT_MESSAGE_PREFIX = "CurveCP-client-M";
constexpr std::string_view SERVER_MESSAGE_PREFIX = "CurveCP-server-M";

using Nonce = std::array<unsigned char, wire::BOX_NONCE_BYTES>;

std::array<unsigned char, 8> messageNonce(uint64_t counter) {
  std::array<unsigned char, 8> nonce;
  wire::writeBe64(std::as_writable_bytes(std::span(nonce)), counter);
  return nonce;
}

Nonce shortNonce(ShortPrefix prefix, uint64_t counter) {
  Nonce nonce;
  std::memcpy(nonce.data(), prefix == ShortPrefix::ClientHello ? "CurveCP-client-H" : "CurveCP-client-I", PREFIX_BYTES);
  wire::writeBe64(std::as_writable_bytes(std::span(nonce)).subspan<PREFIX_BYTES, 8>(), counter);
  return nonce;
}

template <typename Key>
Key subkey(const SharedKey& key, std::string_view prefix) {
  Key result;
  crypto_core_hsalsa20(result.exposeData(), uchars(asBytes(prefix)), key.exposeData(), nullptr);
  return result;
}

void xorInto(unsigned char* text, const unsigned char* stream, size_t bytes) {
  size_t i = 0;
  for (; i + sizeof(uint64_t) <= bytes; i += sizeof(uint64_t)) {
    uint64_t word;
    uint64_t mask;
    std::memcpy(&word, text + i, sizeof word);
    std::memcpy(&mask, stream + i, sizeof mask);
    word ^= mask;
    std::memcpy(text + i, &word, sizeof word);
  }
  for (; i < bytes; ++i) text[i] ^= stream[i];
}

}  // namespace

EphemeralPair makeEphemeralPair() {
  EphemeralPair pair;
  crypto_box_keypair(pair.publicKey.data(), pair.secret.exposeData());
  return pair;
}

std::optional<SharedKey> agree(const PublicKey& theirs, const EphemeralSecret& ours) {
  SharedKey key;
  if (crypto_box_beforenm(key.exposeData(), theirs.data(), ours.exposeData()) != 0) return std::nullopt;
  return key;
}

void sealBox(MutableByteSpan out, ByteSpan text, ShortPrefix prefix, uint64_t counter, const SharedKey& key) {
  CHECK(out.size() == text.size() + TAG);
  const Nonce nonce = shortNonce(prefix, counter);
  CHECK(crypto_box_easy_afternm(uchars(out), uchars(text), text.size(), nonce.data(), key.exposeData()) == 0);
}

bool openBox(MutableByteSpan out, ByteSpan box, ShortPrefix prefix, uint64_t counter, const SharedKey& key) {
  CHECK(box.size() >= TAG && out.size() == box.size() - TAG);
  const Nonce nonce = shortNonce(prefix, counter);
  if (crypto_box_open_easy_afternm(uchars(out), uchars(box), box.size(), nonce.data(), key.exposeData()) == 0)
    return true;
  wipe(out);
  return false;
}

bool openCookieBox(MutableByteSpan out, ByteSpan box, const LongNonceBytes& r, const SharedKey& key) {
  CHECK(box.size() >= TAG && out.size() == box.size() - TAG);
  Nonce nonce;
  std::memcpy(nonce.data(), "CurveCPK", 8);
  std::memcpy(nonce.data() + 8, r.data(), LongNonceBytes::SIZE);
  if (crypto_box_open_easy_afternm(uchars(out), uchars(box), box.size(), nonce.data(), key.exposeData()) == 0)
    return true;
  wipe(out);
  return false;
}

ClientToServerKey clientToServerKey(const SharedKey& key) {
  return subkey<ClientToServerKey>(key, CLIENT_MESSAGE_PREFIX);
}
ServerToClientKey serverToClientKey(const SharedKey& key) {
  return subkey<ServerToClientKey>(key, SERVER_MESSAGE_PREFIX);
}

struct MessageCipher::Poly1305 {
  Poly1305() : mac(EVP_MAC_fetch(nullptr, "POLY1305", nullptr)), context(EVP_MAC_CTX_new(mac)) {
    CHECK(mac != nullptr && context != nullptr);
  }
  ~Poly1305() {
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(mac);
  }
  void begin(const unsigned char* key) { CHECK(EVP_MAC_init(context, key, 32, nullptr) == 1); }
  void update(const unsigned char* data, size_t bytes) { CHECK(EVP_MAC_update(context, data, bytes) == 1); }
  void finish(unsigned char* tag) {
    size_t bytes = 0;
    CHECK(EVP_MAC_final(context, tag, &bytes, TAG) == 1 && bytes == TAG);
  }
  EVP_MAC* mac;
  EVP_MAC_CTX* context;
};

MessageCipher::MessageCipher() : poly_(std::make_unique<Poly1305>()) {
  // The first use allocates and reads CPU features: here, before lock-down.
  std::array<std::byte, TAG + SMALL_MESSAGE_BYTES> box{};
  const std::array<std::byte, wire::KEY_BYTES> key{};
  seal(box, 0, key);
}

MessageCipher::~MessageCipher() = default;

// XSalsa20-Poly1305's layout: the first 32 bytes of the key stream are the Poly1305 key, the text goes on with byte 32.
void MessageCipher::begin(size_t textBytes, const Nonce& nonce, Key key) {
  size_t bytes = std::min(POLY_KEY_BYTES + textBytes, stream_.size());
  if (bytes % GROUP_BYTES > BLOCK_BYTES) bytes += GROUP_BYTES - bytes % GROUP_BYTES;
  crypto_stream_salsa20(stream_.data(), bytes, nonce.data(), uchars(key));
}

void MessageCipher::cryptHead(unsigned char* text, size_t bytes) const {
  xorInto(text, stream_.data() + POLY_KEY_BYTES, bytes);
}

// What lies behind the head: from the key stream's `block` on. Uses stream_ anew.
void MessageCipher::cryptRest(unsigned char* text, size_t bytes, uint64_t block, const Nonce& nonce, Key key) {
  const size_t tail = bytes % GROUP_BYTES > BLOCK_BYTES ? bytes % GROUP_BYTES : 0;
  const size_t whole = bytes - tail;
  if (whole > 0) crypto_stream_salsa20_xor_ic(text, text, whole, nonce.data(), block, uchars(key));
  if (tail == 0) return;
  std::memset(stream_.data(), 0, GROUP_BYTES);
  crypto_stream_salsa20_xor_ic(stream_.data(), stream_.data(), GROUP_BYTES, nonce.data(), block + whole / BLOCK_BYTES,
                               uchars(key));
  xorInto(text + whole, stream_.data(), tail);
}

void MessageCipher::seal(MutableByteSpan box, uint64_t counter, Key key) {
  CHECK(box.size() >= TAG);
  unsigned char* text = uchars(box) + TAG;
  const size_t bytes = box.size() - TAG;
  const size_t head = std::min(bytes, stream_.size() - POLY_KEY_BYTES);
  const Nonce nonce = messageNonce(counter);
  begin(bytes, nonce, key);
  cryptHead(text, head);
  if (bytes < SMALL_MESSAGE_BYTES) {
    crypto_onetimeauth(uchars(box), text, bytes, stream_.data());
  } else {
    poly_->begin(stream_.data());
    poly_->update(text, head);
    uint64_t block = stream_.size() / BLOCK_BYTES;
    for (size_t at = head; at < bytes; at += CACHE_CHUNK_BYTES, block += CACHE_CHUNK_BYTES / BLOCK_BYTES) {
      const size_t chunk = std::min(CACHE_CHUNK_BYTES, bytes - at);
      cryptRest(text + at, chunk, block, nonce, key);
      poly_->update(text + at, chunk);
    }
    poly_->finish(uchars(box));
  }
  sodium_memzero(stream_.data(), std::min(stream_.size(), bytes + GROUP_BYTES + POLY_KEY_BYTES));
}

bool MessageCipher::open(MutableByteSpan box, uint64_t counter, Key key) {
  CHECK(box.size() >= TAG);
  unsigned char* text = uchars(box) + TAG;
  const size_t bytes = box.size() - TAG;
  const size_t head = std::min(bytes, stream_.size() - POLY_KEY_BYTES);
  const Nonce nonce = messageNonce(counter);
  begin(bytes, nonce, key);
  // The whole tag is judged before a byte is decrypted.
  std::array<unsigned char, TAG> tag;
  if (bytes < SMALL_MESSAGE_BYTES) {
    crypto_onetimeauth(tag.data(), text, bytes, stream_.data());
  } else {
    poly_->begin(stream_.data());
    poly_->update(text, bytes);
    poly_->finish(tag.data());
  }
  const bool genuine = sodium_memcmp(tag.data(), uchars(box), TAG) == 0;
  if (genuine) {
    cryptHead(text, head);
    if (bytes > head) cryptRest(text + head, bytes - head, stream_.size() / BLOCK_BYTES, nonce, key);
  }
  sodium_memzero(stream_.data(), std::min(stream_.size(), bytes + GROUP_BYTES + POLY_KEY_BYTES));
  return genuine;
}

}  // namespace sallyport::netd
