// store.h - what the mock token keeps: objects, PIN and its counter, in one text file `token` of its folder, so that it
// survives restarts and a person can read it. A mock: its secrets lie there in clear.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/mock_pkcs11/cryptoki.h"

namespace sallyport::mock {

using Bytes = std::vector<unsigned char>;

// Not an attribute of the standard: an RSA key as DER, which no caller sees.
inline constexpr CK_ATTRIBUTE_TYPE HIDDEN_RSA = 0x80005341;

struct Object {
  CK_SESSION_HANDLE session = 0;  // 0: on the token
  std::map<CK_ATTRIBUTE_TYPE, Bytes> attributes;

  const Bytes* find(CK_ATTRIBUTE_TYPE type) const;
  CK_ULONG number(CK_ATTRIBUTE_TYPE type, CK_ULONG otherwise = MOCK_UNAVAILABLE) const;
  bool flag(CK_ATTRIBUTE_TYPE type) const;
  void set(CK_ATTRIBUTE_TYPE type, Bytes value) { attributes[type] = std::move(value); }
  void setNumber(CK_ATTRIBUTE_TYPE type, CK_ULONG value);
  void setFlag(CK_ATTRIBUTE_TYPE type, bool value) { attributes[type] = Bytes(1, value ? 1 : 0); }
  void setDefaultFlag(CK_ATTRIBUTE_TYPE type, bool value);
};

struct TokenState {
  std::string label = "mock", serial = "0000000000000001", pin = "1234";
  unsigned pinTries = 3, pinLimit = 3;  // left, and at most
  uint64_t nextId = 1;
  std::map<uint64_t, Object> objects;
};

class Store {
 public:
  Store() = default;
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  // False if the file isn't there or isn't one: there is no token then.
  bool open(const std::string& folder);
  bool isOpen() const { return fd_ >= 0; }
  const TokenState& state() const { return state_; }
  // What another process may have written since.
  void reload();
  // Reads, changes and writes while no other process does. False if it can't be written.
  bool change(const std::function<void(TokenState&)>& how);
  // Objects of sessions: in memory only, in an id range of their own.
  uint64_t addSessionObject(Object object);
  void removeSessionObjects(CK_SESSION_HANDLE session);  // 0: of all sessions
  void removeSessionObject(uint64_t id) { state_.objects.erase(id); }

 private:
  bool read();

  int fd_ = -1;
  uint64_t nextSessionObject_ = uint64_t{1} << 40;
  TokenState state_;
};

}  // namespace sallyport::mock
