// Goal: the mock PKCS#11 module does what the standard says, so that what is shown with it means something.
// Method: loaded by dlopen as a vendor's module would be, its results are held against libsodium's.
#include <gtest/gtest.h>
#include <sodium.h>

#include "tests/unit/mock_pkcs11/mock_fixture.h"

namespace sallyport::test {
namespace {

using MockModule = MockFixture;

Octets softwarePublic(const Octets& secret) {
  Octets result(32);
  crypto_scalarmult_base(result.data(), secret.data());
  return result;
}

Octets randomOctets(size_t n) {
  Octets bytes(n);
  randombytes_buf(bytes.data(), n);
  return bytes;
}

TEST_F(MockModule, ExportsOneNameAlone) {
  EXPECT_NE(dlsym(library(), "C_GetFunctionList"), nullptr);
  EXPECT_EQ(dlsym(library(), "C_Initialize"), nullptr);
}

TEST_F(MockModule, FiveHundredKnownAnswersWithZeroAtBothEnds) {
  start();
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  ASSERT_EQ(module->generate(session, MONTGOMERY, {1}, publicKey, privateKey), CKR_OK);
  Octets point;
  ASSERT_EQ(module->read(session, publicKey, CKA_EC_POINT, point), CKR_OK);
  ASSERT_EQ(point.size(), 32u);
  size_t zeroFirst = 0, zeroLast = 0, answers = 0;
  for (; answers < 500 || zeroFirst == 0 || zeroLast == 0; ++answers) {
    const Octets ephemeral = randomOctets(32);
    Octets expected(32), derived;
    ASSERT_EQ(crypto_scalarmult(expected.data(), ephemeral.data(), point.data()), 0);
    // The rare ones are derived whatever the count; of the others 500.
    if (answers >= 500 && expected.front() != 0 && expected.back() != 0) continue;
    ASSERT_EQ(module->derive(session, privateKey, softwarePublic(ephemeral), derived), CKR_OK);
    ASSERT_EQ(derived, expected);
    zeroFirst += expected.front() == 0;
    zeroLast += expected.back() == 0;
  }
}

TEST_F(MockModule, KeysLiveThroughARestart) {
  start();
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  ASSERT_EQ(module->generate(session, MONTGOMERY, {7, 7}, publicKey, privateKey), CKR_OK);
  Octets before, after;
  const Octets peer = softwarePublic(randomOctets(32));
  ASSERT_EQ(module->derive(session, privateKey, peer, before), CKR_OK);
  restart();
  ASSERT_EQ(module->find(session, Attributes().number(CKA_CLASS, CKO_PRIVATE_KEY)).size(), 0u) << "not logged in yet";
  ASSERT_EQ(module->login(session, "1234"), CKR_OK);
  const auto found = module->find(session, Attributes().number(CKA_CLASS, CKO_PRIVATE_KEY).bytes(CKA_ID, {7, 7}));
  ASSERT_EQ(found.size(), 1u);
  ASSERT_EQ(module->derive(session, found[0], peer, after), CKR_OK);
  EXPECT_EQ(before, after);
}

TEST_F(MockModule, AnImportedKeyIsTheSameKey) {
  start();
  const Octets secret = randomOctets(32), ephemeral = randomOctets(32);
  Attributes key;
  key.number(CKA_CLASS, CKO_PRIVATE_KEY).number(CKA_KEY_TYPE, mock::MOCK_CKK_EC_MONTGOMERY).flag(CKA_TOKEN, true);
  key.flag(CKA_DERIVE, true).bytes(CKA_EC_PARAMS, MONTGOMERY.parameters).bytes(CKA_VALUE, secret);
  CK_OBJECT_HANDLE handle = 0;
  ASSERT_EQ((*module)->C_CreateObject(session, key.span().data(), key.span().size(), &handle), CKR_OK);
  Octets expected(32), derived;
  ASSERT_EQ(crypto_scalarmult(expected.data(), secret.data(), softwarePublic(ephemeral).data()), 0);
  ASSERT_EQ(module->derive(session, handle, softwarePublic(ephemeral), derived), CKR_OK);
  EXPECT_EQ(derived, expected);
}

TEST_F(MockModule, ASecretDoesNotComeOut) {
  start();
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0, copied = 0;
  ASSERT_EQ(module->generate(session, MONTGOMERY, {1}, publicKey, privateKey), CKR_OK);
  Octets value;
  EXPECT_EQ(module->read(session, privateKey, CKA_VALUE, value), CKR_ATTRIBUTE_SENSITIVE);
  Attributes open;
  open.flag(CKA_EXTRACTABLE, true).flag(CKA_SENSITIVE, false);
  EXPECT_EQ((*module)->C_CopyObject(session, privateKey, open.span().data(), open.span().size(), &copied),
            CKR_ATTRIBUTE_READ_ONLY);
  EXPECT_EQ((*module)->C_SetAttributeValue(session, privateKey, open.span().data(), open.span().size()),
            CKR_ATTRIBUTE_READ_ONLY);
}

TEST_F(MockModule, WrongSpellingsOfTheCurveAreRefused) {
  start();
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  EXPECT_EQ(module->generate(session, WEIERSTRASS, {1}, publicKey, privateKey), CKR_MECHANISM_INVALID);
  EXPECT_EQ(module->generate(session, EDWARDS_NAME, {1}, publicKey, privateKey), CKR_CURVE_NOT_SUPPORTED);
  EXPECT_EQ(module->generate(session, MONTGOMERY_NAME, {1}, publicKey, privateKey), CKR_CURVE_NOT_SUPPORTED);
  faults("token params=name point=der peer=der\n");
  EXPECT_EQ(module->generate(session, MONTGOMERY, {1}, publicKey, privateKey), CKR_CURVE_NOT_SUPPORTED);
  ASSERT_EQ(module->generate(session, MONTGOMERY_NAME, {1}, publicKey, privateKey), CKR_OK);
  Octets point, derived;
  ASSERT_EQ(module->read(session, publicKey, CKA_EC_POINT, point), CKR_OK);
  EXPECT_EQ(point.size(), 34u);
  EXPECT_EQ(module->derive(session, privateKey, Octets(32, 9), derived), CKR_PUBLIC_KEY_INVALID);
  EXPECT_EQ(module->derive(session, privateKey, point, derived), CKR_OK);
}

TEST_F(MockModule, SignsAsLibsodiumVerifies) {
  start();
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  Attributes pub, priv;
  pub.flag(CKA_TOKEN, true).flag(CKA_VERIFY, true).bytes(CKA_EC_PARAMS, {0x06, 0x03, 0x2b, 0x65, 0x70});
  priv.flag(CKA_TOKEN, true).flag(CKA_SIGN, true);
  CK_MECHANISM generate = {CKM_EC_EDWARDS_KEY_PAIR_GEN, nullptr, 0}, eddsa = {CKM_EDDSA, nullptr, 0};
  ASSERT_EQ((*module)->C_GenerateKeyPair(session, &generate, pub.span().data(), pub.span().size(), priv.span().data(),
                                         priv.span().size(), &publicKey, &privateKey),
            CKR_OK);
  Octets message = randomOctets(100), signature(64), point;
  CK_ULONG length = signature.size();
  ASSERT_EQ((*module)->C_SignInit(session, &eddsa, privateKey), CKR_OK);
  ASSERT_EQ((*module)->C_Sign(session, message.data(), message.size(), signature.data(), &length), CKR_OK);
  ASSERT_EQ(length, 64u);
  ASSERT_EQ(module->read(session, publicKey, CKA_EC_POINT, point), CKR_OK);
  EXPECT_EQ(crypto_sign_verify_detached(signature.data(), message.data(), message.size(), point.data()), 0);
  message[3] ^= 1;
  ASSERT_EQ((*module)->C_VerifyInit(session, &eddsa, publicKey), CKR_OK);
  EXPECT_EQ((*module)->C_Verify(session, message.data(), message.size(), signature.data(), length),
            CKR_SIGNATURE_INVALID);
}

TEST_F(MockModule, GcmOpensItsOwnAndNothingElse) {
  start();
  Attributes wanted;
  wanted.flag(CKA_TOKEN, true).flag(CKA_ENCRYPT, true).flag(CKA_DECRYPT, true).number(CKA_VALUE_LEN, 32);
  CK_MECHANISM generate = {CKM_AES_KEY_GEN, nullptr, 0};
  CK_OBJECT_HANDLE key = 0;
  ASSERT_EQ((*module)->C_GenerateKey(session, &generate, wanted.span().data(), wanted.span().size(), &key), CKR_OK);
  Octets iv = randomOctets(12), aad = randomOctets(32), text = randomOctets(32), sealed(48), opened(48);
  CK_GCM_PARAMS parameters = {iv.data(), iv.size(), 96, aad.data(), aad.size(), 128};
  CK_MECHANISM gcm = {CKM_AES_GCM, &parameters, sizeof(parameters)};
  CK_ULONG length = sealed.size();
  ASSERT_EQ((*module)->C_EncryptInit(session, &gcm, key), CKR_OK);
  ASSERT_EQ((*module)->C_Encrypt(session, text.data(), text.size(), sealed.data(), &length), CKR_OK);
  ASSERT_EQ(length, 48u);
  length = opened.size();
  ASSERT_EQ((*module)->C_DecryptInit(session, &gcm, key), CKR_OK);
  ASSERT_EQ((*module)->C_Decrypt(session, sealed.data(), sealed.size(), opened.data(), &length), CKR_OK);
  opened.resize(length);
  EXPECT_EQ(opened, text);
  aad[0] ^= 1;  // the parameters point to it
  opened.resize(48), length = opened.size();
  ASSERT_EQ((*module)->C_DecryptInit(session, &gcm, key), CKR_OK);
  EXPECT_EQ((*module)->C_Decrypt(session, sealed.data(), sealed.size(), opened.data(), &length),
            CKR_ENCRYPTED_DATA_INVALID);
  // The operation is over; a token with that quirk stays in it.
  ASSERT_EQ((*module)->C_DecryptInit(session, &gcm, key), CKR_OK);
  faults("token sticky_operations=1\n");
  EXPECT_EQ((*module)->C_Decrypt(session, sealed.data(), sealed.size(), opened.data(), &length),
            CKR_ENCRYPTED_DATA_INVALID);
  EXPECT_EQ((*module)->C_DecryptInit(session, &gcm, key), CKR_OPERATION_ACTIVE);
}

TEST_F(MockModule, OaepByEitherHashAndNotByTheOther) {
  start();
  Attributes pub, priv;
  pub.flag(CKA_TOKEN, false)
      .flag(CKA_ENCRYPT, true)
      .number(CKA_MODULUS_BITS, 2048)
      .bytes(CKA_PUBLIC_EXPONENT, {1, 0, 1});
  priv.flag(CKA_TOKEN, false).flag(CKA_DECRYPT, true);
  CK_MECHANISM generate = {CKM_RSA_PKCS_KEY_PAIR_GEN, nullptr, 0};
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  ASSERT_EQ((*module)->C_GenerateKeyPair(session, &generate, pub.span().data(), pub.span().size(), priv.span().data(),
                                         priv.span().size(), &publicKey, &privateKey),
            CKR_OK);
  CK_RSA_PKCS_OAEP_PARAMS sha1 = {CKM_SHA_1, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, nullptr, 0};
  CK_RSA_PKCS_OAEP_PARAMS sha256 = {CKM_SHA256, CKG_MGF1_SHA256, CKZ_DATA_SPECIFIED, nullptr, 0};
  Octets text = randomOctets(32), sealed(256), opened(256);
  for (auto* parameters : {&sha1, &sha256}) {
    CK_MECHANISM oaep = {CKM_RSA_PKCS_OAEP, parameters, sizeof(*parameters)};
    CK_MECHANISM other = {CKM_RSA_PKCS_OAEP, parameters == &sha1 ? &sha256 : &sha1, sizeof(*parameters)};
    CK_ULONG length = sealed.size(), openedLength = opened.size();
    ASSERT_EQ((*module)->C_EncryptInit(session, &oaep, publicKey), CKR_OK);
    ASSERT_EQ((*module)->C_Encrypt(session, text.data(), text.size(), sealed.data(), &length), CKR_OK);
    ASSERT_EQ((*module)->C_DecryptInit(session, &oaep, privateKey), CKR_OK);
    ASSERT_EQ((*module)->C_Decrypt(session, sealed.data(), length, opened.data(), &openedLength), CKR_OK);
    EXPECT_EQ(Octets(opened.begin(), opened.begin() + static_cast<ptrdiff_t>(openedLength)), text);
    openedLength = opened.size();
    ASSERT_EQ((*module)->C_DecryptInit(session, &other, privateKey), CKR_OK);
    EXPECT_EQ((*module)->C_Decrypt(session, sealed.data(), length, opened.data(), &openedLength),
              CKR_ENCRYPTED_DATA_INVALID);
  }
  faults("token without=OAEP-SHA256\n");
  CK_MECHANISM lacking = {CKM_RSA_PKCS_OAEP, &sha256, sizeof(sha256)};
  EXPECT_EQ((*module)->C_DecryptInit(session, &lacking, privateKey), CKR_ARGUMENTS_BAD);
}

TEST_F(MockModule, CountsWrongPinsToTheEndAndOverRestarts) {
  start("");
  EXPECT_EQ(pinFlags(), 0u);
  EXPECT_EQ(module->login(session, "0000"), CKR_PIN_INCORRECT);
  EXPECT_EQ(pinFlags(), CKF_USER_PIN_COUNT_LOW);
  restart();
  EXPECT_EQ(module->login(session, "0000"), CKR_PIN_INCORRECT);
  EXPECT_EQ(pinFlags(), CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY);
  EXPECT_EQ(module->login(session, "1234"), CKR_OK) << "a right one counts afresh";
  EXPECT_EQ(pinFlags(), 0u);
  restart();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(module->login(session, "0000"), CKR_PIN_INCORRECT);
  EXPECT_EQ(pinFlags(), CKF_USER_PIN_LOCKED);
  EXPECT_EQ(module->login(session, "1234"), CKR_PIN_LOCKED);
  EXPECT_EQ(counter("C_Login"), 7u);
}

TEST_F(MockModule, ReadOnlySessionsAndStrangersWriteNothing) {
  start("");
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  EXPECT_EQ(module->generate(session, MONTGOMERY, {1}, publicKey, privateKey), CKR_USER_NOT_LOGGED_IN);
  ASSERT_EQ(module->login(session, "1234"), CKR_OK);
  CK_SESSION_HANDLE readOnly = 0;
  ASSERT_EQ((*module)->C_OpenSession(module->slot(), CKF_SERIAL_SESSION, nullptr, nullptr, &readOnly), CKR_OK);
  EXPECT_EQ(module->generate(readOnly, MONTGOMERY, {1}, publicKey, privateKey), CKR_SESSION_READ_ONLY);
  EXPECT_EQ(module->generate(readOnly, MONTGOMERY, {1}, publicKey, privateKey, false), CKR_OK)
      << "session objects may be made";
}

}  // namespace
}  // namespace sallyport::test
