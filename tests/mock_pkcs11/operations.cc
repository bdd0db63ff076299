// operations.cc - encrypt, decrypt, sign and verify of the mock token. Part of: the mock PKCS#11 module.
#include "tests/mock_pkcs11/algorithms.h"
#include "tests/mock_pkcs11/token.h"

namespace sallyport::mock {

namespace {

CK_RV readGcm(const CK_MECHANISM& mechanism, Operation& operation) {
  if (mechanism.pParameter == nullptr || mechanism.ulParameterLen != sizeof(CK_GCM_PARAMS)) {
    return CKR_MECHANISM_PARAM_INVALID;
  }
  const auto& parameters = *static_cast<const CK_GCM_PARAMS*>(mechanism.pParameter);
  if (parameters.pIv == nullptr || parameters.ulIvLen != 12 || parameters.ulTagBits != 128) {
    return CKR_MECHANISM_PARAM_INVALID;
  }
  operation.iv.assign(parameters.pIv, parameters.pIv + parameters.ulIvLen);
  if (parameters.pAAD != nullptr) operation.aad.assign(parameters.pAAD, parameters.pAAD + parameters.ulAADLen);
  operation.tagBytes = parameters.ulTagBits / 8;
  return CKR_OK;
}

CK_RV readOaep(const CK_MECHANISM& mechanism, const Traits& traits, Operation& operation) {
  if (mechanism.pParameter == nullptr || mechanism.ulParameterLen != sizeof(CK_RSA_PKCS_OAEP_PARAMS)) {
    return CKR_MECHANISM_PARAM_INVALID;
  }
  const auto& parameters = *static_cast<const CK_RSA_PKCS_OAEP_PARAMS*>(mechanism.pParameter);
  operation.sha256 = parameters.hashAlg == CKM_SHA256;
  if (parameters.hashAlg != CKM_SHA256 && parameters.hashAlg != CKM_SHA_1) return CKR_MECHANISM_PARAM_INVALID;
  if (parameters.mgf != (operation.sha256 ? CKG_MGF1_SHA256 : CKG_MGF1_SHA1)) return CKR_MECHANISM_PARAM_INVALID;
  if (parameters.ulSourceDataLen != 0) return CKR_MECHANISM_PARAM_INVALID;
  // As SoftHSM answers for a hash that it lacks.
  return traits.lacks(operation.sha256 ? "OAEP-SHA256" : "OAEP-SHA1") ? CKR_ARGUMENTS_BAD : CKR_OK;
}

struct Role {
  CK_OBJECT_CLASS objectClass;
  CK_KEY_TYPE keyType;
  CK_ATTRIBUTE_TYPE permission;
};

std::optional<Role> roleOf(Use use, CK_MECHANISM_TYPE mechanism) {
  switch (use) {
    case Use::Encrypt:
      if (mechanism == CKM_AES_GCM) return Role{CKO_SECRET_KEY, CKK_AES, CKA_ENCRYPT};
      if (mechanism == CKM_RSA_PKCS_OAEP) return Role{CKO_PUBLIC_KEY, CKK_RSA, CKA_ENCRYPT};
      return std::nullopt;
    case Use::Decrypt:
      if (mechanism == CKM_AES_GCM) return Role{CKO_SECRET_KEY, CKK_AES, CKA_DECRYPT};
      if (mechanism == CKM_RSA_PKCS_OAEP) return Role{CKO_PRIVATE_KEY, CKK_RSA, CKA_DECRYPT};
      return std::nullopt;
    case Use::Sign:
      if (mechanism == CKM_EDDSA) return Role{CKO_PRIVATE_KEY, CKK_EC_EDWARDS, CKA_SIGN};
      return std::nullopt;
    case Use::Verify:
      if (mechanism == CKM_EDDSA) return Role{CKO_PUBLIC_KEY, CKK_EC_EDWARDS, CKA_VERIFY};
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

CK_RV beginOperation(Token& token, Session& session, Use use, const CK_MECHANISM& mechanism, CK_OBJECT_HANDLE key,
                     const Traits& traits) {
  if (session.operations.contains(use)) return CKR_OPERATION_ACTIVE;
  const auto role = roleOf(use, mechanism.mechanism);
  if (!role || !offers(mechanism.mechanism, traits)) return CKR_MECHANISM_INVALID;
  Operation operation;
  operation.mechanism = mechanism.mechanism;
  CK_RV rv = CKR_OK;
  if (mechanism.mechanism == CKM_AES_GCM) rv = readGcm(mechanism, operation);
  if (mechanism.mechanism == CKM_RSA_PKCS_OAEP) rv = readOaep(mechanism, traits, operation);
  if (rv != CKR_OK) return rv;
  const Object* object = token.object(key);
  if (object == nullptr) return CKR_KEY_HANDLE_INVALID;
  if (object->number(CKA_CLASS) != role->objectClass || object->number(CKA_KEY_TYPE) != role->keyType) {
    return CKR_KEY_TYPE_INCONSISTENT;
  }
  if (!object->flag(role->permission)) return CKR_KEY_FUNCTION_NOT_PERMITTED;
  operation.key = token.idOf(key);
  session.operations[use] = std::move(operation);
  return CKR_OK;
}

CK_RV runOperation(const Token& token, const Operation& operation, Use use, View input, View signature, Bytes& result) {
  const Object* key = token.objectById(operation.key);
  if (key == nullptr) return CKR_KEY_HANDLE_INVALID;
  std::optional<Bytes> made;
  switch (operation.mechanism) {
    case CKM_AES_GCM:
      made = gcm(use == Use::Encrypt, *key->find(CKA_VALUE), operation.iv, operation.aad, operation.tagBytes, input);
      break;
    case CKM_RSA_PKCS_OAEP:
      if (use == Use::Encrypt) {
        const auto publicKey = rsaPublic(*key->find(CKA_MODULUS), *key->find(CKA_PUBLIC_EXPONENT));
        if (publicKey) made = rsaOaep(true, publicKey->der, operation.sha256, input);
      } else {
        made = rsaOaep(false, *key->find(HIDDEN_RSA), operation.sha256, input);
      }
      break;
    case CKM_EDDSA:
      if (use == Use::Verify) {
        Bytes point = *key->find(CKA_EC_POINT);
        if (point.size() == 34) point.erase(point.begin(), point.begin() + 2);
        return edwardsVerify(point, input, signature) ? CKR_OK : CKR_SIGNATURE_INVALID;
      }
      made = edwardsSign(*key->find(CKA_VALUE), input);
      break;
    default: return CKR_MECHANISM_INVALID;
  }
  if (!made) return use == Use::Decrypt ? CKR_ENCRYPTED_DATA_INVALID : CKR_FUNCTION_FAILED;
  result = std::move(*made);
  return CKR_OK;
}

}  // namespace sallyport::mock
