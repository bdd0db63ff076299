// key_format.h - the text of a key file: parsing, opening, writing. Part of: vaultd's key library.
// docs/protocol.md §9 is the same for readers of other programs.
// docs/decisions/0013-key-files-with-slots.md says why it is so. Pure: no file, no terminal, no clock.
//
//   sallyport key 2
//   name: server
//   kind: x25519 | ed25519 | peer-block
//   party: A | B                                                          (of a peer-block alone)
//   token: hsm1                                                           (only of a key that lives in a token)
//   created: 2026-11-21T04:00:00Z
//   ledger: <base64 of 32 bytes>
//   export: no | yes
//   backup: no | yes
//   version: 1 public=<base64> active=<seconds> open-only=… retired=… deleted=… destroy=…
//       (of a block: unused=yes; of a key in a token: id=<hex> spelling=…)
//   nonce: <base64 of 24 bytes>
//   payload: <base64>
//   slot: 1 passphrase argon2id13 … wrapped=<base64 of 48 bytes>          (key_slot.h)
//   slot: 1 plain key=<base64 of 32 bytes>
//   mac: <base64 of 32 bytes>
//
// The lines stand in this order, each ends with one newline, nothing follows, and each value has one spelling: what is
// taken is written again as the same bytes. The payload is XChaCha20-Poly1305 of (be32 number, 32 or 128 secret bytes)
// for each version whose secret is still kept, with every byte before `payload:` as additional data. The mac covers the
// whole text before it. Both under keys that are derived from the file key. Of a key in a token the 32 secret bytes are
// no key: they are random, the nonce keys are derived from them, and id and spelling say which object it is. A backup
// is the same text with the first line `sallyport backup 1` and no `ledger:`, so that it can't be put in the place of a
// key file.
//
// "sallyport key 1", of earlier releases, is still read: one version, one seal (key_format_1.cc). It is written as 2
// when the key is changed next.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"
#include "vaultd/key_slot.h"
#include "vaultd/key_version.h"
#include "vaultd/long_term_secret.h"
#include "vaultd/problem.h"
#include "vaultd/secret_text.h"

namespace sallyport::vaultd {

struct LedgerIdTag;
// Which nonce state belongs to a key: all its versions share one ledger. A restored key gets another id, so that an old
// nonce file is never taken for its own.
using LedgerId = Bytes<LedgerIdTag, 32>;

inline constexpr size_t MAX_VERSIONS = 64;

enum class KeyDocument : uint8_t { Key, Backup };

struct KeyHeader {
  std::string name;
  KeyKind kind = KeyKind::X25519;
  std::optional<wire::PeerParty> party;  // PeerBlock: which of both this host is
  std::string token;                     // [token.NAME] in which the key lives; empty: its secret is in this file
  std::string created;                   // UTC, "2026-11-21T04:00:00Z"
  LedgerId ledgerId;
  bool exportable = false;           // one-way: `key export` gives the secret out
  bool backupAllowed = false;        // one-way: `key backup` does, sealed
  std::vector<KeyVersion> versions;  // by number, rising; never empty
  SealKind seal = SealKind::Plain;   // of the first slot: Plain stands alone
  std::vector<Slot> slots;           // never empty
};

// A parsed text, still sealed.
struct SealedKey {
  KeyDocument document = KeyDocument::Key;
  unsigned format = 2;  // the number in the first line
  KeyHeader header;
  std::string authenticated;  // the text before `payload:`
  std::array<std::byte, 24> nonce{};
  std::vector<std::byte> payload;        // sealed
  FileKey plainKey;                      // of a plain file: it stands there
  std::array<std::byte, 32> textHash{};  // of what the mac covers
  std::array<std::byte, 32> mac{};
  SecretBytes<struct PlainTag, 32> secret;  // of a plain file of format 1
};

struct OpenedVersion {
  KeyVersion version;
  LongTermSecret secret;
};
struct OpenedKey {
  KeyHeader header;
  std::vector<OpenedVersion> versions;  // those whose secret the file still holds, by number
};

// [A-Za-z0-9][A-Za-z0-9_.-]{0,63}
bool isKeyName(std::string_view name);
// A block has a fingerprint in its place: BLAKE2b-256, personalised.
PublicKey publicKeyOf(const LongTermSecret& secret, KeyKind kind = KeyKind::X25519);
// The version that boxes and signs at that time; null if there is none.
const KeyVersion* activeVersion(const KeyHeader& header, int64_t nowUnix);
// Those that may open at that time, newest first: the active one and the open-only ones.
std::vector<const KeyVersion*> openingVersions(const KeyHeader& header, int64_t nowUnix);
// How the file is protected, for people: "passphrase", or "passphrase, token a, shares 2 of 3". Of a key in a token:
// "in token a", and how the rest of the file is protected.
std::string describeSlots(const KeyHeader& header);

bool hasTokenSlot(const KeyHeader& header);

// Problems of this file don't name the file: the caller puts its path in front.
Problem damagedKeyFile(std::string_view what);
Result<SealedKey, Problem> parseKeyText(std::string_view text, KeyDocument document = KeyDocument::Key);
// The file key: `secret` opens any slot of its kind. A wrong secret, a changed slot and a changed payload look the
// same. Ignored for a plain key.
Result<FileKey, Problem> fileKeyOf(const SealedKey& sealed, const SlotSecret& secret);
// Checks the mac, opens the payload, and checks that each public key follows from its secret.
Result<OpenedKey, Problem> openKey(const SealedKey& sealed, const FileKey& key);
// Both steps.
Result<OpenedKey, Problem> openSealed(const SealedKey& sealed, const SlotSecret& secret);

// The text of a file with everything in it sealed anew under `key`, which the header's slots wrap already.
SecretText keyText(const OpenedKey& opened, const FileKey& key, KeyDocument document = KeyDocument::Key);
// The same text with other slots: not a byte before the first slot changes.
SecretText withSlots(const SealedKey& sealed, const std::vector<Slot>& slots, const FileKey& key);
// A key of one version that is active from `now` on, with one slot. Each call makes another file key.
struct NewKey {
  OpenedKey opened;
  FileKey fileKey;
};
// `party` is of a block.
Result<NewKey, Problem> newKey(std::string_view name, KeyKind kind, const LongTermSecret& secret,
                               const Sealing& sealing, int64_t nowUnix,
                               std::optional<wire::PeerParty> party = std::nullopt);
// The same for a key that a token has made and keeps.
struct TokenKey {
  PublicKey publicKey;
  std::vector<std::byte> id;  // its CKA_ID, 1 to MAX_TOKEN_ID_BYTES
  std::string spelling;       // isSpelling()
};
bool isSpelling(std::string_view word);  // 1 to 32 of [a-z0-9-]
Result<NewKey, Problem> newTokenKey(std::string_view name, KeyKind kind, std::string_view token, const TokenKey& key,
                                    const Sealing& sealing, int64_t nowUnix);
// Another file key with this one slot: what an old copy of the file and its secret could open, it can open no more.
Result<FileKey, Problem> renewFileKey(OpenedKey& opened, const Sealing& sealing);

// The bytes of a secret in base64 or hex, with white space around.
Result<LongTermSecret, Problem> parseSecret(std::string_view text, KeyKind kind = KeyKind::X25519);
// What `sallyport key import` reads: the same with white space anywhere, as base64(1) and xxd(1) put it there.
Result<LongTermSecret, Problem> parseGivenSecret(std::string_view text, KeyKind kind = KeyKind::X25519);

// key_format_1.cc: the rest of the text after its first line, and its opening.
Result<SealedKey, Problem> parseKeyText1(std::string_view text);
Result<FileKey, Problem> fileKeyOf1(const SealedKey& sealed, const SlotSecret& secret);
Result<OpenedKey, Problem> openKey1(const SealedKey& sealed, const FileKey& key);

}  // namespace sallyport::vaultd
