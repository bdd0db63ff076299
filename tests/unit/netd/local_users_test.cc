// Goal: each user of the host is a source of its own on a Unix listener and has its share of [net] socket, also those
// whom only the monitor can name; and how many of these are on their way to it is bounded.
// Method: a whole worker in the test's loop (peer_fixture.h) that listens on abstract addresses; the test connects as
// other users, and is the monitor that names them. Needs root, to become them.
#include <fcntl.h>
#include <sys/un.h>

#include <list>

#include "common/config.h"
#include "tests/unit/netd/peer_fixture.h"
#include "tests/unit/netd/program_fixture.h"

namespace sallyport::netd::test {
namespace {

constexpr uid_t ANNA = 4001, BERT = 4002;
constexpr size_t MOST_UNNAMED = 16;  // of a socket, at a time

// For everybody: a path would be in a folder that only root can enter.
class OpenSocket {
 public:
  kj::AutoCloseFd listen() {
    kj::AutoCloseFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    address_.sun_family = AF_UNIX;
    EXPECT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address_), sizeof address_.sun_family), 0);
    length_ = sizeof address_;
    EXPECT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address_), &length_), 0);
    EXPECT_EQ(::listen(listener, 512), 0);
    return listener;
  }
  kj::AutoCloseFd connectAs(uid_t user) const {
    kj::AutoCloseFd connected(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(seteuid(user), 0);
    EXPECT_EQ(connect(connected, reinterpret_cast<const sockaddr*>(&address_), length_), 0);
    EXPECT_EQ(seteuid(0), 0);
    EXPECT_EQ(fcntl(connected, F_SETFL, O_NONBLOCK), 0);
    return connected;
  }

 private:
  sockaddr_un address_{};
  socklen_t length_ = 0;
};

class UsersOfTheHost : public PeerWorkerTest {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
  }
  void serve(const Options& options) {
    start(options);
    monitor->send({.kind = ControlKind::RemoveListener, .target = BASE_ECHO_ENTRY});
    sendFd({.kind = ControlKind::WireListener, .target = BASE_ECHO_ENTRY}, wireSocket.listen());
    sendFd({.kind = ControlKind::NetListener}, netSocket.listen());
    turns();
  }
  Party partyOf(uid_t user) { return baseParty(wireSocket.connectAs(user)); }
  // The monitor's answer to the first question that is left.
  void name(uid_t user) {
    Unnamed caller = kj::mv(unnamed.front());
    unnamed.erase(unnamed.begin());
    std::vector<kj::AutoCloseFd> fds;
    fds.push_back(kj::mv(caller.socket));
    monitor->send({.kind = ControlKind::Caller, .target = caller.target, .value = user}, {}, kj::mv(fds));
  }

  OpenSocket wireSocket, netSocket;
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
  ASSERT_TRUE(until([&] { return unnamed.size() == MOST_UNNAMED; }));
  Party last = partyOf(BERT);  // who can be named waits as well: the listener rests
  turns();
  EXPECT_EQ(unnamed.size(), MOST_UNNAMED);
  EXPECT_EQ(stats.get(Counter::Accepted), 0u);
  for (size_t named = 0; named < crowd.size(); ++named) {
    ASSERT_TRUE(until([&] { return !unnamed.empty(); })) << named;
    name(ANNA);
  }
  say(last, "last");
  EXPECT_EQ(hear(last), "0:last");
  EXPECT_TRUE(until([&] { return stats.get(Counter::Accepted) == crowd.size() + 1; }));
}

TEST_F(UsersOfTheHost, WhoCrowdAtOneSocketHoldUpNoOther) {
  serve({});
  std::vector<Party> crowd;
  for (int i = 0; i < 100; ++i) crowd.push_back(partyOf(OVERFLOW_ID));
  ASSERT_TRUE(until([&] { return unnamed.size() == MOST_UNNAMED; }));
  Party network = dialParty(PEER_ECHO_ENTRY);
  sendPreamble(network);
  EXPECT_EQ(read(network.socket, wire::PEER_PREAMBLE_BYTES).size(), wire::PEER_PREAMBLE_BYTES);
  const auto program = netSocket.connectAs(BERT);
  EXPECT_TRUE(until([&] { return stats.get(Counter::RpcClients) == 1; }));
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
  for (size_t i = 0; i < MOST_UNNAMED; ++i) {
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
  for (const uint32_t unasked : {BASE_ECHO_ENTRY, NET_SOCKET}) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    const kj::AutoCloseFd ours(ends[0]);
    unnamed.push_back({unasked, kj::AutoCloseFd(ends[1])});
    name(ANNA);
    EXPECT_TRUE(closed(ours)) << unasked;
  }
  EXPECT_EQ(stats.get(Counter::Accepted), 0u);
  EXPECT_EQ(stats.get(Counter::RpcClients), 0u);
}

// --- [net] socket ----------------------------------------------------------------------------------------------------

class ProgramsOfTheHost : public WithProgram<UsersOfTheHost> {
 protected:
  static constexpr size_t PLACES = 256;

  [[nodiscard]] bool hasPrograms(uint64_t count) {
    return until([&] { return stats.get(Counter::RpcClients) == count; });
  }
};

TEST_F(ProgramsOfTheHost, AreNamedByTheMonitorWhereTheWorkerCant) {
  serve({});
  RpcClient bert(loop, netSocket.connectAs(OVERFLOW_ID).release(), CLIENT_LIMITS, [] {});
  ASSERT_TRUE(until([&] { return unnamed.size() == 1; }));
  EXPECT_EQ(unnamed[0].target, NET_SOCKET);
  EXPECT_EQ(stats.get(Counter::RpcClients), 0u);
  name(BERT);
  auto request = bert.bootstrap().castAs<proto::Network>().listenRequest();
  request.setName("nobody");
  EXPECT_EQ(answer(request.send())->getOutcome().getRefused(), proto::NetRefusal::UNKNOWN_NAME);
}

TEST_F(ProgramsOfTheHost, WhoHaveAllPlacesLoseOneToAnotherUser) {
  serve({});
  std::list<kj::AutoCloseFd> crowd;
  const auto come = [&](uid_t user) {
    crowd.push_back(netSocket.connectAs(OVERFLOW_ID));
    ASSERT_TRUE(until([&] { return !unnamed.empty(); }));
    name(user);
  };
  while (crowd.size() < PLACES) come(ANNA);
  ASSERT_TRUE(hasPrograms(PLACES));
  come(ANNA);
  EXPECT_TRUE(closed(crowd.back()));
  EXPECT_EQ(stats.get(Counter::RpcCutOff), 0u);
  come(BERT);
  EXPECT_TRUE(closed(crowd.front()));
  EXPECT_EQ(stats.get(Counter::RpcCutOff), 1u);
  EXPECT_TRUE(hasPrograms(PLACES));
}

}  // namespace
}  // namespace sallyport::netd::test
