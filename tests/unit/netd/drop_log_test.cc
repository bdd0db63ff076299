// Goal: the log tells who was refused and why, and however fast drops come, it stays a line a second of each kind.
// Method: drops at chosen times.
#include "netd/drop_log.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

namespace sallyport::netd {
namespace {

using wire::DropReason;

PublicKey keyOf(std::byte fill) {
  PublicKey key;
  std::ranges::fill(key.mutableSpan(), fill);
  return key;
}

class TheDropLog : public testing::Test {
 protected:
  TheDropLog() {
    entry_.name = "db";
    entry_.isListen = true;
    entry_.allow.emplace(alice_, "alice");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(40000);
    EXPECT_EQ(inet_pton(AF_INET, "192.0.2.1", &address.sin_addr), 1);
    from_ = address;
  }
  std::string note(DropReason reason, uint64_t nowMs, const PublicKey* peer = nullptr) {
    return log_.note({.reason = reason, .entry = entry_, .from = &from_, .peer = peer}, nowMs).value_or("");
  }

  const PublicKey alice_ = keyOf(std::byte{1});
  const PublicKey stranger_ = keyOf(std::byte{0});
  Entry entry_;
  Origin from_;
  DropLog log_;
};

TEST_F(TheDropLog, NamesTheKeyThatAnOperatorCouldAdd) {
  EXPECT_EQ(note(DropReason::PeerNotAllowed, 0, &stranger_),
            "refused reason=peer_not_allowed entry=db from=192.0.2.1:40000 "
            "key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
}

TEST_F(TheDropLog, NamesAPeerThatItKnows) {
  EXPECT_EQ(note(DropReason::PeerRevoked, 0, &alice_),
            "refused reason=peer_revoked entry=db from=192.0.2.1:40000 peer=alice");
}

TEST_F(TheDropLog, SaysOnlyWhatIsKnown) {
  EXPECT_EQ(log_.note({.reason = DropReason::Truncated, .entry = entry_}, 5), "drop reason=truncated entry=db");
}

TEST_F(TheDropLog, CountsWhatItLeavesOutIntoTheNextLine) {
  EXPECT_NE(note(DropReason::BadBox, 1000), "");
  for (uint64_t ms = 1000; ms < 2000; ms += 10) EXPECT_EQ(note(DropReason::BadLength, ms), "");
  EXPECT_EQ(note(DropReason::BadMagic, 2000), "drop reason=bad_magic entry=db from=192.0.2.1:40000 unlogged=100");
  EXPECT_EQ(note(DropReason::BadMagic, 2999), "");
  EXPECT_EQ(note(DropReason::BadMagic, 3500), "drop reason=bad_magic entry=db from=192.0.2.1:40000 unlogged=1");
  EXPECT_EQ(note(DropReason::BadMagic, 9000), "drop reason=bad_magic entry=db from=192.0.2.1:40000");
}

TEST_F(TheDropLog, LetsNoGarbageHideARefusal) {
  EXPECT_NE(note(DropReason::BadBox, 0), "");
  EXPECT_NE(note(DropReason::PeerNotAllowed, 1, &stranger_), "");
  EXPECT_EQ(note(DropReason::PeerNotAllowed, 2, &stranger_), "");
  EXPECT_EQ(note(DropReason::BadBox, 3), "");
}

}  // namespace
}  // namespace sallyport::netd
