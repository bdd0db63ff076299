// fake_module.h - a PKCS#11 function list of the test's own: one slot, one token, X25519 keys by libsodium in the
// standard's Montgomery spelling, and whatever answer a test wants. Part of: tests. (The module for system tests, which
// is loaded by dlopen, is in tests/mock_pkcs11.)
#pragma once

#include <sodium.h>

#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "hsmd/module.h"
#include "hsmd/spelling.h"

namespace sallyport::hsmd {

struct FakeToken {
  CK_FLAGS flags = CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED;
  std::string label = "fake";
  std::string serial = "0001";
  std::string pin = "1234";
  CK_ULONG maxSessions = 0;
  size_t sessionLimit = 1000;  // what it really gives
  bool present = true;

  struct Key {
    std::array<unsigned char, 32> secret{};
    std::string id;
    CK_KEY_TYPE type = KEY_EC_MONTGOMERY;
    std::string parameters = std::string(rowOf(hsm::Spelling::Montgomery).parameters);
    bool sensitive = true;
  };
  std::map<CK_OBJECT_HANDLE, Key> keys;
  std::map<CK_OBJECT_HANDLE, std::array<unsigned char, 32>> derived;

  // What the next calls of a function answer instead; the last one stays if `sticky`.
  std::map<std::string, std::vector<CK_RV>> answers;
  std::map<std::string, int> calls;
  std::string pinSeen;
  CK_FLAGS flagsAtLogin = 0;
  bool loggedIn = false;
  std::set<CK_SESSION_HANDLE> sessions;
  CK_SESSION_HANDLE nextSession = 1;
  CK_OBJECT_HANDLE nextObject = 1000;
  CK_ULONG derivedLength = 32;  // of CKA_VALUE, as answered
  bool derivesZero = false;
  bool flipsResults = false;
  std::vector<CK_OBJECT_HANDLE> searching;

  CK_RV next(const std::string& function) {
    ++calls[function];
    auto& waiting = answers[function];
    if (waiting.empty()) return CKR_OK;
    const CK_RV rv = waiting.front();
    waiting.erase(waiting.begin());
    return rv;
  }
  void addKey(CK_OBJECT_HANDLE handle, const std::string& id) {
    Key key;
    key.id = id;
    randombytes_buf(key.secret.data(), key.secret.size());
    keys[handle] = key;
  }
  // The same keys under other numbers: what a login anew does to SoftHSM.
  void renumber(CK_OBJECT_HANDLE by) {
    std::map<CK_OBJECT_HANDLE, Key> moved;
    for (const auto& [handle, key] : keys) moved[handle + by] = key;
    keys = std::move(moved);
  }
};

inline FakeToken& fake() {
  static FakeToken token;
  return token;
}

namespace fakes {

inline CK_RV session(CK_SESSION_HANDLE handle) {
  return fake().sessions.contains(handle) ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

inline CK_RV initialise(void*) { return fake().next("C_Initialize"); }

inline CK_RV getSlotList(unsigned char, CK_SLOT_ID* slots, CK_ULONG* count) {
  if (const CK_RV rv = fake().next("C_GetSlotList"); rv != CKR_OK) return rv;
  *count = fake().present ? 1 : 0;
  if (fake().present) slots[0] = 7;
  return CKR_OK;
}

template <size_t N>
void pad(unsigned char (&field)[N], const std::string& text) {
  std::memset(field, ' ', N);
  std::memcpy(field, text.data(), std::min(N, text.size()));
}

inline CK_RV getTokenInfo(CK_SLOT_ID, CK_TOKEN_INFO* info) {
  if (const CK_RV rv = fake().next("C_GetTokenInfo"); rv != CKR_OK) return rv;
  if (!fake().present) return CKR_TOKEN_NOT_PRESENT;
  pad(info->label, fake().label);
  pad(info->serialNumber, fake().serial);
  pad(info->manufacturerID, "tests");
  pad(info->model, "fake");
  info->flags = fake().flags;
  info->ulMaxSessionCount = fake().maxSessions;
  return CKR_OK;
}

inline CK_RV getMechanismInfo(CK_SLOT_ID, CK_MECHANISM_TYPE, CK_MECHANISM_INFO* info) {
  info->flags = ~CK_FLAGS{0};
  return CKR_OK;
}

inline CK_RV openSession(CK_SLOT_ID, CK_FLAGS, void*, CK_NOTIFY, CK_SESSION_HANDLE* handle) {
  if (const CK_RV rv = fake().next("C_OpenSession"); rv != CKR_OK) return rv;
  if (fake().sessions.size() >= fake().sessionLimit) return CKR_SESSION_COUNT;
  *handle = fake().nextSession++;
  fake().sessions.insert(*handle);
  return CKR_OK;
}

inline CK_RV closeSession(CK_SESSION_HANDLE handle) {
  fake().next("C_CloseSession");
  if (fake().sessions.erase(handle) == 0) return CKR_SESSION_HANDLE_INVALID;
  if (fake().sessions.empty()) fake().loggedIn = false;
  return CKR_OK;
}

inline CK_RV closeAllSessions(CK_SLOT_ID) {
  fake().next("C_CloseAllSessions");
  fake().sessions.clear();
  fake().loggedIn = false;
  return CKR_OK;
}

inline CK_RV login(CK_SESSION_HANDLE handle, CK_USER_TYPE, unsigned char* pin, CK_ULONG length) {
  fake().pinSeen.assign(reinterpret_cast<char*>(pin), length);
  fake().flagsAtLogin = fake().flags;
  if (const CK_RV rv = fake().next("C_Login"); rv != CKR_OK) return rv;
  if (const CK_RV rv = session(handle); rv != CKR_OK) return rv;
  if (fake().loggedIn) return CKR_USER_ALREADY_LOGGED_IN;
  if (fake().pinSeen != fake().pin) {
    fake().flags |= CKF_USER_PIN_COUNT_LOW;
    return CKR_PIN_INCORRECT;
  }
  fake().loggedIn = true;
  return CKR_OK;
}

inline CK_RV logout(CK_SESSION_HANDLE) {
  fake().next("C_Logout");
  fake().loggedIn = false;
  return CKR_OK;
}

inline CK_RV findObjectsInit(CK_SESSION_HANDLE handle, CK_ATTRIBUTE* filter, CK_ULONG count) {
  if (const CK_RV rv = fake().next("C_FindObjectsInit"); rv != CKR_OK) return rv;
  if (const CK_RV rv = session(handle); rv != CKR_OK) return rv;
  fake().searching.clear();
  for (CK_ULONG i = 0; i < count; ++i) {
    if (filter[i].type != CKA_CLASS) continue;
    if (*static_cast<CK_ULONG*>(filter[i].pValue) != CKO_PRIVATE_KEY || !fake().loggedIn) return CKR_OK;
  }
  for (const auto& [object, key] : fake().keys) fake().searching.push_back(object);
  return CKR_OK;
}

inline CK_RV findObjects(CK_SESSION_HANDLE, CK_OBJECT_HANDLE* objects, CK_ULONG most, CK_ULONG* count) {
  if (const CK_RV rv = fake().next("C_FindObjects"); rv != CKR_OK) return rv;
  *count = std::min<CK_ULONG>(most, fake().searching.size());
  for (CK_ULONG i = 0; i < *count; ++i) objects[i] = fake().searching[i];
  fake().searching.erase(fake().searching.begin(), fake().searching.begin() + static_cast<long>(*count));
  return CKR_OK;
}

inline CK_RV findObjectsFinal(CK_SESSION_HANDLE) { return fake().next("C_FindObjectsFinal"); }

inline CK_RV give(CK_ATTRIBUTE& wanted, const void* value, CK_ULONG length) {
  if (wanted.ulValueLen < length) {
    wanted.ulValueLen = CK_UNAVAILABLE_INFORMATION;
    return CKR_BUFFER_TOO_SMALL;
  }
  std::memcpy(wanted.pValue, value, length);
  wanted.ulValueLen = length;
  return CKR_OK;
}

inline CK_RV getAttributeValue(CK_SESSION_HANDLE handle, CK_OBJECT_HANDLE object, CK_ATTRIBUTE* wanted, CK_ULONG) {
  if (const CK_RV rv = fake().next("C_GetAttributeValue"); rv != CKR_OK) return rv;
  if (const CK_RV rv = session(handle); rv != CKR_OK) return rv;
  if (const auto found = fake().derived.find(object); found != fake().derived.end()) {
    const CK_RV rv = give(*wanted, found->second.data(), 32);
    wanted->ulValueLen = fake().derivedLength;
    return rv;
  }
  const auto found = fake().keys.find(object);
  if (found == fake().keys.end()) return CKR_OBJECT_HANDLE_INVALID;
  const FakeToken::Key& key = found->second;
  const auto flag = [&](bool value) {
    const CK_BBOOL byte = value ? 1 : 0;
    return give(*wanted, &byte, 1);
  };
  switch (wanted->type) {
    case CKA_KEY_TYPE: return give(*wanted, &key.type, sizeof key.type);
    case CKA_ID: return give(*wanted, key.id.data(), key.id.size());
    case CKA_LABEL: return give(*wanted, key.id.data(), key.id.size());
    case CKA_EC_PARAMS: return give(*wanted, key.parameters.data(), key.parameters.size());
    case CKA_SENSITIVE: return flag(key.sensitive);
    case CKA_EXTRACTABLE: return flag(!key.sensitive);
    default: wanted->ulValueLen = CK_UNAVAILABLE_INFORMATION; return CKR_ATTRIBUTE_TYPE_INVALID;
  }
}

inline CK_RV deriveKey(CK_SESSION_HANDLE handle, CK_MECHANISM* mechanism, CK_OBJECT_HANDLE base, CK_ATTRIBUTE*,
                       CK_ULONG, CK_OBJECT_HANDLE* result) {
  if (const CK_RV rv = fake().next("C_DeriveKey"); rv != CKR_OK) return rv;
  if (const CK_RV rv = session(handle); rv != CKR_OK) return rv;
  const auto key = fake().keys.find(base);
  if (key == fake().keys.end()) return CKR_OBJECT_HANDLE_INVALID;
  const auto* parameters = static_cast<CK_ECDH1_DERIVE_PARAMS*>(mechanism->pParameter);
  if (parameters->public_data_len != 32) return CKR_MECHANISM_PARAM_INVALID;
  std::array<unsigned char, 32> secret{};
  if (crypto_scalarmult(secret.data(), key->second.secret.data(), parameters->public_data) != 0)
    return CKR_GENERAL_ERROR;
  if (fake().derivesZero) secret = {};
  if (fake().flipsResults) secret[5] ^= 1;
  *result = fake().nextObject++;
  fake().derived[*result] = secret;
  return CKR_OK;
}

inline CK_RV destroyObject(CK_SESSION_HANDLE, CK_OBJECT_HANDLE object) {
  if (const CK_RV rv = fake().next("C_DestroyObject"); rv != CKR_OK) return rv;
  fake().derived.erase(object);
  return CKR_OK;
}

}  // namespace fakes

// A fresh token behind a function list.
inline Module freshModule() {
  static CK_FUNCTION_LIST functions = [] {
    CK_FUNCTION_LIST list{};
    list.C_Initialize = fakes::initialise;
    list.C_GetSlotList = fakes::getSlotList;
    list.C_GetTokenInfo = fakes::getTokenInfo;
    list.C_GetMechanismInfo = fakes::getMechanismInfo;
    list.C_OpenSession = fakes::openSession;
    list.C_CloseSession = fakes::closeSession;
    list.C_CloseAllSessions = fakes::closeAllSessions;
    list.C_Login = fakes::login;
    list.C_Logout = fakes::logout;
    list.C_FindObjectsInit = fakes::findObjectsInit;
    list.C_FindObjects = fakes::findObjects;
    list.C_FindObjectsFinal = fakes::findObjectsFinal;
    list.C_GetAttributeValue = fakes::getAttributeValue;
    list.C_DeriveKey = fakes::deriveKey;
    list.C_DestroyObject = fakes::destroyObject;
    return list;
  }();
  fake() = FakeToken{};
  return Module(&functions);
}

}  // namespace sallyport::hsmd
