// json.cc - see json.h.
#include "cli/json.h"

#include "common/check.h"

namespace sallyport::cli {
namespace {

constexpr char HEX[] = "0123456789abcdef";

// Bytes outside of ASCII are told as they are only if they are UTF-8, which JSON demands; daemons send names that we
// checked, so a byte that isn't plain is rare, and is written as the Latin-1 character of its number.
std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      result += std::string("\\u00") + HEX[byte >> 4] + HEX[byte & 15];
    } else {
      result += c;
    }
  }
  return result + '"';
}

}  // namespace

void JsonWriter::separate() {
  if (afterKey_) {
    afterKey_ = false;
    return;
  }
  if (!first_) text_ += ',';
  if (!closing_.empty()) text_ += '\n' + std::string(closing_.size() * 2, ' ');
  first_ = false;
}

JsonWriter& JsonWriter::open(char first, char last) {
  separate();
  text_ += first;
  closing_.push_back(last);
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::end() {
  CHECK(!closing_.empty());
  const char last = closing_.back();
  closing_.pop_back();
  if (!first_) text_ += '\n' + std::string(closing_.size() * 2, ' ');
  text_ += last;
  first_ = false;
  return *this;
}

JsonWriter& JsonWriter::key(std::string_view name) {
  separate();
  text_ += quoted(name) + ": ";
  afterKey_ = true;
  return *this;
}

JsonWriter& JsonWriter::value(std::string_view text) { return raw(quoted(text)); }

JsonWriter& JsonWriter::raw(std::string_view text) {
  separate();
  text_ += text;
  return *this;
}

std::string JsonWriter::finish() {
  CHECK(closing_.empty());
  return std::move(text_) + '\n';
}

}  // namespace sallyport::cli
