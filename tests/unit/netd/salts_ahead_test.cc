// Goal: salts that are drawn ahead are given out once, forgotten when they may be wrong, and cost nothing afterwards.
// Method: a vault of the test's own behind a real socket (vault_client_fixture.h).
#include <malloc.h>

#include "tests/unit/netd/vault_client_fixture.h"

namespace sallyport::netd::test {
namespace {

using SaltsAhead = AVaultClient;

TEST_F(SaltsAhead, DrawsSaltsAheadInOneCall) {
  serve();
  connect();
  std::set<std::byte> seen;
  constexpr int ROUNDS = 25;
  for (int i = 0; i < 4 * ROUNDS; ++i) {
    if (const auto salt = client->takePeerSalt(entryOf("out"), 5000)) {
      EXPECT_EQ(salt->party, wire::PeerParty::A);
      EXPECT_TRUE(seen.insert(salt->salt.span()[0]).second) << "twice";
    }
    if (i % 4 == 3) turns(3);
  }
  EXPECT_EQ(seen.size(), 4u * (ROUNDS - 1)) << "only the first round finds none";
  EXPECT_LE(script.batches.size(), size_t{ROUNDS});
  for (const auto& entry : script.entries) EXPECT_EQ(entry, "out");
  EXPECT_EQ(client->takePeerSalt(entryOf("another"), 5000), std::nullopt) << "each entry has its own";
}

// Also while there is always one that isn't answered yet.
TEST_F(SaltsAhead, KeepsNothingOfTheSaltsThatWereTaken) {
  serve();
  connect();
  script.hold = true;
  size_t taken = 0;
  const auto takeSome = [&](size_t count) {
    const size_t end = taken + count;
    for (size_t rounds = 0; taken < end && rounds < 20 * count; ++rounds) {
      if (client->takePeerSalt(entryOf("out"), 60'000)) ++taken;
      loop.turn(0);
      for (; script.held.size() > 1; script.held.erase(script.held.begin())) script.held.front()->fulfill();
      loop.turn(0);
      script.entries.clear();
      script.batches.clear();
      script.calls.clear();
    }
    return mallinfo2().uordblks;
  };
  const size_t before = takeSome(500);
  EXPECT_LT(takeSome(5000), before + (64 << 10));
  EXPECT_EQ(taken, 5500u);
  EXPECT_EQ(script.held.size(), 1u);
}

TEST_F(SaltsAhead, HasNoSaltsAheadWithoutAVault) {
  EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
  EXPECT_EQ(client->waiting(), 0u);
}

TEST_F(SaltsAhead, ForgetsItsSaltsWithTheVaultThatDrewThem) {
  serve();
  connect();
  EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
  turns();
  server.reset();
  turns();
  serve();
  connect();
  EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
  turns();
  EXPECT_TRUE(client->takePeerSalt(entryOf("out"), 5000));
}

TEST_F(SaltsAhead, ForgetsItsSaltsWhenToldAndThoseUnderWay) {
  serve();
  connect();
  EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
  turns();
  client->forgetPeerSalts();
  script.hold = true;
  EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
  turns();
  client->forgetPeerSalts();
  script.hold = false;
  release();
  EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
}

TEST_F(SaltsAhead, DrawsNoMoreAheadWhileTheVaultRefuses) {
  serve();
  connect();
  script.refusal = proto::Refusal::RATE_LIMITED;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(client->takePeerSalt(entryOf("out"), 5000), std::nullopt);
    turns(3);
  }
  for (const size_t items : script.batches) EXPECT_EQ(items, 1u);
}

}  // namespace
}  // namespace sallyport::netd::test
