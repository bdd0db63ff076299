#include "vaultd/long_term_nonce.h"

#include <openssl/evp.h>
#include <sodium.h>

namespace sallyport::vaultd {

NonceKey deriveNonceKey(std::span<const std::byte, 32> secret, BoxRole role, const InstanceId& instance) {
  constexpr std::string_view DOMAIN = "sallyport nonce key 1";
  std::array<unsigned char, DOMAIN.size() + 8 + sizeof(InstanceId)> message;
  const std::string_view prefix = prefixOf(role);
  std::memcpy(message.data(), DOMAIN.data(), DOMAIN.size());
  std::memcpy(message.data() + DOMAIN.size(), prefix.data(), prefix.size());
  std::memcpy(message.data() + DOMAIN.size() + prefix.size(), instance.data(), instance.size());
  NonceKey key;
  CHECK(crypto_generichash_blake2b(key.exposeData(), NonceKey::SIZE, message.data(), message.size(),
                                   uchars(ByteSpan(secret)), secret.size()) == 0);
  return key;
}

NonceCipher::NonceCipher(const NonceKey& key) : context_(EVP_CIPHER_CTX_new()) {
  CHECK(context_ != nullptr);
  CHECK(EVP_EncryptInit_ex(context_.get(), EVP_aes_256_ecb(), nullptr, key.exposeData(), nullptr) == 1);
  CHECK(EVP_CIPHER_CTX_set_padding(context_.get(), 0) == 1);
}

void NonceCipher::Free::operator()(evp_cipher_ctx_st* context) const { EVP_CIPHER_CTX_free(context); }

std::array<std::byte, 16> NonceCipher::encrypt(const std::array<std::byte, 16>& block) const {
  std::array<std::byte, 16> result;
  int written = 0;
  CHECK(EVP_EncryptUpdate(context_.get(), reinterpret_cast<unsigned char*>(result.data()), &written,
                          reinterpret_cast<const unsigned char*>(block.data()), static_cast<int>(block.size())) == 1);
  CHECK(written == static_cast<int>(result.size()));
  return result;
}

std::array<std::byte, 16> nonceBlock(uint64_t counter) {
  std::array<std::byte, 16> block;
  for (size_t i = 0; i < 8; ++i) block[i] = static_cast<std::byte>(counter >> (56 - 8 * i));
  // From the kernel for each nonce, never from a pool of our own: a snapshot of this machine would clone the pool.
  fillRandom(std::span(block).subspan(8));
  return block;
}

}  // namespace sallyport::vaultd
