// problem.h - an error for people: what is wrong, naming the file, and what to do about it. Part of: vaultd's key
// library.
#pragma once

#include <string>

namespace sallyport::vaultd {

// Both in lower case, without a full stop; `hint` may be empty. Printed as `sallyport: error: MESSAGE` and
// `sallyport: hint: HINT`. Never holds a secret.
struct Problem {
  std::string message;
  std::string hint;
};

}  // namespace sallyport::vaultd
