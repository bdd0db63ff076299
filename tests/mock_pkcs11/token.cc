#include "tests/mock_pkcs11/token.h"

#include <algorithm>
#include <cstring>

namespace sallyport::mock {

// --- sessions and login ----------------------------------------------------------------------------------------------

CK_RV Token::openSession(CK_FLAGS flags, const Traits& traits, CK_SESSION_HANDLE& handle) {
  if ((flags & CKF_SERIAL_SESSION) == 0) return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
  if (traits.maxSessions != 0 && sessions_.size() >= traits.maxSessions) return CKR_SESSION_COUNT;
  handle = nextSession_++;
  sessions_[handle].readWrite = (flags & CKF_RW_SESSION) != 0;
  return CKR_OK;
}

CK_RV Token::closeSession(CK_SESSION_HANDLE handle) {
  if (sessions_.erase(handle) == 0) return CKR_SESSION_HANDLE_INVALID;
  store_.removeSessionObjects(handle);
  if (sessions_.empty()) closeAll();
  return CKR_OK;
}

void Token::closeAll() {
  sessions_.clear();
  store_.removeSessionObjects(0);
  if (loggedIn_) logout();
}

CK_FLAGS Token::pinFlags() const {
  const TokenState& state = store_.state();
  if (state.pinTries == 0) return CKF_USER_PIN_LOCKED;
  if (state.pinTries >= state.pinLimit) return 0;
  return CKF_USER_PIN_COUNT_LOW | (state.pinTries == 1 ? CKF_USER_PIN_FINAL_TRY : 0);
}

CK_RV Token::login(CK_USER_TYPE user, std::string_view pin) {
  if (user != CKU_USER) return CKR_USER_TYPE_INVALID;
  if (loggedIn_) return CKR_USER_ALREADY_LOGGED_IN;
  CK_RV rv = CKR_GENERAL_ERROR;
  const bool written = store_.change([&](TokenState& state) {
    if (state.pinTries == 0) {
      rv = CKR_PIN_LOCKED;
    } else if (pin != state.pin) {
      --state.pinTries;
      rv = CKR_PIN_INCORRECT;
    } else {
      state.pinTries = state.pinLimit;
      rv = CKR_OK;
    }
  });
  if (!written) return CKR_DEVICE_ERROR;
  loggedIn_ = rv == CKR_OK;
  return rv;
}

CK_RV Token::logout() {
  if (!loggedIn_) return CKR_USER_NOT_LOGGED_IN;
  loggedIn_ = false;
  ++generation_;
  for (auto& [handle, session] : sessions_) session.operations.clear();
  return CKR_OK;
}

Session* Token::session(CK_SESSION_HANDLE handle) {
  const auto found = sessions_.find(handle);
  return found == sessions_.end() ? nullptr : &found->second;
}

// --- objects ---------------------------------------------------------------------------------------------------------

Object fromTemplate(Template attributes) {
  Object object;
  for (const CK_ATTRIBUTE& attribute : attributes) {
    const auto* bytes = static_cast<const unsigned char*>(attribute.pValue);
    object.set(attribute.type, bytes == nullptr ? Bytes{} : Bytes(bytes, bytes + attribute.ulValueLen));
  }
  return object;
}

const Object* Token::objectById(uint64_t id) const {
  const auto found = store_.state().objects.find(id);
  return found == store_.state().objects.end() || !visible(found->second) ? nullptr : &found->second;
}

const Object* Token::object(CK_OBJECT_HANDLE handle) const {
  if ((handle & 0xff) != (generation_ & 0xff)) return nullptr;
  return objectById(idOf(handle));
}

CK_RV Token::mayWrite(CK_SESSION_HANDLE handle, bool onToken, bool isPrivate) {
  const Session* from = session(handle);
  if (from == nullptr) return CKR_SESSION_HANDLE_INVALID;
  if (isPrivate && !loggedIn_) return CKR_USER_NOT_LOGGED_IN;
  return onToken && !from->readWrite ? CKR_SESSION_READ_ONLY : CKR_OK;
}

CK_RV Token::create(CK_SESSION_HANDLE session, Object object, CK_OBJECT_HANDLE& handle) {
  const CK_ULONG objectClass = object.number(CKA_CLASS);
  if (objectClass == MOCK_UNAVAILABLE) return CKR_TEMPLATE_INCOMPLETE;
  const bool secret = objectClass == CKO_PRIVATE_KEY || objectClass == CKO_SECRET_KEY;
  object.setDefaultFlag(CKA_PRIVATE, secret);
  object.setDefaultFlag(CKA_TOKEN, false);
  if (secret) {
    object.setDefaultFlag(CKA_SENSITIVE, true);
    object.setDefaultFlag(CKA_EXTRACTABLE, false);
  }
  const bool onToken = object.flag(CKA_TOKEN);
  if (const CK_RV rv = mayWrite(session, onToken, object.flag(CKA_PRIVATE)); rv != CKR_OK) return rv;
  if (!onToken) {
    object.session = session;
    handle = handleOf(store_.addSessionObject(std::move(object)));
    return CKR_OK;
  }
  uint64_t id = 0;
  const bool written = store_.change([&](TokenState& state) {
    id = state.nextId++;
    state.objects[id] = std::move(object);
  });
  if (!written) return CKR_TOKEN_WRITE_PROTECTED;
  handle = handleOf(id);
  return CKR_OK;
}

CK_RV Token::copy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE source, Template changes, CK_OBJECT_HANDLE& handle) {
  const Object* original = object(source);
  if (original == nullptr) return CKR_OBJECT_HANDLE_INVALID;
  Object made = *original;
  for (const auto& [type, value] : fromTemplate(changes).attributes) {
    const bool on = value.size() == 1 && value.front() != 0;
    if (type == CKA_SENSITIVE && !on && original->flag(CKA_SENSITIVE)) return CKR_ATTRIBUTE_READ_ONLY;
    if (type == CKA_EXTRACTABLE && on && !original->flag(CKA_EXTRACTABLE)) return CKR_ATTRIBUTE_READ_ONLY;
    made.set(type, value);
  }
  return create(session, std::move(made), handle);
}

CK_RV Token::destroy(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle) {
  const Object* gone = object(handle);
  if (gone == nullptr) return CKR_OBJECT_HANDLE_INVALID;
  if (const CK_RV rv = mayWrite(session, gone->session == 0, gone->flag(CKA_PRIVATE)); rv != CKR_OK) return rv;
  if (gone->session != 0) {
    store_.removeSessionObject(idOf(handle));
    return CKR_OK;
  }
  const bool written = store_.change([&](TokenState& state) { state.objects.erase(idOf(handle)); });
  return written ? CKR_OK : CKR_TOKEN_WRITE_PROTECTED;
}

CK_RV Token::find(Session& session, Template wanted) {
  if (session.found) return CKR_OPERATION_ACTIVE;
  store_.reload();
  const Object pattern = fromTemplate(wanted);
  session.found.emplace();
  for (const auto& [id, object] : store_.state().objects) {
    const bool fits =
        std::all_of(pattern.attributes.begin(), pattern.attributes.end(), [&o = object](const auto& each) {
          const Bytes* bytes = o.find(each.first);
          return bytes != nullptr && *bytes == each.second;
        });
    if (fits && visible(object)) session.found->push_back(handleOf(id));
  }
  return CKR_OK;
}

CK_RV Token::readAttributes(CK_OBJECT_HANDLE handle, std::span<CK_ATTRIBUTE> attributes, const Plan& plan) const {
  const Object* from = object(handle);
  if (from == nullptr) return CKR_OBJECT_HANDLE_INVALID;
  const bool closed =
      from->number(CKA_CLASS) != CKO_PUBLIC_KEY && (from->flag(CKA_SENSITIVE) || !from->flag(CKA_EXTRACTABLE));
  CK_RV rv = CKR_OK;
  for (CK_ATTRIBUTE& attribute : attributes) {
    const Bytes* bytes = from->find(attribute.type);
    if (attribute.type == HIDDEN_RSA || bytes == nullptr) {
      attribute.ulValueLen = MOCK_UNAVAILABLE;
      rv = CKR_ATTRIBUTE_TYPE_INVALID;
    } else if (attribute.type == CKA_VALUE && closed) {
      attribute.ulValueLen = MOCK_UNAVAILABLE;
      rv = CKR_ATTRIBUTE_SENSITIVE;
    } else if (attribute.pValue == nullptr) {
      attribute.ulValueLen = plan.length.value_or(bytes->size());
    } else if (attribute.ulValueLen < bytes->size()) {
      attribute.ulValueLen = MOCK_UNAVAILABLE;
      rv = CKR_BUFFER_TOO_SMALL;
    } else {
      Bytes value = *bytes;
      if (plan.wrong || plan.zero) distort(value, plan);
      memcpy(attribute.pValue, value.data(), value.size());
      attribute.ulValueLen = plan.length.value_or(value.size());
    }
  }
  return rv;
}

CK_RV Token::setAttributes(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE handle, Template changes) {
  const Object* changed = object(handle);
  if (changed == nullptr) return CKR_OBJECT_HANDLE_INVALID;
  if (const CK_RV rv = mayWrite(session, changed->session == 0, changed->flag(CKA_PRIVATE)); rv != CKR_OK) return rv;
  const Object values = fromTemplate(changes);
  for (const auto& [type, value] : values.attributes) {
    if (type != CKA_LABEL && type != CKA_ID) return CKR_ATTRIBUTE_READ_ONLY;
  }
  const bool written = store_.change([&](TokenState& state) {
    for (const auto& [type, value] : values.attributes) state.objects[idOf(handle)].set(type, value);
  });
  return written ? CKR_OK : CKR_TOKEN_WRITE_PROTECTED;
}

}  // namespace sallyport::mock
