// Goal: between monitor and worker a record arrives whole, in order and with its descriptors, or the channel is over.
// Method: both ends in one loop, then one end that writes what no worker would.
#include "netd/control.h"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "tests/unit/wire/vectors.h"

namespace sallyport::netd {
namespace {

size_t openDescriptors() {
  size_t count = 0;
  DIR* folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

struct Seen {
  ControlRecord record;
  std::string payload;
  size_t fds;
};

constexpr size_t MAX_WAITING = 1024;

class AControlChannel : public testing::Test {
 protected:
  AControlChannel() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    far = kj::AutoCloseFd(ends[1]);
    channel.emplace(
        loop, ends[0], MAX_WAITING,
        [this](ControlChannel::Received& received) {
          seen.push_back({received.record, test::text(received.payload), received.fds.size()});
          if (keepFds) {
            for (auto& fd : received.fds) kept.push_back(kj::mv(fd));
          }
        },
        [this] { ++gone; });
  }
  ~AControlChannel() noexcept override {}  // gtest's is, KJ's members are not

  void turns(int count = 5) {
    for (int i = 0; i < count; ++i) loop.turn(0);
  }
  void sendRaw(ByteSpan bytes) {
    ASSERT_EQ(::send(far, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static std::vector<std::byte> raw(ControlKind kind, size_t payload = 0) {
    const ControlRecord record{.kind = kind};
    std::vector<std::byte> bytes(sizeof record + payload);
    std::memcpy(bytes.data(), &record, sizeof record);
    return bytes;
  }

  EventLoop loop;
  kj::AutoCloseFd far;
  std::optional<ControlChannel> channel;
  std::vector<Seen> seen;
  std::vector<kj::AutoCloseFd> kept;
  bool keepFds = false;
  int gone = 0;
};

TEST_F(AControlChannel, CarriesRecordsPayloadsAndDescriptorsInOrder) {
  std::vector<Seen> there;
  ControlChannel other(
      loop, far.release(), MAX_WAITING,
      [&](ControlChannel::Received& received) {
        there.push_back({received.record, test::text(received.payload), received.fds.size()});
      },
      [] {});
  std::vector<kj::AutoCloseFd> fds;
  fds.push_back(kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC)));
  fds.push_back(kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC)));
  channel->send({.kind = ControlKind::Config, .target = 5, .request = 6, .value = 7}, asBytes("payload"), kj::mv(fds));
  channel->send({.kind = ControlKind::Drain});
  turns();
  ASSERT_EQ(there.size(), 2u);
  EXPECT_EQ(there[0].record.kind, ControlKind::Config);
  EXPECT_EQ(there[0].record.target, 5u);
  EXPECT_EQ(there[0].record.request, 6u);
  EXPECT_EQ(there[0].record.value, 7u);
  EXPECT_EQ(there[0].payload, "payload");
  EXPECT_EQ(there[0].fds, 2u);
  EXPECT_EQ(there[1].record.kind, ControlKind::Drain);
  EXPECT_EQ(gone, 0);
}

TEST_F(AControlChannel, TakesAPayloadOfItsWholeSize) {
  sendRaw(raw(ControlKind::Ready, MAX_CONTROL_BYTES - sizeof(ControlRecord)));
  turns();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].payload.size(), MAX_CONTROL_BYTES - sizeof(ControlRecord));
}

TEST_F(AControlChannel, IsOverWhenARecordIsShort) {
  sendRaw(ByteSpan(raw(ControlKind::Ready)).first(sizeof(ControlRecord) - 1));
  sendRaw(raw(ControlKind::Ready));
  turns();
  EXPECT_TRUE(seen.empty());
  EXPECT_EQ(gone, 1);
}

TEST_F(AControlChannel, IsOverWhenARecordIsTooLarge) {
  sendRaw(raw(ControlKind::Ready, MAX_CONTROL_BYTES));
  turns();
  EXPECT_TRUE(seen.empty());
  EXPECT_EQ(gone, 1);
}

TEST_F(AControlChannel, IsOverOnceWhenTheOtherSideIsGone) {
  sendRaw(raw(ControlKind::Ready));
  far = nullptr;
  turns();
  EXPECT_EQ(seen.size(), 1u);  // what was sent before is heard
  EXPECT_EQ(gone, 1);
  channel->send({.kind = ControlKind::Drain});
  turns();
  EXPECT_EQ(gone, 1);
}

TEST_F(AControlChannel, PassesOnAKindThatItDoesNotKnow) {  // its owner refuses it
  sendRaw(raw(static_cast<ControlKind>(4711)));
  turns();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(gone, 0);
}

TEST_F(AControlChannel, ClosesTheDescriptorsThatNobodyTook) {
  kj::AutoCloseFd bell(eventfd(0, EFD_CLOEXEC));
  const std::vector<int> fds(20, bell.get());
  const size_t before = openDescriptors();
  ASSERT_TRUE(sendDatagram(far, raw(ControlKind::Ready), fds));
  turns();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].fds, 20u);
  EXPECT_EQ(openDescriptors(), before);
  keepFds = true;
  ASSERT_TRUE(sendDatagram(far, raw(ControlKind::Ready), fds));
  turns();
  EXPECT_EQ(openDescriptors(), before + 20);
}

TEST_F(AControlChannel, ClosesTheDescriptorsOfARecordThatIsNone) {
  kj::AutoCloseFd bell(eventfd(0, EFD_CLOEXEC));
  const std::vector<int> fds(20, bell.get());
  const size_t before = openDescriptors();
  ASSERT_TRUE(sendDatagram(far, asBytes("short"), fds));
  turns();
  EXPECT_EQ(gone, 1);
  EXPECT_EQ(openDescriptors(), before);
}

TEST_F(AControlChannel, KeepsInOrderWhatDoesNotFitNow) {
  constexpr uint64_t COUNT = 1200;  // more than a socket holds
  for (uint64_t i = 0; i < COUNT; ++i) channel->send({.kind = ControlKind::Dialed, .request = i}, asBytes("xyz"));
  uint64_t next = 0;
  std::array<std::byte, 256> buffer;
  for (int round = 0; round < 10000 && next < COUNT; ++round) {
    while (auto datagram = receiveDatagram(far, buffer)) {
      ControlRecord record;
      std::memcpy(&record, buffer.data(), sizeof record);
      ASSERT_EQ(record.request, next++);
    }
    loop.turn(0);
  }
  EXPECT_EQ(next, COUNT);
  EXPECT_EQ(gone, 0);
}

TEST_F(AControlChannel, GivesUpAnOtherSideThatNeverReads) {
  for (int i = 0; i < 70000 && gone == 0; ++i) channel->send({.kind = ControlKind::Dialed});
  EXPECT_EQ(gone, 1);
}

TEST_F(AControlChannel, FlushesWhatItCanBeforeAnExit) {
  for (int i = 0; i < 1200; ++i) channel->send({.kind = ControlKind::Dialed});
  std::array<std::byte, 256> buffer;
  int got = 0;
  for (int round = 0; round < 1000 && got < 1200; ++round) {
    while (receiveDatagram(far, buffer)) ++got;
    channel->flush();  // without the loop
  }
  EXPECT_EQ(got, 1200);
}

using AControlChannelDeathTest = AControlChannel;
TEST_F(AControlChannelDeathTest, SendsNoRecordThatNobodyWouldTake) {
  const std::vector<std::byte> large(MAX_CONTROL_BYTES - sizeof(ControlRecord) + 1);
  EXPECT_DEATH(channel->send({.kind = ControlKind::Ready}, large), "invariant broken");
}

}  // namespace
}  // namespace sallyport::netd
