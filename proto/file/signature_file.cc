// signature_file.cc - see signature_file.h.
#include "proto/file/signature_file.h"

namespace sallyport::file {
namespace {

constexpr std::string_view KEY = "key: ";
constexpr std::string_view SIGNATURE = "signature: ";

// Cuts `word` off the beginning of `text`; false if it isn't there.
bool skip(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

template <typename Value>
std::optional<Value> takeLine(std::string_view& text, std::string_view label) {
  if (!skip(text, label)) return std::nullopt;
  const size_t end = text.find('\n');
  if (end == text.npos) return std::nullopt;
  const auto bytes = fromBase64(text.substr(0, end));
  text.remove_prefix(end + 1);
  return bytes ? Value::tryFrom(*bytes) : std::nullopt;
}

}  // namespace

std::vector<std::byte> FileHash::signedText() {
  const ByteSpan magic = asBytes(SIGNATURE_MAGIC);
  std::vector<std::byte> text(magic.begin(), magic.end());
  text.resize(magic.size() + crypto_hash_sha512_BYTES);
  crypto_hash_sha512_final(&state_, uchars(MutableByteSpan(text).subspan(magic.size())));
  return text;
}

std::string writeSignature(const SignatureFile& file) {
  return std::string(SIGNATURE_MAGIC) + std::string(KEY) + toBase64(file.key.span()) + "\n" + std::string(SIGNATURE) +
         toBase64(file.signature.span()) + "\n";
}

std::optional<SignatureFile> parseSignature(std::string_view text) {
  if (text.size() != SIGNATURE_FILE_BYTES) return std::nullopt;
  std::string_view rest = text;
  if (!skip(rest, SIGNATURE_MAGIC)) return std::nullopt;
  const auto key = takeLine<SigningKey>(rest, KEY);
  if (!key) return std::nullopt;
  const auto signature = takeLine<Signature>(rest, SIGNATURE);
  if (!signature) return std::nullopt;
  const SignatureFile file{*key, *signature};
  if (writeSignature(file) != text) return std::nullopt;
  return file;
}

bool isGenuine(const SigningKey& key, ByteSpan signedText, const Signature& signature) {
  return crypto_sign_verify_detached(signature.data(), uchars(signedText), signedText.size(), key.data()) == 0;
}

}  // namespace sallyport::file
