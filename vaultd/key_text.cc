#include "vaultd/key_text.h"

#include <sodium.h>

#include <charconv>
#include <ctime>

namespace sallyport::vaultd {

bool decodeExactly(std::string_view base64, MutableByteSpan out) {
  // libsodium 1.0.18 takes some bytes beyond ASCII for digits: a second spelling of the same file.
  unsigned char all = 0;
  for (const char c : base64) all |= static_cast<unsigned char>(c);
  if (reveal((all & 0x80) != 0)) return false;
  size_t size = 0;
  const char* end = nullptr;
  if (sodium_base642bin(uchars(out), out.size(), base64.data(), base64.size(), nullptr, &size, &end,
                        sodium_base64_VARIANT_ORIGINAL) != 0) {
    return false;
  }
  return size == out.size() && end == base64.data() + base64.size();
}

bool decodeHexExactly(std::string_view hex, MutableByteSpan out) {
  size_t size = 0;
  const char* end = nullptr;
  return hex.size() == 2 * out.size() &&
         sodium_hex2bin(uchars(out), out.size(), hex.data(), hex.size(), nullptr, &size, &end) == 0 &&
         size == out.size() && end == hex.data() + hex.size();
}

bool appendBase64(SecretText& text, ByteSpan bytes) {
  const size_t needed = sodium_base64_ENCODED_LEN(bytes.size(), sodium_base64_VARIANT_ORIGINAL);  // with the final 0
  if (text.room().size() < needed) return false;
  sodium_bin2base64(reinterpret_cast<char*>(text.room().data()), needed, uchars(bytes), bytes.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  text.grow(needed - 1);
  return true;
}

bool appendHex(SecretText& text, ByteSpan bytes) {
  const size_t needed = 2 * bytes.size() + 1;  // with the final 0
  if (text.room().size() < needed) return false;
  sodium_bin2hex(reinterpret_cast<char*>(text.room().data()), needed, uchars(bytes), bytes.size());
  text.grow(needed - 1);
  return true;
}

std::optional<uint64_t> parseNumber(std::string_view digits) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size() || digits.empty()) return std::nullopt;
  return value;
}

std::string utcText(int64_t unixSeconds, char between) {
  const std::time_t time = unixSeconds;
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[40];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  std::string result(text);
  result[result.find('T')] = between;
  return result;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view SPACE = " \t\r\n";
  const size_t begin = text.find_first_not_of(SPACE);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(SPACE) - begin + 1);
}

std::string_view takeWord(std::string_view& rest) {
  const size_t end = rest.find(' ');
  const std::string_view word = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return word;
}

std::optional<std::string_view> takeField(std::string_view& rest, std::string_view key) {
  const std::string_view field = takeWord(rest);
  if (!field.starts_with(key) || field.size() <= key.size() || field[key.size()] != '=') return std::nullopt;
  return field.substr(key.size() + 1);
}

std::optional<std::string_view> Lines::next() {
  const size_t end = text_.find('\n', position_);
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text_.substr(position_, end - position_);
  position_ = end + 1;
  return line;
}

std::optional<std::string_view> Lines::value(std::string_view key) {
  const size_t before = position_;
  const auto line = next();
  if (line && line->size() > key.size() + 2 && line->starts_with(key) && line->substr(key.size(), 2) == ": ") {
    return line->substr(key.size() + 2);
  }
  position_ = before;
  return std::nullopt;
}

}  // namespace sallyport::vaultd
