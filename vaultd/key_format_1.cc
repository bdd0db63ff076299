// key_format_1.cc - reading "sallyport key 1", the key files of releases before 0.2. Part of: vaultd's key library.
//
//   sallyport key 1
//   name: server
//   kind: x25519
//   public: <base64 of 32 bytes>
//   created: 2026-11-21T04:00:00Z
//   seal: plain | passphrase argon2id13 opslimit=… memlimit=… salt=… | systemd-credential name=… salt=…
//   nonce: <base64 of 24 bytes>                                 (not with plain)
//   payload: <base64>
//
// The payload is the 32 secret bytes (plain), or their XChaCha20-Poly1305 under what the seal's secret is stretched to,
// with every byte before `payload:` as additional data. That stretched key takes the file key's place here.
#include <sodium.h>

#include "vaultd/key_format.h"
#include "vaultd/key_text.h"

namespace sallyport::vaultd {

namespace {

constexpr size_t SEALED_BYTES = LongTermSecret::SIZE + crypto_aead_xchacha20poly1305_ietf_ABYTES;

}  // namespace

Result<SealedKey, Problem> parseKeyText1(std::string_view text) {
  Lines lines(text);
  CHECK(lines.next().has_value());
  SealedKey sealed;
  sealed.format = 1;
  KeyHeader& header = sealed.header;
  const auto wrong = [&](std::string_view line) {
    return refuse(lines.cutHere() ? damagedKeyFile("it is cut off")
                                  : damagedKeyFile("the line `" + std::string(line) + ":` is wrong or missing"));
  };
  const auto name = lines.value("name");
  if (!name || !isKeyName(*name)) return wrong("name");
  header.name = std::string(*name);
  const auto kind = lines.value("kind");
  if (!kind || *kind != describe(KeyKind::X25519)) return wrong("kind");
  const auto publicKey = lines.value("public");
  KeyVersion& version = header.versions.emplace_back();
  if (!publicKey || !decodeExactly(*publicKey, version.publicKey.mutableSpan())) return wrong("public");
  // The nonce file of such a key is bound to its public key.
  header.ledgerId = LedgerId(version.publicKey.span());
  const auto created = lines.value("created");
  if (!created || created->size() > 40 || created->find_first_not_of("0123456789-:TZ") != std::string_view::npos)
    return wrong("created");
  header.created = std::string(*created);
  const auto seal = lines.value("seal");
  Slot& slot = header.slots.emplace_back();
  if (!seal || !parseSlotText(*seal, slot) || slot.kind > SealKind::SystemdCredential) return wrong("seal");
  header.seal = slot.kind;
  const bool plain = slot.kind == SealKind::Plain;
  if (!plain) {
    const auto nonce = lines.value("nonce");
    if (!nonce || !decodeExactly(*nonce, sealed.nonce)) return wrong("nonce");
  }
  sealed.authenticated = std::string(text.substr(0, lines.position()));
  const auto payload = lines.value("payload");
  if (!plain) sealed.payload.resize(SEALED_BYTES);
  if (!payload || !decodeExactly(*payload, plain ? MutableByteSpan(sealed.secret.exposeMutable())
                                                 : MutableByteSpan(sealed.payload)))
    return wrong("payload");
  if (!lines.atEnd()) return refuse(damagedKeyFile("something follows the payload"));
  return sealed;
}

Result<FileKey, Problem> fileKeyOf1(const SealedKey& sealed, const SlotSecret& secret) {
  const Slot& slot = sealed.header.slots[0];
  if (slot.kind == SealKind::Plain) return FileKey();
  if (secret.kind != slot.kind) return refuse(wrongSecret(slot));
  auto key = stretch(slot, secret.text);
  if (!key) return refuse(key.error());
  if (auto opened = openKey1(sealed, *key); !opened) return refuse(opened.error());
  return key;
}

Result<OpenedKey, Problem> openKey1(const SealedKey& sealed, const FileKey& key) {
  const KeyHeader& header = sealed.header;
  LongTermSecret secret;
  if (header.seal == SealKind::Plain) {
    secret = LongTermSecret(sealed.secret.expose());
  } else if (!reveal(crypto_aead_xchacha20poly1305_ietf_decrypt(
                         secret.exposeData(), nullptr, nullptr, uchars(ByteSpan(sealed.payload)), sealed.payload.size(),
                         uchars(asBytes(sealed.authenticated)), sealed.authenticated.size(),
                         uchars(ByteSpan(sealed.nonce)), key.exposeData()) == 0)) {
    return refuse(wrongSecret(header.slots[0]));
  }
  // A plain file has no seal that proves its header; and a public key that doesn't belong to the secret would make us
  // answer as somebody else.
  if (!reveal(equalsConstantTime(publicKeyOf(secret).span(), header.versions[0].publicKey.span())))
    return refuse(damagedKeyFile("the public key doesn't belong to the secret"));
  OpenedKey opened{header, {}};
  opened.versions.push_back({header.versions[0], std::move(secret)});
  return opened;
}

}  // namespace sallyport::vaultd
