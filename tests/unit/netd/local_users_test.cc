// Goal: on a Unix listener each user of the host is a source of its own, also those whom only the monitor can name; and
// how many of these are on their way to it is bounded.
// Method: a whole worker in the test's loop (peer_fixture.h) that listens on an abstract address; the test connects as
// other users, and is the monitor that names them. Needs root, to become them.
#include <fcntl.h>
#include <sys/un.h>

#include "common/config.h"
#include "tests/unit/netd/peer_fixture.h"

namespace sallyport::netd::test {
namespace {

constexpr uid_t ANNA = 4001, BERT = 4002;

class UsersOfTheHost : public PeerWorkerTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
  }
  // For everybody: a path would be in a folder that only root can enter.
  void serve(const Options& options) {
    start(options);
    kj::AutoCloseFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    address_.sun_family = AF_UNIX;
    ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address_), sizeof address_.sun_family), 0);
    length_ = sizeof address_;
    ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address_), &length_), 0);
    ASSERT_EQ(listen(listener, 256), 0);
    monitor->send({.kind = ControlKind::RemoveListener, .target = BASE_ECHO_ENTRY});
    sendFd({.kind = ControlKind::WireListener, .target = BASE_ECHO_ENTRY}, kj::mv(listener));
    turns();
  }
  Party partyOf(uid_t user) {
    Party party = baseParty(kj::AutoCloseFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    EXPECT_EQ(seteuid(user), 0);
    EXPECT_EQ(connect(party.socket, reinterpret_cast<const sockaddr*>(&address_), length_), 0);
    EXPECT_EQ(seteuid(0), 0);
    EXPECT_EQ(fcntl(party.socket, F_SETFL, O_NONBLOCK), 0);
    return party;
  }
  // The monitor's answer to the first question that is left.
  void name(uid_t user) {
    std::vector<kj::AutoCloseFd> fds;
    fds.push_back(kj::mv(unnamed.front()));
    unnamed.erase(unnamed.begin());
    monitor->send({.kind = ControlKind::Caller, .target = BASE_ECHO_ENTRY, .value = user}, {}, kj::mv(fds));
  }

 private:
  sockaddr_un address_{};
  socklen_t length_ = 0;
};

TEST_F(UsersOfTheHost, HaveConnectionsOfTheirOwn) {
  serve({.connectionsPerSource = 1});
  Party anna = partyOf(ANNA);
  say(anna, "anna");
  EXPECT_EQ(hear(anna), "0:anna");
  Party second = partyOf(ANNA);
  EXPECT_TRUE(closed(second.socket));
  EXPECT_TRUE(dropped(R::SourceLimit));
  Party bert = partyOf(BERT);
  say(bert, "bert");
  EXPECT_EQ(hear(bert), "0:bert");
}

TEST_F(UsersOfTheHost, HaveWrongTriesOfTheirOwn) {
  serve({});
  for (uint32_t i = 0; stats.get(R::SourceLimit) == 0; ++i) {
    ASSERT_LT(i, 100 * Sources::TRIES_PER_SECOND);
    Party stranger = partyOf(ANNA);
    writeTo(stranger, asBytes("not of this block, not at all"));
    EXPECT_TRUE(closed(stranger.socket));
  }
  Party bert = partyOf(BERT);
  say(bert, "bert");
  EXPECT_EQ(hear(bert), "0:bert");
}

TEST_F(UsersOfTheHost, AreNamedByTheMonitorWhereTheWorkerCant) {
  serve({.connectionsPerSource = 1});
  Party anna = partyOf(OVERFLOW_ID), second = partyOf(OVERFLOW_ID), bert = partyOf(OVERFLOW_ID);
  ASSERT_TRUE(until([&] { return unnamed.size() == 3; }));
  EXPECT_EQ(stats.get(Counter::Accepted), 0u);
  for (const uid_t user : {ANNA, ANNA, BERT}) name(user);
  say(anna, "anna");
  EXPECT_EQ(hear(anna), "0:anna");
  EXPECT_TRUE(closed(second.socket));
  EXPECT_TRUE(dropped(R::SourceLimit));
  say(bert, "bert");
  EXPECT_EQ(hear(bert), "0:bert");
}

TEST_F(UsersOfTheHost, WhomTheMonitorCantNameEitherAreOneSource) {
  serve({.connectionsPerSource = 1});
  Party one = partyOf(OVERFLOW_ID), other = partyOf(OVERFLOW_ID);
  ASSERT_TRUE(until([&] { return unnamed.size() == 2; }));
  name(OVERFLOW_ID);
  name(OVERFLOW_ID);
  say(one, "one");
  EXPECT_EQ(hear(one), "0:one");
  EXPECT_TRUE(closed(other.socket));
  EXPECT_TRUE(dropped(R::SourceLimit));
}

TEST_F(UsersOfTheHost, AreAskedAboutSoManyAtATimeAndTheOthersWait) {
  serve({});
  std::vector<Party> crowd;
  for (int i = 0; i < 100; ++i) crowd.push_back(partyOf(OVERFLOW_ID));
  ASSERT_TRUE(until([&] { return unnamed.size() == 64; }));
  turns();
  EXPECT_EQ(unnamed.size(), 64u);
  Party network = dialParty(PEER_ECHO_ENTRY);  // who can be named waits as well: the listeners rest
  sendPreamble(network);
  turns();
  EXPECT_EQ(vault.accepts, 0u);
  for (size_t named = 0; named < crowd.size(); ++named) {
    ASSERT_TRUE(until([&] { return !unnamed.empty(); })) << named;
    name(ANNA);
  }
  EXPECT_EQ(read(network.socket, wire::PEER_PREAMBLE_BYTES).size(), wire::PEER_PREAMBLE_BYTES);
  EXPECT_TRUE(until([&] { return stats.get(Counter::Accepted) == crowd.size() + 1; }));
}

TEST_F(UsersOfTheHost, WhoAreNamedWhenNobodyListensAnyMoreAreClosed) {
  serve({});
  Party late = partyOf(OVERFLOW_ID);
  ASSERT_TRUE(until([&] { return unnamed.size() == 1; }));
  monitor->send({.kind = ControlKind::RemoveListener, .target = BASE_ECHO_ENTRY});
  name(ANNA);
  EXPECT_TRUE(closed(late.socket));
  EXPECT_EQ(stats.get(Counter::Accepted), 0u);
}

TEST_F(UsersOfTheHost, WhomTheMonitorHasLostAreNotWaitedFor) {
  serve({});
  for (int i = 0; i < 64; ++i) {
    const Party lost = partyOf(OVERFLOW_ID);
    ASSERT_TRUE(until([&] { return unnamed.size() == 1; }));
    unnamed.clear();
    monitor->send({.kind = ControlKind::Caller, .target = BASE_ECHO_ENTRY, .value = OVERFLOW_ID});
  }
  Party party = partyOf(ANNA);
  say(party, "here");
  EXPECT_EQ(hear(party), "0:here");
}

TEST_F(UsersOfTheHost, WhomTheWorkerDidNotAskAboutAreNotTaken) {
  serve({});
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  const kj::AutoCloseFd ours(ends[0]);
  unnamed.emplace_back(ends[1]);
  name(ANNA);
  EXPECT_TRUE(closed(ours));
  EXPECT_EQ(stats.get(Counter::Accepted), 0u);
}

}  // namespace
}  // namespace sallyport::netd::test
