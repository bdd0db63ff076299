// Goal: a key of 128 bytes is made, sealed, rotated, wrapped, backed up and read back as the others are, and its party
// and its past can't be changed unnoticed.
// Method: the key library on files; each spoiling of a line is told.
#include <sodium.h>

#include "tests/unit/vaultd/support.h"
#include "vaultd/key_file.h"
#include "vaultd/key_life.h"
#include "vaultd/paired_blocks.h"
#include "vaultd/secret_arena.h"
#include "vaultd/shared_block.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using wire::PeerParty;

constexpr int64_t NOW = 1'800'000'000;

std::vector<std::byte> pattern() {
  std::vector<std::byte> bytes(128);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(5 * i + 1);
  return bytes;
}
LongTermSecret block() { return LongTermSecret(pattern()); }

Sealing sealing(const SecretText& passphrase) {
  Sealing seal;
  seal.kind = SealKind::Passphrase;
  seal.secret = &passphrase;
  seal.cost = {1, 8192};
  return seal;
}

NewKey made(PeerParty party = PeerParty::B) {
  return std::move(*newKey("p", KeyKind::PeerBlock, block(), {}, NOW, party));
}
std::string text(const NewKey& key) { return std::string(keyText(key.opened, key.fileKey).expose()); }

TEST(PeerBlock, IsReadBackAsItWasWritten) {
  const NewKey key = made();
  const std::string written = text(key);
  EXPECT_TRUE(contains(written, "kind: peer-block\nparty: B\ncreated:")) << written;
  const auto sealed = parseKeyText(written);
  ASSERT_TRUE(sealed.has_value()) << sealed.error().message;
  EXPECT_EQ(sealed->header.party, PeerParty::B);
  const auto opened = openSealed(*sealed, {});
  ASSERT_TRUE(opened.has_value());
  EXPECT_TRUE(equalsConstantTime(opened->versions[0].secret.expose(), pattern()));
  EXPECT_FALSE(contains(written, toBase64(pattern()).substr(0, 40))) << "sealed even in a plain file";
}

TEST(PeerBlock, APassphraseSealsIt) {
  const SecretText passphrase = SecretText::copyOf("correct horse");
  const auto key = newKey("p", KeyKind::PeerBlock, block(), sealing(passphrase), NOW, PeerParty::A);
  ASSERT_TRUE(key.has_value());
  const auto sealed = parseKeyText(text(*key));
  SlotSecret secret{SealKind::Passphrase, SecretText::copyOf("correct horse"), {}};
  const auto opened = openSealed(*sealed, secret);
  ASSERT_TRUE(opened.has_value());
  EXPECT_TRUE(equalsConstantTime(opened->versions[0].secret.expose(), pattern()));
  secret.text = SecretText::copyOf("wrong");
  EXPECT_FALSE(openSealed(*sealed, secret).has_value());
}

TEST(PeerBlock, PartyAndPastAreAuthenticated) {
  const std::string good = text(made());
  const std::pair<const char*, const char*> changes[] = {
      {"party: B", "party: A"}, {"unused=no", "unused=yes"}, {"kind: peer-block\nparty: B", "kind: x25519"}};
  for (const auto& [from, to] : changes) {
    std::string changed = good;
    const auto at = changed.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    changed.replace(at, std::strlen(from), to);
    const auto sealed = parseKeyText(changed);
    EXPECT_FALSE(sealed && openSealed(*sealed, {})) << to;
  }
}

TEST(PeerBlock, WhatIsNoPartyIsRefused) {
  const std::string good = text(made());
  for (const char* party : {"party: C", "party: a", "party: ", "party: B ", "partei: B", ""}) {
    std::string changed = good;
    changed.replace(changed.find("party: B"), 8, party);
    EXPECT_FALSE(parseKeyText(changed).has_value()) << party;
  }
  // And one of another kind has none.
  const NewKey other = std::move(*newKey("p", KeyKind::X25519, LongTermSecret::random(), {}, NOW));
  std::string changed = text(other);
  changed.replace(changed.find("created:"), 8, "party: A\ncreated:");
  EXPECT_FALSE(parseKeyText(changed).has_value());
}

TEST(PeerBlock, ManyVersionsFitAFile) {
  NewKey key = made();
  for (uint32_t number = 2; number <= MAX_VERSIONS; ++number) {
    KeyVersion version = key.opened.header.versions.back();
    version.number = number;
    LongTermSecret secret = LongTermSecret::random(KeyKind::PeerBlock);
    version.publicKey = publicKeyOf(secret, KeyKind::PeerBlock);
    for (int64_t* time : {&version.activeFrom, &version.openOnlyFrom, &version.retiredFrom}) *time = INT64_MAX;
    key.opened.header.versions.push_back(version);
    key.opened.versions.push_back({version, std::move(secret)});
  }
  const auto sealed = parseKeyText(text(key));
  ASSERT_TRUE(sealed.has_value()) << sealed.error().message;
  EXPECT_EQ(openSealed(*sealed, {})->versions.size(), MAX_VERSIONS);
}

TEST(PeerBlock, TheFingerprintIsOfAllBytesAndOfNothingElse) {
  const PublicKey fingerprint = publicKeyOf(block(), KeyKind::PeerBlock);
  for (size_t at : {0u, 63u, 64u, 127u}) {
    auto bytes = pattern();
    bytes[at] ^= std::byte{1};
    EXPECT_NE(publicKeyOf(LongTermSecret(bytes), KeyKind::PeerBlock), fingerprint) << at;
  }
  EXPECT_EQ(made(PeerParty::A).opened.header.versions[0].publicKey,
            made(PeerParty::B).opened.header.versions[0].publicKey)
      << "both hosts show the same";
}

TEST(PeerBlock, IsReadFromBase64AndHex) {
  const auto bytes = pattern();
  for (const std::string& spelled : {toBase64(bytes), toHex(bytes), "  " + toHex(bytes) + "\n"}) {
    const auto secret = parseSecret(spelled, KeyKind::PeerBlock);
    ASSERT_TRUE(secret.has_value()) << spelled;
    EXPECT_TRUE(equalsConstantTime(secret->expose(), bytes));
  }
}

TEST(PeerBlock, IsGivenInLinesToo) {
  const auto bytes = pattern();
  const auto broken = [](std::string text, size_t width, const std::string& between) {
    for (size_t at = width; at < text.size(); at += width + between.size()) text.insert(at, between);
    return text;
  };
  for (const std::string& spelled :
       {broken(toBase64(bytes), 76, "\n") + "\n", broken(toBase64(bytes), 64, "\r\n"), broken(toHex(bytes), 60, "\n"),
        broken(toHex(bytes), 2, " "), broken(toHex(bytes), 4, "\t"), toBase64(bytes)}) {
    const auto secret = parseGivenSecret(spelled, KeyKind::PeerBlock);
    ASSERT_TRUE(secret.has_value()) << spelled;
    EXPECT_TRUE(equalsConstantTime(secret->expose(), bytes));
  }
  for (const std::string& spelled :
       {broken(toHex(bytes), 2, ":"), broken(toBase64(bytes), 76, "\n\v"), broken(toBase64(bytes), 76, "\n") + "=",
        broken(toBase64(bytes), 76, "\n").substr(1), toHex(bytes) + "\n00", std::string("\n \n"),
        broken(toBase64(bytes), 76, std::string(1, '\0')), std::string(SecretText::CAPACITY + 1, 'A')}) {
    EXPECT_FALSE(parseGivenSecret(spelled, KeyKind::PeerBlock).has_value()) << spelled.substr(0, 300);
  }
}

TEST(PeerBlock, WhatIsNoBlockIsRefusedByItsSize) {
  const auto bytes = pattern();
  const ByteSpan all = bytes;
  for (const std::string& spelled : {std::string(), toHex(all.first(32)), toBase64(all.first(127)), toHex(all) + "00",
                                     toBase64(all).substr(1), std::string(256, 'g')}) {
    const auto secret = parseSecret(spelled, KeyKind::PeerBlock);
    ASSERT_FALSE(secret.has_value()) << spelled;
    EXPECT_TRUE(contains(secret.error().message, "128 bytes")) << secret.error().message;
  }
  EXPECT_FALSE(parseSecret(toHex(all)).has_value()) << "and a block is no X25519 key";
  EXPECT_FALSE(parseSecret(std::string(256, '0'), KeyKind::PeerBlock).has_value()) << "zeros";
  EXPECT_FALSE(parseSecret(toHex(all.first(64)) + toHex(all.first(64)), KeyKind::PeerBlock).has_value())
      << "equal halves would be equal roles";
}

TEST(PeerBlock, GoesWrappedToAnotherHost) {
  const ImportKey key = newImportKey();
  const std::string wrapped = wrapSecret({KeyKind::PeerBlock, block()}, key.publicKey);
  const auto content = unwrapSecret(wrapped, key);
  ASSERT_TRUE(content.has_value()) << content.error().message;
  EXPECT_EQ(content->kind, KeyKind::PeerBlock);
  EXPECT_TRUE(equalsConstantTime(content->secret.expose(), pattern()));
  for (size_t cut : {1u, 4u, 100u})
    EXPECT_FALSE(unwrapSecret(wrapped.substr(0, wrapped.size() - cut), key).has_value());
  EXPECT_FALSE(unwrapSecret(wrapped, newImportKey()).has_value());
}

TEST(PeerBlock, AKindThatDoesntFitTheSizeIsRefused) {
  const ImportKey key = newImportKey();
  for (const auto& [kind, size] : {std::pair{0, 128}, {1, 128}, {2, 32}, {3, 32}, {3, 128}}) {
    std::vector<unsigned char> plain(1 + static_cast<size_t>(size), 7);
    plain[0] = static_cast<unsigned char>(kind);
    std::vector<std::byte> box(plain.size() + crypto_box_SEALBYTES);
    ASSERT_EQ(crypto_box_seal(uchars(MutableByteSpan(box)), plain.data(), plain.size(), key.publicKey.data()), 0);
    EXPECT_FALSE(unwrapSecret("sallyport-wrapped-1 " + toBase64(box), key).has_value()) << kind << " " << size;
  }
}

TEST(PeerBlock, ARestoredOneCantBeUsedInBaseMode) {
  NewKey key = made();
  key.opened.header.versions[0].unused = key.opened.versions[0].version.unused = true;
  const SecretText passphrase = SecretText::copyOf("for the drawer");
  const auto backup = backupText(key.opened, sealing(passphrase));
  ASSERT_TRUE(backup.has_value());
  const auto sealed = parseKeyText(backup->expose(), KeyDocument::Backup);
  ASSERT_TRUE(sealed.has_value()) << sealed.error().message;
  EXPECT_TRUE(sealed->header.versions[0].unused);
  const auto restored = fromBackup(*sealed, {SealKind::Passphrase, SecretText::copyOf("for the drawer"), {}}, {});
  ASSERT_TRUE(restored.has_value());
  const auto again = parseKeyText(text(*restored));
  EXPECT_FALSE(again->header.versions[0].unused);
  EXPECT_EQ(again->header.party, PeerParty::B);
  EXPECT_TRUE(equalsConstantTime(openSealed(*again, {})->versions[0].secret.expose(), pattern()));
}

TEST(PeerBlock, OneThatWaitsForItsConfirmationIsNotActive) {
  test::TemporaryFolder temporary;
  const auto folder = temporary.path() / "keys";
  const auto header = generateKey(folder, "p", {}, {.kind = KeyKind::PeerBlock, .party = PeerParty::A, .awaits = true});
  ASSERT_TRUE(header.has_value());
  const auto read = readKeyFile(folder, "p");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(activeVersion(read->header, INT64_MAX - 1), nullptr);
  EXPECT_EQ(stateOf(read->header.versions[0], unixNow()), VersionState::Pending);
  EXPECT_TRUE(read->header.versions[0].unused);
}

TEST(PeerBlock, IsRotatedByABlock) {
  OpenedKey key = std::move(made().opened);
  ASSERT_TRUE(rotate(key, LongTermSecret::random(KeyKind::PeerBlock), {0, 100, true}, NOW + 1).has_value());
  EXPECT_TRUE(key.header.versions[1].unused);
  EXPECT_EQ(stateOf(key.header.versions[0], NOW + 1), VersionState::OpenOnly);
}

// --- what `sallyport pair` does to a key ---

LongTermSecret fresh() { return LongTermSecret::random(KeyKind::PeerBlock); }
std::vector<VersionState> states(const OpenedKey& key, int64_t now) {
  std::vector<VersionState> all;
  for (const KeyVersion& version : key.header.versions) all.push_back(stateOf(version, now));
  return all;
}
using enum VersionState;

TEST(PairedBlock, TakesOverOnlyWhenItIsConfirmed) {
  OpenedKey key = std::move(made().opened);
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW + 1).has_value());
  EXPECT_EQ(states(key, NOW + 1'000'000), (std::vector{Active, Pending})) << "however long it waits";
  const PublicKey fingerprint = key.header.versions[1].publicKey;
  ASSERT_TRUE(confirmBlock(key, fingerprint, 100, NOW + 50).has_value());
  EXPECT_EQ(states(key, NOW + 50), (std::vector{OpenOnly, Active}));
  EXPECT_EQ(states(key, NOW + 150), (std::vector{Retired, Active}));
  EXPECT_EQ(key.versions[1].version, key.header.versions[1]) << "the vault is told the same";
  EXPECT_TRUE(key.header.versions[1].unused);
}

std::vector<uint32_t> numbers(const OpenedKey& key) {
  std::vector<uint32_t> all;
  for (const KeyVersion& version : key.header.versions) all.push_back(version.number);
  EXPECT_EQ(key.versions.size(), all.size());
  return all;
}

// The last step of its pairing may have been lost: then the other host uses it.
TEST(PairedBlock, OneThatWaitsStaysBesideTheNext) {
  OpenedKey key = std::move(made().opened);
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  const PublicKey first = key.header.versions[1].publicKey;
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  EXPECT_EQ(states(key, NOW), (std::vector{Active, Pending, Pending}));
  ASSERT_TRUE(confirmBlock(key, first, 100, NOW + 1).has_value()) << "the other host uses it after all";
  EXPECT_EQ(states(key, NOW + 1), (std::vector{OpenOnly, Active, Pending}));
}

TEST(PairedBlock, OnesThatWaitDontPileUp) {
  OpenedKey key = std::move(made().opened);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  EXPECT_EQ(numbers(key), (std::vector<uint32_t>{1, 100, 101})) << "the newest, and no number twice";
}

TEST(PairedBlock, OneThatWaitsGoesWhenALaterOneIsConfirmed) {
  OpenedKey key = std::move(made().opened);
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  ASSERT_TRUE(confirmBlock(key, key.header.versions[2].publicKey, 100, NOW).has_value());
  EXPECT_EQ(states(key, NOW), (std::vector{OpenOnly, Active}));
  EXPECT_EQ(numbers(key), (std::vector<uint32_t>{1, 3}));
}

TEST(PairedBlock, OneThatWaitsHasItsGraceWhenALaterOneIsActiveAtOnce) {
  OpenedKey key = std::move(made().opened);
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  const PublicKey lost = key.header.versions[1].publicKey;
  ASSERT_TRUE(addBlock(key, fresh(), 100, false, NOW).has_value());
  EXPECT_EQ(states(key, NOW), (std::vector{OpenOnly, OpenOnly, Active}));
  EXPECT_EQ(states(key, NOW + 100), (std::vector{Retired, Retired, Active}));
  EXPECT_EQ(key.versions[1].version, key.header.versions[1]) << "the vault is told the same";
  EXPECT_TRUE(contains(confirmBlock(key, lost, 100, NOW).error().message, "doesn't wait"));
}

// A confirmation would take the active one away, and give none.
TEST(PairedBlock, OneThatWasTakenBackDoesntWait) {
  OpenedKey key = std::move(made().opened);
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  const PublicKey back = key.header.versions[1].publicKey;
  EXPECT_TRUE(awaitsConfirmation(key.header.versions[1], NOW));
  ASSERT_TRUE(retire(key, 2, NOW).has_value());
  EXPECT_FALSE(awaitsConfirmation(key.header.versions[1], NOW));
  const auto confirmed = confirmBlock(key, back, 100, NOW);
  ASSERT_FALSE(confirmed.has_value());
  EXPECT_TRUE(contains(confirmed.error().message, "doesn't wait"));
  EXPECT_EQ(states(key, NOW), (std::vector{Active, Retired}));
  ASSERT_TRUE(addBlock(key, fresh(), 100, true, NOW).has_value());
  EXPECT_EQ(numbers(key), (std::vector<uint32_t>{1, 3})) << "it goes with the next pairing";
}

TEST(PairedBlock, AKeyThatOnlyWaitsStartsWithTheNext) {
  test::TemporaryFolder temporary;
  const auto folder = temporary.path() / "keys";
  KeyOptions options;
  options.kind = KeyKind::PeerBlock;
  options.party = PeerParty::A;
  options.awaits = true;
  ASSERT_TRUE(generateKey(folder, "p", {}, options).has_value());
  const auto changed = changeKey(
      folder, "p",
      [](const KeyHeader&) -> Result<SlotSecret, Problem> {
        return refuse(Problem{"plain", {}});
      },
      [](EditedKey& key) -> Result<Rewrite, Problem> {
        if (auto done = addBlock(key.opened, fresh(), 0, false, unixNow()); !done) return refuse(done.error());
        return Rewrite::All;
      },
      unixNow());
  ASSERT_TRUE(changed.has_value()) << changed.error().message;
  ASSERT_EQ(changed->header.versions.size(), 1u);
  EXPECT_EQ(stateOf(changed->header.versions[0], unixNow()), Active);
  EXPECT_TRUE(readKeyFile(folder, "p").has_value());
}

TEST(PairedBlock, NothingElseIsConfirmed) {
  OpenedKey key = std::move(made().opened);
  const PublicKey active = key.header.versions[0].publicKey;
  EXPECT_TRUE(contains(confirmBlock(key, active, 0, NOW).error().message, "doesn't wait"));
  EXPECT_TRUE(contains(confirmBlock(key, PublicKey(), 0, NOW).error().message, "no block with this fingerprint"));
  EXPECT_EQ(states(key, NOW), (std::vector{Active}));
}

TEST(PairedBlock, IsRememberedOnce) {
  test::TemporaryFolder temporary;
  const auto folder = temporary.path() / "keys";
  const PublicKey one = publicKeyOf(block(), KeyKind::PeerBlock);
  ASSERT_TRUE(rememberBlock(folder, one).has_value());
  const auto again = rememberBlock(folder, one);
  ASSERT_FALSE(again.has_value());
  EXPECT_TRUE(contains(again.error().message, "taken before"));
  EXPECT_TRUE(rememberBlock(folder, PublicKey()).has_value()) << "another one";
  EXPECT_FALSE(rememberBlock(folder, PublicKey()).has_value());
}

TEST(PairedBlock, OneThatAKeyHoldsCountsAsTaken) {
  test::TemporaryFolder temporary;
  const auto folder = temporary.path() / "keys";
  KeyOptions options;
  options.kind = KeyKind::PeerBlock;
  options.party = PeerParty::A;
  ASSERT_TRUE(importKey(folder, "p", block(), {}, options).has_value());
  EXPECT_FALSE(rememberBlock(folder, publicKeyOf(block(), KeyKind::PeerBlock)).has_value());
}

TEST(PairedBlock, ALineThatACrashHasCutIsNoFingerprint) {
  test::TemporaryFolder temporary;
  const auto folder = temporary.path() / "keys";
  const PublicKey one = publicKeyOf(block(), KeyKind::PeerBlock);
  ASSERT_TRUE(rememberBlock(folder, PublicKey()).has_value());
  const std::string whole = test::readFile(folder / "paired-blocks");
  test::writeFile(folder / "paired-blocks", whole + toBase64(one.span()).substr(0, 20));
  ASSERT_TRUE(rememberBlock(folder, one).has_value());
  EXPECT_FALSE(rememberBlock(folder, one).has_value());
  EXPECT_FALSE(rememberBlock(folder, PublicKey()).has_value());
}

TEST(PairedBlock, AListThatOthersCanWriteIsRefused) {
  test::TemporaryFolder temporary;
  const auto folder = temporary.path() / "keys";
  ASSERT_TRUE(rememberBlock(folder, PublicKey()).has_value());
  ASSERT_EQ(chmod((folder / "paired-blocks").c_str(), 0666), 0);
  EXPECT_FALSE(rememberBlock(folder, publicKeyOf(block(), KeyKind::PeerBlock)).has_value());
}

TEST(SecretPair, AreOneHundredAndTwentyEightBytesInOnePiece) {
  const auto arena = std::move(*SecretArena::create(4096));
  const size_t before = arena->freePairBytes();
  {
    SharedBlock one(*arena, block());
    const SharedBlock two(*arena, LongTermSecret::random(KeyKind::PeerBlock));
    EXPECT_TRUE(equalsConstantTime(one.view(), pattern()));
    EXPECT_FALSE(equalsConstantTime(two.view(), pattern()));
    EXPECT_EQ(arena->freePairBytes(), before - 256);
    const SharedBlock moved(std::move(one));
    EXPECT_TRUE(equalsConstantTime(moved.view(), pattern()));
  }
  EXPECT_EQ(arena->freePairBytes(), before) << "given back";
  const SecretSlot again = arena->takePair();
  EXPECT_TRUE(sodium_is_zero(uchars(ByteSpan(again.expose<128>())), 128)) << "and wiped";
}

TEST(SecretPairDeathTest, ASingleSlotHasNoSecondHalf) {
  const auto arena = std::move(*SecretArena::create(4096));
  const SecretSlot slot = arena->takeSlot();
  EXPECT_DEATH((void)slot.expose<128>(), "");
}

}  // namespace
}  // namespace sallyport::vaultd
