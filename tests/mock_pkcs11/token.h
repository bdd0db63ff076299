// token.h - the mock token behind the C functions: sessions, login, objects and the rules of PKCS#11 that a caller can
// trip over. Strict where the standard is: what a real module may refuse, this one refuses.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "tests/mock_pkcs11/cryptoki.h"
#include "tests/mock_pkcs11/faults.h"
#include "tests/mock_pkcs11/store.h"

namespace sallyport::mock {

inline constexpr CK_SLOT_ID SLOT = 7;  // not 0: nobody may count on slot numbers

using Template = std::span<const CK_ATTRIBUTE>;

enum class Use : uint8_t { Encrypt, Decrypt, Sign, Verify };

// A mechanism with its parameters, copied: the caller's memory is his again after *Init.
struct Operation {
  CK_MECHANISM_TYPE mechanism = 0;
  uint64_t key = 0;
  Bytes iv, aad;  // of GCM
  size_t tagBytes = 0;
  bool sha256 = false;  // of OAEP
};

struct Session {
  bool readWrite = false;
  std::optional<std::vector<CK_OBJECT_HANDLE>> found;
  std::map<Use, Operation> operations;
};

// All of it under the module's lock.
class Token {
 public:
  explicit Token(Store& store) : store_(store) {}

  // --- sessions and login
  CK_RV openSession(CK_FLAGS flags, const Traits& traits, CK_SESSION_HANDLE& handle);
  CK_RV closeSession(CK_SESSION_HANDLE handle);
  void closeAll();  // logs out too, as the standard wants
  CK_RV login(CK_USER_TYPE user, std::string_view pin);
  CK_RV logout();
  CK_FLAGS pinFlags() const;
  bool loggedIn() const { return loggedIn_; }
  size_t sessionCount() const { return sessions_.size(); }
  Session* session(CK_SESSION_HANDLE handle);

  // --- objects
  CK_RV create(CK_SESSION_HANDLE session, Object object, CK_OBJECT_HANDLE& handle);
  CK_RV copy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE source, Template changes, CK_OBJECT_HANDLE& handle);
  CK_RV destroy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle);
  CK_RV find(Session& session, Template wanted);
  CK_RV readAttributes(CK_OBJECT_HANDLE handle, std::span<CK_ATTRIBUTE> attributes, const Plan& plan) const;
  CK_RV setAttributes(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, Template changes);
  // What a handle stands for, if the caller may see it.
  const Object* object(CK_OBJECT_HANDLE handle) const;
  const Object* objectById(uint64_t id) const;
  uint64_t idOf(CK_OBJECT_HANDLE handle) const { return handle >> 8; }

  // --- keys
  CK_RV generateKey(CK_SESSION_HANDLE session, const CK_MECHANISM& mechanism, Template wanted, CK_OBJECT_HANDLE& key);
  CK_RV generatePair(CK_SESSION_HANDLE session, const CK_MECHANISM& mechanism, Template publicPart,
                     Template privatePart, const Traits& traits, CK_OBJECT_HANDLE& publicKey,
                     CK_OBJECT_HANDLE& privateKey);
  CK_RV derive(CK_SESSION_HANDLE session, const CK_MECHANISM& mechanism, CK_OBJECT_HANDLE base, Template wanted,
               const Traits& traits, const Plan& plan, CK_OBJECT_HANDLE& key);

 private:
  CK_OBJECT_HANDLE handleOf(uint64_t id) const { return id << 8 | (generation_ & 0xff); }
  bool visible(const Object& object) const { return loggedIn_ || !object.flag(CKA_PRIVATE); }
  CK_RV mayWrite(CK_SESSION_HANDLE session, bool onToken, bool isPrivate);

  Store& store_;
  std::map<CK_SESSION_HANDLE, Session> sessions_;
  CK_SESSION_HANDLE nextSession_ = 1;
  uint64_t generation_ = 1;  // handles don't live through a logout
  bool loggedIn_ = false;
};

Object fromTemplate(Template attributes);
// The mechanisms of this token, less what `traits` takes away.
std::vector<CK_MECHANISM_TYPE> mechanisms(const Traits& traits);
std::optional<CK_MECHANISM_INFO> mechanismInfo(CK_MECHANISM_TYPE type, const Traits& traits);
bool offers(CK_MECHANISM_TYPE type, const Traits& traits);
// Bends a result as the plan says.
void distort(Bytes& result, const Plan& plan);

// --- operations.cc
CK_RV beginOperation(Token& token, Session& session, Use use, const CK_MECHANISM& mechanism, CK_OBJECT_HANDLE key,
                     const Traits& traits);
// Nothing in `result` and CKR_OK: a signature that fits.
CK_RV runOperation(const Token& token, const Operation& operation, Use use, std::span<const unsigned char> input,
                   std::span<const unsigned char> signature, Bytes& result);

}  // namespace sallyport::mock
