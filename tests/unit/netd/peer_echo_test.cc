// peer_echo_test.cc - Goal: the echo service of the peer protocol gives back what comes, ends included, and no more
// (docs/protocol.md §13.2). Method: a whole worker in the test's loop (peer_fixture.h); the test is party A of the
// block.
#include "tests/unit/netd/peer_fixture.h"

namespace sallyport::netd::test {
namespace {

using PeerEcho = PeerWorkerTest;

TEST_F(PeerEcho, EchoesFramesWithTheirCodes) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  say(party, "hello", 7);
  say(party, "", 9);
  EXPECT_EQ(hear(party), "7:hello");
  EXPECT_EQ(hear(party), "9:");
  EXPECT_EQ(stats.get(Counter::ServerHandshakes), 1u);
}

TEST_F(PeerEcho, AnEchoGivesTheEndBackAndBothSidesClose) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  say(party, "last", 7);
  say(party, "", PEER_CODE_CONTROL);
  EXPECT_EQ(hear(party), "7:last");
  EXPECT_EQ(hear(party), END);
  EXPECT_TRUE(closed(party.socket));  // though the party has closed nothing
  EXPECT_TRUE(until([&] { return stats.get(Counter::Echoes) == 0; }));
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) EXPECT_EQ(stats.get(static_cast<R>(i)), 0u) << i;
}

TEST_F(PeerEcho, AnEchoToASlowReaderEndsWhenAllIsGivenBack) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  const std::string text(600'000, 'x');  // more than the sockets hold
  say(party, text);
  say(party, "", PEER_CODE_CONTROL);
  shutdown(party.socket, SHUT_WR);
  turns();
  EXPECT_EQ(stats.get(Counter::Echoes), 1u);
  EXPECT_EQ(hear(party), "0:" + text);
  EXPECT_EQ(hear(party), END);
  EXPECT_TRUE(closed(party.socket));
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) EXPECT_EQ(stats.get(static_cast<R>(i)), 0u) << i;
}

TEST_F(PeerEcho, AnEchoGivesBackWhatIsAroundAnOpenInOneRead) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  std::vector<std::byte> bytes;
  const std::vector<std::pair<const char*, uint32_t>> frames = {
      {"one", 1}, {"open", PEER_CODE_CONTROL}, {"three", 3}, {"", PEER_CODE_CONTROL}};
  for (const auto& [said, code] : frames) {
    const auto next = frame(party, said, code);
    bytes.insert(bytes.end(), next.begin(), next.end());
  }
  writeTo(party, bytes);
  EXPECT_EQ(hear(party), "1:one");
  EXPECT_EQ(hear(party), "3:three");
  EXPECT_EQ(hear(party), END);
}

TEST_F(PeerEcho, AnEchoRefusesWhatComesAfterTheEnd) {
  start();
  const std::vector<std::pair<std::string_view, uint32_t>> late = {
      {"", 0}, {"", PEER_CODE_CONTROL}, {PEER_OPEN_TEXT, PEER_CODE_CONTROL}};
  for (const auto& [said, code] : late) {
    Party party = connectedParty(PEER_ECHO_ENTRY);
    auto bytes = frame(party, "", PEER_CODE_CONTROL);
    const auto after = frame(party, said, code);
    bytes.insert(bytes.end(), after.begin(), after.end());
    writeTo(party, bytes);
    EXPECT_EQ(hear(party), END);  // which was genuine
    EXPECT_TRUE(closed(party.socket));
  }
  EXPECT_TRUE(dropped(R::AfterEnd, late.size()));
}

TEST_F(PeerEcho, AnEchoSeesWhatComesAfterTheEndHoweverItIsRead) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  auto bytes = frame(party, std::string(500'000, 'x'));  // a read of its own
  for (const auto& next :
       {frame(party, "", PEER_CODE_CONTROL), frame(party, std::string(20'000, 'y')), frame(party, "z")})
    bytes.insert(bytes.end(), next.begin(), next.end());
  writeTo(party, bytes);
  static_cast<void>(hear(party));
  EXPECT_TRUE(dropped(R::AfterEnd));
}

TEST_F(PeerEcho, AnEchoWhoseWireEndsWithoutTheEndIsTruncated) {
  start();
  for (const size_t keep : {29u, 28u, 10u}) {
    Party party = connectedParty(PEER_ECHO_ENTRY);
    writeTo(party, ByteSpan(frame(party, "hello")).first(keep));
    shutdown(party.socket, SHUT_WR);
    if (keep == 29) { EXPECT_EQ(hear(party), "0:hello"); }
    EXPECT_TRUE(closed(party.socket));
  }
  EXPECT_TRUE(dropped(R::Truncated, 3));
}

}  // namespace
}  // namespace sallyport::netd::test
