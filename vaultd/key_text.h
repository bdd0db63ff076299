// key_text.h - small tools for the text formats of the key library: lines, fields, base64 without copies. Part of:
// vaultd's key library. Pure. Strict: what these take has exactly one spelling.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/bytes.h"
#include "vaultd/secret_text.h"

namespace sallyport::vaultd {

// Exactly out.size() bytes of canonical, padded base64, straight into `out`: no copy in between that would need wiping.
bool decodeExactly(std::string_view base64, MutableByteSpan out);
bool decodeHexExactly(std::string_view hex, MutableByteSpan out);
bool appendBase64(SecretText& text, ByteSpan bytes);
bool appendHex(SecretText& text, ByteSpan bytes);
std::optional<uint64_t> parseNumber(std::string_view digits);
std::string utcText(int64_t unixSeconds, char between = 'T');  // "2026-11-21T04:00:00Z"
std::string_view trimmed(std::string_view text);               // without white space at both ends

// Takes `key=value` off the front of `rest`; fields are separated by one space.
std::optional<std::string_view> takeField(std::string_view& rest, std::string_view key);
// Takes one word off the front of `rest`; empty if there is none.
std::string_view takeWord(std::string_view& rest);

// Reads one line after the other; a missing newline at the end is how truncation shows.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {}
  std::optional<std::string_view> next();
  // The value of the next line if it is `key: value`; otherwise nothing is taken.
  std::optional<std::string_view> value(std::string_view key);
  bool atEnd() const { return position_ == text_.size(); }
  bool cutHere() const { return text_.find('\n', position_) == std::string_view::npos; }
  size_t position() const { return position_; }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace sallyport::vaultd
