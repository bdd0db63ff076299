// Goal: the file of a key that lives in a token holds no secret of it, says which object it is, and can't be taken for
// another; a slot that a token opens is opened by what its wrapping key yields and by nothing else.
// Method: round trips, every byte of the text changed, and what such lines may not hold.
#include "tests/unit/vaultd/support.h"
#include "vaultd/key_file.h"
#include "vaultd/key_life.h"
#include "vaultd/key_transfer.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

constexpr int64_t NOW = 1'795'000'000;
constexpr int64_t DAY = 86'400;

PublicKey publicKey(std::byte fill = std::byte{7}) {
  PublicKey key;
  std::ranges::fill(key.mutableSpan(), fill);
  return key;
}
TokenKey inToken(std::byte fill = std::byte{7}) { return {publicKey(fill), test::hex("00ff10"), "montgomery-oid"}; }
NewKey made(const Sealing& sealing = {}) {
  auto key = newTokenKey("server", KeyKind::X25519, "hsm1", inToken(), sealing, NOW);
  CHECK(key.has_value());
  return std::move(*key);
}
std::string textOf(const NewKey& key) { return std::string(keyText(key.opened, key.fileKey).expose()); }

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// What a token would have wrapped.
struct Wrapped {
  SlotSecret secret{SealKind::Token, {}, {}};
  Sealing sealing;
};
std::unique_ptr<Wrapped> wrapped(std::string_view token = "hsm1", TokenCipher cipher = TokenCipher::AesGcm,
                                 size_t blobBytes = 60) {
  auto made = std::make_unique<Wrapped>();
  const auto random = TokenSecret::random();
  CHECK(made->secret.text.append({reinterpret_cast<const char*>(random.exposeData()), TokenSecret::SIZE}));
  made->sealing.kind = SealKind::Token;
  made->sealing.secret = &made->secret.text;
  made->sealing.token = token;
  made->sealing.tokenWrap = {cipher, test::hex("beef"), std::vector<std::byte>(blobBytes, std::byte{0x5a})};
  return made;
}

TEST(TokenKey, TheFileNamesTokenObjectAndSpelling) {
  const std::string text = textOf(made());
  EXPECT_TRUE(contains(text, "\nkind: x25519\ntoken: hsm1\ncreated: "));
  EXPECT_TRUE(contains(text, " destroy=0 id=00ff10 spelling=montgomery-oid\nnonce: "));
  const auto parsed = parseKeyText(text);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  const auto opened = openSealed(*parsed, {});
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->header.token, "hsm1");
  EXPECT_EQ(opened->header.versions[0].publicKey, publicKey());
  EXPECT_EQ(opened->header.versions[0].tokenId, test::hex("00ff10"));
  EXPECT_EQ(opened->versions[0].version, opened->header.versions[0]);
  EXPECT_EQ(describeSlots(opened->header), "in token hsm1, plain file");
  EXPECT_EQ(textOf({std::move(*openSealed(*parsed, {})), FileKey(parsed->plainKey.expose())}).substr(0, 300),
            text.substr(0, 300));
}

TEST(TokenKey, TheSeedOfItsNoncesIsRandomEachTime) {
  const auto one = made();
  const auto other = made();
  EXPECT_FALSE(equalsConstantTime(one.opened.versions[0].secret.expose(), other.opened.versions[0].secret.expose()));
  EXPECT_NE(publicKeyOf(one.opened.versions[0].secret), publicKey()) << "no key follows from it";
}

TEST(TokenKey, NoByteOfTheFileCanBeChanged) {
  const auto sealing = wrapped();
  const std::string whole = textOf(made(sealing->sealing));
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = changed[i] == 'b' ? 'c' : 'b';
    const auto parsed = parseKeyText(changed);
    if (!parsed) continue;
    EXPECT_FALSE(openSealed(*parsed, sealing->secret).has_value()) << i;
  }
}

TEST(TokenKey, ItsLinesHaveOneSpelling) {
  const std::string text = textOf(made());
  const std::pair<const char*, const char*> changes[] = {
      {"id=00ff10 ", "id=00FF10 "},
      {"id=00ff10 ", "id=00ff1 "},
      {"id=00ff10 ", "id= "},
      {"id=00ff10 ", "id=00ff10  "},
      {" id=00ff10", ""},
      {" spelling=montgomery-oid", ""},
      {"spelling=montgomery-oid", "spelling="},
      {"spelling=montgomery-oid", "spelling=Montgomery"},
      {"spelling=montgomery-oid", "spelling=a b"},
      {"spelling=montgomery-oid", "spelling=0123456789012345678901234567890123"},
      {"token: hsm1\n", "token: ../hsm1\n"},
      {"token: hsm1\n", "token: \n"},
      {"token: hsm1\n", ""},
      {"token: hsm1\n", "token: hsm1\ntoken: hsm1\n"},
  };
  for (const auto& [from, to] : changes) EXPECT_FALSE(parseKeyText(replaced(text, from, to)).has_value()) << to;
  EXPECT_FALSE(parseKeyText(replaced(text, "id=00ff10", "id=" + std::string(130, 'a'))).has_value());
  EXPECT_TRUE(parseKeyText(replaced(text, "id=00ff10", "id=" + std::string(128, 'a'))).has_value());
}

TEST(TokenKey, AKeyOfAFileHasNoObjectInAToken) {
  const auto key = newKey("server", KeyKind::X25519, LongTermSecret::random(), {}, NOW);
  const std::string text = textOf(*key);
  EXPECT_FALSE(parseKeyText(replaced(text, "destroy=0", "destroy=0 id=00 spelling=x")).has_value());
  // And it can't be made one of a token: its public key wouldn't be checked any more.
  EXPECT_FALSE(parseKeyText(replaced(text, "\ncreated", "\ntoken: hsm1\ncreated")).has_value());
}

TEST(TokenKey, EachVersionHasItsOwnObject) {
  auto key = std::move(made().opened);
  TokenKey next = inToken(std::byte{9});
  next.id = test::hex("02");
  ASSERT_TRUE(rotateInToken(key, next, {0, DAY}, NOW + DAY).has_value());
  ASSERT_EQ(key.versions.size(), 2u);
  EXPECT_EQ(key.header.versions[1].tokenId, test::hex("02"));
  EXPECT_EQ(key.header.versions[1].publicKey, publicKey(std::byte{9}));
  EXPECT_EQ(key.header.versions[0].openOnlyFrom, NOW + DAY);
  EXPECT_FALSE(equalsConstantTime(key.versions[0].secret.expose(), key.versions[1].secret.expose()));
  const auto again = openSealed(*parseKeyText(keyText(key, FileKey()).expose()), {});
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->header.versions, key.header.versions);
}

TEST(TokenKey, ASoftwareVersionIsNotAddedToIt) {
  auto key = std::move(made().opened);
  const auto refused = rotate(key, LongTermSecret::random(), {}, NOW + DAY);
  ASSERT_FALSE(refused.has_value());
  EXPECT_TRUE(contains(refused.error().message, "lives in token hsm1"));
  EXPECT_EQ(key.versions.size(), 1u);
}

TEST(TokenKey, IsAskedBeforeTheTokenMakesAnother) {
  auto key = std::move(made().opened);
  EXPECT_TRUE(mayRotate(key.header, NOW).has_value());
  ASSERT_TRUE(rotateInToken(key, inToken(), {DAY, DAY}, NOW + 1).has_value());
  EXPECT_FALSE(mayRotate(key.header, NOW + 2).has_value()) << "one is pending";
  EXPECT_FALSE(rotateInToken(key, inToken(), {DAY, DAY}, NOW + 2).has_value());
}

TEST(TokenKey, TheLargestFileFitsItsBuffer) {
  auto key = std::move(made().opened);
  TokenKey next = inToken();
  next.id = std::vector<std::byte>(MAX_TOKEN_ID_BYTES, std::byte{0xfe});
  next.spelling = std::string(32, 'z');
  for (size_t i = 1; i < MAX_VERSIONS; ++i)
    ASSERT_TRUE(rotateInToken(key, next, {0, 1'000'000'000}, NOW + static_cast<int64_t>(i)).has_value());
  EXPECT_FALSE(mayRotate(key.header, NOW + 100).has_value());
  const auto sealing = wrapped(std::string(64, 'n'), TokenCipher::OaepSha256, MAX_TOKEN_BLOB_BYTES);
  sealing->sealing.tokenWrap.keyId = std::vector<std::byte>(MAX_TOKEN_ID_BYTES, std::byte{1});
  const auto fileKey = renewFileKey(key, sealing->sealing);
  ASSERT_TRUE(fileKey.has_value());
  for (uint32_t number = 2; number <= MAX_SLOTS; ++number)
    key.header.slots.push_back(*makeSlot("server", number, sealing->sealing, *fileKey));
  const auto parsed = parseKeyText(keyText(key, *fileKey).expose());
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_TRUE(openSealed(*parsed, sealing->secret).has_value());
}

TEST(TokenKey, ABackupBringsOtherSeedsBack) {
  const auto key = made();
  const SlotSecret secret{SealKind::Passphrase, SecretText::copyOf("p"), {}};
  const Sealing sealing{SealKind::Passphrase, &secret.text, {1, 8192}, {}, 0, 0, {}};
  const auto text = backupText(key.opened, sealing);
  ASSERT_TRUE(text.has_value());
  const auto restored = fromBackup(*parseKeyText(text->expose(), KeyDocument::Backup), secret, {});
  ASSERT_TRUE(restored.has_value());
  EXPECT_EQ(restored->opened.header.token, "hsm1");
  EXPECT_EQ(restored->opened.header.versions, key.opened.header.versions);
  EXPECT_FALSE(
      equalsConstantTime(restored->opened.versions[0].secret.expose(), key.opened.versions[0].secret.expose()));
}

TEST(TokenKey, IsStoredAndListedAsAnyKey) {
  const test::TemporaryFolder folder;
  const auto stored = storeTokenKey(folder.path(), "server", KeyKind::Ed25519, "hsm1", inToken(), {});
  ASSERT_TRUE(stored.has_value()) << stored.error().message;
  const auto key = loadKey(folder.path(), "server", {});
  ASSERT_TRUE(key.has_value()) << key.error().message;
  EXPECT_EQ(key->header.kind, KeyKind::Ed25519);
  EXPECT_FALSE(storeTokenKey(folder.path(), "server", KeyKind::Ed25519, "hsm1", inToken(), {}).has_value());
  EXPECT_FALSE(storeTokenKey(folder.path(), "../x", KeyKind::Ed25519, "hsm1", inToken(), {}).has_value());
}

// --- slots ---

NewKey sealedBy(const std::vector<const Sealing*>& sealings) {
  auto key = newKey("server", KeyKind::X25519, LongTermSecret::random(), *sealings[0], NOW);
  CHECK(key.has_value());
  for (size_t i = 1; i < sealings.size(); ++i)
    key->opened.header.slots.push_back(*makeSlot("server", static_cast<uint32_t>(i + 1), *sealings[i], key->fileKey));
  return std::move(*key);
}

TEST(TokenSlot, IsOpenedByWhatTheTokenUnwrapsAlone) {
  for (const auto cipher : {TokenCipher::AesGcm, TokenCipher::OaepSha256, TokenCipher::OaepSha1}) {
    const auto right = wrapped("hsm1", cipher);
    const auto wrong = wrapped("hsm1", cipher);
    const auto parsed = parseKeyText(textOf(sealedBy({&right->sealing})));
    ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
    EXPECT_EQ(parsed->header.slots[0].token, "hsm1");
    EXPECT_EQ(parsed->header.slots[0].tokenWrap.cipher, cipher);
    EXPECT_EQ(parsed->header.slots[0].tokenWrap.keyId, test::hex("beef"));
    EXPECT_TRUE(openSealed(*parsed, right->secret).has_value());
    const auto refused = openSealed(*parsed, wrong->secret);
    ASSERT_FALSE(refused.has_value());
    EXPECT_TRUE(contains(refused.error().message, "token hsm1"));
  }
}

TEST(TokenSlot, ASecretOfAnotherLengthIsRefused) {
  const auto right = wrapped();
  const auto parsed = parseKeyText(textOf(sealedBy({&right->sealing})));
  for (const size_t size : {size_t{0}, size_t{31}, size_t{33}}) {
    const SlotSecret secret{SealKind::Token, SecretText::copyOf(std::string(size, 'x')), {}};
    EXPECT_FALSE(openSealed(*parsed, secret).has_value()) << size;
  }
}

TEST(TokenSlot, TwoTokensAndAPassphraseOpenTheSameKey) {
  const auto a = wrapped("a");
  const auto b = wrapped("b", TokenCipher::OaepSha1, 256);
  const SlotSecret passphrase{SealKind::Passphrase, SecretText::copyOf("p"), {}};
  const Sealing third{SealKind::Passphrase, &passphrase.text, {1, 8192}, {}, 0, 0, {}};
  const auto parsed = parseKeyText(textOf(sealedBy({&a->sealing, &b->sealing, &third})));
  EXPECT_EQ(describeSlots(parsed->header), "token a, token b, passphrase");
  EXPECT_TRUE(openSealed(*parsed, a->secret).has_value());
  EXPECT_TRUE(openSealed(*parsed, b->secret).has_value());
  EXPECT_TRUE(openSealed(*parsed, passphrase).has_value());
  // What token b gave is tried with the slot of token b alone.
  b->secret.slot = 1;
  EXPECT_FALSE(openSealed(*parsed, b->secret).has_value());
  b->secret.slot = 2;
  EXPECT_TRUE(openSealed(*parsed, b->secret).has_value());
}

TEST(TokenSlot, CannotBeMovedToAnotherKey) {
  const auto sealing = wrapped();
  const auto slot = makeSlot("server", 1, sealing->sealing, FileKey::random());
  ASSERT_TRUE(slot.has_value());
  EXPECT_TRUE(openSlot("server", *slot, sealing->secret.text).has_value());
  EXPECT_FALSE(openSlot("other", *slot, sealing->secret.text).has_value());
  Slot changed = *slot;
  changed.tokenWrap.blob[0] ^= std::byte{1};
  EXPECT_FALSE(openSlot("server", changed, sealing->secret.text).has_value());
}

TEST(TokenSlot, ItsLineIsReadByTheLetter) {
  const auto sealing = wrapped();
  const std::string text = textOf(sealedBy({&sealing->sealing}));
  const std::pair<const char*, const char*> changes[] = {
      {"token name=hsm1", "token name="},
      {"token name=hsm1", "token name=a/b"},
      {"cipher=aes-gcm", "cipher=aes-cbc"},
      {"cipher=aes-gcm", "cipher="},
      {" cipher=aes-gcm", ""},
      {"key=beef", "key=BEEF"},
      {"key=beef", "key="},
      {"key=beef", "key=bee"},
      {"blob=5a5a", "blob=5A5a"},
      {"blob=5a5a", "blob=5a5"},
      {"salt=", "salt=A"},
  };
  for (const auto& [from, to] : changes) EXPECT_FALSE(parseKeyText(replaced(text, from, to)).has_value()) << to;
  EXPECT_FALSE(parseKeyText(replaced(text, "key=beef", "key=" + std::string(130, 'a'))).has_value());
  EXPECT_FALSE(parseKeyText(replaced(text, "blob=", "blob=" + std::string(1024, 'a'))).has_value());
}

}  // namespace
}  // namespace sallyport::vaultd
