// Goal: a salt works once, soon, and for its own entry. Method: an injected clock.
#include "vaultd/peer_salts.h"

#include <gtest/gtest.h>

namespace sallyport::vaultd {
namespace {

TEST(PeerSalts, WorkOnce) {
  PeerSalts salts;
  const auto salt = salts.draw("db", true, 0);
  EXPECT_TRUE(salts.take(salt, "db", true, 1));
  EXPECT_FALSE(salts.take(salt, "db", true, 1));
  EXPECT_EQ(salts.pending(), 0u);
}

TEST(PeerSalts, AreAllDifferent) {
  PeerSalts salts;
  EXPECT_NE(salts.draw("db", true, 0), salts.draw("db", true, 0));
}

TEST(PeerSalts, OneThatNobodyDrewDoesntWork) {
  PeerSalts salts;
  salts.draw("db", true, 0);
  EXPECT_FALSE(salts.take(wire::PeerSalt(), "db", true, 0));
  EXPECT_EQ(salts.pending(), 1u);
}

TEST(PeerSalts, OfAnotherEntryOrDirectionIsUsedUpByTheTry) {
  for (const auto& [entry, isListen] : {std::pair{"other", true}, {"db", false}, {"", true}}) {
    PeerSalts salts;
    const auto salt = salts.draw("db", true, 0);
    EXPECT_FALSE(salts.take(salt, entry, isListen, 0)) << entry;
    EXPECT_FALSE(salts.take(salt, "db", true, 0));
  }
}

TEST(PeerSalts, GoWithTheirTime) {
  PeerSalts salts;
  salts.setLifeMs(100);
  const auto early = salts.draw("db", true, 0);
  const auto late = salts.draw("db", true, 0);
  EXPECT_TRUE(salts.take(early, "db", true, 99));
  EXPECT_FALSE(salts.take(late, "db", true, 100));
  salts.draw("db", true, 0);
  salts.draw("db", true, 100);
  EXPECT_EQ(salts.pending(), 1u) << "drawing clears what is over";
}

TEST(PeerSalts, TheOldestGoesWhenThereAreTooMany) {
  PeerSalts salts(3);
  const auto oldest = salts.draw("db", true, 0);
  const auto second = salts.draw("db", true, 0);
  salts.draw("db", true, 0);
  salts.draw("db", true, 0);
  EXPECT_EQ(salts.pending(), 3u);
  EXPECT_FALSE(salts.take(oldest, "db", true, 0));
  EXPECT_TRUE(salts.take(second, "db", true, 0));
}

}  // namespace
}  // namespace sallyport::vaultd
