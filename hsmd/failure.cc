// failure.cc - see failure.h. Part of: hsmd (worker).
#include "hsmd/failure.h"

#include "hsmd/last_call.h"

namespace sallyport::hsmd {

Status statusOf(CK_RV rv) {
  switch (rv) {
    case CKR_OK: return Status::Ok;
    case CKR_DEVICE_ERROR:
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED: return Status::DeviceRemoved;
    case CKR_SESSION_COUNT: return Status::SessionLimit;
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
    case CKR_PIN_EXPIRED: return Status::PinWrong;
    case CKR_PIN_LOCKED: return Status::PinLocked;
    case CKR_USER_PIN_NOT_INITIALIZED: return Status::PinUnset;
    case CKR_USER_NOT_LOGGED_IN: return Status::NotLoggedIn;
    case CKR_TOKEN_WRITE_PROTECTED:
    case CKR_SESSION_READ_ONLY: return Status::ReadOnly;
    case CKR_MECHANISM_INVALID:
    case CKR_MECHANISM_PARAM_INVALID:
    case CKR_FUNCTION_NOT_SUPPORTED:
    case CKR_KEY_FUNCTION_NOT_PERMITTED:
    case CKR_KEY_TYPE_INCONSISTENT:
    case CKR_TEMPLATE_INCONSISTENT:
    case CKR_TEMPLATE_INCOMPLETE:
    case CKR_ATTRIBUTE_TYPE_INVALID:
    case CKR_ATTRIBUTE_VALUE_INVALID:
    case CKR_DOMAIN_PARAMS_INVALID: return Status::Unsupported;
    default: return Status::ModuleFailed;
  }
}

std::string detailOf(const Failure& failure) {
  if (!failure.text.empty() || failure.rv == CKR_OK) return failure.text;
  const std::string function = lastCall();
  return (function.empty() ? "it" : function) + " answered " + hsm::ckrName(static_cast<uint32_t>(failure.rv));
}

bool needsRecovery(CK_RV rv) {
  switch (rv) {
    case CKR_OBJECT_HANDLE_INVALID:
    case CKR_KEY_HANDLE_INVALID:
    case CKR_SESSION_HANDLE_INVALID:
    case CKR_SESSION_CLOSED:
    case CKR_USER_NOT_LOGGED_IN:
    case CKR_DEVICE_ERROR:
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED: return true;
    default: return false;
  }
}

}  // namespace sallyport::hsmd
