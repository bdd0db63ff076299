// signature_file.h - a detached signature of a file of any size. Part of: proto/file (pure; any process).
// docs/protocol.md §11. The vault signs texts of at most 60 KiB, so what is signed is a line that says what it is and
// the SHA-512 of the file: one rule for every size, which sha512sum and any Ed25519 can check.
#pragma once

#include <sodium.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"

namespace sallyport::file {

inline constexpr std::string_view SIGNATURE_MAGIC = "sallyport signature 1\n";

struct SignatureTag;
using Signature = Bytes<SignatureTag, 64>;

struct SignatureFile {
  SigningKey key;  // says who claims to have signed; whom to believe is the reader's decision
  Signature signature;
  bool operator==(const SignatureFile&) const = default;
};

// SHA-512 over the parts of a file.
class FileHash {
 public:
  FileHash() { crypto_hash_sha512_init(&state_); }
  void add(ByteSpan bytes) { crypto_hash_sha512_update(&state_, uchars(bytes), bytes.size()); }
  // What is signed for the bytes that were added. Once.
  std::vector<std::byte> signedText();

 private:
  crypto_hash_sha512_state state_;
};

std::string writeSignature(const SignatureFile& file);
// One spelling each: what is taken is written again as the same text. Nothing: not a signature file.
std::optional<SignatureFile> parseSignature(std::string_view text);
inline constexpr size_t SIGNATURE_FILE_BYTES = SIGNATURE_MAGIC.size() + 5 + 44 + 1 + 11 + 88 + 1;

// Ed25519 (RFC 8032), strictly: low-order keys and second spellings are refused.
bool isGenuine(const SigningKey& key, ByteSpan signedText, const Signature& signature);

}  // namespace sallyport::file
