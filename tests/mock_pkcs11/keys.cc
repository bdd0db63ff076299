// keys.cc - how the mock token makes and derives keys, and which mechanisms it has. Part of: the mock PKCS#11 module.
#include <algorithm>
#include <array>
#include <cstring>

#include "tests/mock_pkcs11/algorithms.h"
#include "tests/mock_pkcs11/token.h"

namespace sallyport::mock {

namespace {

struct Mechanism {
  CK_MECHANISM_TYPE type;
  std::string_view name;
  CK_MECHANISM_INFO info;
};

constexpr std::array MECHANISMS = {
    Mechanism{MOCK_CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
              "CKM_EC_MONTGOMERY_KEY_PAIR_GEN",
              {255, 255, CKF_HW | CKF_GENERATE_KEY_PAIR}},
    Mechanism{CKM_ECDH1_DERIVE, "CKM_ECDH1_DERIVE", {255, 255, CKF_HW | CKF_DERIVE}},
    Mechanism{CKM_EC_EDWARDS_KEY_PAIR_GEN, "CKM_EC_EDWARDS_KEY_PAIR_GEN", {255, 255, CKF_HW | CKF_GENERATE_KEY_PAIR}},
    Mechanism{CKM_EDDSA, "CKM_EDDSA", {255, 255, CKF_HW | CKF_SIGN | CKF_VERIFY}},
    Mechanism{CKM_AES_KEY_GEN, "CKM_AES_KEY_GEN", {16, 32, CKF_HW | CKF_GENERATE}},
    Mechanism{CKM_AES_GCM, "CKM_AES_GCM", {16, 32, CKF_HW | CKF_ENCRYPT | CKF_DECRYPT}},
    Mechanism{CKM_RSA_PKCS_KEY_PAIR_GEN, "CKM_RSA_PKCS_KEY_PAIR_GEN", {2048, 4096, CKF_HW | CKF_GENERATE_KEY_PAIR}},
    Mechanism{CKM_RSA_PKCS_OAEP, "CKM_RSA_PKCS_OAEP", {2048, 4096, CKF_HW | CKF_ENCRYPT | CKF_DECRYPT}},
};

const Mechanism* findMechanism(CK_MECHANISM_TYPE type, const Traits& traits) {
  const auto* found = std::find_if(MECHANISMS.begin(), MECHANISMS.end(), [&](auto& each) { return each.type == type; });
  return found == MECHANISMS.end() || traits.lacks(found->name) ? nullptr : found;
}

const Bytes X25519_OID = {0x06, 0x03, 0x2b, 0x65, 0x6e};
const Bytes ED25519_OID = {0x06, 0x03, 0x2b, 0x65, 0x70};

Bytes printable(std::string_view name) {
  Bytes der = {0x13, static_cast<unsigned char>(name.size())};
  der.insert(der.end(), name.begin(), name.end());
  return der;
}

Bytes octetString(const Bytes& content) {
  Bytes der = {0x04, static_cast<unsigned char>(content.size())};
  der.insert(der.end(), content.begin(), content.end());
  return der;
}

// 32 bytes, or nothing that this token takes for a point.
std::optional<Bytes> peerPoint(const CK_ECDH1_DERIVE_PARAMS& parameters, const Traits& traits) {
  if (parameters.pPublicData == nullptr) return std::nullopt;
  const Bytes point(parameters.pPublicData, parameters.pPublicData + parameters.ulPublicDataLen);
  if (point.size() == 32 && traits.peerRaw) return point;
  if (point.size() == 34 && point[0] == 0x04 && point[1] == 0x20 && traits.peerDer)
    return Bytes(point.begin() + 2, point.end());
  return std::nullopt;
}

struct Pair {
  Object publicKey, privateKey;
};

CK_RV makeCurvePair(bool montgomery, const Traits& traits, Pair& pair) {
  const Bytes* parameters = pair.publicKey.find(CKA_EC_PARAMS);
  if (parameters == nullptr) return CKR_TEMPLATE_INCOMPLETE;
  const Bytes spelling = traits.nameParams ? printable(montgomery ? "curve25519" : "edwards25519")
                         : montgomery      ? X25519_OID
                                           : ED25519_OID;
  if (*parameters != spelling) return CKR_CURVE_NOT_SUPPORTED;
  const Bytes secret = randomBytes(32);
  const Bytes point = montgomery ? montgomeryPublic(secret) : edwardsPublic(secret);
  pair.publicKey.set(CKA_EC_POINT, traits.derPoint ? octetString(point) : point);
  pair.privateKey.set(CKA_EC_PARAMS, spelling);
  pair.privateKey.set(CKA_VALUE, secret);
  return CKR_OK;
}

CK_RV makeRsaPair(Pair& pair) {
  const CK_ULONG bits = pair.publicKey.number(CKA_MODULUS_BITS);
  if (bits == MOCK_UNAVAILABLE) return CKR_TEMPLATE_INCOMPLETE;
  if (bits < 2048 || bits > 4096) return CKR_KEY_SIZE_RANGE;
  auto made = rsaGenerate(static_cast<unsigned>(bits));
  if (!made) return CKR_FUNCTION_FAILED;
  pair.publicKey.set(CKA_MODULUS, made->modulus);
  pair.publicKey.set(CKA_PUBLIC_EXPONENT, made->exponent);
  pair.privateKey.set(CKA_MODULUS, made->modulus);
  pair.privateKey.set(HIDDEN_RSA, std::move(made->der));
  return CKR_OK;
}

// A template may say what the mechanism says anyway, and nothing else.
bool agrees(Object& object, CK_ATTRIBUTE_TYPE type, CK_ULONG value) {
  if (object.find(type) != nullptr && object.number(type) != value) return false;
  object.setNumber(type, value);
  return true;
}

}  // namespace

std::vector<CK_MECHANISM_TYPE> mechanisms(const Traits& traits) {
  std::vector<CK_MECHANISM_TYPE> types;
  for (const Mechanism& each : MECHANISMS) {
    if (!traits.lacks(each.name)) types.push_back(each.type);
  }
  return types;
}

std::optional<CK_MECHANISM_INFO> mechanismInfo(CK_MECHANISM_TYPE type, const Traits& traits) {
  const Mechanism* found = findMechanism(type, traits);
  if (found == nullptr) return std::nullopt;
  return found->info;
}

bool offers(CK_MECHANISM_TYPE type, const Traits& traits) { return findMechanism(type, traits) != nullptr; }

void distort(Bytes& result, const Plan& plan) {
  if (plan.wrong && !result.empty()) result.front() ^= 0x40;
  if (plan.zero) std::fill(result.begin(), result.end(), 0);
  if (plan.stripFirst && !result.empty() && result.front() == 0) result.erase(result.begin());
  if (plan.stripLast && !result.empty() && result.back() == 0) result.pop_back();
}

CK_RV Token::generateKey(CK_SESSION_HANDLE session, const CK_MECHANISM& mechanism, Template wanted,
                         CK_OBJECT_HANDLE& key) {
  if (mechanism.mechanism != CKM_AES_KEY_GEN) return CKR_MECHANISM_INVALID;
  Object object = fromTemplate(wanted);
  const CK_ULONG bytes = object.number(CKA_VALUE_LEN);
  if (bytes == MOCK_UNAVAILABLE) return CKR_TEMPLATE_INCOMPLETE;
  if (bytes != 16 && bytes != 32) return CKR_KEY_SIZE_RANGE;
  if (!agrees(object, CKA_CLASS, CKO_SECRET_KEY) || !agrees(object, CKA_KEY_TYPE, CKK_AES)) {
    return CKR_TEMPLATE_INCONSISTENT;
  }
  object.set(CKA_VALUE, randomBytes(bytes));
  return create(session, std::move(object), key);
}

CK_RV Token::generatePair(CK_SESSION_HANDLE session, const CK_MECHANISM& mechanism, Template publicPart,
                          Template privatePart, const Traits& traits, CK_OBJECT_HANDLE& publicKey,
                          CK_OBJECT_HANDLE& privateKey) {
  if (!offers(mechanism.mechanism, traits)) return CKR_MECHANISM_INVALID;
  Pair pair{fromTemplate(publicPart), fromTemplate(privatePart)};
  const bool montgomery = mechanism.mechanism == MOCK_CKM_EC_MONTGOMERY_KEY_PAIR_GEN;
  const bool edwards = mechanism.mechanism == CKM_EC_EDWARDS_KEY_PAIR_GEN;
  const CK_KEY_TYPE type = montgomery ? MOCK_CKK_EC_MONTGOMERY : edwards ? CKK_EC_EDWARDS : CKK_RSA;
  if (!agrees(pair.publicKey, CKA_CLASS, CKO_PUBLIC_KEY) || !agrees(pair.privateKey, CKA_CLASS, CKO_PRIVATE_KEY) ||
      !agrees(pair.publicKey, CKA_KEY_TYPE, type) || !agrees(pair.privateKey, CKA_KEY_TYPE, type)) {
    return CKR_TEMPLATE_INCONSISTENT;
  }
  if (const CK_RV rv = type == CKK_RSA ? makeRsaPair(pair) : makeCurvePair(montgomery, traits, pair); rv != CKR_OK) {
    return rv;
  }
  // Both or none: the private half is the one that may be refused.
  if (const CK_RV rv = create(session, std::move(pair.privateKey), privateKey); rv != CKR_OK) return rv;
  return create(session, std::move(pair.publicKey), publicKey);
}

CK_RV Token::derive(CK_SESSION_HANDLE session, const CK_MECHANISM& mechanism, CK_OBJECT_HANDLE base, Template wanted,
                    const Traits& traits, const Plan& plan, CK_OBJECT_HANDLE& key) {
  if (mechanism.mechanism != CKM_ECDH1_DERIVE || !offers(CKM_ECDH1_DERIVE, traits)) return CKR_MECHANISM_INVALID;
  if (mechanism.pParameter == nullptr || mechanism.ulParameterLen != sizeof(CK_ECDH1_DERIVE_PARAMS)) {
    return CKR_MECHANISM_PARAM_INVALID;
  }
  const auto& parameters = *static_cast<const CK_ECDH1_DERIVE_PARAMS*>(mechanism.pParameter);
  if (parameters.kdf != CKD_NULL || parameters.ulSharedDataLen != 0) return CKR_MECHANISM_PARAM_INVALID;
  const Object* from = object(base);
  if (from == nullptr) return CKR_KEY_HANDLE_INVALID;
  if (from->number(CKA_CLASS) != CKO_PRIVATE_KEY || from->number(CKA_KEY_TYPE) != MOCK_CKK_EC_MONTGOMERY) {
    return CKR_KEY_TYPE_INCONSISTENT;
  }
  if (!from->flag(CKA_DERIVE)) return CKR_KEY_FUNCTION_NOT_PERMITTED;
  const auto peer = peerPoint(parameters, traits);
  if (!peer) return CKR_PUBLIC_KEY_INVALID;
  Object made = fromTemplate(wanted);
  if (!agrees(made, CKA_CLASS, CKO_SECRET_KEY) || !agrees(made, CKA_KEY_TYPE, CKK_GENERIC_SECRET)) {
    return CKR_TEMPLATE_INCONSISTENT;
  }
  const CK_ULONG length = made.number(CKA_VALUE_LEN, 32);
  if (length == 0 || length > 32) return CKR_KEY_SIZE_RANGE;
  Bytes value = montgomeryDerive(*from->find(CKA_VALUE), *peer);
  distort(value, plan);
  value.resize(std::min<size_t>(value.size(), length));
  made.setNumber(CKA_VALUE_LEN, value.size());
  made.set(CKA_VALUE, std::move(value));
  return create(session, std::move(made), key);
}

}  // namespace sallyport::mock
