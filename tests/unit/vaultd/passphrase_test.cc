// Goal: a passphrase comes from the first of its three places, and the lack of one is told with a remedy.
// Method: files and a credentials folder of the test's own; no terminal.
#include "vaultd/passphrase.h"

#include <cstdlib>

#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using test::writeFile;

class Passphrases : public testing::Test {
 protected:
  void SetUp() override { unsetenv("CREDENTIALS_DIRECTORY"); }
  void TearDown() override { unsetenv("CREDENTIALS_DIRECTORY"); }

  test::TemporaryFolder temporary;
  std::filesystem::path file = temporary.path() / "passphrase";

  static KeyHeader header(SealKind seal, std::string credential = {}) {
    KeyHeader header;
    header.name = "server";
    header.seal = seal;
    Slot& slot = header.slots.emplace_back();
    slot.kind = seal;
    slot.credential = std::move(credential);
    return header;
  }
};

TEST_F(Passphrases, TheFileComesFirstAndItsFirstLineCounts) {
  writeFile(file, "open sesame\nnot this\n");
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  auto text = unlockerFor(file, {})(header(SealKind::Passphrase));
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text->text.expose(), "open sesame");
}

TEST_F(Passphrases, AFileThatOthersCanReadIsRefused) {
  writeFile(file, "open sesame\n", 0644);
  auto text = unlockerFor(file, {})(header(SealKind::Passphrase));
  ASSERT_FALSE(text.has_value());
  EXPECT_TRUE(contains(text.error().message, "can be used by others"));
}

TEST_F(Passphrases, AMissingFileIsAProblemEvenIfSystemdHasOne) {
  writeFile(temporary.path() / "passphrase", "credential");
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  EXPECT_FALSE(unlockerFor(temporary.path() / "nothing", {})(header(SealKind::Passphrase)).has_value());
}

TEST_F(Passphrases, SystemdsCredentialIsTakenWithoutAFile) {
  writeFile(temporary.path() / "passphrase", "credential\n", 0440);
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  EXPECT_EQ(unlockerFor({}, {})(header(SealKind::Passphrase))->text.expose(), "credential");
}

TEST_F(Passphrases, WithNobodyToAskItSaysWhatToDo) {
  if (isatty(0) == 1) GTEST_SKIP() << "would ask the terminal";
  auto text = unlockerFor({}, {})(header(SealKind::Passphrase));
  ASSERT_FALSE(text.has_value());
  EXPECT_TRUE(contains(text.error().hint, "passphrase_file"));
}

TEST_F(Passphrases, ACredentialSealReadsTheCredentialOfItsName) {
  writeFile(temporary.path() / "sallyport-keys", std::string(40, '\0') + "\n", 0400);
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  auto text = unlockerFor({}, {})(header(SealKind::SystemdCredential, "sallyport-keys"));
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(text->text.size(), 41u) << "whole and unchanged: it is not a line of text";
}

TEST_F(Passphrases, AMissingCredentialNamesTheDirectiveOfTheUnit) {
  auto without = unlockerFor({}, {})(header(SealKind::SystemdCredential, "sallyport-keys"));
  ASSERT_FALSE(without.has_value());
  EXPECT_TRUE(contains(without.error().hint, "LoadCredentialEncrypted=sallyport-keys"));
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  EXPECT_FALSE(unlockerFor({}, {})(header(SealKind::SystemdCredential, "sallyport-keys")).has_value());
}

TEST_F(Passphrases, ACredentialThatIsThereNeedsNobody) {
  writeFile(temporary.path() / "sallyport-keys", std::string(40, 'x'), 0400);
  KeyHeader both = header(SealKind::Passphrase);
  both.slots.push_back(header(SealKind::SystemdCredential, "sallyport-keys").slots[0]);
  writeFile(file, "open sesame\n");
  EXPECT_EQ(unlockerFor(file, {})(both)->kind, SealKind::Passphrase) << "systemd gave none";
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  EXPECT_EQ(unlockerFor(file, {})(both)->kind, SealKind::SystemdCredential);
}

TEST_F(Passphrases, TheVaultAsksForNoRecoveryPassphraseAndNoShares) {
  writeFile(file, "open sesame\n");
  for (const SealKind kind : {SealKind::Recovery, SealKind::Shares}) {
    auto text = unlockerFor(file, {})(header(kind));
    ASSERT_FALSE(text.has_value());
    EXPECT_TRUE(contains(text.error().hint, "key slot add server"));
  }
}

TEST_F(Passphrases, AHugeCredentialIsRefused) {
  writeFile(temporary.path() / "big", std::string(100000, 'x'));
  setenv("CREDENTIALS_DIRECTORY", temporary.path().c_str(), 1);
  EXPECT_FALSE(unlockerFor({}, {})(header(SealKind::SystemdCredential, "big")).has_value());
}

}  // namespace
}  // namespace sallyport::vaultd
