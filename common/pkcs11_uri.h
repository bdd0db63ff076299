// pkcs11_uri.h - RFC 7512 as values: which token, and which object in it. Part of: common (any process). Pure.
// Strict: an unknown attribute, one that is there twice or one that we would have to ignore is an error, since a URI
// that means more than we understand could mean another token.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sallyport {

// What is given must match; padding of the token's own texts doesn't count.
struct Pkcs11Uri {
  std::optional<std::string> token;  // CK_TOKEN_INFO.label
  std::optional<std::string> manufacturer;
  std::optional<std::string> model;
  std::optional<std::string> serial;
  std::optional<std::string> object;  // CKA_LABEL
  std::optional<std::string> id;      // CKA_ID, any bytes
  std::optional<std::string> type;    // "private", "secret-key", "public", "cert", "data"

  bool namesToken() const { return token || manufacturer || model || serial; }
  bool namesObject() const { return object || id || type; }
};

struct UriProblem {
  std::string message;  // for people: "`pin-value` would put the PIN into the file"
  std::string hint;     // may be empty
};

inline constexpr size_t MAX_URI_BYTES = 1024;

Result<Pkcs11Uri, UriProblem> parsePkcs11Uri(std::string_view text);
// Canonical, with everything but unreserved characters encoded.
std::string format(const Pkcs11Uri& uri);

}  // namespace sallyport
