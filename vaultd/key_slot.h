// key_slot.h - the slots of a key file: each wraps the same file key by a secret of its own, so a passphrase is
// changed, or a way in is added, without touching the sealed keys. Part of: vaultd's key library. docs/protocol.md §9.
// Pure. What must never happen here: an argument of Argon2 that a stranger's file chooses without bounds, a wrapping
// key that wraps twice.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"
#include "vaultd/problem.h"
#include "vaultd/secret_text.h"

namespace sallyport::vaultd {

struct FileKeyTag;
// What opens a key file's payload. Every slot of the file yields the same one.
using FileKey = SecretBytes<FileKeyTag, 32>;

enum class SealKind : uint8_t {
  Plain,              // no protection but the file's mode; never together with another slot
  Passphrase,         // Argon2id
  SystemdCredential,  // 32 random bytes or more that the service manager hands over
  Recovery,           // a passphrase that `sallyport` made and printed once; the vault never asks for it
  Shares,             // a random secret that was split: any `needed` of `total` people open it together
  Token               // a random secret that a key in a token wraps and unwraps
};
std::string_view describe(SealKind kind);  // "plain file", "passphrase", "systemd credential", ...

// The cost of one guess at a passphrase. 64 MiB and 3 passes are what RFC 9106 recommends where memory is short, and
// still let a vault with a few keys start in under a second.
struct PassphraseCost {
  uint64_t opsLimit = 3;
  uint64_t memLimitBytes = 64 * 1024 * 1024;
};
// A file that asks for more is refused: the header is read before anything proves that we wrote it.
inline constexpr uint64_t MAX_OPS_LIMIT = 20;
inline constexpr uint64_t MAX_MEM_LIMIT_BYTES = uint64_t{1} << 30;
// A credential is not stretched: it must be random, not a passphrase.
inline constexpr size_t MIN_CREDENTIAL_BYTES = 32;
inline constexpr size_t MAX_SLOTS = 16;
inline constexpr unsigned MAX_SHARES = 255;
inline constexpr size_t MAX_TOKEN_ID_BYTES = 64;  // of a CKA_ID that we keep

// How a token keeps the secret of a slot.
enum class TokenCipher : uint8_t { AesGcm, OaepSha256, OaepSha1 };
std::string_view describe(TokenCipher cipher);       // "aes-gcm", "rsa-oaep-sha256", "rsa-oaep-sha1": as in the file
inline constexpr size_t MAX_TOKEN_BLOB_BYTES = 512;  // RSA of 4096 bits
struct TokenWrap {
  TokenCipher cipher = TokenCipher::AesGcm;
  std::vector<std::byte> keyId;  // the wrapping key's CKA_ID
  std::vector<std::byte> blob;   // TokenSecret, wrapped
};
// What a token wraps: never the key itself, nor the file key.
using TokenSecret = SecretBytes<struct TokenSecretTag, 32>;

struct Slot {
  uint32_t number = 1;  // of this file; for `key slot remove`
  SealKind kind = SealKind::Plain;
  PassphraseCost cost;                  // Passphrase, Recovery
  std::string credential;               // SystemdCredential: its name
  unsigned needed = 0;                  // Shares
  unsigned total = 0;                   // Shares
  std::string token;                    // Token: [token.NAME]
  TokenWrap tokenWrap{};                // Token
  std::array<std::byte, 16> salt{};     // of Shares too: it names the set
  std::array<std::byte, 48> wrapped{};  // the file key; not of Plain
};

// What somebody gives to open a slot: any slot of this kind that it fits.
struct SlotSecret {
  SealKind kind = SealKind::Plain;
  SecretText text;         // the passphrase, the credential's content, or the joined secret of the shares
  std::string credential;  // SystemdCredential: its name
  uint32_t slot = 0;       // Token: the slot that it is the secret of; 0: whichever it opens
};

// How to make a slot. `secret` as in SlotSecret, and must outlive the call; null for Plain.
struct Sealing {
  SealKind kind = SealKind::Plain;
  const SecretText* secret = nullptr;
  PassphraseCost cost;
  std::string credential;
  unsigned needed = 0;
  unsigned total = 0;
  std::array<std::byte, 16> shareSet{};
  std::string token{};  // Token
  TokenWrap tokenWrap{};
};

// The text of a slot after `slot: `, without what it wraps. `keyName` is the key's.
std::string slotText(const Slot& slot);
// Reads what slotText wrote; false if it is anything else. The kind, its fields and nothing behind.
bool parseSlotText(std::string_view text, Slot& slot);

// The 32 bytes that a secret gives under the slot's salt and cost. Only of sealed kinds.
Result<FileKey, Problem> stretch(const Slot& slot, const SecretText& secret);
Result<Slot, Problem> makeSlot(std::string_view keyName, uint32_t number, const Sealing& sealing, const FileKey& key);
Result<FileKey, Problem> openSlot(std::string_view keyName, const Slot& slot, const SecretText& secret);
// What a token's blob is bound to where its cipher can (AES-GCM): the blob of one key is none of another.
std::array<std::byte, 32> tokenBound(std::string_view keyName);
// What is said when a secret doesn't open its slot.
Problem wrongSecret(const Slot& slot);

// A recovery passphrase: 160 random bits as eight groups of letters and digits, without those that look alike.
SecretText newRecoveryPassphrase();
// As it is stretched: people type it with other cases and separators.
SecretText normalRecoveryPassphrase(std::string_view typed);

}  // namespace sallyport::vaultd
