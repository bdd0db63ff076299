// key_format.h - the text of a key file: parsing, sealing, opening. Part of: vaultd's key library.
// docs/protocol.md §9 is the same for readers of other programs.
// Pure: no file, no terminal.
//
//   sallyport key 1
//   name: server
//   kind: x25519
//   public: <base64 of 32 bytes>
//   created: 2026-11-21T04:00:00Z
//   seal: plain
//         passphrase argon2id13 opslimit=3 memlimit=67108864 salt=<base64 of 16 bytes>
//         systemd-credential name=NAME salt=<base64 of 16 bytes>
//   nonce: <base64 of 24 bytes>                                 (not with plain)
//   payload: <base64>
//
// The lines stand in this order, each ends with one newline, and nothing follows. The payload is the 32 secret bytes
// (plain), or their XChaCha20-Poly1305 under the sealing key with every byte before `payload:` as additional data: no
// line of the header can be changed without the passphrase. The sealing key is Argon2id13 of the passphrase, or
// BLAKE2b-256 (salt, personal "sallyport-cred-1") of the credential's content. After opening, the public key must
// follow from the secret.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"
#include "vaultd/key_version.h"
#include "vaultd/problem.h"
#include "vaultd/secret_text.h"

namespace sallyport::vaultd {

struct LongTermSecretTag;
// A long-term secret on its way between a file and the arena: an X25519 scalar, or an Ed25519 seed.
using LongTermSecret = SecretBytes<LongTermSecretTag, 32>;
struct FileKeyTag;
// What opens a key file's payload. Every slot of the file yields the same one.
using FileKey = SecretBytes<FileKeyTag, 32>;
struct LedgerIdTag;
// Which nonce state belongs to a key: all its versions share one ledger. A restored key gets another id, so that an old
// nonce file is never taken for its own.
using LedgerId = Bytes<LedgerIdTag, 32>;

enum class SealKind : uint8_t { Plain, Passphrase, SystemdCredential };
std::string_view describe(SealKind kind);  // "plain file", "passphrase", "systemd credential"

// The cost of one guess at a passphrase. 64 MiB and 3 passes are what RFC 9106 recommends where memory is short, and
// still let a vault with a few keys start in under a second.
struct PassphraseCost {
  uint64_t opsLimit = 3;
  uint64_t memLimitBytes = 64 * 1024 * 1024;
};
// A file that asks for more is refused: the header is read before anything proves that we wrote it.
inline constexpr uint64_t MAX_OPS_LIMIT = 20;
inline constexpr uint64_t MAX_MEM_LIMIT_BYTES = uint64_t{1} << 30;
inline constexpr size_t MIN_CREDENTIAL_BYTES =
    32;  // a credential is not stretched: it must be random, not a passphrase

struct KeyHeader {
  std::string name;
  KeyKind kind = KeyKind::X25519;
  std::vector<KeyVersion> versions;  // by number, rising; never empty
  LedgerId ledgerId;
  std::string created;  // UTC, "2026-11-21T04:00:00Z"
  SealKind seal = SealKind::Plain;
  PassphraseCost cost;     // Passphrase
  std::string credential;  // SystemdCredential: its name
  std::array<std::byte, 16> salt{};
  std::array<std::byte, 24> nonce{};
};

// A parsed file, still sealed.
struct SealedKey {
  KeyHeader header;
  std::string authenticated;  // the text before `payload:`
  SecretBytes<struct PayloadTag, 48> payload;
};

struct OpenedVersion {
  KeyVersion version;
  LongTermSecret secret;
};
struct OpenedKey {
  KeyHeader header;
  std::vector<OpenedVersion> versions;  // those whose secret the file still holds, by number
};

// How to seal. `secret` is the passphrase or the credential's content, and must outlive the call; null for Plain.
struct Sealing {
  SealKind kind = SealKind::Plain;
  const SecretText* secret = nullptr;
  PassphraseCost cost;
  std::string credential;
};

// [A-Za-z0-9][A-Za-z0-9_.-]{0,63}
bool isKeyName(std::string_view name);
PublicKey publicKeyOf(const LongTermSecret& secret);
// The version that boxes and signs at that time; null if there is none.
const KeyVersion* activeVersion(const KeyHeader& header, int64_t nowUnix);

// Problems of this file don't name the file: the caller puts its path in front.
Result<SealedKey, Problem> parseKeyText(std::string_view text);
// `secret` as in Sealing; ignored for a plain key. A wrong passphrase, a changed header and a changed payload look the
// same.
Result<FileKey, Problem> fileKeyOf(const SealedKey& sealed, const SecretText& secret);
Result<OpenedKey, Problem> openKey(const SealedKey& sealed, const FileKey& key);
// Both steps.
Result<OpenedKey, Problem> openSealed(const SealedKey& sealed, const SecretText& secret);
// The text of a file. `created` is kept when not empty (a re-sealed key keeps its age).
Result<SecretText, Problem> sealedText(std::string_view name, const LongTermSecret& secret, const Sealing& sealing,
                                       std::string_view created = {});
// 32 bytes in base64 or hex, with white space around: what `sallyport key import` reads.
Result<LongTermSecret, Problem> parseSecret(std::string_view text);

}  // namespace sallyport::vaultd
