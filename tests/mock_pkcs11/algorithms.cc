#include "tests/mock_pkcs11/algorithms.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <sodium.h>

#include <memory>

namespace sallyport::mock {

namespace {

template <typename T, void (*FREE)(T*)>
struct Freed {
  void operator()(T* p) const { FREE(p); }
};
template <typename T, void (*FREE)(T*)>
using Owned = std::unique_ptr<T, Freed<T, FREE>>;
using Key = Owned<EVP_PKEY, EVP_PKEY_free>;
using KeyContext = Owned<EVP_PKEY_CTX, EVP_PKEY_CTX_free>;
using Number = Owned<BIGNUM, BN_free>;

Bytes toBytes(const BIGNUM* number) {
  Bytes bytes(static_cast<size_t>(BN_num_bytes(number)));
  BN_bn2bin(number, bytes.data());
  return bytes;
}

Bytes numberOf(const EVP_PKEY* key, const char* name) {
  BIGNUM* number = nullptr;
  if (EVP_PKEY_get_bn_param(key, name, &number) != 1) return {};
  const Number owned(number);
  return toBytes(number);
}

Bytes derOf(EVP_PKEY* key, int (*encode)(const EVP_PKEY*, unsigned char**)) {
  unsigned char* der = nullptr;
  const int n = encode(key, &der);
  if (n <= 0) return {};
  Bytes bytes(der, der + n);
  OPENSSL_free(der);
  return bytes;
}

}  // namespace

Bytes randomBytes(size_t n) {
  Bytes bytes(n);
  randombytes_buf(bytes.data(), n);
  return bytes;
}

Bytes montgomeryPublic(View secret) {
  Bytes result(crypto_scalarmult_BYTES);
  crypto_scalarmult_base(result.data(), secret.data());
  return result;
}

Bytes montgomeryDerive(View secret, View peer) {
  Bytes result(crypto_scalarmult_BYTES);
  // It refuses a point of low order, whose result is zero: a token that doesn't look answers with that.
  if (crypto_scalarmult(result.data(), secret.data(), peer.data()) != 0) std::fill(result.begin(), result.end(), 0);
  return result;
}

Bytes edwardsPublic(View seed) {
  Bytes publicKey(crypto_sign_PUBLICKEYBYTES), secret(crypto_sign_SECRETKEYBYTES);
  crypto_sign_seed_keypair(publicKey.data(), secret.data(), seed.data());
  return publicKey;
}

Bytes edwardsSign(View seed, View message) {
  Bytes publicKey(crypto_sign_PUBLICKEYBYTES), secret(crypto_sign_SECRETKEYBYTES), signature(crypto_sign_BYTES);
  crypto_sign_seed_keypair(publicKey.data(), secret.data(), seed.data());
  crypto_sign_detached(signature.data(), nullptr, message.data(), message.size(), secret.data());
  return signature;
}

bool edwardsVerify(View publicKey, View message, View signature) {
  return signature.size() == crypto_sign_BYTES &&
         crypto_sign_verify_detached(signature.data(), message.data(), message.size(), publicKey.data()) == 0;
}

std::optional<Bytes> gcm(bool encrypt, View key, View iv, View aad, size_t tagBytes, View input) {
  if (!encrypt && input.size() < tagBytes) return std::nullopt;
  const EVP_CIPHER* cipher = key.size() == 32 ? EVP_aes_256_gcm() : key.size() == 16 ? EVP_aes_128_gcm() : nullptr;
  const Owned<EVP_CIPHER_CTX, EVP_CIPHER_CTX_free> context(EVP_CIPHER_CTX_new());
  const int way = encrypt ? 1 : 0;
  if (cipher == nullptr || EVP_CipherInit_ex(context.get(), cipher, nullptr, nullptr, nullptr, way) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_IVLEN, static_cast<int>(iv.size()), nullptr) != 1 ||
      EVP_CipherInit_ex(context.get(), nullptr, nullptr, key.data(), iv.data(), way) != 1) {
    return std::nullopt;
  }
  const View text = encrypt ? input : input.first(input.size() - tagBytes);
  Bytes tag(input.begin() + static_cast<ptrdiff_t>(text.size()), input.end());
  tag.resize(tagBytes);
  Bytes result(text.size() + 1);  // never a null pointer
  int n = 0, last = 0, ignored = 0;
  if ((!aad.empty() &&
       EVP_CipherUpdate(context.get(), nullptr, &ignored, aad.data(), static_cast<int>(aad.size())) != 1) ||
      EVP_CipherUpdate(context.get(), result.data(), &n, text.data(), static_cast<int>(text.size())) != 1 ||
      (!encrypt &&
       EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tagBytes), tag.data()) != 1) ||
      EVP_CipherFinal_ex(context.get(), result.data() + n, &last) != 1) {
    return std::nullopt;
  }
  result.resize(static_cast<size_t>(n + last));
  if (encrypt) {
    EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tagBytes), tag.data());
    result.insert(result.end(), tag.begin(), tag.end());
  }
  return result;
}

std::optional<RsaPair> rsaGenerate(unsigned bits) {
  const Key key(EVP_RSA_gen(bits));
  if (!key) return std::nullopt;
  return RsaPair{derOf(key.get(), i2d_PrivateKey), numberOf(key.get(), OSSL_PKEY_PARAM_RSA_N),
                 numberOf(key.get(), OSSL_PKEY_PARAM_RSA_E)};
}

std::optional<RsaPair> rsaPublic(View modulus, View exponent) {
  const Number n(BN_bin2bn(modulus.data(), static_cast<int>(modulus.size()), nullptr));
  const Number e(BN_bin2bn(exponent.data(), static_cast<int>(exponent.size()), nullptr));
  const Owned<OSSL_PARAM_BLD, OSSL_PARAM_BLD_free> builder(OSSL_PARAM_BLD_new());
  OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get());
  OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get());
  const Owned<OSSL_PARAM, OSSL_PARAM_free> parameters(OSSL_PARAM_BLD_to_param(builder.get()));
  const KeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr));
  EVP_PKEY* key = nullptr;
  if (EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, parameters.get()) != 1) {
    return std::nullopt;
  }
  const Key owned(key);
  return RsaPair{derOf(key, i2d_PUBKEY), Bytes(modulus.begin(), modulus.end()),
                 Bytes(exponent.begin(), exponent.end())};
}

std::optional<Bytes> rsaOaep(bool encrypt, View der, bool sha256, View input) {
  const unsigned char* at = der.data();
  const Key key(encrypt ? d2i_PUBKEY(nullptr, &at, static_cast<long>(der.size()))
                        : d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(der.size())));
  if (!key) return std::nullopt;
  const KeyContext context(EVP_PKEY_CTX_new(key.get(), nullptr));
  const EVP_MD* hash = sha256 ? EVP_sha256() : EVP_sha1();
  if ((encrypt ? EVP_PKEY_encrypt_init : EVP_PKEY_decrypt_init)(context.get()) != 1 ||
      EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_OAEP_PADDING) != 1 ||
      EVP_PKEY_CTX_set_rsa_oaep_md(context.get(), hash) != 1 ||
      EVP_PKEY_CTX_set_rsa_mgf1_md(context.get(), hash) != 1) {
    return std::nullopt;
  }
  const auto run = encrypt ? EVP_PKEY_encrypt : EVP_PKEY_decrypt;
  size_t n = 0;
  if (run(context.get(), nullptr, &n, input.data(), input.size()) != 1) return std::nullopt;
  Bytes result(n);
  if (run(context.get(), result.data(), &n, input.data(), input.size()) != 1) return std::nullopt;
  result.resize(n);
  return result;
}

}  // namespace sallyport::mock
