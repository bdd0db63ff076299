// key_flow.cc - key files, what opens them, and keys that come from elsewhere: see secret_flow.cc.
#include "tests/timing/flow.h"
#include "vaultd/key_shares.h"
#include "vaultd/key_text.h"
#include "vaultd/key_transfer.h"

namespace sallyport::vaultd::flow {
namespace {

constexpr int64_t NOW = 1'800'000'000;
constexpr PassphraseCost CHEAP{1, 8192};

// What opens a slot of this kind, of 40 such letters, and how to make the slot.
SlotSecret slotSecret(SealKind kind, char letter) {
  const size_t size = kind == SealKind::Token ? TokenSecret::SIZE : 40;
  return {kind, SecretText::copyOf(std::string(size, letter)), kind == SealKind::SystemdCredential ? "cred" : ""};
}
Sealing sealingBy(const SlotSecret& secret) {
  Sealing sealing{secret.kind, &secret.text, CHEAP, secret.credential, 0, 0, {}};
  if (secret.kind == SealKind::Token) {
    sealing.token = "hsm";
    sealing.tokenWrap = {TokenCipher::AesGcm, {std::byte{1}}, std::vector<std::byte>(60)};
  }
  return sealing;
}

SlotSecret marked(SlotSecret secret) {
  makeSecret(asBytes(secret.text.expose()));
  return secret;
}

LongTermSecret markedSecret(KeyKind kind = KeyKind::X25519) {
  LongTermSecret secret = LongTermSecret::random(kind);
  makeSecret(secret.expose());
  return secret;
}

NewKey keyOf(KeyKind kind, LongTermSecret secret, const SlotSecret& opens) {
  const auto party = kind == KeyKind::PeerBlock ? std::optional(wire::PeerParty::A) : std::nullopt;
  auto made = newKey("k", kind, secret, sealingBy(opens), NOW, party);
  CHECK(made.has_value());
  return std::move(*made);
}

void unsealing(KeyKind kind) {
  const NewKey made = keyOf(kind, LongTermSecret::random(kind), slotSecret(SealKind::SystemdCredential, 'c'));
  const SecretText text = keyText(made.opened, made.fileKey);
  const auto sealed = parseKeyText(text.expose());
  CHECK(sealed.has_value());
  const auto fileKey = fileKeyOf(*sealed, marked(slotSecret(SealKind::SystemdCredential, 'c')));
  expect(fileKey.has_value() && dependsOnASecret(fileKey->expose()), "a file key");
  const auto opened = openKey(*sealed, *fileKey);
  expect(opened.has_value() && dependsOnASecret(opened->versions[0].secret.expose()), "an unsealed key");
  FileKey wrong = FileKey::random();
  makeSecret(wrong.expose());
  expect(!openKey(*sealed, wrong), "another file key");
}

// A slot, made and opened. Of a passphrase this is Argon2id too, at the least cost that there is.
void slotOf(SealKind kind) {
  FileKey fileKey = FileKey::random();
  makeSecret(fileKey.expose());
  const SlotSecret right = marked(slotSecret(kind, 'r'));
  const auto slot = makeSlot("k", 1, sealingBy(right), fileKey);
  expect(slot.has_value(), "a slot is made");
  if (!slot) return;
  expectSecret(slot->wrapped, "what it wraps");
  const auto opened = openSlot("k", *slot, right.text);
  expect(opened.has_value() && dependsOnASecret(opened->expose()), "a slot is opened");
  expect(!openSlot("k", *slot, marked(slotSecret(kind, 'w')).text), "another secret");
  expect(!openSlot("other", *slot, right.text), "a slot of another key");
}

// The one-time pair, wrapping to it, and unwrapping.
void import(KeyKind kind) {
  ImportKey key = newImportKey();
  makeSecret(key.secret.expose());
  std::string wrapped = wrapSecret({kind, markedSecret(kind)}, key.publicKey);
  expectSecret(asBytes(wrapped), "a wrapped key");
  const auto content = unwrapSecret(wrapped, key);
  expect(content.has_value() && content->kind == kind && dependsOnASecret(content->secret.expose()), "it is unwrapped");
  wrapped[wrapped.size() - 4] = wrapped[wrapped.size() - 4] == 'A' ? 'B' : 'A';
  expect(!unwrapSecret(wrapped, key), "a changed one");
  const std::string zeros = wrapSecret({kind, LongTermSecret::zeros(kind)}, key.publicKey);
  expect(!unwrapSecret(zeros, key), "zeros");
}

void newPair() {
  ImportKey key = newImportKey();
  makeSecret(key.secret.expose());
  PublicKey publicKey = publicKeyOf(key.secret);
  expectSecret(publicKey.span(), "the public half of an import key");
  for (const KeyKind kind : {KeyKind::X25519, KeyKind::Ed25519, KeyKind::PeerBlock}) {
    publicKey = publicKeyOf(markedSecret(kind), kind);
    expectSecret(publicKey.span(), "a public key or fingerprint");
  }
}

void backup() {
  const SlotSecret place = slotSecret(SealKind::SystemdCredential, 'p');
  NewKey made = keyOf(KeyKind::X25519, LongTermSecret::random(), place);
  makeSecret(made.opened.versions[0].secret.expose());
  makeSecret(made.fileKey.expose());
  const SlotSecret right = marked(slotSecret(SealKind::SystemdCredential, 'b'));
  const auto text = backupText(made.opened, sealingBy(right));
  expect(text.has_value(), "a backup is made");
  if (!text) return;
  expectSecret(asBytes(text->expose()), "its text");
  const auto sealed = parseKeyText(text->expose(), KeyDocument::Backup);
  CHECK(sealed.has_value());
  const auto restored = fromBackup(*sealed, right, sealingBy(right));
  expect(restored.has_value() && dependsOnASecret(restored->opened.versions[0].secret.expose()), "it is restored");
  expect(!fromBackup(*sealed, marked(slotSecret(SealKind::SystemdCredential, 'w')), sealingBy(right)),
         "another secret");
}

void shares() {
  const ShareSecret secret = ShareSecret::random();
  makeSecret(secret.expose());
  auto split = splitSecret(secret, "k", {}, 2, 3);
  expect(dependsOnASecret(split[0].value.expose()), "a share");
  const auto joined = joinShares(std::span(split).subspan(1));
  expect(joined.has_value() && dependsOnASecret(asBytes(joined->text.expose())), "the joined secret");
}

// Of plain keys, import keys and what `key import` reads: the letters, not the lines around them.
void letters() {
  const LongTermSecret secret = markedSecret();
  SecretText base64, hex;
  expect(appendBase64(base64, secret.expose()) && appendHex(hex, secret.expose()), "letters of a secret");
  expect(dependsOnASecret(asBytes(base64.expose())) && dependsOnASecret(asBytes(hex.expose())), "they depend on it");
  LongTermSecret decoded;
  expect(decodeExactly(base64.expose(), decoded.exposeMutable()) && dependsOnASecret(decoded.expose()), "base64");
  expect(decodeHexExactly(hex.expose(), decoded.exposeMutable()) && dependsOnASecret(decoded.expose()), "hex");
}

}  // namespace

void keyFlows() {
  step("public halves", newPair);
  for (const KeyKind kind : {KeyKind::X25519, KeyKind::Ed25519, KeyKind::PeerBlock})
    step("unsealing " + std::string(describe(kind)), [&] { unsealing(kind); });
  for (const SealKind kind :
       {SealKind::Passphrase, SealKind::SystemdCredential, SealKind::Recovery, SealKind::Shares, SealKind::Token})
    step("slot: " + std::string(describe(kind)), [&] { slotOf(kind); });
  for (const KeyKind kind : {KeyKind::X25519, KeyKind::PeerBlock})
    step("import " + std::string(describe(kind)), [&] { import(kind); });
  step("backup", backup);
  step("shares", shares);
  step("letters", letters);
}

}  // namespace sallyport::vaultd::flow
