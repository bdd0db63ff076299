// Goal: a peer comes and goes by one line, and every other byte of the file stays. Method: texts before and after.
#include "cli/peer_edit.h"

#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include <gtest/gtest.h>

#include "cli/edited_file.h"

#include "tests/unit/temporary_folder.h"

namespace sallyport::cli {
namespace {

constexpr auto ALICE = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
constexpr auto BOB = "3p7bfXt9wbTTW2HC7ORdk37KKtN0LVdmdNEwxn8vcxQ=";

PublicKey alice() { return *parsePublicKey(ALICE); }
const std::string ALICE_LINE = "alice = \"" + std::string(ALICE) + "\"";
const std::string BOB_LINE = "bob = \"" + std::string(BOB) + "\"";

std::string added(std::string_view text, std::string_view name = "alice") {
  const auto result = withPeer(text, name, alice(), "x.toml");
  EXPECT_TRUE(result) << result.error().message;
  return result ? *result : "";
}

std::string removed(std::string_view text, std::string_view name) {
  const auto result = withoutPeer(text, name, "x.toml");
  EXPECT_TRUE(result) << result.error().message;
  return result ? *result : "";
}

TEST(PeerEdit, AddsAfterTheLastPeer) {
  EXPECT_EQ(added("[peers]\n" + BOB_LINE + " # b\n\n# end\n[net]\n"),
            "[peers]\n" + BOB_LINE + " # b\n" + ALICE_LINE + "\n\n# end\n[net]\n");
}

TEST(PeerEdit, AddsToAnEmptyTableRightBelowItsHeader) {
  EXPECT_EQ(added("# a\n [ peers ] # who\n# none\n[net]\n"),
            "# a\n [ peers ] # who\n" + ALICE_LINE + "\n# none\n[net]\n");
}

TEST(PeerEdit, AddsTheTableWhereThereIsNone) {
  EXPECT_EQ(added("[net]\nworkers = 1"), "[net]\nworkers = 1\n\n[peers]\n" + ALICE_LINE + "\n");
  EXPECT_EQ(added(""), "[peers]\n" + ALICE_LINE + "\n");
}

TEST(PeerEdit, AddsANewlineToALastLineWithoutOne) {
  EXPECT_EQ(added("[peers]\n" + BOB_LINE), "[peers]\n" + BOB_LINE + "\n" + ALICE_LINE + "\n");
  EXPECT_EQ(added("[peers]"), "[peers]\n" + ALICE_LINE + "\n");
}

TEST(PeerEdit, KeepsLineEndsOfOtherSystems) {
  EXPECT_EQ(added("[peers]\r\n" + BOB_LINE + "\r\n"), "[peers]\r\n" + BOB_LINE + "\r\n" + ALICE_LINE + "\r\n");
}

TEST(PeerEdit, QuotesANameWithDots) {
  EXPECT_EQ(added("[peers]\n", "alice.laptop"), "[peers]\n\"alice.laptop\" = \"" + std::string(ALICE) + "\"\n");
}

TEST(PeerEdit, RemovesOneLineAlone) {
  const auto text = "# a\n[peers]\n  " + ALICE_LINE + " # friend\n" + BOB_LINE + "\n[net]\n";
  EXPECT_EQ(removed(text, "alice"), "# a\n[peers]\n" + BOB_LINE + "\n[net]\n");
  EXPECT_EQ(removed(text, "bob"), "# a\n[peers]\n  " + ALICE_LINE + " # friend\n[net]\n");
}

TEST(PeerEdit, AddAndRemoveAreInverse) {
  for (const std::string& text :
       {"[peers]\n" + BOB_LINE + "\n", std::string("[peers]\n# x\n"), "[peers]\n\n" + BOB_LINE + "\n[net]\n"}) {
    EXPECT_EQ(removed(added(text), "alice"), text);
  }
}

TEST(PeerEdit, WorksWhileEntriesAreStillWrong) {
  EXPECT_EQ(added("[[listen]]\nallow = [\"alice\"]\n[peers]\n"),
            "[[listen]]\nallow = [\"alice\"]\n[peers]\n" + ALICE_LINE + "\n");
}

TEST(PeerEdit, RefusesWhatItCannotEditLineByLine) {
  for (const std::string& text :
       {"peers = { " + BOB_LINE + " }\n", "peers." + BOB_LINE + "\n", std::string("peers = 3\n"),
        "[[peers]]\n" + BOB_LINE, std::string("[peers\n"), std::string("[peers]\nbob = \"AAAA\"\n")}) {
    EXPECT_FALSE(withPeer(text, "alice", alice(), "x.toml")) << text;
    EXPECT_FALSE(withoutPeer(text, "bob", "x.toml")) << text;
  }
}

TEST(PeerEdit, IsNotFooledByAHeaderInsideAString) {
  const auto text = "[net]\nuser = \"x\" # [peers]\n[vault]\nuser = '[peers]x'\n";
  const auto result = withPeer(text, "alice", alice(), "x.toml");
  EXPECT_FALSE(result);  // the user's name is not one; nothing is edited
}

class EditedFileTest : public ::testing::Test {
 protected:
  void SetUp() override { std::ofstream(path()) << "old"; }
  std::filesystem::path path() const { return folder_ / "file"; }
  std::string content() const {
    std::ifstream in(path());
    return {std::istreambuf_iterator<char>(in), {}};
  }
  test::TemporaryFolder temporary_;
  const std::filesystem::path& folder_ = temporary_.path();
};

TEST_F(EditedFileTest, ReplacesKeepingModeAndLink) {
  ::chmod(path().c_str(), 0640);
  std::filesystem::create_symlink("file", folder_ / "link");
  auto file = EditedFile::open(folder_ / "link", 100);
  ASSERT_TRUE(file) << file.error();
  EXPECT_EQ(file->text(), "old");
  ASSERT_TRUE(file->replace("new"));
  EXPECT_EQ(content(), "new");
  struct stat status {};
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0640u);
  EXPECT_TRUE(std::filesystem::is_symlink(folder_ / "link"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
}

TEST_F(EditedFileTest, RefusesWhatIsNotASmallRegularFile) {
  EXPECT_FALSE(EditedFile::open(path(), 2));
  EXPECT_FALSE(EditedFile::open(folder_, 100));
  EXPECT_FALSE(EditedFile::open(folder_ / "none", 100));
}

}  // namespace
}  // namespace sallyport::cli
