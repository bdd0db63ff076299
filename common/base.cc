// base.cc - bytes.h, secret_bytes.h and check.h. Part of: common (any process).
#include <sodium.h>

#include <cstdio>
#include <cstdlib>

#include "common/bytes.h"
#include "common/check.h"
#include "common/secret_bytes.h"

namespace sallyport {

void checkFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, condition);
  std::abort();
}

void wipe(MutableByteSpan bytes) {
  // libsodium takes no null pointer, not even to nothing.
  if (!bytes.empty()) sodium_memzero(bytes.data(), bytes.size());
}

bool equalsConstantTime(ByteSpan left, ByteSpan right) {
  return left.size() == right.size() && sodium_memcmp(left.data(), right.data(), left.size()) == 0;
}

// A branch on purpose, and answers that are read from memory: for valgrind what comes out depends on nothing any more.
[[gnu::noinline]] bool reveal(bool verdict) {
  static const volatile bool YES = true;
  static const volatile bool NO = false;
  if (verdict) return YES;
  return NO;
}

void fillRandom(MutableByteSpan bytes) {
  if (!bytes.empty()) randombytes_buf(bytes.data(), bytes.size());
}

size_t PublicKeyHash::operator()(const PublicKey& key) const {
  static const auto SEED = [] {
    std::array<unsigned char, crypto_shorthash_KEYBYTES> seed;
    randombytes_buf(seed.data(), seed.size());
    return seed;
  }();
  std::array<unsigned char, crypto_shorthash_BYTES> hash;
  crypto_shorthash(hash.data(), key.data(), PublicKey::SIZE, SEED.data());
  size_t result = 0;
  std::memcpy(&result, hash.data(), sizeof result);
  return result;
}

std::string toHex(ByteSpan bytes) {
  std::string text(bytes.size() * 2 + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), uchars(bytes), bytes.size());
  text.pop_back();
  return text;
}

std::string toBase64(ByteSpan bytes) {
  std::string text(sodium_base64_encoded_len(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), uchars(bytes), bytes.size(), sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();
  return text;
}

std::optional<std::vector<std::byte>> fromHex(std::string_view text) {
  std::vector<std::byte> bytes(text.size() / 2);
  if (text.empty()) return bytes;
  size_t length = 0;
  const char* end = nullptr;
  if (text.size() % 2 != 0 ||
      sodium_hex2bin(uchars(MutableByteSpan(bytes)), bytes.size(), text.data(), text.size(), nullptr, &length, &end) !=
          0 ||
      end != text.data() + text.size()) {
    wipe(bytes);
    return std::nullopt;
  }
  bytes.resize(length);
  return bytes;
}

std::optional<std::vector<std::byte>> fromBase64(std::string_view text) {
  // libsodium 1.0.18 takes some bytes beyond ASCII for digits.
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0x80) != 0) return std::nullopt;
  }
  const int variant = !text.empty() && (text.back() == '=' || text.size() % 4 == 0)
                          ? sodium_base64_VARIANT_ORIGINAL
                          : sodium_base64_VARIANT_ORIGINAL_NO_PADDING;
  std::vector<std::byte> bytes(text.size() / 4 * 3 + 3);
  size_t length = 0;
  const char* end = nullptr;
  if (sodium_base642bin(uchars(MutableByteSpan(bytes)), bytes.size(), text.data(), text.size(), nullptr, &length, &end,
                        variant) != 0 ||
      end != text.data() + text.size()) {
    wipe(bytes);
    return std::nullopt;
  }
  bytes.resize(length);
  return bytes;
}

}  // namespace sallyport
