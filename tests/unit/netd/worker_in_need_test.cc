// Goal: a worker that is short of memory, descriptors or time lets go of the right ones, rests instead of spinning, and
// leaves nothing behind.
// Method: a whole worker in the test's loop; peers that park what they never finish, sockets that never connect,
// listeners that somebody has shut down.
#include <netinet/in.h>
#include <sys/resource.h>

#include "tests/unit/netd/worker_fixture.h"

namespace sallyport::netd {
namespace {

using R = wire::DropReason;

class AWorkerInNeed : public test::WorkerTest {
 protected:
  static constexpr uint32_t ECHO = test::ECHO_ENTRY, TARGET = test::TARGET_ENTRY;

  // How often the loop wakes up in so many milliseconds: one that spins does without end.
  int turnsOf(uint32_t milliseconds) {
    bool over = false;
    const auto timer =
        loop.timer().afterDelay(milliseconds * kj::MILLISECONDS).then([&] { over = true; }).eagerlyEvaluate(nullptr);
    int turns = 0;
    for (; !over; ++turns) loop.turn();
    return turns;
  }
};

// Frames that their senders never finish are held, and count: the eldest of them pay, not who is slow just now.
TEST_F(AWorkerInNeed, EndsThoseThatParkUnfinishedFramesBeforeASlowHonestOne) {
  start({.bufferBytes = 512 << 10});
  std::vector<Peer> parked;
  for (int i = 0; i < 15; ++i) {
    parked.push_back(connected(ECHO));
    const auto frame = sealed(parked.back(), std::string(60000, 'x'));
    write(parked.back(), ByteSpan(frame).first(frame.size() - 1));
    turns(3);
  }
  ASSERT_TRUE(stats.get(Counter::BufferBytes) > 512 << 10 ||
              stats.get(R::MemoryLimit) > 0);  // or time has told already
  Peer honest = connected(TARGET);
  ASSERT_TRUE(until([&] { return target.get() >= 0; }));
  const std::string text(60000, 'h');
  std::vector<std::byte> stream;
  for (int i = 0; i < 30; ++i) {
    const auto frame = sealed(honest, text);
    stream.insert(stream.end(), frame.begin(), frame.end());
  }
  for (ByteSpan rest = stream; !rest.empty();) {  // its service reads nothing until its buffers are full
    const ssize_t sent = ::send(honest.socket, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) FAIL() << "the honest one was cut";
    if (sent > 0) rest = rest.subspan(static_cast<size_t>(sent));
    if (sent < 0 && stats.get(R::MemoryLimit) > 0) static_cast<void>(read(target, 60000));
    loop.turn(1);
  }
  EXPECT_GT(stats.get(R::MemoryLimit), 0u);
  say(honest, "");
  EXPECT_EQ(stats.get(Counter::Tunnels), 1u);
}

TEST_F(AWorkerInNeed, RestsWhenItIsOutOfDescriptorsAndKeepsItsSessions) {
  start();
  sendFd({.kind = ControlKind::NetListener}, kj::AutoCloseFd(listenUnix(folder / "net", 0600)));
  sendFd({.kind = ControlKind::MetricsListener}, kj::AutoCloseFd(listenUnix(folder / "metrics", 0600)));
  turns();
  Peer peer = connected(ECHO);
  Peer late = dial(ECHO);
  kj::AutoCloseFd program(connectUnix(folder / "net"));
  kj::AutoCloseFd scraper(connectUnix(folder / "metrics"));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 3;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_LE(turnsOf(60), 30);
  say(peer, "still here");
  EXPECT_EQ(hear(peer), "still here");
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(handshake(late));
  EXPECT_TRUE(until([&] { return stats.get(Counter::RpcClients) == 1; }));
  ASSERT_EQ(::send(scraper, "GET / \n\n", 8, MSG_NOSIGNAL), 8);
  EXPECT_EQ(test::text(read(scraper, 8)), "HTTP/1.1");
}

TEST_F(AWorkerInNeed, RestsOnAListenerThatSomebodyHasShutDown) {
  start();
  kj::AutoCloseFd net(listenUnix(folder / "net", 0600));
  kj::AutoCloseFd metrics(listenUnix(folder / "metrics", 0600));
  kj::AutoCloseFd wire(listenUnix(folder / "wire", 0600));
  sendFd({.kind = ControlKind::NetListener}, kj::AutoCloseFd(dup(net)));
  sendFd({.kind = ControlKind::MetricsListener}, kj::AutoCloseFd(dup(metrics)));
  sendFd({.kind = ControlKind::WireListener, .target = ECHO}, kj::AutoCloseFd(dup(wire)));
  turns();
  ASSERT_EQ(shutdown(wire, SHUT_RD), 0);  // of this the others hear least
  EXPECT_LE(turnsOf(60), 40);
  for (const int listener : {net.get(), metrics.get(), wire.get()}) ASSERT_EQ(shutdown(listener, SHUT_RDWR), 0);
  EXPECT_LE(turnsOf(60), 40);
  Peer peer = connected(ECHO);  // by the listener that is whole
}

// A socket that is connecting, for ever: its listener's queue is full.
TEST_F(AWorkerInNeed, GivesUpATargetThatTakesTooLongToConnect) {
  start({.dialTimeoutMs = 60});
  answerDials = false;
  const kj::AutoCloseFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), length), 0);
  ASSERT_EQ(listen(listener, 0), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  std::vector<kj::AutoCloseFd> connecting;
  for (int i = 0; i < 4; ++i) {
    connecting.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    ASSERT_NE(connect(connecting.back(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  }
  Peer peer = dial(TARGET);
  ASSERT_TRUE(handshake(peer));
  ASSERT_TRUE(until([&] { return recordsOf(ControlKind::Dial) == 1; }));
  sendFd({.kind = ControlKind::Dialed, .request = records.back().request}, kj::mv(connecting.back()));
  EXPECT_TRUE(closed(peer.socket));
  EXPECT_TRUE(dropped(R::TargetUnavailable));
}

TEST_F(AWorkerInNeed, DoesNotWaitForATargetWhenThePeerIsGone) {
  start();
  answerDials = false;
  {
    Peer peer = dial(TARGET);
    ASSERT_TRUE(handshake(peer));
    ASSERT_TRUE(until([&] { return recordsOf(ControlKind::Dial) == 1; }));
  }
  EXPECT_TRUE(until([&] { return stats.get(Counter::Connections) == 0; }));
  EXPECT_TRUE(dropped(R::TransportError));
}

// The loop tells of it once, while the vault is asked.
TEST_F(AWorkerInNeed, DialsNothingForAPeerThatLeftBeforeItWasLetIn) {
  start({.dialTimeoutMs = 60'000});
  answerDials = false;
  {
    Peer peer = dial(TARGET);
    ASSERT_TRUE(handshake(peer));
  }
  EXPECT_TRUE(dropped(R::TransportError));
  EXPECT_EQ(recordsOf(ControlKind::Dial), 0u);
}

// One turn: another connection ends, this one's dial fails, and its peer leaves.
TEST_F(AWorkerInNeed, FreesAConnectionOnlyAfterWhatItStillHadToDo) {
  start();
  Peer other = connected(ECHO);
  answerDials = false;
  Peer peer = dial(TARGET);
  ASSERT_TRUE(handshake(peer));
  ASSERT_TRUE(until([&] { return recordsOf(ControlKind::Dial) == 1; }));
  other.socket = nullptr;
  monitor->send({.kind = ControlKind::DialFailed, .request = records.back().request});
  peer.socket = nullptr;
  EXPECT_TRUE(until([&] { return stats.get(Counter::Connections) == 0; }));
  EXPECT_TRUE(dropped(R::TransportError));
}

TEST_F(AWorkerInNeed, LeavesNoWorkBehindWhenItIsGone) {
  start();
  Peer session = connected(ECHO);
  Peer tunnel = connected(TARGET);
  Peer half = dial(ECHO);
  hello(half);
  say(tunnel, "text");
  worker.reset();
  turns();
  for (const Peer* peer : {&session, &tunnel, &half}) EXPECT_TRUE(closed(peer->socket));
}

}  // namespace
}  // namespace sallyport::netd
