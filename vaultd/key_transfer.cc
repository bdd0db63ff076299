#include "vaultd/key_transfer.h"

#include <sodium.h>

#include "vaultd/key_text.h"

namespace sallyport::vaultd {

namespace {

constexpr std::string_view IMPORT_LINE = "sallyport import key 1";
constexpr std::string_view WRAPPED_WORD = "sallyport-wrapped-1";
constexpr size_t MAX_CONTENT_BYTES = 1 + LongTermSecret::MAX_SIZE;
// Base64 of the sealed box of a short secret.
constexpr size_t BOX_TEXT_BYTES = (1 + LongTermSecret::SIZE + crypto_box_SEALBYTES + 2) / 3 * 4;
using Content = SecretBytes<struct ContentTag, MAX_CONTENT_BYTES>;

// Of the first byte of what was unwrapped; no other byte of it is looked at.
bool kindOf(std::byte first, size_t bytes, KeyKind& kind) {
  for (const KeyKind each : {KeyKind::X25519, KeyKind::Ed25519, KeyKind::PeerBlock}) {
    if (secretBytes(each) != bytes || !reveal(first == static_cast<std::byte>(each))) continue;
    kind = each;
    return true;
  }
  return false;
}

}  // namespace

ImportKey newImportKey() {
  ImportKey key;
  key.secret = LongTermSecret::random();
  key.publicKey = publicKeyOf(key.secret);
  return key;
}

SecretText importKeyText(const ImportKey& key) {
  SecretText text;
  CHECK(text.append(IMPORT_LINE) && text.append("\nsecret: ") && appendBase64(text, key.secret.expose()) &&
        text.append("\n"));
  return text;
}

Result<ImportKey, Problem> parseImportKey(std::string_view text) {
  Lines lines(text);
  ImportKey key;
  const auto first = lines.next();
  const auto secret = lines.value("secret");
  if (first != IMPORT_LINE || !secret || !decodeExactly(*secret, key.secret.exposeMutable()) || !lines.atEnd())
    return refuse(Problem{"damaged import key", "remove the file and make another with `sallyport key import-key`"});
  key.publicKey = publicKeyOf(key.secret);
  return key;
}

std::string wrapSecret(const WrappedSecret& content, const PublicKey& to) {
  Content plain;
  plain.exposeMutable()[0] = static_cast<std::byte>(content.kind);
  std::memcpy(plain.exposeData() + 1, content.secret.exposeData(), content.secret.size());
  std::vector<std::byte> box(1 + content.secret.size() + crypto_box_SEALBYTES);
  CHECK(crypto_box_seal(uchars(MutableByteSpan(box)), plain.exposeData(), 1 + content.secret.size(), to.data()) == 0);
  return std::string(WRAPPED_WORD) + " " + toBase64(box);
}

Result<WrappedSecret, Problem> unwrapSecret(std::string_view text, const ImportKey& key) {
  std::string_view rest = trimmed(text);
  const bool wrapped = takeWord(rest) == WRAPPED_WORD;
  // The two sizes differ by the text alone; the kind inside has to agree.
  const bool block = rest.size() > BOX_TEXT_BYTES;
  std::vector<std::byte> box(1 + (block ? LongTermSecret::MAX_SIZE : LongTermSecret::SIZE) + crypto_box_SEALBYTES);
  if (!wrapped || !decodeExactly(rest, box))
    return refuse(Problem{"not a wrapped key", "`sallyport key wrap` on the other host prints one"});
  Content plain;
  if (!reveal(crypto_box_seal_open(plain.exposeData(), uchars(ByteSpan(box)), box.size(), key.publicKey.data(),
                                   key.secret.exposeData()) == 0)) {
    return refuse(Problem{"the wrapped key was made for another import key, or was changed",
                          "wrap it again, to what `sallyport key import-key` prints now"});
  }
  WrappedSecret content;
  const size_t bytes = box.size() - crypto_box_SEALBYTES - 1;
  if (!kindOf(plain.expose()[0], bytes, content.kind) || reveal(sodium_is_zero(plain.exposeData() + 1, bytes) == 1))
    return refuse(Problem{"the wrapped key is of a kind that this version doesn't know", "use a newer sallyport"});
  content.secret = LongTermSecret(plain.expose().subspan(1, bytes));
  return content;
}

Result<SecretText, Problem> backupText(const OpenedKey& key, const Sealing& sealing) {
  OpenedKey copy{key.header, {}};
  copy.header.ledgerId = {};
  for (const OpenedVersion& opened : key.versions)
    copy.versions.push_back({opened.version, LongTermSecret(opened.secret.expose())});
  const auto fileKey = renewFileKey(copy, sealing);
  if (!fileKey) return refuse(fileKey.error());
  return keyText(copy, *fileKey, KeyDocument::Backup);
}

Result<NewKey, Problem> fromBackup(const SealedKey& backup, const SlotSecret& secret, const Sealing& sealing) {
  CHECK(backup.document == KeyDocument::Backup);
  auto opened = openSealed(backup, secret);
  if (!opened) return refuse(opened.error());
  NewKey restored;
  restored.opened = std::move(*opened);
  for (KeyVersion& version : restored.opened.header.versions) version.unused = false;
  for (OpenedVersion& version : restored.opened.versions) version.version.unused = false;
  fillRandom(restored.opened.header.ledgerId.mutableSpan());
  // Of a key in a token these are the seeds of the nonce keys: not even they are taken over.
  if (!restored.opened.header.token.empty()) {
    for (OpenedVersion& version : restored.opened.versions) version.secret = LongTermSecret::random();
  }
  auto fileKey = renewFileKey(restored.opened, sealing);
  if (!fileKey) return refuse(fileKey.error());
  restored.fileKey = std::move(*fileKey);
  return restored;
}

}  // namespace sallyport::vaultd
