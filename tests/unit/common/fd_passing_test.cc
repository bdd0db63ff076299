// Goal: a datagram arrives whole with its descriptors, or not at all; nothing that came unasked stays open.
// Method: socketpairs; too much of everything, from a sender that is not ours.
#include "common/fd_passing.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

namespace sallyport {
namespace {

size_t openDescriptors() {
  size_t count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

class ADatagram : public testing::Test {
 protected:
  ADatagram() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    left = kj::AutoCloseFd(ends[0]);
    right = kj::AutoCloseFd(ends[1]);
  }
  ~ADatagram() noexcept override {}  // gtest's is, KJ's members are not
  kj::AutoCloseFd left, right;
  std::array<std::byte, 256> buffer;
};

TEST_F(ADatagram, ArrivesWithItsDescriptors) {
  kj::AutoCloseFd bell(eventfd(0, EFD_CLOEXEC));
  const int fds[] = {bell.get(), bell.get()};
  ASSERT_TRUE(sendDatagram(left, asBytes("hello"), fds));
  auto received = receiveDatagram(right, buffer);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->bytes, 5u);
  EXPECT_EQ(std::memcmp(buffer.data(), "hello", 5), 0);
  ASSERT_EQ(received->fdCount, 2u);
  EXPECT_FALSE(received->truncated);
  EXPECT_EQ(eventfd_write(received->fds[1], 3), 0);
  eventfd_t value = 0;
  EXPECT_EQ(eventfd_read(bell, &value), 0);
  EXPECT_EQ(value, 3u);
  EXPECT_NE(fcntl(received->fds[0], F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(ADatagram, TakesItsDescriptorsWithItWhenItIsThrownAway) {
  kj::AutoCloseFd bell(eventfd(0, EFD_CLOEXEC));
  const std::vector<int> fds(MAX_PASSED_FDS, bell.get());
  ASSERT_TRUE(sendDatagram(left, asBytes("x"), fds));
  const size_t before = openDescriptors();
  {
    auto received = receiveDatagram(right, buffer);
    ASSERT_TRUE(received.has_value());
    EXPECT_EQ(received->fdCount, MAX_PASSED_FDS);
    EXPECT_EQ(openDescriptors(), before + MAX_PASSED_FDS);
  }
  EXPECT_EQ(openDescriptors(), before);
}

TEST_F(ADatagram, ThatDoesNotExistIsNotWaitedFor) { EXPECT_FALSE(receiveDatagram(right, buffer).has_value()); }

TEST_F(ADatagram, LargerThanTheBufferIsMarked) {
  const std::vector<std::byte> large(buffer.size() + 1);
  ASSERT_TRUE(sendDatagram(left, large));
  auto received = receiveDatagram(right, buffer);
  ASSERT_TRUE(received.has_value());
  EXPECT_TRUE(received->truncated);
}

TEST_F(ADatagram, OfExactlyTheBuffersSizeIsWhole) {
  const std::vector<std::byte> fitting(buffer.size());
  ASSERT_TRUE(sendDatagram(left, fitting));
  auto received = receiveDatagram(right, buffer);
  ASSERT_TRUE(received.has_value());
  EXPECT_FALSE(received->truncated);
  EXPECT_EQ(received->bytes, buffer.size());
}

TEST_F(ADatagram, WithMoreDescriptorsThanWeTakeLeavesNoneOpen) {
  kj::AutoCloseFd bell(eventfd(0, EFD_CLOEXEC));
  std::vector<int> fds(200, bell.get());
  std::vector<std::byte> control(CMSG_SPACE(fds.size() * sizeof(int)));
  char byte = 'x';
  iovec part{.iov_base = &byte, .iov_len = 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  ASSERT_EQ(sendmsg(left, &message, 0), 1);
  const size_t before = openDescriptors();
  {
    auto received = receiveDatagram(right, buffer);
    ASSERT_TRUE(received.has_value());
    EXPECT_LE(received->fdCount, MAX_PASSED_FDS);
    EXPECT_EQ(openDescriptors(), before + received->fdCount);
  }
  EXPECT_EQ(openDescriptors(), before);
}

TEST_F(ADatagram, OfNoBytesSaysThatTheOtherSideIsGone) {
  ASSERT_EQ(send(left, "", 0, 0), 0);
  auto received = receiveDatagram(right, buffer);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->bytes, 0u);
}

TEST_F(ADatagram, DoesNotComeFromAClosedSocket) {
  left = nullptr;
  auto received = receiveDatagram(right, buffer);
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->bytes, 0u);
  EXPECT_FALSE(sendDatagram(right, asBytes("x")));  // and no SIGPIPE
}

TEST_F(ADatagram, IsNotSentWhenTheQueueIsFullAndTheDescriptorsStayOurs) {
  kj::AutoCloseFd bell(eventfd(0, EFD_CLOEXEC));
  const int fds[] = {bell.get()};
  int sent = 0;
  while (sendDatagram(left, buffer, fds)) ++sent;
  EXPECT_GT(sent, 0);
  EXPECT_EQ(eventfd_write(bell, 1), 0);
  for (int i = 0; i < sent; ++i) EXPECT_TRUE(receiveDatagram(right, buffer).has_value());
  EXPECT_FALSE(receiveDatagram(right, buffer).has_value());
}

using ADatagramDeathTest = ADatagram;
TEST_F(ADatagramDeathTest, WithTooManyDescriptorsIsABug) {
  const std::vector<int> fds(MAX_PASSED_FDS + 1, 0);
  EXPECT_DEATH(sendDatagram(left, asBytes("x"), fds), "invariant broken");
}

}  // namespace
}  // namespace sallyport
