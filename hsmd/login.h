// login.h - when a PIN may be tried, and what is made of the answer. Part of: hsmd (worker and probe).
// What must never happen here: a PIN that was refused tried a second time, a last try spent without an operator's word.
#pragma once

#include "hsmd/module.h"
#include "hsmd/pin_page.h"

namespace sallyport::hsmd {

enum class LoginMode : uint8_t {
  Automatic,  // at a start, or when sessions were lost: with a PIN that was right before, or its source's first try
  Operator,   // a person has just given it
  Forced,     // and said that it may be the last try
};

// Why no PIN may be tried on a token with these flags; Ok if it may. Pure.
Status mayTry(CK_FLAGS flags, PinState state, LoginMode mode);

// Reads the token's flags, then logs `session` in, which holds for all sessions of the process. Ok also if the token
// needs no login, or is logged in. The record keeps what is known afterwards; a PIN that is no longer wanted is wiped.
Outcome<void> logIn(const Module& module, CK_SLOT_ID slot, CK_SESSION_HANDLE session, PinRecord& pin, LoginMode mode);

}  // namespace sallyport::hsmd
