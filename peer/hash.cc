// hash.cc - see hash.h.
#define OPENSSL_SUPPRESS_DEPRECATED  // EVP can't be told a start value
#include "peer/hash.h"

#include <endian.h>
#include <openssl/sha.h>

#include <cstring>
#include <new>

namespace sallyport::peer {

namespace {

constexpr size_t BLOCK_BYTES = 64;
constexpr size_t LENGTH_BYTES = 8;
using DigestView = std::span<const std::byte, DIGEST_BYTES>;

SHA256_CTX* contextIn(std::array<std::byte, 112>& bytes) {
  static_assert(sizeof(SHA256_CTX) == 112 && alignof(SHA256_CTX) <= 8);
  return std::launder(reinterpret_cast<SHA256_CTX*>(bytes.data()));
}

void load(SHA256_CTX& context, DigestView state) {
  for (size_t word = 0; word < 8; ++word) {
    uint32_t value;
    std::memcpy(&value, &state[4 * word], 4);
    context.h[word] = be32toh(value);
  }
}

void store(const SHA256_CTX& context, std::span<std::byte, DIGEST_BYTES> out) {
  for (size_t word = 0; word < 8; ++word) {
    const uint32_t value = htobe32(context.h[word]);
    std::memcpy(&out[4 * word], &value, 4);
  }
}

// The last block of a hash: `bytes` of text are in its beginning, and `before` bytes were hashed before it.
void finishBlock(SHA256_CTX& context, std::span<std::byte, BLOCK_BYTES> block, size_t bytes, size_t before) {
  block[bytes] = std::byte{0x80};
  std::memset(&block[bytes + 1], 0, BLOCK_BYTES - bytes - 1);
  const uint64_t bits = htobe64((before + bytes) * 8);
  std::memcpy(&block[BLOCK_BYTES - LENGTH_BYTES], &bits, LENGTH_BYTES);
  SHA256_Transform(&context, uchars(ByteSpan(block)));
}

}  // namespace

Hash::~Hash() { wipe(context_); }

void Hash::start() { CHECK(SHA256_Init(contextIn(context_)) == 1); }

void Hash::startFrom(DigestView state, size_t before) {
  CHECK(before % BLOCK_BYTES == 0 && before <= BLOCK_BYTES);
  // As SHA256_Init, which would set all 112 bytes to zero first.
  SHA256_CTX& context = *contextIn(context_);
  load(context, state);
  context.Nl = static_cast<SHA_LONG>(before * 8);
  context.Nh = 0;
  context.num = 0;
  context.md_len = SHA256_DIGEST_LENGTH;
}

void Hash::update(ByteSpan bytes) { CHECK(SHA256_Update(contextIn(context_), bytes.data(), bytes.size()) == 1); }

void Hash::finish(std::span<std::byte, DIGEST_BYTES> digest) {
  CHECK(SHA256_Final(uchars(MutableByteSpan(digest)), contextIn(context_)) == 1);
}

void Hash::state(std::span<std::byte, DIGEST_BYTES> out) const {
  const SHA256_CTX& context = *std::launder(reinterpret_cast<const SHA256_CTX*>(context_.data()));
  CHECK(context.num == 0);
  store(context, out);
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
  size_t bytes = 0;
  for (const ByteSpan part : message) bytes += part.size();
  if (bytes >= BLOCK_BYTES - LENGTH_BYTES) return macLong(out, message);
  // Two blocks in all, put together here: a third of the time of what SHA256_Update and _Final would do around them.
  struct BlockTag;
  SecretBytes<BlockTag, BLOCK_BYTES> padded;
  const auto block = padded.exposeMutable();
  size_t at = 0;
  for (const ByteSpan part : message) {
    if (!part.empty()) std::memcpy(&block[at], part.data(), part.size());
    at += part.size();
  }
  SHA256_CTX context;
  load(context, inner_.expose());
  finishBlock(context, block, bytes, BLOCK_BYTES);
  store(context, block.first<DIGEST_BYTES>());
  load(context, outer_.expose());
  finishBlock(context, block, DIGEST_BYTES, BLOCK_BYTES);
  store(context, out);
}

void HmacKey::macLong(std::span<std::byte, DIGEST_BYTES> out, std::initializer_list<ByteSpan> message) const {
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
