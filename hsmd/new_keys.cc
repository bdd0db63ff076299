// new_keys.cc - see operations.h: keys made in the token, and brought into it. Part of: hsmd (the operator's worker,
// and the probe). Each is made so that it can't leave: sensitive, not extractable, with one use alone.
#include <sodium.h>

#include "hsmd/last_call.h"
#include "hsmd/operations.h"

namespace sallyport::hsmd {

namespace {

void common(Template& attributes, const NewKey& key) {
  attributes.flag(CKA_TOKEN, key.stays);
  if (!key.id.empty()) attributes.bytes(CKA_ID, key.id);
  if (!key.label.empty()) attributes.text(CKA_LABEL, key.label);
}

void secretHalf(Template& attributes, const NewKey& key) {
  common(attributes, key);
  attributes.flag(CKA_PRIVATE, true).flag(CKA_SENSITIVE, true).flag(CKA_EXTRACTABLE, false);
}

Outcome<KeyPair> generatePair(const Session& session, CK_MECHANISM_TYPE type, Template& open, Template& secret) {
  CK_MECHANISM mechanism{.mechanism = type, .pParameter = nullptr, .ulParameterLen = 0};
  KeyPair pair;
  noteCall("C_GenerateKeyPair");
  const CK_RV rv = session.module->C_GenerateKeyPair(session.handle, &mechanism, open.data(), open.size(),
                                                     secret.data(), secret.size(), &pair.open, &pair.secret);
  if (rv != CKR_OK) return failed(rv);
  return pair;
}

Outcome<CK_OBJECT_HANDLE> create(const Session& session, Template& attributes) {
  CK_OBJECT_HANDLE handle = 0;
  noteCall("C_CreateObject");
  const CK_RV rv = session.module->C_CreateObject(session.handle, attributes.data(), attributes.size(), &handle);
  if (rv != CKR_OK) return failed(rv);
  return handle;
}

// The public half beside an imported secret: a token that doesn't want it can do without.
CK_OBJECT_HANDLE createOpenHalf(const Session& session, CK_KEY_TYPE type, std::string_view parameters,
                                const NewKey& key, std::span<const std::byte, 32> publicKey, CK_ATTRIBUTE_TYPE use) {
  std::array<std::byte, 34> buffer;
  Template open;
  common(open, key);
  open.number(CKA_CLASS, CKO_PUBLIC_KEY)
      .number(CKA_KEY_TYPE, type)
      .text(CKA_EC_PARAMS, parameters)
      .bytes(CKA_EC_POINT, pointFor(hsm::PointForm::Octets, publicKey, buffer))
      .flag(use, true);
  const auto handle = create(session, open);
  return handle ? *handle : 0;
}

Outcome<KeyPair> importCurve(const Session& session, CK_KEY_TYPE type, std::string_view parameters, const NewKey& key,
                             std::span<const std::byte, 32> secret, std::span<const std::byte, 32> publicKey,
                             CK_ATTRIBUTE_TYPE use, CK_ATTRIBUTE_TYPE openUse) {
  Template attributes;
  secretHalf(attributes, key);
  attributes.number(CKA_CLASS, CKO_PRIVATE_KEY)
      .number(CKA_KEY_TYPE, type)
      .text(CKA_EC_PARAMS, parameters)
      .bytes(CKA_VALUE, secret)
      .flag(use, true);
  if (type == CKK_EC) attributes.bytes(ATTRIBUTE_NSS_DB, publicKey);
  const auto handle = create(session, attributes);
  if (!handle) return refuse(handle.error());
  return KeyPair{.secret = *handle, .open = createOpenHalf(session, type, parameters, key, publicKey, openUse)};
}

}  // namespace

Outcome<KeyPair> generateX25519(const Session& session, const SpellingRow& row, const NewKey& key) {
  Template open;
  common(open, key);
  open.number(CKA_KEY_TYPE, row.keyType).text(CKA_EC_PARAMS, row.parameters);
  Template secret;
  secretHalf(secret, key);
  secret.number(CKA_KEY_TYPE, row.keyType).flag(CKA_DERIVE, true).flag(CKA_SIGN, false);
  return generatePair(session, row.generate, open, secret);
}

Outcome<KeyPair> generateEd25519(const Session& session, std::string_view parameters, const NewKey& key) {
  Template open;
  common(open, key);
  open.number(CKA_KEY_TYPE, CKK_EC_EDWARDS).text(CKA_EC_PARAMS, parameters).flag(CKA_VERIFY, true);
  Template secret;
  secretHalf(secret, key);
  secret.number(CKA_KEY_TYPE, CKK_EC_EDWARDS).flag(CKA_SIGN, true).flag(CKA_DERIVE, false);
  return generatePair(session, CKM_EC_EDWARDS_KEY_PAIR_GEN, open, secret);
}

Outcome<KeyPair> generateAes(const Session& session, const NewKey& key) {
  CK_MECHANISM mechanism{.mechanism = CKM_AES_KEY_GEN, .pParameter = nullptr, .ulParameterLen = 0};
  Template attributes;
  secretHalf(attributes, key);
  // Never wrap beside decrypt: together they hand out other keys.
  attributes.number(CKA_VALUE_LEN, 32)
      .flag(CKA_ENCRYPT, true)
      .flag(CKA_DECRYPT, true)
      .flag(CKA_WRAP, false)
      .flag(CKA_UNWRAP, false);
  KeyPair pair;
  noteCall("C_GenerateKey");
  const CK_RV rv =
      session.module->C_GenerateKey(session.handle, &mechanism, attributes.data(), attributes.size(), &pair.secret);
  if (rv != CKR_OK) return failed(rv);
  return pair;
}

Outcome<KeyPair> generateRsa(const Session& session, CK_ULONG bits, const NewKey& key) {
  constexpr std::array<std::byte, 3> EXPONENT{std::byte{1}, std::byte{0}, std::byte{1}};
  Template open;
  common(open, key);
  open.number(CKA_MODULUS_BITS, bits).bytes(CKA_PUBLIC_EXPONENT, EXPONENT).flag(CKA_ENCRYPT, true);
  Template secret;
  secretHalf(secret, key);
  secret.flag(CKA_DECRYPT, true).flag(CKA_SIGN, false).flag(CKA_UNWRAP, false);
  return generatePair(session, CKM_RSA_PKCS_KEY_PAIR_GEN, open, secret);
}

Outcome<KeyPair> importX25519(const Session& session, const SpellingRow& row, const NewKey& key,
                              std::span<const std::byte, 32> secret) {
  PublicKey publicKey;
  CHECK(crypto_scalarmult_base(publicKey.data(), uchars(ByteSpan(secret))) == 0);
  return importCurve(session, row.keyType, row.parameters, key, secret, publicKey.span(), CKA_DERIVE, CKA_DERIVE);
}

Outcome<KeyPair> importEd25519(const Session& session, std::string_view parameters, const NewKey& key,
                               std::span<const std::byte, 32> seed) {
  struct PairTag;
  SecretBytes<PairTag, crypto_sign_SECRETKEYBYTES> pair;
  PublicKey publicKey;
  CHECK(crypto_sign_seed_keypair(publicKey.data(), pair.exposeData(), uchars(ByteSpan(seed))) == 0);
  return importCurve(session, CKK_EC_EDWARDS, parameters, key, seed, publicKey.span(), CKA_SIGN, CKA_VERIFY);
}

Outcome<KeyPair> importAes(const Session& session, const NewKey& key, std::span<const std::byte, 32> secret) {
  Template attributes;
  secretHalf(attributes, key);
  attributes.number(CKA_CLASS, CKO_SECRET_KEY)
      .number(CKA_KEY_TYPE, CKK_AES)
      .bytes(CKA_VALUE, secret)
      .flag(CKA_ENCRYPT, true)
      .flag(CKA_DECRYPT, true)
      .flag(CKA_WRAP, false)
      .flag(CKA_UNWRAP, false);
  const auto handle = create(session, attributes);
  if (!handle) return refuse(handle.error());
  return KeyPair{.secret = *handle};
}

void destroy(const Session& session, const KeyPair& pair) {
  if (pair.secret != 0) session.module->C_DestroyObject(session.handle, pair.secret);
  if (pair.open != 0) session.module->C_DestroyObject(session.handle, pair.open);
}

}  // namespace sallyport::hsmd
