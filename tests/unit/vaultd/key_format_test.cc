// Goal: a key file opens with its own secret alone, and no byte of it can be changed.
// Method: round trips, then each byte, each length and each line of the text changed.
#include "vaultd/key_format.h"

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

// Costs nothing, so that thousands of openings are possible.
constexpr PassphraseCost CHEAP{1, 8192};
constexpr int64_t NOW = 1'795'000'000;

LongTermSecret testSecret() { return LongTermSecret(test::vector("Ss")); }

SlotSecret nothing() { return {}; }
SlotSecret passphrase(std::string_view text) { return {SealKind::Passphrase, SecretText::copyOf(text), {}}; }
SlotSecret credential(std::string_view content = "0123456789abcdef0123456789abcdef") {
  return {SealKind::SystemdCredential, SecretText::copyOf(content), "sallyport-keys"};
}
Sealing sealing(const SlotSecret& secret) {
  return {secret.kind, secret.kind == SealKind::Plain ? nullptr : &secret.text, CHEAP, secret.credential, 0, 0, {}};
}

NewKey made(const SlotSecret& secret, KeyKind kind = KeyKind::X25519) {
  auto key = newKey("server", kind, testSecret(), sealing(secret), NOW);
  CHECK(key.has_value());
  return std::move(*key);
}
std::string textOf(const NewKey& key) { return std::string(keyText(key.opened, key.fileKey).expose()); }
std::string text(const SlotSecret& secret = nothing()) { return textOf(made(secret)); }
std::string sealedBothWays() {
  NewKey key = made(passphrase("p"));
  key.opened.header.slots.push_back(*makeSlot("server", 2, sealing(credential()), key.fileKey));
  return textOf(key);
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

bool isTestSecret(const LongTermSecret& secret) { return equalsConstantTime(secret.expose(), testSecret().expose()); }
bool isTestKey(const Result<OpenedKey, Problem>& key) {
  return key && key->versions.size() == 1 && isTestSecret(key->versions[0].secret);
}
// Whether the text gives the key with the secret.
bool opens(std::string_view text, const SlotSecret& secret) {
  const auto parsed = parseKeyText(text);
  return parsed && isTestKey(openSealed(*parsed, secret));
}

TEST(KeyFormat, APlainKeyIsReadableTextAndOpens) {
  const std::string text = textOf(made(nothing()));
  EXPECT_TRUE(contains(text, "\nslot: 1 plain key="));
  EXPECT_TRUE(text.starts_with("sallyport key 2\nname: server\nkind: x25519\ncreated: 2026-11-18T11:06:40Z\nledger: "));
  EXPECT_TRUE(contains(text,
                       "\nexport: no\nbackup: no\nversion: 1 public=UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8= "
                       "active=1795000000 open-only=0 retired=0 deleted=0 destroy=0\nnonce: "));
  EXPECT_TRUE(opens(text, nothing()));
}

TEST(KeyFormat, APassphraseKeyOpensWithItsPassphraseAlone) {
  const std::string sealed = text(passphrase("correct horse"));
  EXPECT_TRUE(opens(sealed, passphrase("correct horse")));
  for (const char* wrong : {"", "correct hors", "correct horse ", "Correct horse"}) {
    auto opened = openSealed(*parseKeyText(sealed), passphrase(wrong));
    ASSERT_FALSE(opened.has_value()) << wrong;
    EXPECT_TRUE(contains(opened.error().message, "passphrase is wrong"));
  }
}

TEST(KeyFormat, ACredentialKeyOpensWithItsCredentialAlone) {
  const std::string sealed = text(credential());
  EXPECT_EQ(parseKeyText(sealed)->header.slots[0].credential, "sallyport-keys");
  EXPECT_TRUE(opens(sealed, credential()));
  EXPECT_FALSE(opens(sealed, credential("1123456789abcdef0123456789abcdef")));
}

TEST(KeyFormat, EachSlotOpensTheSameKey) {
  const std::string sealed = sealedBothWays();
  EXPECT_TRUE(opens(sealed, passphrase("p")));
  EXPECT_TRUE(opens(sealed, credential()));
  EXPECT_FALSE(opens(sealed, passphrase("q")));
  EXPECT_EQ(describeSlots(parseKeyText(sealed)->header), "passphrase, systemd credential");
  auto shares = openSealed(*parseKeyText(sealed), {SealKind::Shares, SecretText::copyOf("p"), {}});
  ASSERT_FALSE(shares.has_value());
  EXPECT_TRUE(contains(shares.error().message, "no slot of it"));
}

TEST(KeyFormat, ARecoveryPassphraseIsForgivingToTypeAndHardToGuess) {
  const SecretText printed = newRecoveryPassphrase();
  EXPECT_EQ(printed.size(), 39u);
  SlotSecret secret{SealKind::Recovery, normalRecoveryPassphrase(printed.expose()), {}};
  const std::string sealed = text(secret);
  std::string typed(printed.expose());
  for (char& c : typed) c = c == '-' ? ' ' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  EXPECT_TRUE(opens(sealed, {SealKind::Recovery, normalRecoveryPassphrase(typed), {}}));
  EXPECT_FALSE(opens(sealed, {SealKind::Recovery, normalRecoveryPassphrase(newRecoveryPassphrase().expose()), {}}));
}

TEST(KeyFormat, AnotherPassphraseLeavesEveryByteBeforeTheSlots) {
  const std::string before = sealedBothWays();
  const auto parsed = parseKeyText(before);
  const auto fileKey = fileKeyOf(*parsed, credential());
  auto slots = parsed->header.slots;
  slots[0] = *makeSlot("server", 1, sealing(passphrase("new")), *fileKey);
  const std::string after(withSlots(*parsed, slots, *fileKey).expose());
  EXPECT_EQ(after.substr(0, after.find("slot: ")), before.substr(0, before.find("slot: ")));
  EXPECT_TRUE(opens(after, passphrase("new")));
  EXPECT_TRUE(opens(after, credential()));
  EXPECT_FALSE(opens(after, passphrase("p")));
}

TEST(KeyFormat, AShortCredentialAndAnEmptyPassphraseAreRefused) {
  const SlotSecret shortOne = credential("0123456789abcdef0123456789abcde");
  auto key = newKey("server", KeyKind::X25519, testSecret(), sealing(shortOne), NOW);
  ASSERT_FALSE(key.has_value());
  EXPECT_TRUE(contains(key.error().message, "shorter than 32 bytes"));
  const SlotSecret empty = passphrase("");
  EXPECT_FALSE(newKey("server", KeyKind::X25519, testSecret(), sealing(empty), NOW).has_value());
}

TEST(KeyFormat, TheSecretIsNotInASealedFile) {
  EXPECT_FALSE(contains(text(passphrase("p")), toBase64(test::vector("Ss")).substr(0, 40)));
}

TEST(KeyFormat, TwoFilesOfOneKeyDiffer) {
  const NewKey key = made(passphrase("p"));
  EXPECT_NE(textOf(key), textOf(key)) << "another nonce each time";
  EXPECT_NE(parseKeyText(text())->header.ledgerId, parseKeyText(text())->header.ledgerId);
}

TEST(KeyFormat, AnEd25519KeyIsItsSeed) {
  const NewKey key = made(nothing(), KeyKind::Ed25519);
  const auto parsed = parseKeyText(textOf(key));
  EXPECT_EQ(parsed->header.kind, KeyKind::Ed25519);
  EXPECT_TRUE(isTestKey(openSealed(*parsed, nothing())));
  EXPECT_NE(key.opened.header.versions[0].publicKey, publicKeyOf(testSecret(), KeyKind::X25519));
  EXPECT_FALSE(opens(replaced(textOf(key), "kind: ed25519", "kind: x25519"), nothing()));
}

// RFC 8032, 7.1, test 1.
TEST(KeyFormat, AnEd25519PublicKeyIsThatOfTheStandard) {
  const LongTermSecret seed(test::hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
  EXPECT_EQ(toHex(publicKeyOf(seed, KeyKind::Ed25519).span()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
}

// Whatever single byte of a file is changed, sealed or plain, no key comes out, whichever slot opens it.
TEST(KeyFormat, NoByteOfAFileCanBeChanged) {
  struct Case {
    std::string text;
    SlotSecret secret;
  };
  Case cases[] = {{sealedBothWays(), passphrase("p")}, {sealedBothWays(), credential()}, {text(), nothing()}};
  for (const auto& [whole, secret] : cases) {
    ASSERT_TRUE(opens(whole, secret));
    for (size_t at = 0; at < whole.size(); ++at) {
      for (const char change : {'\x01', '\x20', '\x03'}) {
        std::string changed = whole;
        changed[at] = static_cast<char>(changed[at] ^ change);
        auto parsed = parseKeyText(changed);
        // Higher costs are allowed by the format, but would take minutes here.
        if (!parsed || parsed->header.slots[0].cost.opsLimit > 3 || parsed->header.slots[0].cost.memLimitBytes > 100000)
          continue;
        EXPECT_FALSE(openSealed(*parsed, secret).has_value()) << "byte " << at << " of\n" << changed;
      }
    }
  }
}

TEST(KeyFormat, ASlotFitsNoOtherKey) {
  NewKey alice = made(passphrase("p"));
  const auto slot = *makeSlot("alice", 1, sealing(passphrase("p")), alice.fileKey);
  EXPECT_FALSE(openSlot("server", slot, SecretText::copyOf("p")).has_value());
  EXPECT_TRUE(openSlot("alice", slot, SecretText::copyOf("p")).has_value());
}

TEST(KeyFormat, ASlotMoreOrLessIsNoticed) {
  const std::string whole = sealedBothWays();
  const size_t second = whole.find("slot: 2");
  const size_t mac = whole.find("mac: ");
  EXPECT_FALSE(opens(whole.substr(0, second) + whole.substr(mac), passphrase("p")));
}

TEST(KeyFormat, EveryTruncationIsRefused) {
  for (const std::string& whole : {text(), sealedBothWays()}) {
    for (size_t size = 0; size < whole.size(); ++size)
      EXPECT_FALSE(parseKeyText(whole.substr(0, size)).has_value()) << size;
    EXPECT_TRUE(parseKeyText(whole).has_value());
  }
}

TEST(KeyFormat, TruncationIsCalledThat) {
  auto parsed = parseKeyText(text().substr(0, 60));
  ASSERT_FALSE(parsed.has_value());
  EXPECT_TRUE(contains(parsed.error().message, "cut off"));
}

TEST(KeyFormat, AnotherVersionIsRefusedAsSuch) {
  auto parsed = parseKeyText(replaced(text(), "key 2", "key 3"));
  ASSERT_FALSE(parsed.has_value());
  EXPECT_TRUE(contains(parsed.error().message, "another version"));
}

TEST(KeyFormat, SomethingElseIsNotAKey) {
  for (const char* text : {"-----BEGIN PRIVATE KEY-----\n", "\n", "sallyport\n", "SALLYPORT KEY 2\n"}) {
    EXPECT_FALSE(parseKeyText(text).has_value()) << text;
  }
}

TEST(KeyFormat, RefusesWhatItWouldNotHaveWritten) {
  const std::string whole = text();
  const std::pair<const char*, const char*> changes[] = {{"name: server", "name: ../server"},
                                                         {"name: server", "name: "},
                                                         {"name: server", "Name: server"},
                                                         {"kind: x25519", "kind: x448"},
                                                         {"export: no", "export: maybe"},
                                                         {"backup: no\n", ""},
                                                         {"version: 1 ", "version: 01 "},
                                                         {"version: 1 ", "version: 0 "},
                                                         {"open-only=0", "open-only=00"},
                                                         {"retired=0", "retired=-1"},
                                                         {"retired=0", "retired=9223372036854775808"},
                                                         {"destroy=0", "destroy=0 more=1"},
                                                         {"slot: 1 plain", "slot: 0 plain"},
                                                         {"slot: 1 plain", "slot: 1 none"},
                                                         {"slot: 1 plain", "slot: 1  plain"},
                                                         {"slot: 1 plain key=", "slot: 1 plain wrapped="},
                                                         {"kind: x25519\n", ""},
                                                         {"name: server\n", "name: server\nname: server\n"},
                                                         {"created: 2", "created: \x1b[31m2"},
                                                         {"payload: ", "payload:  "},
                                                         {"payload: ", "payload: AAAA"},
                                                         {"\nslot", "\r\nslot"}};
  for (const auto& [from, to] : changes) EXPECT_FALSE(parseKeyText(replaced(whole, from, to)).has_value()) << to;
  EXPECT_FALSE(parseKeyText(whole + "\n").has_value());
  EXPECT_FALSE(parseKeyText(whole + "mac: AAAA\n").has_value());
  EXPECT_FALSE(parseKeyText(whole.substr(0, whole.size() - 2) + "\n").has_value()) << "unpadded base64";
}

TEST(KeyFormat, APlainSlotStandsAlone) {
  const std::string whole = sealedBothWays();
  const std::string plain = text();
  const std::string line = plain.substr(plain.find("slot: "), plain.find("mac: ") - plain.find("slot: "));
  EXPECT_FALSE(parseKeyText(replaced(whole, "mac: ", replaced(line, "slot: 1", "slot: 3") + "mac: ")).has_value());
}

// A hostile file must not make the vault work for hours or take all memory before anything is authenticated.
TEST(KeyFormat, AbsurdPassphraseCostsAreRefusedUnpaid) {
  const std::string whole = text(passphrase("p"));
  const std::pair<const char*, const char*> changes[] = {{"opslimit=1", "opslimit=4000000000"},
                                                         {"opslimit=1", "opslimit=0"},
                                                         {"memlimit=8192", "memlimit=1099511627776"},
                                                         {"memlimit=8192", "memlimit=1"},
                                                         {"memlimit=8192", "memlimit=18446744073709551615"}};
  for (const auto& [from, to] : changes) {
    auto parsed = parseKeyText(replaced(whole, from, to));
    ASSERT_TRUE(parsed.has_value()) << to;
    auto opened = openSealed(*parsed, passphrase("p"));
    ASSERT_FALSE(opened.has_value()) << to;
    EXPECT_TRUE(contains(opened.error().message, "costs out of range"));
  }
  for (const char* bad : {"opslimit=-1", "opslimit=1x", "opslimit=", "opslimit=18446744073709551616", "opslimit=01"}) {
    EXPECT_FALSE(parseKeyText(replaced(whole, "opslimit=1", bad)).has_value()) << bad;
  }
}

TEST(KeyFormat, AFullFileFits) {
  NewKey key = made(passphrase("p"));
  for (uint32_t number = 2; number <= MAX_VERSIONS; ++number) {
    LongTermSecret secret = LongTermSecret::random();
    KeyVersion version{number, publicKeyOf(secret), INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};
    key.opened.header.versions.push_back(version);
    key.opened.versions.push_back({version, std::move(secret)});
  }
  while (key.opened.header.slots.size() < MAX_SLOTS) {
    const auto number = static_cast<uint32_t>(key.opened.header.slots.size() + 1);
    key.opened.header.slots.push_back(*makeSlot("server", number, sealing(passphrase("p")), key.fileKey));
  }
  const auto opened = openSealed(*parseKeyText(textOf(key)), passphrase("p"));
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->versions.size(), MAX_VERSIONS);
  EXPECT_EQ(opened->header.versions, key.opened.header.versions);
}

TEST(KeyFormat, AVersionWithoutSecretMustHaveBeenDestroyed) {
  NewKey key = made(nothing());
  key.opened.versions.clear();
  EXPECT_FALSE(openKey(*parseKeyText(textOf(key)), key.fileKey).has_value());
  key.opened.header.versions[0].destroyAt = NOW;
  const auto opened = openKey(*parseKeyText(textOf(key)), key.fileKey);
  ASSERT_TRUE(opened.has_value());
  EXPECT_TRUE(opened->versions.empty());
}

TEST(KeyFormat, AFileKeyOfAnotherFileIsRefused) {
  const auto parsed = parseKeyText(text());
  EXPECT_FALSE(openKey(*parsed, FileKey::random()).has_value());
  EXPECT_FALSE(openKey(*parsed, FileKey()).has_value());
}

// --- format 1 ---

constexpr std::string_view PLAIN_1 =
    "sallyport key 1\nname: alice\nkind: x25519\npublic: pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=\n"
    "created: 2026-11-21T04:00:00Z\nseal: plain\npayload: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

std::string plain1() { return std::string(PLAIN_1); }

TEST(KeyFormat1, IsStillRead) {
  const auto parsed = parseKeyText(plain1());
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->format, 1u);
  EXPECT_EQ(parsed->header.seal, SealKind::Plain);
  EXPECT_FALSE(parsed->header.exportable);
  EXPECT_TRUE(equalsConstantTime(parsed->header.ledgerId.span(), parsed->header.versions[0].publicKey.span()))
      << "its nonce file stays its own";
  const auto opened = openSealed(*parsed, nothing());
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(stateOf(opened->versions[0].version, NOW), VersionState::Active);
}

TEST(KeyFormat1, APublicKeyThatIsNotOursIsRefused) {
  const auto other = toBase64(test::vector("C"));
  auto parsed = parseKeyText(replaced(plain1(), plain1().substr(plain1().find("public: ") + 8, 44), other));
  ASSERT_TRUE(parsed.has_value());
  auto opened = openSealed(*parsed, nothing());
  ASSERT_FALSE(opened.has_value());
  EXPECT_TRUE(contains(opened.error().message, "doesn't belong"));
}

TEST(KeyFormat1, EveryTruncationIsRefused) {
  const std::string whole = plain1();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(parseKeyText(whole.substr(0, size)).has_value()) << size;
}

// Sealed by the release before: passphrase "p", cheap cost.
TEST(KeyFormat1, ASealedOneOpensWithItsPassphraseAlone) {
  constexpr std::string_view SEALED_1 =
      "sallyport key 1\n"
      "name: server\n"
      "kind: x25519\n"
      "public: UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8=\n"
      "created: 2026-11-21T04:00:00Z\n"
      "seal: passphrase argon2id13 opslimit=1 memlimit=8192 salt=AAECAwQFBgcICQoLDA0ODw==\n"
      "nonce: AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\n"
      "payload: zk5Wu08cRYhH7zyzgWFl4wP7ivUahY4oEK2J7Dtr5p65l7im0eGHntvOJUa7romS\n";
  const auto parsed = parseKeyText(SEALED_1);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_TRUE(isTestKey(openSealed(*parsed, passphrase("p"))));
  EXPECT_FALSE(openSealed(*parsed, passphrase("q")).has_value());
  EXPECT_TRUE(isTestKey(openKey(*parsed, *fileKeyOf(*parsed, passphrase("p"))))) << "what a vault is given";
}

TEST(KeyFormat, NamesOfKeysAreFileNamesAndNothingMore) {
  for (const char* good : {"a", "Z9", "server", "a.b-c_d", "0"}) EXPECT_TRUE(isKeyName(good)) << good;
  EXPECT_TRUE(isKeyName(std::string(64, 'a')));
  for (const char* bad : {"", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "../a", "a\\b", "\xc3\xa4"}) {
    EXPECT_FALSE(isKeyName(bad)) << bad;
  }
  EXPECT_FALSE(isKeyName(std::string(65, 'a')));
  EXPECT_FALSE(isKeyName(std::string_view("a\0b", 3)));
}

TEST(KeyFormat, ImportsBase64AndHex) {
  const auto bytes = test::vector("Ss");
  for (const std::string& text :
       {toHex(bytes), toBase64(bytes), "  " + toBase64(bytes) + "\r\n", toHex(bytes) + "\n"}) {
    auto secret = parseSecret(text);
    ASSERT_TRUE(secret.has_value()) << text;
    EXPECT_TRUE(isTestSecret(*secret));
  }
}

TEST(KeyFormat, RefusesToImportAnythingElse) {
  const std::string hex = toHex(test::vector("Ss"));
  for (const std::string& text :
       {std::string(), hex.substr(1), hex + "0", "g" + hex.substr(1), hex.substr(0, 62), hex + " x",
        std::string(64, '0'), std::string(43, 'A') + "=", std::string(44, 'A'), std::string(5000, 'A')}) {
    EXPECT_FALSE(parseSecret(text).has_value()) << text;
  }
}

TEST(KeyFormat, AProblemNeverHoldsTheSecret) {
  const std::string secret = "AQEBAQEBAQEB";
  for (size_t cut = 1; cut < 60; ++cut) {
    const std::string whole = plain1();
    auto parsed = parseKeyText(whole.substr(0, whole.size() - cut));
    ASSERT_FALSE(parsed.has_value());
    EXPECT_FALSE(contains(parsed.error().message + parsed.error().hint, secret.substr(0, 8)));
  }
}

}  // namespace
}  // namespace sallyport::vaultd
