// hash.cc - see hash.h.
#define OPENSSL_SUPPRESS_DEPRECATED  // EVP can't be told a start value
#include "peer/hash.h"

#include <openssl/sha.h>

#include <new>

namespace sallyport::peer {

namespace {

constexpr size_t BLOCK_BYTES = 64;

SHA256_CTX* contextIn(std::array<std::byte, 112>& bytes) {
  static_assert(sizeof(SHA256_CTX) == 112 && alignof(SHA256_CTX) <= 8);
  return std::launder(reinterpret_cast<SHA256_CTX*>(bytes.data()));
}

}  // namespace

Hash::~Hash() { wipe(context_); }

void Hash::start() { CHECK(SHA256_Init(contextIn(context_)) == 1); }

void Hash::startFrom(std::span<const std::byte, DIGEST_BYTES> state, size_t before) {
  CHECK(before % BLOCK_BYTES == 0 && before <= BLOCK_BYTES);
  start();
  SHA256_CTX& context = *contextIn(context_);
  for (size_t word = 0; word < 8; ++word) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint32_t>(state[4 * word + i]);
    context.h[word] = value;
  }
  context.Nl = static_cast<SHA_LONG>(before * 8);
}

void Hash::update(ByteSpan bytes) { CHECK(SHA256_Update(contextIn(context_), bytes.data(), bytes.size()) == 1); }

void Hash::finish(std::span<std::byte, DIGEST_BYTES> digest) {
  CHECK(SHA256_Final(uchars(MutableByteSpan(digest)), contextIn(context_)) == 1);
}

void Hash::state(std::span<std::byte, DIGEST_BYTES> out) const {
  const SHA256_CTX& context = *std::launder(reinterpret_cast<const SHA256_CTX*>(context_.data()));
  CHECK(context.num == 0);
  for (size_t i = 0; i < DIGEST_BYTES; ++i) out[i] = static_cast<std::byte>(context.h[i / 4] >> (24 - 8 * (i % 4)));
}

Digest initialDigest() {
  Digest digest;
  Hash hash;
  hash.start();
  hash.state(digest.exposeMutable());
  return digest;
}

HmacKey::HmacKey(ByteSpan key) {
  CHECK(key.size() <= BLOCK_BYTES);
  struct PadTag;
  SecretBytes<PadTag, BLOCK_BYTES> pad;
  const auto prepare = [&](std::byte with, auto& out) {
    const auto bytes = pad.exposeMutable();
    for (size_t i = 0; i < BLOCK_BYTES; ++i) bytes[i] = with ^ (i < key.size() ? key[i] : std::byte{0});
    Hash hash;
    hash.start();
    hash.update(bytes);
    hash.state(out.exposeMutable());
  };
  prepare(std::byte{0x36}, inner_);
  prepare(std::byte{0x5c}, outer_);
}

void HmacKey::mac(std::span<std::byte, DIGEST_BYTES> out, std::initializer_list<ByteSpan> message) const {
  Hash hash;
  hash.startFrom(inner_.expose(), BLOCK_BYTES);
  for (const ByteSpan part : message) hash.update(part);
  Digest inner;
  hash.finish(inner.exposeMutable());
  hash.startFrom(outer_.expose(), BLOCK_BYTES);
  hash.update(inner.expose());
  hash.finish(out);
}

}  // namespace sallyport::peer
