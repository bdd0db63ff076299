// Goal: the salts of both parties arrive however the stream is cut, and what is no preamble ends at its first wrong
// byte. Method: both machines against each other, in pieces; reflection; garbage. docs/protocol.md §13.1.
#include "peer/preamble.h"

#include <gtest/gtest.h>

#include "tests/unit/peer/peer_pair.h"

namespace sallyport::peer {
namespace {

using namespace test;

TEST(TwoPreambles, ExchangeTheirSaltsInPiecesOfAnySize) {
  const Keys keys{};
  for (size_t piece = 1; piece <= wire::PEER_PREAMBLE_BYTES; ++piece) {
    Preamble a(PeerParty::A, keys.saltA);
    const Preamble b(PeerParty::B, keys.saltB);
    for (size_t at = 0; at < wire::PEER_PREAMBLE_BYTES; at += piece) {
      EXPECT_FALSE(a.complete());
      const auto taken = a.arrived(ByteSpan(b.outgoing()).subspan(at, std::min(piece, wire::PEER_PREAMBLE_BYTES - at)));
      ASSERT_TRUE(taken);
    }
    ASSERT_TRUE(a.complete());
    EXPECT_EQ(a.peerSalt(), keys.saltB);
  }
}

TEST(APreambleMachine, LeavesWhatIsBehindToTheFrames) {
  const Keys keys{};
  Preamble a(PeerParty::A, keys.saltA);
  Block stream = vec(Preamble(PeerParty::B, keys.saltB).outgoing());
  stream.resize(stream.size() + 10);
  const auto taken = a.arrived(stream);
  ASSERT_TRUE(taken);
  EXPECT_EQ(*taken, wire::PEER_PREAMBLE_BYTES);
  EXPECT_EQ(*a.arrived(stream), 0u);
}

TEST(APreambleMachine, RefusesItsOwnBytesReflected) {
  const Keys keys{};
  for (const PeerParty party : {PeerParty::A, PeerParty::B}) {
    Preamble machine(party, keys.salt(party));
    EXPECT_EQ(machine.arrived(machine.outgoing()).error(), R::SameParty);
    EXPECT_FALSE(machine.complete());
    // Dead is dead.
    EXPECT_EQ(machine.arrived(Preamble(otherParty(party), keys.saltA).outgoing()).error(), R::SameParty);
  }
}

TEST(APreambleMachine, EndsAtTheFirstWrongByte) {
  const Keys keys{};
  Preamble machine(PeerParty::A, keys.saltA);
  EXPECT_TRUE(machine.arrived(asBytes("p2p")));
  EXPECT_EQ(machine.arrived(asBytes("x")).error(), R::BadPreamble);
  Preamble http(PeerParty::A, keys.saltA);
  EXPECT_EQ(http.arrived(asBytes("GET / HTTP/1.1")).error(), R::BadPreamble);
}

}  // namespace
}  // namespace sallyport::peer
