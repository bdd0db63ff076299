// failure.h - what a module answered, as a status of proto/hsm and the CKR_* behind it. Part of: hsmd (worker).
#pragma once

#include <string>

#include "common/result.h"
#include "hsmd/pkcs11.h"
#include "proto/hsm/frames.h"

namespace sallyport::hsmd {

using hsm::Status;

struct Failure {
  Status status = Status::ModuleFailed;
  CK_RV rv = CKR_OK;      // CKR_OK: not the module's
  std::string text = {};  // of what can't be said by a code
};

template <typename T>
using Outcome = Result<T, Failure>;

inline Unexpected<Failure> failed(Status status, CK_RV rv = CKR_OK) { return {Failure{status, rv}}; }
// The status that a code stands for by itself.
Status statusOf(CK_RV rv);
inline Unexpected<Failure> failed(CK_RV rv) { return {Failure{statusOf(rv), rv}}; }

// What a person is told beyond the status: the text, or which function answered what. Of the last call that was noted.
std::string detailOf(const Failure& failure);

// The token, its sessions or our handles are not what they were: all of it has to be looked up anew, once.
bool needsRecovery(CK_RV rv);

}  // namespace sallyport::hsmd
