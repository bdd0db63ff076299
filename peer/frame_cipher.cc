// frame_cipher.cc - see frame_cipher.h.
#include "peer/frame_cipher.h"

#include <openssl/evp.h>

#include <algorithm>
#include <atomic>

namespace sallyport::peer {

namespace {

constexpr size_t BLOCK_BYTES = wire::PEER_CIPHER_BLOCK_BYTES;
// EVP counts in int.
constexpr size_t MAX_UPDATE_BYTES = size_t{1} << 30;

struct CounterTag;
using Counter = SecretBytes<CounterTag, BLOCK_BYTES>;

// 128-bit addition, big-endian, wrapping.
Counter add(const FirstBlock& first, uint64_t blocks) {
  Counter counter(first.expose());
  const auto bytes = counter.exposeMutable();
  for (size_t i = BLOCK_BYTES, carry = 0; i-- > 0;) {
    const size_t sum = static_cast<size_t>(bytes[i]) + (blocks & 0xff) + carry;
    bytes[i] = static_cast<std::byte>(sum);
    carry = sum >> 8;
    blocks >>= 8;
  }
  return counter;
}

}  // namespace

struct FrameCipher::Context {
  Context() : cipher(EVP_CIPHER_fetch(nullptr, "AES-256-CTR", nullptr)), evp(EVP_CIPHER_CTX_new()) {
    CHECK(cipher != nullptr && evp != nullptr);
  }
  ~Context() {
    EVP_CIPHER_CTX_free(evp);  // wipes
    EVP_CIPHER_free(cipher);
  }
  EVP_CIPHER* cipher;
  EVP_CIPHER_CTX* evp;
};

FrameCipher::FrameCipher() : context_(std::make_unique<Context>()) {
  // The first use allocates and reads CPU features: here, before lock-down.
  const CipherKey key;
  CHECK(EVP_EncryptInit_ex2(context_->evp, context_->cipher, key.exposeData(), key.exposeData(), nullptr) == 1);
  std::array<std::byte, BLOCK_BYTES> block{};
  crypt(block);
}

FrameCipher::~FrameCipher() = default;

void StreamKey::renew() {
  static std::atomic<uint64_t> last = 0;
  id = ++last;
}

uint64_t FrameCipher::begin(const StreamKey& key, uint64_t blocks, uint64_t offset) {
  const Counter counter = add(key.first, blocks + offset / BLOCK_BYTES);
  // No cipher is named: the context has it. A key that it has, too, isn't expanded again.
  const bool same = key.id != 0 && key.id == keyed_;
  CHECK(EVP_EncryptInit_ex2(context_->evp, nullptr, same ? nullptr : key.key.exposeData(), counter.exposeData(),
                            nullptr) == 1);
  keyed_ = key.id;
  if (const size_t inside = offset % BLOCK_BYTES; inside > 0) {
    struct SkippedTag;
    SecretBytes<SkippedTag, BLOCK_BYTES> skipped;
    crypt(MutableByteSpan(skipped.exposeMutable()).first(inside));
  }
  return ++current_;
}

void FrameCipher::crypt(MutableByteSpan bytes) {
  while (!bytes.empty()) {
    const size_t piece = std::min(bytes.size(), MAX_UPDATE_BYTES);
    int done = 0;
    CHECK(EVP_EncryptUpdate(context_->evp, uchars(bytes), &done, uchars(bytes), static_cast<int>(piece)) == 1 &&
          static_cast<size_t>(done) == piece);
    bytes = bytes.subspan(piece);
  }
}

void FrameCipher::forget() { begin(StreamKey(), 0); }

}  // namespace sallyport::peer
