// loaded_module.h - a PKCS#11 module in this process, as a test or a benchmark uses it: dlopen, one session, and the
// few calls that matter, by the plainest reading of the standard. For modules that behave: no sandbox, no time limit.
#pragma once

#include <dlfcn.h>

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/check.h"
#include "tests/mock_pkcs11/cryptoki.h"

namespace sallyport::test {

using Octets = std::vector<unsigned char>;

// How a module wants Curve25519 spelled.
struct CurveSpelling {
  CK_MECHANISM_TYPE generate;
  CK_KEY_TYPE keyType;
  Octets parameters;
};
inline const CurveSpelling MONTGOMERY = {
    mock::MOCK_CKM_EC_MONTGOMERY_KEY_PAIR_GEN, mock::MOCK_CKK_EC_MONTGOMERY, {0x06, 0x03, 0x2b, 0x65, 0x6e}};
inline const CurveSpelling MONTGOMERY_NAME = {mock::MOCK_CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
                                              mock::MOCK_CKK_EC_MONTGOMERY,
                                              {0x13, 0x0a, 'c', 'u', 'r', 'v', 'e', '2', '5', '5', '1', '9'}};
inline const CurveSpelling EDWARDS_NAME = {
    CKM_EC_EDWARDS_KEY_PAIR_GEN, CKK_EC_EDWARDS, {0x13, 0x0a, 'c', 'u', 'r', 'v', 'e', '2', '5', '5', '1', '9'}};
inline const CurveSpelling WEIERSTRASS = {
    CKM_EC_KEY_PAIR_GEN, CKK_EC, {0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}};

// Keeps the attributes that a CK_ATTRIBUTE points to.
class Attributes {
 public:
  Attributes& flag(CK_ATTRIBUTE_TYPE type, bool value) {
    return bytes(type, {static_cast<unsigned char>(value ? 1 : 0)});
  }
  Attributes& number(CK_ATTRIBUTE_TYPE type, CK_ULONG value) {
    const auto* from = reinterpret_cast<const unsigned char*>(&value);
    return bytes(type, Octets(from, from + sizeof(value)));
  }
  Attributes& bytes(CK_ATTRIBUTE_TYPE type, Octets value) {
    values_.emplace_back(type, std::move(value));
    return *this;
  }
  std::span<CK_ATTRIBUTE> span() {
    attributes_.clear();
    for (auto& [type, value] : values_) attributes_.push_back({type, value.data(), value.size()});
    return attributes_;
  }

 private:
  std::vector<std::pair<CK_ATTRIBUTE_TYPE, Octets>> values_;
  std::vector<CK_ATTRIBUTE> attributes_;
};

class LoadedModule {
 public:
  explicit LoadedModule(const std::string& path) : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    CHECK(library_ != nullptr);
    const auto getList = reinterpret_cast<CK_C_GetFunctionList>(dlsym(library_, "C_GetFunctionList"));
    CHECK(getList != nullptr);
    rv_ = getList(&list_);
  }
  ~LoadedModule() {
    if (list_ != nullptr) list_->C_Finalize(nullptr);
    dlclose(library_);
  }
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;

  CK_FUNCTION_LIST& operator*() { return *list_; }
  CK_FUNCTION_LIST* operator->() { return list_; }
  CK_RV loadResult() const { return rv_; }
  bool hasList() const { return list_ != nullptr; }

  // `text`: what NSS takes its configuration from, after the flags.
  CK_RV initialize(const char* text = nullptr) {
    struct {
      void* locks[4];
      CK_FLAGS flags;
      const char* text;
      void* reserved;
    } arguments = {{}, CKF_OS_LOCKING_OK, text, nullptr};
    return list_->C_Initialize(&arguments);
  }
  // A session of the first slot whose token has this label, or of the first slot.
  CK_RV openSession(CK_SESSION_HANDLE& session, std::string_view label = "") {
    std::array<CK_SLOT_ID, 16> slots;
    CK_ULONG count = slots.size();
    CK_RV rv = list_->C_GetSlotList(1, slots.data(), &count);
    if (rv != CKR_OK) return rv;
    for (size_t i = 0; i < count; ++i) {
      CK_TOKEN_INFO info;
      if (list_->C_GetTokenInfo(slots[i], &info) != CKR_OK) continue;
      if (!std::string_view(reinterpret_cast<const char*>(info.label), sizeof(info.label)).starts_with(label)) continue;
      slot_ = slots[i];
      return list_->C_OpenSession(slot_, CKF_SERIAL_SESSION | CKF_RW_SESSION, nullptr, nullptr, &session);
    }
    return CKR_TOKEN_NOT_PRESENT;
  }
  CK_SLOT_ID slot() const { return slot_; }
  CK_RV login(CK_SESSION_HANDLE session, std::string pin) {
    return list_->C_Login(session, CKU_USER, reinterpret_cast<unsigned char*>(pin.data()), pin.size());
  }
  std::vector<CK_OBJECT_HANDLE> find(CK_SESSION_HANDLE session, Attributes wanted) {
    std::vector<CK_OBJECT_HANDLE> handles(64);
    CK_ULONG count = 0;
    if (list_->C_FindObjectsInit(session, wanted.span().data(), wanted.span().size()) == CKR_OK) {
      list_->C_FindObjects(session, handles.data(), handles.size(), &count);
      list_->C_FindObjectsFinal(session);
    }
    handles.resize(count);
    return handles;
  }
  CK_RV read(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, Octets& value) {
    value.resize(4096);
    CK_ATTRIBUTE attribute = {type, value.data(), value.size()};
    const CK_RV rv = list_->C_GetAttributeValue(session, object, &attribute, 1);
    value.resize(rv == CKR_OK && attribute.ulValueLen <= value.size() ? attribute.ulValueLen : 0);
    return rv;
  }
  CK_RV generate(CK_SESSION_HANDLE session, const CurveSpelling& spelling, Octets id, CK_OBJECT_HANDLE& publicKey,
                 CK_OBJECT_HANDLE& privateKey, bool onToken = true) {
    Attributes pub, priv;
    pub.flag(CKA_TOKEN, onToken).flag(CKA_DERIVE, true).bytes(CKA_ID, id).bytes(CKA_EC_PARAMS, spelling.parameters);
    priv.flag(CKA_TOKEN, onToken).flag(CKA_PRIVATE, true).flag(CKA_SENSITIVE, true).flag(CKA_EXTRACTABLE, false);
    priv.flag(CKA_DERIVE, true).bytes(CKA_ID, id);
    CK_MECHANISM mechanism = {spelling.generate, nullptr, 0};
    return list_->C_GenerateKeyPair(session, &mechanism, pub.span().data(), pub.span().size(), priv.span().data(),
                                    priv.span().size(), &publicKey, &privateKey);
  }
  // ECDH1, CKD_NULL; the value in `shared`, the object destroyed.
  CK_RV derive(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE privateKey, Octets peer, Octets& shared) {
    CK_ECDH1_DERIVE_PARAMS parameters = {CKD_NULL, 0, nullptr, peer.size(), peer.data()};
    CK_MECHANISM mechanism = {CKM_ECDH1_DERIVE, &parameters, sizeof(parameters)};
    Attributes wanted;
    wanted.number(CKA_CLASS, CKO_SECRET_KEY).number(CKA_KEY_TYPE, CKK_GENERIC_SECRET).flag(CKA_TOKEN, false);
    wanted.flag(CKA_SENSITIVE, false).flag(CKA_EXTRACTABLE, true).number(CKA_VALUE_LEN, 32);
    CK_OBJECT_HANDLE secret = 0;
    CK_RV rv = list_->C_DeriveKey(session, &mechanism, privateKey, wanted.span().data(), wanted.span().size(), &secret);
    if (rv != CKR_OK) return rv;
    rv = read(session, secret, CKA_VALUE, shared);
    list_->C_DestroyObject(session, secret);
    return rv;
  }

 private:
  void* library_;
  CK_FUNCTION_LIST* list_ = nullptr;
  CK_SLOT_ID slot_ = 0;
  CK_RV rv_ = CKR_OK;
};

}  // namespace sallyport::test
