// Goal: a key file opens with its own secret alone, and no byte of it can be changed.
// Method: round trips, then each byte, each length and each line of the text changed.
#include "vaultd/key_format.h"

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;

// Costs nothing, so that thousands of openings are possible.
constexpr PassphraseCost CHEAP{1, 8192};
const SecretText NO_SECRET;

LongTermSecret testSecret() { return LongTermSecret(test::vector("Ss")); }

std::string plainText() { return std::string(sealedText("server", testSecret(), {})->expose()); }

std::string passphraseText(const SecretText& passphrase) {
  return std::string(sealedText("server", testSecret(), {SealKind::Passphrase, &passphrase, CHEAP, {}})->expose());
}

SecretText credential() { return SecretText::copyOf("0123456789abcdef0123456789abcdef"); }

std::string credentialText(const SecretText& content) {
  return std::string(
      sealedText("server", testSecret(), {SealKind::SystemdCredential, &content, CHEAP, "sallyport-keys"})->expose());
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

bool isTestSecret(const LongTermSecret& secret) { return equalsConstantTime(secret.expose(), testSecret().expose()); }
bool isTestSecret(const OpenedKey& key) { return key.versions.size() == 1 && isTestSecret(key.versions[0].secret); }

TEST(KeyFormat, APlainKeyIsReadableTextAndOpens) {
  const std::string text = plainText();
  EXPECT_TRUE(text.starts_with(
      "sallyport key 1\nname: server\nkind: x25519\npublic: UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8=\n"));
  auto parsed = parseKeyText(text);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->header.seal, SealKind::Plain);
  auto opened = openSealed(*parsed, NO_SECRET);
  ASSERT_TRUE(opened.has_value());
  EXPECT_TRUE(isTestSecret(*opened));
}

TEST(KeyFormat, APassphraseKeyOpensWithItsPassphraseAlone) {
  const SecretText right = SecretText::copyOf("correct horse");
  auto parsed = parseKeyText(passphraseText(right));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_TRUE(isTestSecret(*openSealed(*parsed, right)));
  for (const char* wrong : {"", "correct hors", "correct horse ", "Correct horse"}) {
    auto opened = openSealed(*parsed, SecretText::copyOf(wrong));
    ASSERT_FALSE(opened.has_value()) << wrong;
    EXPECT_TRUE(contains(opened.error().message, "passphrase is wrong"));
  }
}

TEST(KeyFormat, ACredentialKeyOpensWithItsCredentialAlone) {
  auto parsed = parseKeyText(credentialText(credential()));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->header.credential, "sallyport-keys");
  EXPECT_TRUE(isTestSecret(*openSealed(*parsed, credential())));
  EXPECT_FALSE(openSealed(*parsed, SecretText::copyOf("1123456789abcdef0123456789abcdef")).has_value());
}

TEST(KeyFormat, AShortCredentialIsRefused) {
  const SecretText shortOne = SecretText::copyOf("0123456789abcdef0123456789abcde");
  auto text = sealedText("server", testSecret(), {SealKind::SystemdCredential, &shortOne, CHEAP, "name"});
  ASSERT_FALSE(text.has_value());
  EXPECT_TRUE(contains(text.error().message, "shorter than 32 bytes"));
}

TEST(KeyFormat, AnEmptyPassphraseIsRefused) {
  EXPECT_FALSE(sealedText("server", testSecret(), {SealKind::Passphrase, &NO_SECRET, CHEAP, {}}).has_value());
}

TEST(KeyFormat, TheSecretIsNotInASealedFile) {
  const std::string text = passphraseText(SecretText::copyOf("p"));
  EXPECT_FALSE(contains(text, toBase64(test::vector("Ss")).substr(0, 40)));
}

TEST(KeyFormat, TwoSealsOfOneKeyDiffer) {
  const SecretText passphrase = SecretText::copyOf("p");
  EXPECT_NE(passphraseText(passphrase), passphraseText(passphrase));
}

TEST(KeyFormat, AKeyKeepsItsAge) {
  auto text = sealedText("server", testSecret(), {}, "2020-02-02T02:02:02Z");
  EXPECT_EQ(parseKeyText(text->expose())->header.created, "2020-02-02T02:02:02Z");
}

// Whatever single byte of a sealed file is changed, no key comes out.
TEST(KeyFormat, NoByteOfASealedFileCanBeChanged) {
  const SecretText passphrase = SecretText::copyOf("p");
  const std::string text = passphraseText(passphrase);
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char change : {'\x01', '\x20', '\x03'}) {
      std::string changed = text;
      changed[at] = static_cast<char>(changed[at] ^ change);
      auto parsed = parseKeyText(changed);
      if (!parsed) continue;
      // Higher costs are allowed by the format, but would take minutes here.
      if (parsed->header.cost.opsLimit > 3 || parsed->header.cost.memLimitBytes > 100000) continue;
      EXPECT_FALSE(openSealed(*parsed, passphrase).has_value()) << "byte " << at << " of\n" << changed;
    }
  }
}

// A plain file has no authenticator, but its public key and name must fit; what remains free is the date.
TEST(KeyFormat, APlainFileGivesItsKeyOrNothing) {
  const std::string text = plainText();
  for (size_t at = 0; at < text.size(); ++at) {
    for (const char change : {'\x01', '\x20', '\x03'}) {
      std::string changed = text;
      changed[at] = static_cast<char>(changed[at] ^ change);
      auto parsed = parseKeyText(changed);
      if (!parsed) continue;
      auto opened = openSealed(*parsed, NO_SECRET);
      if (opened) { EXPECT_EQ(publicKeyOf(opened->versions[0].secret), publicKeyOf(testSecret())) << "byte " << at; }
    }
  }
}

TEST(KeyFormat, EveryTruncationIsRefused) {
  for (const std::string& text : {plainText(), passphraseText(SecretText::copyOf("p")), credentialText(credential())}) {
    for (size_t size = 0; size < text.size(); ++size)
      EXPECT_FALSE(parseKeyText(text.substr(0, size)).has_value()) << size;
    EXPECT_TRUE(parseKeyText(text).has_value());
  }
}

TEST(KeyFormat, TruncationIsCalledThat) {
  auto parsed = parseKeyText(plainText().substr(0, 60));
  ASSERT_FALSE(parsed.has_value());
  EXPECT_TRUE(contains(parsed.error().message, "cut off"));
}

TEST(KeyFormat, AnotherVersionIsRefusedAsSuch) {
  auto parsed = parseKeyText(replaced(plainText(), "key 1", "key 2"));
  ASSERT_FALSE(parsed.has_value());
  EXPECT_TRUE(contains(parsed.error().message, "another version"));
}

TEST(KeyFormat, SomethingElseIsNotAKey) {
  for (const char* text : {"-----BEGIN PRIVATE KEY-----\n", "\n", "sallyport\n", "SALLYPORT KEY 1\n"}) {
    EXPECT_FALSE(parseKeyText(text).has_value()) << text;
  }
}

TEST(KeyFormat, RefusesWhatItWouldNotHaveWritten) {
  const std::string text = plainText();
  const std::pair<const char*, const char*> changes[] = {{"name: server", "name: ../server"},
                                                         {"name: server", "name: "},
                                                         {"name: server", "Name: server"},
                                                         {"kind: x25519", "kind: ed25519"},
                                                         {"public: ", "public:"},
                                                         {"seal: plain", "seal: none"},
                                                         {"seal: plain", "seal: plain "},
                                                         {"kind: x25519\n", ""},
                                                         {"name: server\n", "name: server\nname: server\n"},
                                                         {"created: 2", "created: \x1b[31m2"},
                                                         {"payload: ", "payload:  "},
                                                         {"\nseal", "\r\nseal"}};
  for (const auto& [from, to] : changes) EXPECT_FALSE(parseKeyText(replaced(text, from, to)).has_value()) << to;
  EXPECT_FALSE(parseKeyText(text + "\n").has_value());
  EXPECT_FALSE(parseKeyText(text + "payload: AAAA\n").has_value());
  EXPECT_FALSE(parseKeyText(text.substr(0, text.size() - 2) + "\n").has_value()) << "unpadded base64";
}

TEST(KeyFormat, APublicKeyThatIsNotOursIsRefused) {
  auto parsed = parseKeyText(replaced(plainText(), toBase64(test::vector("S")), toBase64(test::vector("C"))));
  ASSERT_TRUE(parsed.has_value());
  auto opened = openSealed(*parsed, NO_SECRET);
  ASSERT_FALSE(opened.has_value());
  EXPECT_TRUE(contains(opened.error().message, "doesn't belong"));
}

// A hostile file must not make the vault work for hours or take all memory before anything is authenticated.
TEST(KeyFormat, AbsurdPassphraseCostsAreRefusedUnpaid) {
  const std::string text = passphraseText(SecretText::copyOf("p"));
  const std::pair<const char*, const char*> changes[] = {{"opslimit=1", "opslimit=4000000000"},
                                                         {"opslimit=1", "opslimit=0"},
                                                         {"memlimit=8192", "memlimit=1099511627776"},
                                                         {"memlimit=8192", "memlimit=1"},
                                                         {"memlimit=8192", "memlimit=18446744073709551615"}};
  for (const auto& [from, to] : changes) {
    auto parsed = parseKeyText(replaced(text, from, to));
    ASSERT_TRUE(parsed.has_value()) << to;
    auto opened = openSealed(*parsed, SecretText::copyOf("p"));
    ASSERT_FALSE(opened.has_value()) << to;
    EXPECT_TRUE(contains(opened.error().message, "costs out of range"));
  }
  for (const char* bad : {"opslimit=-1", "opslimit=1x", "opslimit=", "opslimit=18446744073709551616"}) {
    EXPECT_FALSE(parseKeyText(replaced(text, "opslimit=1", bad)).has_value()) << bad;
  }
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
  const std::string secret = toBase64(test::vector("Ss"));
  for (size_t cut = 1; cut < 60; ++cut) {
    const std::string text = plainText();
    auto parsed = parseKeyText(text.substr(0, text.size() - cut));
    ASSERT_FALSE(parsed.has_value());
    EXPECT_FALSE(contains(parsed.error().message + parsed.error().hint, secret.substr(0, 8)));
  }
}

}  // namespace
}  // namespace sallyport::vaultd
