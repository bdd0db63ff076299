// login.cc - see login.h. Part of: hsmd (worker and probe).
#include "hsmd/login.h"

#include "hsmd/last_call.h"

namespace sallyport::hsmd {

Status mayTry(CK_FLAGS flags, PinState state, LoginMode mode) {
  if ((flags & CKF_USER_PIN_INITIALIZED) == 0) return Status::PinUnset;
  if ((flags & CKF_USER_PIN_LOCKED) != 0) return Status::PinLocked;
  if ((flags & CKF_USER_PIN_FINAL_TRY) != 0 && mode != LoginMode::Forced) return Status::PinFinalTryRefused;
  switch (state) {
    case PinState::Wrong: return Status::PinWrong;
    case PinState::Locked: return Status::PinLocked;
    case PinState::Missing:
    case PinState::Trying: return Status::NotLoggedIn;
    case PinState::Untried:
      // Somebody's tries have failed already; ours, from a file, would be one more.
      if ((flags & CKF_USER_PIN_COUNT_LOW) != 0 && mode == LoginMode::Automatic) return Status::PinLowRefused;
      return Status::Ok;
    case PinState::Good: return Status::Ok;  // this very token took it: others' mistakes don't lock us out
  }
  return Status::NotLoggedIn;
}

Outcome<void> logIn(const Module& module, CK_SLOT_ID slot, CK_SESSION_HANDLE session, PinRecord& pin, LoginMode mode) {
  const auto facts = tokenFacts(module, slot);
  if (!facts) return refuse(facts.error());
  if ((facts->flags & CKF_LOGIN_REQUIRED) == 0) return {};
  if (const Status status = mayTry(facts->flags, pin.state, mode); status != Status::Ok) return failed(status);

  const bool wasGood = pin.state == PinState::Good;
  if (!wasGood) pin.state = PinState::Trying;  // before the call: it may not come back
  const ByteSpan bytes = pin.pin();
  noteCall("C_Login");
  const CK_RV rv = module->C_Login(session, CKU_USER, const_cast<unsigned char*>(uchars(bytes)), bytes.size());
  const auto forget = [&](PinState next) {
    pin.forget(next);
    pin.explain("C_Login answered " + hsm::ckrName(static_cast<uint32_t>(rv)));
  };
  switch (rv) {
    case CKR_OK: pin.state = PinState::Good; return {};
    case CKR_USER_ALREADY_LOGGED_IN:
      // The PIN was not looked at.
      if (!wasGood) pin.state = PinState::Untried;
      return {};
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
    case CKR_PIN_EXPIRED: forget(PinState::Wrong); return failed(Status::PinWrong, rv);
    case CKR_PIN_LOCKED: forget(PinState::Locked); return failed(Status::PinLocked, rv);
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
    case CKR_SESSION_CLOSED:
    case CKR_SESSION_HANDLE_INVALID:
      // It never came to the token.
      if (!wasGood) pin.state = PinState::Untried;
      return failed(rv);
    default:
      // Whether that cost a try isn't known, so a PIN that was never right isn't tried again.
      if (!wasGood) forget(PinState::Missing);
      return failed(statusOf(rv) == Status::Ok ? Status::ModuleFailed : statusOf(rv), rv);
  }
}

}  // namespace sallyport::hsmd
