// Goal: an hsmd gets its three descriptors, the words of its task and nothing else of ours; and what can't be started
// says so. Method: a shell script in its place, which writes down what it has.
#include "hsmlink/keeper.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "common/secret_bytes.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::hsmlink {
namespace {

class Keeper : public testing::Test {
 protected:
  test::TemporaryFolder folder;

  std::filesystem::path script(const std::string& text) {
    const auto path = folder.path() / "hsmd";
    std::ofstream(path) << "#!/bin/sh\n" << text;
    EXPECT_EQ(::chmod(path.c_str(), 0700), 0);
    return path;
  }
  KeeperStart start(const std::filesystem::path& program, bool asOperator = false) {
    return {program, folder.path() / "sallyport.toml", "hsm1", asOperator, {}};
  }
  // What the script has written when its end of the control socket closes.
  std::string written(const KeeperEnds& ends) {
    pollfd wait{ends.control.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&wait, 1, 30'000), 1);
    std::ifstream in(folder.path() / "out");
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
  }
  static bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
};

TEST_F(Keeper, GetsItsTaskAndThreeDescriptors) {
  ::setenv("SALLYPORT_TEST_SECRET", "must-not-be-seen", 1);
  kj::AutoCloseFd ours(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const auto program = script(
      "cd \"$(dirname \"$0\")\"\n"
      "{ echo \"words $*\"; env; for fd in /proc/$$/fd/*; do echo \"fd $(readlink $fd)\"; done; } > out.new\n"
      "mv out.new out\n");
  auto ends = startKeeper(start(program, true));
  ASSERT_TRUE(ends.has_value()) << ends.error();
  const std::string out = written(*ends);
  EXPECT_TRUE(has(out, "words --config " + (folder.path() / "sallyport.toml").string() + " --token hsm1 --calls-fd "));
  EXPECT_TRUE(has(out, " --operator\n"));
  EXPECT_FALSE(has(out, "must-not-be-seen"));
  size_t sockets = 0;
  size_t pages = 0;
  for (size_t at = 0; (at = out.find("fd socket:", at)) != out.npos; ++at) ++sockets;
  for (const char* name : {"fd /secretmem", "fd /memfd:sallyport-hsm"}) pages += has(out, name) ? 1 : 0;
  EXPECT_EQ(sockets, 2u) << out;
  EXPECT_EQ(pages, 1u) << out;
  EXPECT_EQ(ends->page->fd(), -1) << "the mapping is enough for us";
}

TEST_F(Keeper, SignalsAreAsAProgramExpectsThem) {
  std::signal(SIGPIPE, SIG_IGN);
  // Without a program of its own, before which the shell would block signals.
  const auto program = script(
      "cd \"$(dirname \"$0\")\"\nwhile read -r name value; do case $name in SigBlk:|SigIgn:) echo $name $value;; esac; "
      "done"
      " < /proc/self/status > out\n");
  auto ends = startKeeper(start(program));
  ASSERT_TRUE(ends.has_value());
  const std::string out = written(*ends);
  EXPECT_TRUE(has(out, "SigBlk: 0000000000000000")) << out;
  const size_t ignored = out.find("SigIgn: ");
  ASSERT_NE(ignored, out.npos) << out;
  // The C library keeps two beyond the 31 of programs for itself.
  EXPECT_EQ(std::stoull(out.substr(ignored + 8, 16), nullptr, 16) & 0x7fffffff, 0u) << out;
}

TEST_F(Keeper, TheDescriptorOfAPinGoesToItAlone) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  ASSERT_EQ(::write(fds[1], "1234", 4), 4);
  ::close(fds[1]);
  const auto program =
      script("cd \"$(dirname \"$0\")\"\ncat <&" + std::to_string(fds[0]) + " > out.new\nmv out.new out\n");
  auto task = start(program);
  task.pinFd = fds[0];
  auto ends = startKeeper(task);
  ASSERT_TRUE(ends.has_value());
  EXPECT_EQ(written(*ends), "1234");
  EXPECT_EQ(::fcntl(fds[0], F_GETFD), -1) << "closed here";
}

TEST_F(Keeper, WhatIsNotThereSaysSo) {
  auto missing = startKeeper(start(folder.path() / "none"));
  ASSERT_FALSE(missing.has_value());
  EXPECT_TRUE(has(missing.error(), "can't be run"));
  auto unknown = startKeeper(start({}));
  ASSERT_FALSE(unknown.has_value());
  EXPECT_TRUE(has(unknown.error(), "isn't installed"));
  std::ofstream(folder.path() / "text") << "no program";
  EXPECT_FALSE(startKeeper(start(folder.path() / "text")).has_value());
}

TEST_F(Keeper, TheSocketsKeepTheBoundsOfDatagrams) {
  auto ends = startKeeper(start(script("sleep 30 <&-\n")));
  ASSERT_TRUE(ends.has_value());
  int type = 0;
  socklen_t length = sizeof type;
  for (const int fd : {ends->calls.get(), ends->control.get()}) {
    ASSERT_EQ(::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length), 0);
    EXPECT_EQ(type, SOCK_SEQPACKET);
    EXPECT_NE(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
}

TEST(SharedPage, IsZeroAndWiped) {
  auto page = SharedPage::create();
  ASSERT_TRUE(page.has_value()) << page.error();
  for (const std::byte byte : (*page)->message()) ASSERT_EQ(byte, std::byte{0});
  (*page)->slot(63)[63] = std::byte{1};
  (*page)->message().back() = std::byte{2};
  (*page)->wipeAll();
  EXPECT_EQ((*page)->slot(63)[63], std::byte{0});
  EXPECT_EQ((*page)->message().back(), std::byte{0});
}

TEST(SharedPage, IsSharedWithWhoHasItsDescriptor) {
  auto page = SharedPage::create();
  ASSERT_TRUE(page.has_value());
  void* other = ::mmap(nullptr, hsm::PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, (*page)->fd(), 0);
  ASSERT_NE(other, MAP_FAILED);
  (*page)->slot(3)[0] = std::byte{9};
  EXPECT_EQ(static_cast<std::byte*>(other)[3 * hsm::SLOT_BYTES], std::byte{9});
  ::munmap(other, hsm::PAGE_BYTES);
}

}  // namespace
}  // namespace sallyport::hsmlink
