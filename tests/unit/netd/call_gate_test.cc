// call_gate_test.cc - Goal: however many connections ask, a bounded number of calls is with the vault, each that is
// still wanted gets its turn in order and once, and those that aren't cost nothing; whatever a start does meanwhile, or
// doesn't come to. Method: starts that count; against a model; and a session of base mode that waits.
#include "netd/call_gate.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "common/link.h"
#include "common/rpc.h"
#include "netd/base_session.h"

namespace sallyport::netd {
namespace {

using Wanted = std::shared_ptr<bool>;
Wanted someone() { return std::make_shared<bool>(); }

class ACallGate : public testing::Test {
 protected:
  // Nobody has room any more: those who follow wait.
  void fill() {
    while (gate->underWay() < CallGate::MOST) gate->enter(wanted, [] {});
  }
  void enter(int number, const Wanted& by) {
    gate->enter(by, [this, number] { started.push_back(number); });
  }
  void enter(int number) { enter(number, wanted); }

  std::shared_ptr<CallGate> gate = std::make_shared<CallGate>();
  const Wanted wanted = someone();
  std::vector<int> started;
};
using ACallGateDeathTest = ACallGate;

// --- bound and order -------------------------------------------------------------------------------------------------

TEST_F(ACallGate, HasFewerUnderWayThanTheVaultAllows) {
  static_assert(CallGate::MOST + 64 < LinkLimits{}.maxOpenQuestions);
  for (int i = 0; i < 1000; ++i) enter(i);
  EXPECT_EQ(started.size(), CallGate::MOST);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_LE(gate->underWay(), CallGate::MOST);
    gate->leave();
  }
  ASSERT_EQ(started.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(started[static_cast<size_t>(i)], i);
  EXPECT_EQ(gate->underWay(), 0u);
}

TEST_F(ACallGate, StartsAtOnceWhileThereIsRoomAndNotBefore) {
  for (size_t i = 0; i < CallGate::MOST; ++i) {
    enter(static_cast<int>(i));
    EXPECT_EQ(started.size(), i + 1);
    EXPECT_EQ(gate->underWay(), i + 1);
  }
  enter(-1);
  EXPECT_EQ(started.size(), CallGate::MOST);
  EXPECT_EQ(gate->waiting(), 1u);
  gate->leave();
  EXPECT_EQ(started.back(), -1);
  EXPECT_EQ(gate->waiting(), 0u);
  EXPECT_EQ(gate->underWay(), CallGate::MOST) << "whoever waited has the room of who left";
}

TEST_F(ACallGate, LetsNobodyPassThoseThatWait) {
  fill();
  enter(1);
  enter(2);
  gate->leave();
  enter(3);
  gate->leave();
  gate->leave();
  EXPECT_EQ(started, (std::vector{1, 2, 3}));
}

// Enters, leaves and goes at random, beside a list that says who is next.
TEST_F(ACallGate, DoesAsItsModel) {
  struct Asked {
    int number;
    Wanted by;
  };
  std::mt19937 dice(1);
  std::vector<Asked> waiting;
  std::vector<int> expected;
  size_t underWay = 0;
  for (int number = 0; number < 20'000; ++number) {
    const auto what = dice() % 10;
    if (what < 5) {
      const Wanted by = someone();
      if (underWay < CallGate::MOST) {
        ++underWay;
        expected.push_back(number);
      } else {
        waiting.push_back({number, by});
      }
      enter(number, by);
    } else if (what < 7 && !waiting.empty()) {
      waiting[dice() % waiting.size()].by = nullptr;
    } else if (underWay > 0) {
      gate->leave();
      --underWay;
      while (underWay < CallGate::MOST && !waiting.empty()) {
        const Asked next = waiting.front();
        waiting.erase(waiting.begin());
        if (next.by == nullptr) continue;
        ++underWay;
        expected.push_back(next.number);
      }
    }
    ASSERT_EQ(gate->underWay(), underWay) << number;
    ASSERT_EQ(started, expected) << number;
  }
  EXPECT_GT(started.size(), 1000u);
}

// --- who isn't wanted any more ---------------------------------------------------------------------------------------

TEST_F(ACallGate, DoesNotStartWhatNobodyWantsAnyMore) {
  fill();
  auto gone = someone();
  for (int i = 0; i < 10; ++i) enter(-i, gone);
  enter(1);
  for (int i = 0; i < 10; ++i) enter(-i, gone);
  enter(2);
  gone.reset();
  gate->leave();
  EXPECT_EQ(started, std::vector{1}) << "those that are gone use no room up";
  gate->leave();
  EXPECT_EQ(started, (std::vector{1, 2}));
}

TEST_F(ACallGate, HasRoomWhenAllThatWaitedAreGone) {
  fill();
  auto gone = someone();
  for (int i = 0; i < 10; ++i) enter(i, gone);
  gone.reset();
  gate->leave();
  EXPECT_TRUE(started.empty());
  EXPECT_EQ(gate->waiting(), 0u);
  EXPECT_EQ(gate->underWay(), CallGate::MOST - 1);
  enter(1);
  EXPECT_EQ(started, std::vector{1});
}

TEST_F(ACallGate, DoesNotCollectThoseOfConnectionsThatAreGone) {
  fill();
  for (int i = 0; i < 100'000; ++i) gate->enter(std::make_shared<bool>(), [] {});
  EXPECT_LT(gate->waiting(), 1000u);
}

TEST_F(ACallGate, KeepsAllThatAreWantedWhenItForgetsTheOthers) {
  fill();
  std::vector<int> expected;
  for (int i = 0; i < 5000; ++i) {
    enter(i, i % 7 == 0 ? wanted : someone());
    if (i % 7 == 0) expected.push_back(i);
  }
  for (size_t i = 0; i < expected.size(); ++i) gate->leave();
  EXPECT_EQ(started, expected);
}

// What a start holds (a request with a connection's bytes in it) goes with it.
TEST_F(ACallGate, HoldsWhatAStartHoldsNoLongerThanItWaits) {
  fill();
  const auto held = [&](const Wanted& by) {
    auto bytes = std::make_shared<int>();
    gate->enter(by, [bytes] {});
    return std::weak_ptr<int>(bytes);
  };
  auto gone = someone();
  const auto skipped = held(gone), begun = held(wanted), waiting = held(wanted);
  gone.reset();
  EXPECT_FALSE(begun.expired());
  gate->leave();
  EXPECT_TRUE(skipped.expired());
  EXPECT_TRUE(begun.expired());
  EXPECT_FALSE(waiting.expired());
  gate.reset();
  EXPECT_TRUE(waiting.expired());
}

// --- what a start may do ---------------------------------------------------------------------------------------------

TEST_F(ACallGate, TakesWhoAsksWithinAStartBehindThoseThatWait) {
  fill();
  gate->enter(wanted, [this] {
    started.push_back(1);
    enter(3);
  });
  enter(2);
  gate->leave();
  EXPECT_EQ(started, std::vector{1});
  gate->leave();
  gate->leave();
  EXPECT_EQ(started, (std::vector{1, 2, 3}));
}

TEST_F(ACallGate, AStartMayEndWhoIsNext) {
  fill();
  auto next = someone();
  gate->enter(wanted, [&] {
    started.push_back(1);
    next.reset();
  });
  enter(2, next);
  enter(3);
  gate->leave();
  gate->leave();
  EXPECT_EQ(started, (std::vector{1, 3}));
}

TEST_F(ACallGate, GivesTheRoomBackOfAStartThatThrows) {
  EXPECT_THROW(gate->enter(wanted, [] { throw std::runtime_error("no memory"); }), std::runtime_error);
  EXPECT_EQ(gate->underWay(), 0u);
  for (size_t i = 0; i < CallGate::MOST; ++i) enter(static_cast<int>(i));
  EXPECT_EQ(started.size(), CallGate::MOST);
}

TEST_F(ACallGate, StartsThoseBehindAStartThatThrows) {
  fill();
  for (int i = 0; i < 3; ++i) gate->enter(wanted, [] { throw std::runtime_error("no memory"); });
  enter(1);
  enter(2);
  EXPECT_THROW(gate->leave(), std::runtime_error);
  EXPECT_EQ(started, std::vector{1});
  EXPECT_EQ(gate->underWay(), CallGate::MOST);
  gate->leave();
  EXPECT_EQ(started, (std::vector{1, 2}));
}

TEST_F(ACallGateDeathTest, IsLeftByWhoWasStartedAlone) { EXPECT_DEATH(gate->leave(), "underWay_"); }

// --- the end ---------------------------------------------------------------------------------------------------------

TEST_F(ACallGate, StartsNobodyWhenItGoes) {
  fill();
  for (int i = 0; i < 10; ++i) enter(i);
  gate.reset();
  EXPECT_TRUE(started.empty());
}

// A session of base mode whose call waits; both go before its turn comes.
TEST_F(ACallGate, IsNotKeptByTheSessionsThatWaitForIt) {
  EventLoop loop;
  class NobodysSession final : public proto::PeerSession::Server {};
  fill();
  const auto answered = std::make_shared<bool>(false);
  std::weak_ptr<CallGate> watched = gate;
  {
    BaseSession session(gate, kj::heap<NobodysSession>());
    session.seal(asBytes("frame"), [answered](auto&&) { *answered = true; });
    session.open(asBytes("bytes"), [answered](auto&&) { *answered = true; });
    EXPECT_EQ(gate->waiting(), 2u);
  }
  gate.reset();
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(answered.use_count(), 1) << "nor are their answers' owners";
  EXPECT_FALSE(*answered);
}

}  // namespace
}  // namespace sallyport::netd
