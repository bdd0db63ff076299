// Goal: a key reaches another host wrapped or in a backup, whole or not at all; what is restored never goes on with an
// old nonce state. Method: two folders play two hosts.
#include "vaultd/key_transfer.h"

#include "tests/unit/vaultd/support.h"
#include "vaultd/key_file.h"
#include "vaultd/key_life.h"
#include "vaultd/nonce_file.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using test::readFile;
namespace fs = std::filesystem;

constexpr PassphraseCost CHEAP{1, 8192};
constexpr int64_t T = 1'795'000'000;

Unlocker nobody() {
  return [](const KeyHeader&) -> Result<SlotSecret, Problem> { return refuse(Problem{"asked", {}}); };
}
SlotSecret passphrase(std::string_view text) { return {SealKind::Passphrase, SecretText::copyOf(text), {}}; }
Sealing sealing(const SlotSecret& secret) { return {secret.kind, &secret.text, CHEAP, {}, 0, 0, {}}; }

TEST(KeyTransfer, AWrappedSecretOpensWithItsImportKeyAlone) {
  const ImportKey key = newImportKey();
  const LongTermSecret secret = LongTermSecret::random();
  const std::string text = wrapSecret({KeyKind::Ed25519, LongTermSecret(secret.expose())}, key.publicKey);
  const auto content = unwrapSecret(text + "\n", key);
  ASSERT_TRUE(content.has_value());
  EXPECT_EQ(content->kind, KeyKind::Ed25519);
  EXPECT_TRUE(equalsConstantTime(content->secret.expose(), secret.expose()));
  EXPECT_FALSE(unwrapSecret(text, newImportKey()).has_value());
  for (size_t at = 0; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = changed[at] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(unwrapSecret(changed, key).has_value()) << at;
  }
  EXPECT_FALSE(unwrapSecret(wrapSecret({KeyKind::X25519, LongTermSecret()}, key.publicKey), key).has_value())
      << "zeros";
}

class KeyTransferFiles : public testing::Test {
 protected:
  test::TemporaryFolder temporary;
  fs::path here = temporary.path() / "here";
  fs::path there = temporary.path() / "there";
};

TEST_F(KeyTransferFiles, AnImportKeyIsGoodForOneImport) {
  const auto publicKey = prepareImport(here);
  ASSERT_TRUE(publicKey.has_value());
  EXPECT_EQ(*prepareImport(here), *publicKey) << "asking again doesn't make the first one useless";
  EXPECT_TRUE(listKeys(here)->empty()) << "it is no key of the vault";
  const LongTermSecret secret = LongTermSecret::random();
  const std::string text = wrapSecret({KeyKind::X25519, LongTermSecret(secret.expose())}, *publicKey);
  ASSERT_TRUE(importWrapped(here, "server", text, {}).has_value());
  EXPECT_TRUE(equalsConstantTime(loadKey(here, "server", nobody())->versions[0].secret.expose(), secret.expose()));
  EXPECT_FALSE(fs::exists(here / "import-key"));
  const auto again = importWrapped(here, "second", text, {});
  ASSERT_FALSE(again.has_value());
  EXPECT_TRUE(contains(again.error().hint, "import-key"));
  EXPECT_NE(*prepareImport(here), *publicKey);
}

TEST_F(KeyTransferFiles, AFailedImportKeepsTheImportKey) {
  const auto publicKey = prepareImport(here);
  ASSERT_TRUE(generateKey(here, "server", {}).has_value());
  const std::string text = wrapSecret({KeyKind::X25519, LongTermSecret::random()}, *publicKey);
  EXPECT_FALSE(importWrapped(here, "server", text, {}).has_value()) << "the name is taken";
  EXPECT_FALSE(importWrapped(here, "other", "nonsense", {}).has_value());
  EXPECT_TRUE(importWrapped(here, "other", text, {}).has_value());
}

class KeyBackups : public KeyTransferFiles {
 protected:
  SlotSecret right = passphrase("backup");

  std::string backedUp() {
    CHECK(generateKey(here, "server", {}, {KeyKind::X25519, false, true}).has_value());
    CHECK(changeKey(
              here, "server", nobody(),
              [](EditedKey& key) -> Result<Rewrite, Problem> {
                CHECK(rotate(key.opened, LongTermSecret::random(), {0, 1000}, unixNow()).has_value());
                return Rewrite::All;
              },
              unixNow())
              .has_value());
    return std::string(backupText(*loadKey(here, "server", nobody()), sealing(right))->expose());
  }
  InstanceId instanceOf(const fs::path& folder, std::string* renewed = nullptr) {
    const auto key = loadKey(folder, "server", nobody());
    const auto ledger = openNonceFile(noncePath(folder, "server"), key->header.ledgerId);
    CHECK(ledger.has_value());
    if (renewed != nullptr) *renewed = (*ledger)->renewed();
    return (*ledger)->instance();
  }
};

TEST_F(KeyBackups, BringEveryVersionBackOnAnotherHost) {
  const std::string text = backedUp();
  EXPECT_FALSE(contains(text, "ledger: "));
  const auto backup = parseKeyText(text, KeyDocument::Backup);
  ASSERT_TRUE(backup.has_value());
  ASSERT_TRUE(restoreKey(there, *backup, right, {}).has_value());
  const auto before = loadKey(here, "server", nobody());
  const auto after = loadKey(there, "server", nobody());
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->header.versions, before->header.versions);
  EXPECT_EQ(after->header.created, before->header.created);
  EXPECT_TRUE(after->header.backupAllowed);
  EXPECT_FALSE(after->header.exportable);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_TRUE(equalsConstantTime(after->versions[i].secret.expose(), before->versions[i].secret.expose()));
  EXPECT_FALSE(restoreKey(there, *backup, right, {}).has_value()) << "never over a key";
}

TEST_F(KeyBackups, OpenWithTheirPassphraseAloneAndInNoOtherPlace) {
  const std::string text = backedUp();
  const auto backup = parseKeyText(text, KeyDocument::Backup);
  EXPECT_FALSE(restoreKey(there, *backup, passphrase("wrong"), {}).has_value());
  EXPECT_FALSE(fs::exists(keyPath(there, "server")));
  EXPECT_TRUE(contains(parseKeyText(text).error().message, "a backup, not a key file"));
  EXPECT_FALSE(parseKeyText(readFile(keyPath(here, "server")), KeyDocument::Backup).has_value());
  for (size_t at = 0; at < text.size(); ++at) {
    std::string changed = text;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    const auto parsed = parseKeyText(changed, KeyDocument::Backup);
    if (!parsed || parsed->header.slots[0].cost.opsLimit > 3 || parsed->header.slots[0].cost.memLimitBytes > 100000)
      continue;
    EXPECT_FALSE(openSealed(*parsed, right).has_value()) << at;
  }
}

TEST_F(KeyBackups, ARestoredKeyBeginsUnderAFreshNonceKeyEvenBesideItsOldNonceFile) {
  const std::string text = backedUp();
  const InstanceId before = instanceOf(here);
  EXPECT_EQ(instanceOf(here), before) << "an ordinary restart goes on";
  // The key file is lost, the nonce file stays: the inode and the machine are the same, only the restore is new.
  fs::remove(keyPath(here, "server"));
  ASSERT_TRUE(restoreKey(here, *parseKeyText(text, KeyDocument::Backup), right, {}).has_value());
  std::string renewed;
  EXPECT_NE(instanceOf(here, &renewed), before);
  EXPECT_NE(renewed, "") << "and the operator is told";
}

}  // namespace
}  // namespace sallyport::vaultd
