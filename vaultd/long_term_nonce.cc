#include "vaultd/long_term_nonce.h"

#include <openssl/evp.h>
#include <sodium.h>

#include "common/config.h"

namespace sallyport::vaultd {

std::optional<NonceDomain> NonceDomain::named(std::string_view name) {
  if (!isNonceDomain(name)) return std::nullopt;
  return NonceDomain(name);
}

NonceKey deriveNonceKey(std::span<const std::byte, 32> secret, const NonceDomain& domain, const InstanceId& instance) {
  constexpr std::string_view PURPOSE = "sallyport nonce key 1";
  std::array<unsigned char, PURPOSE.size() + 8 + sizeof(InstanceId)> message;
  std::memcpy(message.data(), PURPOSE.data(), PURPOSE.size());
  std::memcpy(message.data() + PURPOSE.size(), domain.span().data(), 8);
  std::memcpy(message.data() + PURPOSE.size() + 8, instance.data(), instance.size());
  NonceKey key;
  CHECK(crypto_generichash_blake2b(key.exposeData(), NonceKey::SIZE, message.data(), message.size(),
                                   uchars(ByteSpan(secret)), secret.size()) == 0);
  return key;
}

namespace {

// Fetched once: what EVP_aes_256_ecb() looks up costs more than the key schedule.
const EVP_CIPHER* aes256() {
  static const EVP_CIPHER* const CIPHER = EVP_CIPHER_fetch(nullptr, "AES-256-ECB", nullptr);
  CHECK(CIPHER != nullptr);
  return CIPHER;
}

}  // namespace

NonceCipher::NonceCipher(const NonceKey& key) : context_(EVP_CIPHER_CTX_new()) {
  CHECK(context_ != nullptr);
  CHECK(EVP_EncryptInit_ex2(context_.get(), aes256(), key.exposeData(), nullptr, nullptr) == 1);
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

void prepareNonceCipher() { NonceCipher(NonceKey()).encrypt({}); }

NonceBatch::NonceBatch(size_t howMany) : left_(howMany) {
  CHECK(howMany <= MOST);
  fillRandom(std::span(random_).first(8 * howMany));
}

std::span<const std::byte, 8> NonceBatch::takeRandom() {
  CHECK(left_ > 0);
  return std::span(random_).subspan(8 * --left_).first<8>();
}

const NonceCipher& NonceBatch::cipherOf(const DomainNonces& nonces) {
  if (nonces_ != &nonces) {
    cipher_.emplace(deriveNonceKey(nonces.secret_, nonces.domain_, nonces.ledger_.instance()));
    nonces_ = &nonces;
  }
  return *cipher_;
}

std::array<std::byte, 16> nonceBlock(uint64_t counter, std::span<const std::byte, 8> random) {
  std::array<std::byte, 16> block;
  for (size_t i = 0; i < 8; ++i) block[i] = static_cast<std::byte>(counter >> (56 - 8 * i));
  std::memcpy(block.data() + 8, random.data(), random.size());
  return block;
}

}  // namespace sallyport::vaultd
