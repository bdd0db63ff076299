// key_transfer.h - keys on their way to another host: wrapped to a one-time key, or in a sealed backup. Part of:
// vaultd's key library. docs/protocol.md §9. Pure.
// What must never happen here: a backup with nonce state in it, or a restored key that trusts an old one.
#pragma once

#include "vaultd/key_format.h"

namespace sallyport::vaultd {

// The one-time X25519 pair to which another host wraps a key. Kept as `import-key` in the folder until it was used.
struct ImportKey {
  PublicKey publicKey;
  LongTermSecret secret;
};
ImportKey newImportKey();
SecretText importKeyText(const ImportKey& key);
Result<ImportKey, Problem> parseImportKey(std::string_view text);

// "sallyport-wrapped-1 BASE64": libsodium's sealed box of (kind, 32 or 128 secret bytes).
struct WrappedSecret {
  KeyKind kind = KeyKind::X25519;
  LongTermSecret secret;
};
std::string wrapSecret(const WrappedSecret& content, const PublicKey& to);
Result<WrappedSecret, Problem> unwrapSecret(std::string_view text, const ImportKey& key);

// All versions with their times and the switches, under a file key and a seal of its own.
Result<SecretText, Problem> backupText(const OpenedKey& key, const Sealing& sealing);
// The key in it, under another file key, and with another ledger id: its nonce key will be a fresh one. Blocks can't be
// used in base mode any more: nobody knows what was done with them since.
Result<NewKey, Problem> fromBackup(const SealedKey& backup, const SlotSecret& secret, const Sealing& sealing);

}  // namespace sallyport::vaultd
