// Goal: a key file is private, never overwritten, and never lost; a wrong one is told with its path and a remedy.
// Method: real files in a temporary folder, spoilt in every way.
#include "vaultd/key_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/vaultd/support.h"
#include "vaultd/key_life.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using test::readFile;
using test::writeFile;
namespace fs = std::filesystem;

constexpr PassphraseCost CHEAP{1, 8192};

Unlocker nobody() {
  return [](const KeyHeader&) -> Result<SlotSecret, Problem> {
    ADD_FAILURE() << "a plain key asks nobody";
    return refuse(Problem{"asked", {}});
  };
}

Unlocker saying(std::string text) {
  return [text](const KeyHeader&) -> Result<SlotSecret, Problem> {
    return SlotSecret{SealKind::Passphrase, SecretText::copyOf(text), {}};
  };
}

// As old as a key that is made now, and a little more.
const int64_t NOW = unixNow() + 10;

Change rotation() {
  return [](EditedKey& key) -> Result<Rewrite, Problem> {
    if (auto done = rotate(key.opened, LongTermSecret::random(), {0, 1000}, NOW); !done) return refuse(done.error());
    return Rewrite::All;
  };
}
Change newPassphrase(const SecretText& text) {
  return [&text](EditedKey& key) -> Result<Rewrite, Problem> {
    auto& slots = key.opened.header.slots;
    slots[0] = *makeSlot("server", 1, {SealKind::Passphrase, &text, CHEAP, {}, 0, 0, {}}, key.fileKey);
    return Rewrite::Slots;
  };
}

class KeyFiles : public testing::Test {
 protected:
  test::TemporaryFolder temporary;
  fs::path folder = temporary.path() / "keys";

  KeyHeader made(std::string_view name = "server") {
    auto header = generateKey(folder, name, {});
    EXPECT_TRUE(header.has_value());
    return *header;
  }
  // The problem of loading `server`.
  Problem problem() {
    auto loaded = loadKey(folder, "server", nobody());
    EXPECT_FALSE(loaded.has_value());
    return loaded ? Problem{} : loaded.error();
  }
  size_t files() const {
    size_t count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder)) ++count;
    return count;
  }
};

TEST_F(KeyFiles, ANewKeyIsPrivateAndLoads) {
  const KeyHeader header = made();
  struct stat status;
  ASSERT_EQ(stat(keyPath(folder, "server").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  ASSERT_EQ(stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
  auto loaded = loadKey(folder, "server", nobody());
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(publicKeyOf(loaded->versions[0].secret), header.versions[0].publicKey);
  EXPECT_EQ(files(), 1u) << "no temporary file stays";
}

TEST_F(KeyFiles, ANewKeyNeverOverwrites) {
  made();
  const std::string before = readFile(keyPath(folder, "server"));
  auto again = generateKey(folder, "server", {});
  ASSERT_FALSE(again.has_value());
  EXPECT_TRUE(contains(again.error().message, "server.key exists already"));
  EXPECT_TRUE(contains(again.error().hint, "rotate"));
  EXPECT_EQ(readFile(keyPath(folder, "server")), before);
  EXPECT_EQ(files(), 1u);
}

TEST_F(KeyFiles, NotEvenADanglingLinkOrAFolderIsOverwritten) {
  fs::create_directories(folder);
  chmod(folder.c_str(), 0700);
  fs::create_symlink("/nonexistent/elsewhere", keyPath(folder, "a"));
  fs::create_directory(keyPath(folder, "b"));
  EXPECT_FALSE(generateKey(folder, "a", {}).has_value());
  EXPECT_FALSE(generateKey(folder, "b", {}).has_value());
  EXPECT_TRUE(fs::is_symlink(keyPath(folder, "a")));
  EXPECT_EQ(files(), 2u);
}

TEST_F(KeyFiles, BadNamesTouchNothing) {
  for (const char* name : {"", "..", "../x", "a/b", ".hidden", "a\nb"}) {
    EXPECT_FALSE(generateKey(folder, name, {}).has_value()) << name;
    EXPECT_FALSE(loadKey(folder, name, nobody()).has_value()) << name;
  }
  EXPECT_FALSE(fs::exists(folder));
}

TEST_F(KeyFiles, AMissingKeySaysHowToMakeIt) {
  made("other");
  const Problem p = problem();
  EXPECT_TRUE(contains(p.message, "server.key"));
  EXPECT_TRUE(contains(p.hint, "sallyport key new server"));
}

TEST_F(KeyFiles, AFileThatOthersCanReadIsRefused) {
  made();
  for (const mode_t mode : {0640, 0604, 0660, 0644, 0610, 0602}) {
    chmod(keyPath(folder, "server").c_str(), mode);
    const Problem p = problem();
    EXPECT_TRUE(contains(p.message, "can be used by others")) << mode;
    EXPECT_TRUE(contains(p.hint, "chmod 600"));
  }
  chmod(keyPath(folder, "server").c_str(), 0400);
  EXPECT_TRUE(loadKey(folder, "server", nobody()).has_value()) << "stricter is fine";
}

TEST_F(KeyFiles, AFileOfAnotherUserIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  made();
  ASSERT_EQ(chown(keyPath(folder, "server").c_str(), 12345, 0), 0);
  EXPECT_TRUE(contains(problem().message, "belongs to another user (uid 12345)"));
  EXPECT_TRUE(loadKey(folder, "server", nobody(), {{0, 12345}}).has_value()) << "unless it is the vault's own";
}

TEST_F(KeyFiles, AFolderInWhichOthersCanWriteIsRefused) {
  made();
  chmod(folder.c_str(), 0777);
  EXPECT_TRUE(contains(problem().message, "can be changed by others"));
  EXPECT_FALSE(generateKey(folder, "second", {}).has_value());
}

TEST_F(KeyFiles, LinksFoldersAndPipesAreNoKeys) {
  made("real");
  fs::create_symlink(keyPath(folder, "real"), keyPath(folder, "server"));
  EXPECT_TRUE(contains(problem().message, "symbolic link"));
  fs::remove(keyPath(folder, "server"));
  fs::create_directory(keyPath(folder, "server"));
  EXPECT_TRUE(contains(problem().message, "is a folder, not a file"));
  fs::remove(keyPath(folder, "server"));
  ASSERT_EQ(mkfifo(keyPath(folder, "server").c_str(), 0600), 0);
  EXPECT_TRUE(contains(problem().message, "is a FIFO, not a file")) << "and it doesn't hang";
  EXPECT_TRUE(contains(problem().hint, "put the file itself there"));
}

TEST_F(KeyFiles, ATruncatedFileIsRefusedAndLeftAsItIs) {
  made();
  const std::string whole = readFile(keyPath(folder, "server"));
  for (size_t size : {size_t{0}, size_t{10}, whole.size() / 2, whole.size() - 1}) {
    writeFile(keyPath(folder, "server"), whole.substr(0, size));
    const Problem p = problem();
    EXPECT_TRUE(contains(p.message, "server.key: damaged key file")) << p.message;
    EXPECT_EQ(readFile(keyPath(folder, "server")), whole.substr(0, size));
  }
}

TEST_F(KeyFiles, AHugeFileIsRefused) {
  made();
  writeFile(keyPath(folder, "server"), std::string(100000, 'x'));
  EXPECT_TRUE(contains(problem().message, "longer than"));
  EXPECT_FALSE(problem().hint.empty());
}

TEST_F(KeyFiles, AKeyUnderAnotherNameIsRefused) {
  made("alice");
  fs::rename(keyPath(folder, "alice"), keyPath(folder, "server"));
  EXPECT_TRUE(contains(problem().message, "holds the key `alice`, not `server`"));
}

TEST_F(KeyFiles, APassphraseKeyLoadsWithItAlone) {
  const SecretText passphrase = SecretText::copyOf("open");
  ASSERT_TRUE(generateKey(folder, "server", {SealKind::Passphrase, &passphrase, CHEAP, {}, 0, 0, {}}).has_value());
  EXPECT_TRUE(loadKey(folder, "server", saying("open")).has_value());
  auto wrong = loadKey(folder, "server", saying("Open"));
  ASSERT_FALSE(wrong.has_value());
  EXPECT_TRUE(contains(wrong.error().message, "server.key: the passphrase is wrong"));
}

TEST_F(KeyFiles, WhatTheUnlockerSaysReachesTheOperator) {
  const SecretText passphrase = SecretText::copyOf("open");
  ASSERT_TRUE(generateKey(folder, "server", {SealKind::Passphrase, &passphrase, CHEAP, {}, 0, 0, {}}).has_value());
  auto loaded = loadKey(folder, "server", [](const KeyHeader&) -> Result<SlotSecret, Problem> {
    return refuse(Problem{"nobody to ask", "sit down"});
  });
  ASSERT_FALSE(loaded.has_value());
  EXPECT_TRUE(contains(loaded.error().message, "server.key: nobody to ask"));
  EXPECT_EQ(loaded.error().hint, "sit down");
}

TEST_F(KeyFiles, AnotherPassphraseLeavesTheSealedKeysByteByByte) {
  const SecretText old = SecretText::copyOf("old");
  ASSERT_TRUE(generateKey(folder, "server", {SealKind::Passphrase, &old, CHEAP, {}, 0, 0, {}}).has_value());
  const std::string before = readFile(keyPath(folder, "server"));
  const SecretText fresh = SecretText::copyOf("new");
  const auto changed = changeKey(folder, "server", saying("old"), newPassphrase(fresh), NOW);
  ASSERT_TRUE(changed.has_value());
  const std::string after = readFile(keyPath(folder, "server"));
  EXPECT_EQ(after.substr(0, after.find("slot: ")), before.substr(0, before.find("slot: ")));
  EXPECT_EQ(changed->text.expose(), after) << "what a vault is told";
  EXPECT_TRUE(loadKey(folder, "server", saying("new")).has_value());
  EXPECT_FALSE(loadKey(folder, "server", saying("old")).has_value());
  EXPECT_EQ(files(), 1u);
}

TEST_F(KeyFiles, AChangeWithTheWrongPassphraseChangesNothing) {
  const SecretText old = SecretText::copyOf("old");
  ASSERT_TRUE(generateKey(folder, "server", {SealKind::Passphrase, &old, CHEAP, {}, 0, 0, {}}).has_value());
  const std::string before = readFile(keyPath(folder, "server"));
  const auto changed = changeKey(folder, "server", saying("wrong"), rotation(), NOW);
  ASSERT_FALSE(changed.has_value());
  EXPECT_TRUE(contains(changed.error().message, "server.key: the passphrase is wrong"));
  EXPECT_EQ(readFile(keyPath(folder, "server")), before);
}

TEST_F(KeyFiles, NobodysChangeIsLost) {
  made();
  const auto slow = changeKey(
      folder, "server", nobody(),
      [&](EditedKey&) -> Result<Rewrite, Problem> {
        // While a person thinks about a passphrase, a timer rotates.
        EXPECT_TRUE(changeKey(folder, "server", nobody(), rotation(), NOW).has_value());
        return Rewrite::All;
      },
      NOW);
  ASSERT_FALSE(slow.has_value());
  EXPECT_TRUE(contains(slow.error().message, "somebody else has just changed"));
  EXPECT_EQ(loadKey(folder, "server", nobody())->versions.size(), 2u);
}

TEST_F(KeyFiles, ADestroyedSecretLeavesTheFileWithTheNextWrite) {
  made();
  ASSERT_TRUE(changeKey(folder, "server", nobody(), rotation(), NOW).has_value());
  const auto deleteFirst = [](EditedKey& key) -> Result<Rewrite, Problem> {
    if (auto done = markDeleted(key.opened, 1, 100, NOW + 1); !done) return refuse(done.error());
    return Rewrite::All;
  };
  ASSERT_TRUE(changeKey(folder, "server", nobody(), deleteFirst, NOW + 1).has_value());
  EXPECT_EQ(loadKey(folder, "server", nobody())->versions.size(), 2u);
  const auto nothing = [](EditedKey&) -> Result<Rewrite, Problem> { return Rewrite::Nothing; };
  EXPECT_FALSE(changeKey(folder, "server", nobody(), nothing, NOW + 100)->written);
  EXPECT_TRUE(changeKey(folder, "server", nobody(), nothing, NOW + 101)->written);
  const auto loaded = loadKey(folder, "server", nobody());
  ASSERT_EQ(loaded->versions.size(), 1u);
  EXPECT_EQ(loaded->versions[0].version.number, 2u);
  EXPECT_EQ(loaded->header.versions.size(), 2u);
}

// Written by the release before.
TEST_F(KeyFiles, AFileOfFormat1BecomesOneOfFormat2WithItsNextChange) {
  made("other");  // the folder
  writeFile(keyPath(folder, "alice"),
            "sallyport key 1\nname: alice\nkind: x25519\npublic: "
            "pOCSkrZRwni5dyxWn1+puxPZBrRqtoyd+dwrRAn4ogk=\ncreated: 2026-11-21T04:00:00Z\n"
            "seal: plain\npayload: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n");
  const auto before = loadKey(folder, "alice", nobody());
  ASSERT_TRUE(before.has_value());
  EXPECT_TRUE(readFile(keyPath(folder, "alice")).starts_with("sallyport key 1\n")) << "reading changes nothing";
  ASSERT_TRUE(changeKey(folder, "alice", nobody(), rotation(), NOW).has_value());
  EXPECT_TRUE(readFile(keyPath(folder, "alice")).starts_with("sallyport key 2\n"));
  const auto after = loadKey(folder, "alice", nobody());
  ASSERT_TRUE(after.has_value());
  EXPECT_EQ(after->header.ledgerId, before->header.ledgerId) << "the nonce file stays its own";
  EXPECT_EQ(after->header.created, before->header.created);
  ASSERT_EQ(after->versions.size(), 2u);
  EXPECT_TRUE(equalsConstantTime(after->versions[0].secret.expose(), before->versions[0].secret.expose()));
}

TEST_F(KeyFiles, RootResealsWithoutTakingTheFileAway) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give files away";
  made();
  ASSERT_EQ(chown(keyPath(folder, "server").c_str(), 12345, 54321), 0);
  auto text = readPrivate(keyPath(folder, "server"), {{12345}});
  ASSERT_TRUE(text.has_value());
  ASSERT_TRUE(replacePrivate(keyPath(folder, "server"), text->expose()).has_value());
  struct stat status;
  ASSERT_EQ(stat(keyPath(folder, "server").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 12345u);
  EXPECT_EQ(status.st_gid, 54321u);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
}

TEST_F(KeyFiles, AChangeOfAMissingOrDamagedKeyChangesNothing) {
  made("other");
  EXPECT_FALSE(changeKey(folder, "server", nobody(), rotation(), NOW).has_value());
  writeFile(keyPath(folder, "server"), "sallyport key 9\n");
  EXPECT_FALSE(changeKey(folder, "server", nobody(), rotation(), NOW).has_value());
  EXPECT_EQ(readFile(keyPath(folder, "server")), "sallyport key 9\n");
  EXPECT_EQ(files(), 2u);
}

TEST_F(KeyFiles, TheListHasEveryKeyAndTheReasonOfEachBrokenOne) {
  made("b");
  made("a");
  writeFile(folder / "a.key.1", "rotated out by an earlier release");
  writeFile(keyPath(folder, "broken"), "nonsense\n");
  writeFile(folder / "a.nonces", "");
  writeFile(folder / ".c.key.tmp-00", "left over");
  auto list = listKeys(folder);
  ASSERT_TRUE(list.has_value());
  ASSERT_EQ(list->size(), 3u);
  EXPECT_EQ((*list)[0].name, "a");
  EXPECT_TRUE((*list)[0].header.has_value());
  EXPECT_EQ((*list)[2].name, "broken");
  EXPECT_FALSE((*list)[2].header.has_value());
  EXPECT_TRUE(contains((*list)[2].problem.message, "broken.key"));
}

TEST_F(KeyFiles, NoFolderIsAProblemWithARemedy) {
  auto list = listKeys(folder);
  ASSERT_FALSE(list.has_value());
  EXPECT_TRUE(contains(list.error().hint, "sallyport key new"));
}

}  // namespace
}  // namespace sallyport::vaultd
