// Goal: while a block is being rotated whoever holds one of its versions is served, and a session ends with the version
// that it was made with (docs/protocol.md §13.1, §14).
// Method: a whole worker in the test's loop (peer_fixture.h); the test is party A of the block, and the vault.
#include "tests/unit/netd/peer_fixture.h"

namespace sallyport::netd::test {
namespace {

using PeerRotations = PeerWorkerTest;

TEST_F(PeerRotations, EndWhenTheBlockWasRotatedAndAReloadTellsSo) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  vault.blockVersion = 2;
  turns();
  say(party, "not told yet");
  EXPECT_EQ(hear(party), "0:not told yet");
  configure({});
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::PeerRevoked));
}

TEST_F(PeerRotations, EndWhenTheBlockWasRotatedThoughTheRateIsUsedUp) {
  start();
  Party party = connectedParty(PEER_ECHO_ENTRY);
  vault.blockVersion = 2;
  vault.saltsOverRate = 2;
  configure({});
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::PeerRevoked));
}

TEST_F(PeerRotations, AHalfOpenOneEndsLikewiseWhenTheBlockWasRotated) {
  start();
  Party party = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(party));
  turns();
  vault.blockVersion = 2;
  configure({});
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::PeerRevoked));
}

// protocol §14: one host has switched to another version of the block and the other hasn't yet.
TEST_F(PeerRotations, ServeWhateverVersionOfTheBlockThePeerHas) {
  start();
  vault.otherBlocks = {{7, TestVault::randomBlock()}, {9, TestVault::randomBlock()}};
  const auto own = vault.block;
  for (const auto& block : {vault.otherBlocks[1].second, own, vault.otherBlocks[0].second}) {
    Party party = dialParty(PEER_ECHO_ENTRY);
    vault.block = block;  // what the party derives its keys from
    sendPreamble(party);
    vault.block = own;
    const auto bytes = read(party.socket, wire::PEER_PREAMBLE_BYTES);
    ASSERT_EQ(bytes.size(), wire::PEER_PREAMBLE_BYTES);
    vault.block = block;
    keysFrom(party, bytes);
    vault.block = own;
    // The header comes byte by byte: nothing is decided before it is whole.
    const auto first = frame(party, "which one", 3);
    for (size_t at = 0; at < 20; ++at) {
      writeTo(party, ByteSpan(first).subspan(at, 1));
      loop.turn(1);
    }
    writeTo(party, ByteSpan(first).subspan(20));
    EXPECT_EQ(hear(party), "3:which one");
    say(party, "and on");
    EXPECT_EQ(hear(party), "0:and on");
  }
}

TEST_F(PeerRotations, RefuseABlockThatIsNoneOfThem) {
  start();
  vault.otherBlocks = {{7, TestVault::randomBlock()}};
  Party party = dialParty(PEER_ECHO_ENTRY);
  sendPreamble(party);
  const auto bytes = read(party.socket, wire::PEER_PREAMBLE_BYTES);
  ASSERT_EQ(bytes.size(), wire::PEER_PREAMBLE_BYTES);
  const auto own = std::exchange(vault.block, TestVault::randomBlock());
  keysFrom(party, bytes);
  vault.block = own;
  say(party, "let me in");
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::BadChecksum));
}

TEST_F(PeerRotations, OneThatWaitsWithTheOldBlockEndsWithItsTime) {
  start({.handshakeTimeoutMs = 150});
  vault.otherBlocks = {{7, TestVault::randomBlock()}};
  Party party = dialParty(PEER_ECHO_ENTRY);
  ASSERT_TRUE(exchange(party));
  writeTo(party, ByteSpan(frame(party, "half a header")).first(9));
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::HandshakeTimeout));
}

TEST_F(PeerRotations, OneThatPausesInItsFirstHeaderIsServedWhileTheBlockIsRotated) {
  start();
  vault.otherBlocks = {{7, TestVault::randomBlock()}};
  for (const size_t size : {5u, 300'000u}) {
    Party party = dialParty(PEER_ECHO_ENTRY);
    ASSERT_TRUE(exchange(party));
    const std::string text(size, 'x');
    const auto bytes = frame(party, text, 3);
    writeTo(party, ByteSpan(bytes).first(9));
    turns(50);
    EXPECT_EQ(stats.get(Counter::HalfOpen), 1u);
    writeTo(party, ByteSpan(bytes).subspan(9));
    EXPECT_EQ(hear(party), "3:" + text);
  }
}

// The vault made the keys before the rotation, and its answer came after the reload.
TEST_F(PeerRotations, OneWhoseKeysCameTooLateEndsLikewise) {
  start();
  vault.holdsAccepts = true;
  Party party = dialParty(PEER_ECHO_ENTRY);
  sendPreamble(party);
  ASSERT_TRUE(until([&] { return vault.heldAccepts.size() == 1; }));
  vault.blockVersion = 2;
  configure({});
  turns();
  EXPECT_EQ(stats.get(Counter::HalfOpen), 1u);
  vault.heldAccepts[0]();
  EXPECT_EQ(read(party.socket, wire::PEER_PREAMBLE_BYTES).size(), wire::PEER_PREAMBLE_BYTES);
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::PeerRevoked));
}

// Those that come while a verdict is awaited are no reason to ask for another, which the next would put off again.
TEST_F(PeerRotations, OnesWhoseKeysCameTooLateDoNotPutTheVerdictOff) {
  start();
  vault.holdsAccepts = true;
  Party first = dialParty(PEER_ECHO_ENTRY), second = dialParty(PEER_ECHO_ENTRY);
  sendPreamble(first);
  ASSERT_TRUE(until([&] { return vault.heldAccepts.size() == 1; }));
  sendPreamble(second);
  ASSERT_TRUE(until([&] { return vault.heldAccepts.size() == 2; }));
  vault.blockVersion = 2;
  vault.holdsSalts = true;
  configure({});
  turns();
  EXPECT_TRUE(vault.heldSalts.empty()) << "nobody has keys yet";
  vault.heldAccepts[0]();
  ASSERT_TRUE(until([&] { return vault.heldSalts.size() == 1; }));
  vault.heldAccepts[1]();
  EXPECT_EQ(read(second.socket, wire::PEER_PREAMBLE_BYTES).size(), wire::PEER_PREAMBLE_BYTES);
  turns(3);
  EXPECT_EQ(vault.heldSalts.size(), 1u);
  vault.heldSalts[0]();
  EXPECT_TRUE(dropped(R::PeerRevoked, 2));
}

}  // namespace
}  // namespace sallyport::netd::test
