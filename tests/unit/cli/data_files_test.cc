// Goal: input comes in whole blocks with the knowledge of its end, and an output file appears whole or not at all.
// Method: pipes and files in a temporary folder; a file system without unnamed files is played by a seccomp filter in a
// child.
#include "cli/data_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <seccomp.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <thread>

#include "tests/unit/temporary_folder.h"

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class DataFiles : public testing::Test {
 protected:
  test::TemporaryFolder temporary;

  std::string path(const std::string& name) const { return temporary.path() / name; }
  std::string made(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(temporary.path())) found.push_back(entry.path().filename());
    std::ranges::sort(found);
    return found;
  }
  // The blocks of `text`, each marked with `!` if it is the last.
  std::vector<std::string> blocksOf(const std::string& text, size_t blockBytes) const {
    auto input = InputFile::open(made("input", text));
    EXPECT_TRUE(input.has_value());
    std::vector<std::byte> buffer(blockBytes + 1);
    BlockInput blocks(*input, buffer);
    std::vector<std::string> found;
    for (bool last = false; !last;) {
      const auto block = blocks.next();
      EXPECT_TRUE(block.has_value());
      last = block->last;
      found.emplace_back(reinterpret_cast<const char*>(block->bytes.data()), block->bytes.size());
      if (last) found.back() += "!";
    }
    return found;
  }
  // Replaces a file, and leaves another alone; what both have in common whatever the file system can do.
  void expectWholeOrNothing() const {
    made("kept", "old");
    made("replaced", "old");
    {
      auto left = OutputFile::create(path("kept"), 0666);
      ASSERT_TRUE(left.has_value()) << left.error();
      ASSERT_TRUE(left->write(asBytes("half of it")).has_value());
    }
    auto file = OutputFile::create(path("replaced"), 0640);
    ASSERT_TRUE(file.has_value()) << file.error();
    ASSERT_TRUE(file->write(asBytes("new")).has_value());
    EXPECT_EQ(read(path("replaced")), "old");
    ASSERT_TRUE(file->finish().has_value());
    EXPECT_EQ(read(path("replaced")), "new");
    EXPECT_EQ(read(path("kept")), "old");
    struct stat status {};
    ASSERT_EQ(::stat(path("replaced").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0640U);
  }
};

TEST_F(DataFiles, BlocksKnowWhichIsTheLast) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(blocksOf("", 4), (Texts{"!"}));
  EXPECT_EQ(blocksOf("abc", 4), (Texts{"abc!"}));
  EXPECT_EQ(blocksOf("abcd", 4), (Texts{"abcd!"}));
  EXPECT_EQ(blocksOf("abcde", 4), (Texts{"abcd", "e!"}));
  EXPECT_EQ(blocksOf("abcdefgh", 4), (Texts{"abcd", "efgh!"}));
  EXPECT_EQ(blocksOf("abcdefghi", 4), (Texts{"abcd", "efgh", "i!"}));
}

TEST_F(DataFiles, APipeThatDripsIsReadInWholeBlocks) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  std::thread writer([&] {
    const int fd = ::open(path("pipe").c_str(), O_WRONLY | O_CLOEXEC);
    for (const char c : std::string("abcdefg")) EXPECT_EQ(::write(fd, &c, 1), 1);
    ::close(fd);
  });
  auto input = InputFile::open(path("pipe"));
  ASSERT_TRUE(input.has_value());
  std::array<std::byte, 4> bytes;
  EXPECT_EQ(*input->read(bytes), 4U);
  EXPECT_EQ(*input->read(bytes), 3U);
  EXPECT_EQ(*input->read(bytes), 0U);
  writer.join();
}

TEST_F(DataFiles, WhatCanNotBeReadIsToldWithItsName) {
  EXPECT_EQ(InputFile::open(path("nothing")).error(), path("nothing") + ": can't be read: No such file or directory");
  EXPECT_EQ(InputFile::open(temporary.path()).error(), temporary.path().string() + ": is a folder");
}

TEST_F(DataFiles, AnOutputAppearsWholeOrNotAtAll) {
  ::umask(022);
  expectWholeOrNothing();
  EXPECT_EQ(names(), (std::vector<std::string>{"kept", "replaced"}));
}

TEST_F(DataFiles, SoItDoesWhereFilesMustHaveNames) {
  ::umask(022);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    constexpr int UNNAMED = O_TMPFILE & ~O_DIRECTORY;
    const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    const bool set = filter != nullptr &&
                     seccomp_rule_add(filter, SCMP_ACT_ERRNO(EOPNOTSUPP), SCMP_SYS(openat), 1,
                                      SCMP_A2(SCMP_CMP_MASKED_EQ, UNNAMED, UNNAMED)) == 0 &&
                     seccomp_load(filter) == 0;
    if (!set) std::_Exit(2);
    if (::open(temporary.path().c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600) >= 0 || errno != EOPNOTSUPP)
      std::_Exit(3);
    expectWholeOrNothing();
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(names(), (std::vector<std::string>{"kept", "replaced"}));
}

TEST_F(DataFiles, LinksStayAndDevicesAreWritten) {
  made("file", "old");
  fs::create_symlink("file", path("link"));
  auto file = OutputFile::create(path("link"), 0600);
  ASSERT_TRUE(file.has_value());
  ASSERT_TRUE(file->write(asBytes("new")).has_value());
  ASSERT_TRUE(file->finish().has_value());
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(read(path("file")), "new");
  auto device = OutputFile::create("/dev/null", 0600);
  ASSERT_TRUE(device.has_value());
  EXPECT_TRUE(device->write(asBytes("x")).has_value());
  EXPECT_TRUE(device->finish().has_value());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(DataFiles, WhereNothingCanBeMadeIsTold) {
  EXPECT_FALSE(OutputFile::create(path("no/such/folder"), 0600).has_value());
  EXPECT_EQ(OutputFile::create(temporary.path(), 0600).error(), temporary.path().string() + ": is a folder");
  EXPECT_FALSE(OutputFile::create(path("name/"), 0600).has_value());
  EXPECT_TRUE(names().empty());
}

}  // namespace
}  // namespace sallyport::cli
