// pkcs11_uri.cc - see pkcs11_uri.h. Part of: common.
#include "common/pkcs11_uri.h"

#include <algorithm>
#include <array>

namespace sallyport {

namespace {

constexpr std::string_view SCHEME = "pkcs11:";

struct Attribute {
  std::string_view name;
  std::optional<std::string> Pkcs11Uri::*field;
};
constexpr std::array<Attribute, 7> ATTRIBUTES{{{"token", &Pkcs11Uri::token},
                                               {"manufacturer", &Pkcs11Uri::manufacturer},
                                               {"model", &Pkcs11Uri::model},
                                               {"serial", &Pkcs11Uri::serial},
                                               {"object", &Pkcs11Uri::object},
                                               {"id", &Pkcs11Uri::id},
                                               {"type", &Pkcs11Uri::type}}};

struct Forbidden {
  std::string_view name;
  std::string_view problem;
  std::string_view hint;
};
constexpr std::array<Forbidden, 7> FORBIDDEN{{
    {"pin-value", "would put the PIN into the file", "pin = \"credential:NAME\", \"file:PATH\", \"fd:N\" or \"ask\""},
    {"pin-source", "is not read", "pin = \"credential:NAME\", \"file:PATH\", \"fd:N\" or \"ask\""},
    {"module-path", "is not read", "module = \"/usr/lib/...\""},
    {"module-name", "is not read", "module = \"/usr/lib/...\""},
    {"slot-id", "names a slot, and slots are numbered anew", "token=LABEL or serial=NUMBER"},
    {"slot-description", "names a slot, not a token", "token=LABEL or serial=NUMBER"},
    {"slot-manufacturer", "names a slot, not a token", "token=LABEL or serial=NUMBER"},
}};

constexpr std::array<std::string_view, 5> TYPES{"private", "secret-key", "public", "cert", "data"};

bool isAlnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool isUnreserved(char c) { return isAlnum(c) || c == '-' || c == '.' || c == '_' || c == '~'; }
// RFC 7512's pk11-pchar without percent encoding.
bool isPlain(char c) { return isUnreserved(c) || std::string_view(":[]@!$'()*+,=&").find(c) != std::string_view::npos; }

int hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> decode(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      if (!isPlain(text[i])) return std::nullopt;
      result += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hexDigit(text[i + 1]);
    const int low = hexDigit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    result += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return result;
}

Unexpected<UriProblem> bad(std::string message, std::string_view hint = "") {
  return refuse(UriProblem{std::move(message), std::string(hint)});
}

// Names come from the file: only what can be in a name is repeated.
std::string shown(std::string_view name) {
  std::string result = "`";
  for (const char c : name.substr(0, 40)) result += isUnreserved(c) ? c : '?';
  return result + "`";
}

Result<void, UriProblem> take(Pkcs11Uri& uri, std::string_view part, bool query) {
  const auto equals = part.find('=');
  const auto attribute = part.substr(0, equals);
  for (const auto& forbidden : FORBIDDEN) {
    if (attribute == forbidden.name)
      return bad(shown(attribute) + " " + std::string(forbidden.problem), forbidden.hint);
  }
  if (part.empty() || equals == part.npos || equals == 0) return bad("has a part that isn't NAME=VALUE");
  const auto known = std::ranges::find(ATTRIBUTES, attribute, &Attribute::name);
  if (query || known == ATTRIBUTES.end())
    return bad("has an unknown attribute " + shown(attribute), "token, serial, model, manufacturer");
  auto value = decode(part.substr(equals + 1));
  if (!value) return bad("has a value of " + shown(attribute) + " that isn't percent-encoded as it must be");
  if (value->empty()) return bad("has an empty " + shown(attribute));
  if (attribute != "id" && value->find('\0') != value->npos) return bad("has a NUL in " + shown(attribute));
  if (attribute == "type" && std::ranges::find(TYPES, *value) == TYPES.end())
    return bad("has an unknown type", "private, secret-key, public, cert or data");
  if (uri.*known->field) return bad("has " + shown(attribute) + " twice");
  uri.*known->field = std::move(*value);
  return {};
}

}  // namespace

Result<Pkcs11Uri, UriProblem> parsePkcs11Uri(std::string_view text) {
  if (text.size() > MAX_URI_BYTES) return bad("is longer than 1024 bytes");
  if (!text.starts_with(SCHEME)) return bad("doesn't begin with `pkcs11:`", "pkcs11:token=LABEL;serial=NUMBER");
  text.remove_prefix(SCHEME.size());
  const auto mark = text.find('?');
  Pkcs11Uri uri;
  const auto takeAll = [&uri](std::string_view parts, char separator, bool query) -> Result<void, UriProblem> {
    while (true) {
      const auto end = parts.find(separator);
      if (auto taken = take(uri, parts.substr(0, end), query); !taken) return taken;
      if (end == parts.npos) return {};
      parts.remove_prefix(end + 1);
    }
  };
  if (const auto path = text.substr(0, mark); !path.empty()) {
    if (auto taken = takeAll(path, ';', false); !taken) return refuse(taken.error());
  }
  if (mark != text.npos) {
    if (auto taken = takeAll(text.substr(mark + 1), '&', true); !taken) return refuse(taken.error());
  }
  return uri;
}

std::string format(const Pkcs11Uri& uri) {
  constexpr std::string_view DIGITS = "0123456789ABCDEF";
  std::string result(SCHEME);
  for (const auto& [name, field] : ATTRIBUTES) {
    if (!(uri.*field)) continue;
    if (result.size() > SCHEME.size()) result += ';';
    result += std::string(name) + "=";
    for (const char c : *(uri.*field)) {
      if (isUnreserved(c)) {
        result += c;
      } else {
        const auto byte = static_cast<unsigned char>(c);
        result += {'%', DIGITS[byte >> 4], DIGITS[byte & 15]};
      }
    }
  }
  return result;
}

}  // namespace sallyport
