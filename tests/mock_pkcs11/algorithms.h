// algorithms.h - the cryptography of the mock token, by libsodium and OpenSSL. No PKCS#11 rules here: those are in the
// module. A result that isn't there is a refusal by the library.
#pragma once

#include <optional>
#include <span>

#include "tests/mock_pkcs11/store.h"

namespace sallyport::mock {

using View = std::span<const unsigned char>;

Bytes randomBytes(size_t n);
Bytes montgomeryPublic(View secret);
// As RFC 7748, without the check for zero: whoever uses a token has to make it.
Bytes montgomeryDerive(View secret, View peer);
Bytes edwardsPublic(View seed);
Bytes edwardsSign(View seed, View message);
bool edwardsVerify(View publicKey, View message, View signature);
std::optional<Bytes> gcm(bool encrypt, View key, View iv, View aad, size_t tagBytes, View input);

struct RsaPair {
  Bytes der, modulus, exponent;  // the private key as DER, and what the public object shows
};
std::optional<RsaPair> rsaGenerate(unsigned bits);
std::optional<RsaPair> rsaPublic(View modulus, View exponent);  // `der` is then the public key's
std::optional<Bytes> rsaOaep(bool encrypt, View der, bool sha256, View input);

}  // namespace sallyport::mock
