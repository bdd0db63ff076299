// Goal: a Unix socket is bound where nobody else serves and nothing else lies, and each client gets what it is due.
// Method: real socket files in a temporary folder, and a server whose one method answers or throws.
#include "common/rpc.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <algorithm>
#include <cstdio>
#include <fstream>

#include <capnp/message.h>
#include <kj/debug.h>
#include <kj/io.h>

#include "common/secret_bytes.h"
#include "common/socket_group.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport {
namespace {

namespace fs = std::filesystem;

class InAFolder : public testing::Test {
 protected:
  // Why the socket can't be bound; empty if it can.
  std::string problem(const fs::path& where) {
    try {
      kj::AutoCloseFd fd(listenUnix(where, 0600));
      return "";
    } catch (const kj::Exception& e) { return e.getDescription().cStr(); }
  }
  test::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  const fs::path path = folder / "test.sock";
};

using AUnixListener = InAFolder;

TEST_F(AUnixListener, IsPrivateAndCanBeConnectedTo) {
  kj::AutoCloseFd listener(listenUnix(path, 0600));
  struct stat info {};
  ASSERT_EQ(lstat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode, S_IFSOCK | 0600u);
  kj::AutoCloseFd client(connectUnix(path));
  EXPECT_GE(client.get(), 0);
}

TEST_F(AUnixListener, HasTheModeThatWasAskedFor) {
  kj::AutoCloseFd listener(listenUnix(path, 0666));
  struct stat info {};
  ASSERT_EQ(lstat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0666u);
}

TEST_F(AUnixListener, ReplacesASocketThatNobodyServes) {
  { kj::AutoCloseFd dead(listenUnix(path, 0600)); }
  ASSERT_TRUE(fs::is_socket(path));
  EXPECT_EQ(problem(path), "");
}

TEST_F(AUnixListener, LeavesALivingServerAlone) {
  kj::AutoCloseFd living(listenUnix(path, 0600));
  EXPECT_NE(problem(path).find("another process already serves this socket"), std::string::npos);
  EXPECT_TRUE(fs::is_socket(path));
  kj::AutoCloseFd client(connectUnix(path));
}

TEST_F(AUnixListener, LeavesALivingServerWithAFullQueueAlone) {
  kj::AutoCloseFd living(listenUnix(path, 0600, 0));
  kj::AutoCloseFd first(connectUnix(path));
  EXPECT_THROW(static_cast<void>(connectUnix(path)), kj::Exception);
  EXPECT_NE(problem(path), "");
  EXPECT_TRUE(fs::is_socket(path));
}

TEST_F(AUnixListener, TouchesNothingThatIsNotASocket) {
  std::ofstream(path) << "precious";
  EXPECT_NE(problem(path).find("not a socket"), std::string::npos);
  EXPECT_EQ(fs::file_size(path), 8u);
  const fs::path link = folder / "link";
  fs::create_symlink(path, link);
  EXPECT_NE(problem(link), "");
  const fs::path dangling = folder / "dangling";
  fs::create_symlink(folder / "nothing", dangling);
  EXPECT_NE(problem(dangling), "");
  EXPECT_TRUE(fs::is_symlink(dangling));
  EXPECT_NE(problem(folder), "");
}

TEST_F(AUnixListener, NamesThePathThatCannotBeBound) {
  EXPECT_NE(problem(folder / "missing" / "x.sock").find("missing"), std::string::npos);
  EXPECT_NE(problem(folder / std::string(120, 'x')).find("107"), std::string::npos);
}

TEST_F(AUnixListener, TakesAPathOf107CharactersAndNoneOf108) {
  const size_t room = 107 - folder.native().size() - 1;
  EXPECT_EQ(problem(folder / std::string(room, 'x')), "");
  EXPECT_NE(problem(folder / std::string(room + 1, 'x')), "");
}

TEST_F(AUnixListener, IsNotConnectedToWhereNobodyServes) {
  EXPECT_THROW(static_cast<void>(connectUnix(path)), kj::Exception);
  { kj::AutoCloseFd dead(listenUnix(path, 0600)); }
  EXPECT_THROW(static_cast<void>(connectUnix(path)), kj::Exception);
}

TEST_F(AUnixListener, KnowsWhoConnected) {
  kj::AutoCloseFd listener(listenUnix(path, 0600));
  kj::AutoCloseFd client(connectUnix(path));
  kj::AutoCloseFd accepted(accept(listener, nullptr, nullptr));
  const PeerCredentials who = peerCredentials(accepted);
  EXPECT_EQ(who.uid, geteuid());
  EXPECT_EQ(who.gid, getegid());
  EXPECT_EQ(who.pid, getpid());
  EXPECT_TRUE(who.groups().contains(getegid()));
  EXPECT_FALSE(who.groups().contains(54321));
  std::vector<gid_t> groups(static_cast<size_t>(getgroups(0, nullptr)));
  ASSERT_EQ(getgroups(static_cast<int>(groups.size()), groups.data()), static_cast<int>(groups.size()));
  for (const gid_t group : groups) EXPECT_TRUE(who.groups().contains(group)) << group;
}

TEST_F(AUnixListener, IsSharedWithAGroup) {
  kj::AutoCloseFd listener(listenUnix(path, 0600));
  const group* own = getgrgid(getegid());
  ASSERT_NE(own, nullptr);
  const auto shared = shareWithGroup(path, own->gr_name);
  ASSERT_TRUE(shared) << shared.error().message;
  EXPECT_EQ(*shared, getegid());
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0660u);
  EXPECT_EQ(info.st_gid, getegid());
  const auto unknown = shareWithGroup(path, "no-such-group");
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("no-such-group"), std::string::npos);
  EXPECT_NE(unknown.error().hint.find("groupadd"), std::string::npos);
}

// Method 0 answers a text, method 1 throws in front of a peer, method 3 gives back what it got, others are unknown.
class Answering final : public capnp::Capability::Server {
 public:
  DispatchCallResult dispatchCall(uint64_t, uint16_t method,
                                  capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer> context) override {
    return {guarded([&] {
              if (method == 1) throw std::runtime_error("the secret is 42");
              if (method == 3) return context.getResults().setAs<capnp::Data>(context.getParams().getAs<capnp::Data>());
              KJ_REQUIRE(method == 0, "the key is", 4711);
              context.getResults(capnp::MessageSize{8, 0}).setAs<capnp::Text>("answer");
            }),
            false};
  }
};

class AnRpcServer : public InAFolder {
 protected:
  ~AnRpcServer() noexcept override {}  // gtest's is, KJ's members are not
  struct Client {
    Client(EventLoop& loop, const fs::path& path)
        : rpc(loop, connectUnix(path), LinkLimits{}, [this] { ++disconnects; }), root(rpc.bootstrap()) {}
    int disconnects = 0;
    RpcClient rpc;
    capnp::Capability::Client root;
  };
  RpcServer& serve(size_t maxClients = 256) {
    server.emplace(
        loop, listenUnix(path, 0600),
        [this](const PeerCredentials& who) -> kj::Maybe<capnp::Capability::Client> {
          seen = who;
          if (refusing) return nullptr;
          return capnp::Capability::Client(kj::heap<Answering>());
        },
        LinkLimits{}, maxClients);
    return *server;
  }
  std::string ask(Client& client, uint16_t method) {
    try {
      auto response = loop.await(client.root.typelessRequest(1, method, nullptr).send().then([](auto&& answer) {
        return kj::str(answer.template getAs<capnp::Text>());
      }));
      return response.cStr();
    } catch (const kj::Exception& e) { return kj::str("! ", e.getDescription()).cStr(); }
  }
  void turns(int count = 5) {
    for (int i = 0; i < count; ++i) loop.turn(1);
  }

  EventLoop loop;
  PeerCredentials seen;
  bool refusing = false;
  std::optional<RpcServer> server;
};

// 32 bytes that stand nowhere in memory but masked.
class Marker {
 public:
  std::byte at(size_t i) const { return masked_[i] ^ MASK; }
  static constexpr size_t SIZE = 32;
  // How often they stand in what this process can write.
  size_t count() const {
    std::ifstream maps("/proc/self/maps");
    std::ifstream memory("/proc/self/mem", std::ios::binary);
    size_t found = 0;
    for (std::string line; std::getline(maps, line);) {
      unsigned long begin = 0, end = 0;
      char mode[5] = {};
      if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, mode) != 3 || mode[1] != 'w') continue;
      std::vector<char> bytes(end - begin);
      memory.clear();
      memory.seekg(static_cast<std::streamoff>(begin));
      memory.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      for (size_t at = 0; at + SIZE <= static_cast<size_t>(memory.gcount()); ++at) found += isAt(&bytes[at]);
    }
    return found;
  }

 private:
  static constexpr std::byte MASK{0x5a};
  bool isAt(const char* bytes) const {
    for (size_t i = 0; i < SIZE; ++i) {
      if (static_cast<std::byte>(bytes[i]) != at(i)) return false;
    }
    return true;
  }
  std::array<std::byte, SIZE> masked_ = [] {
    std::array<std::byte, SIZE> random;
    fillRandom(random);
    return random;
  }();
};

TEST_F(AnRpcServer, AndItsClientsKeepNothingOfAMessage) {
  if (test::SANITIZED) GTEST_SKIP() << "nobody reads a sanitizer's shadow through";
  serve();
  Client client(loop, path);
  const Marker marker;
  {
    auto request = client.root.typelessRequest(1, 3, nullptr);
    auto data = request.initAs<capnp::Data>(Marker::SIZE);
    for (size_t i = 0; i < Marker::SIZE; ++i) data[i] = static_cast<kj::byte>(marker.at(i));
    EXPECT_GE(marker.count(), 1u) << "it is looked for where it is";
    const auto answer = loop.await(request.send());
    ASSERT_EQ(answer.getAs<capnp::Data>().size(), Marker::SIZE);
  }
  turns();
  EXPECT_EQ(marker.count(), 0u);
}

TEST_F(AnRpcServer, AnswersItsClients) {
  serve();
  Client a(loop, path), b(loop, path);
  EXPECT_EQ(ask(a, 0), "answer");
  EXPECT_EQ(ask(b, 0), "answer");
  EXPECT_EQ(seen.uid, geteuid());
  EXPECT_EQ(server->stats().accepted, 2u);
  EXPECT_EQ(server->stats().connected, 2u);
}

// Neither side may wait for the other to read first.
TEST_F(AnRpcServer, AnswersManyLargeCallsAtOnceAsLargely) {
  serve();
  Client client(loop, path);
  static constexpr size_t BYTES = 60'000;
  static constexpr uint CALLS = 100;
  auto calls = kj::heapArrayBuilder<kj::Promise<void>>(CALLS);
  uint answered = 0;
  for (uint i = 0; i < CALLS; ++i) {
    auto request = client.root.typelessRequest(1, 3, capnp::MessageSize{BYTES / 8 + 16, 0});
    request.initAs<capnp::Data>(BYTES)[0] = static_cast<kj::byte>(i);
    calls.add(request.send().then([&](auto&& answer) {
      const auto data = answer.template getAs<capnp::Data>();
      EXPECT_EQ(data.size(), BYTES);
      EXPECT_EQ(data[0], answered++);
    }));
  }
  EXPECT_NO_THROW(loop.await(kj::joinPromises(calls.finish())));
  EXPECT_EQ(answered, CALLS);
}

TEST_F(AnRpcServer, TellsNothingOfAnExceptionButAConstant) {
  serve();
  Client client(loop, path);
  for (const uint16_t method : {1, 2}) {
    const std::string answer = ask(client, method);
    EXPECT_TRUE(answer.starts_with("! ")) << answer;
    EXPECT_NE(answer.find("internal error"), std::string::npos) << answer;
    EXPECT_EQ(answer.find("42"), std::string::npos) << answer;
    EXPECT_EQ(answer.find("4711"), std::string::npos) << answer;
  }
  EXPECT_EQ(ask(client, 0), "answer");  // and goes on
}

TEST_F(AnRpcServer, ClosesOnWhomItRefuses) {
  serve();
  refusing = true;
  Client client(loop, path);
  EXPECT_TRUE(ask(client, 0).starts_with("! "));
  turns();
  EXPECT_EQ(client.disconnects, 1);
  EXPECT_EQ(server->stats().refused, 1u);
  EXPECT_EQ(server->stats().accepted, 0u);
}

TEST_F(AnRpcServer, HasNoRoomForMoreThanItsLimitUntilOneLeaves) {
  serve(2);
  Client a(loop, path);
  EXPECT_EQ(ask(a, 0), "answer");
  {
    Client b(loop, path);
    EXPECT_EQ(ask(b, 0), "answer");
    Client c(loop, path);
    EXPECT_TRUE(ask(c, 0).starts_with("! "));
    EXPECT_EQ(server->stats().refused, 1u);
  }
  turns();
  EXPECT_EQ(server->stats().connected, 1u);
  Client d(loop, path);
  EXPECT_EQ(ask(d, 0), "answer");
}

TEST_F(AnRpcServer, CutsOffOneClientAndCountsWhyWhileTheOthersGoOn) {
  serve();
  Client good(loop, path);
  EXPECT_EQ(ask(good, 0), "answer");
  kj::AutoCloseFd bad(connectUnix(path));
  ASSERT_EQ(send(bad, "\xff\xff\xff\xff", 4, MSG_NOSIGNAL), 4);
  turns();
  EXPECT_EQ(server->stats().cutOff[static_cast<size_t>(CutOff::BadHeader)], 1u);
  EXPECT_EQ(server->stats().connected, 1u);
  EXPECT_EQ(ask(good, 0), "answer");
  EXPECT_EQ(good.disconnects, 0);
}

TEST_F(AnRpcServer, LogsAFloodOfCutOffsInALineASecond) {
  serve();
  testing::internal::CaptureStderr();
  for (int i = 0; i < 30; ++i) {
    kj::AutoCloseFd bad(connectUnix(path));
    ASSERT_EQ(send(bad, "\xff\xff\xff\xff", 4, MSG_NOSIGNAL), 4);
    turns();
  }
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(server->stats().cutOff[static_cast<size_t>(CutOff::BadHeader)], 30u);
  const auto lines = std::ranges::count(log, '\n');
  EXPECT_GE(lines, 1);
  EXPECT_LT(lines, 30) << log;
  EXPECT_NE(log.find("rpc client cut off reason=bad_header uid=" + std::to_string(getuid())), std::string::npos) << log;
}

TEST_F(AnRpcServer, TellsItsClientOnceThatItIsGone) {
  serve();
  Client client(loop, path);
  EXPECT_EQ(ask(client, 0), "answer");
  server.reset();
  turns();
  EXPECT_EQ(client.disconnects, 1);
  EXPECT_TRUE(ask(client, 0).starts_with("! "));
  EXPECT_EQ(client.disconnects, 1);
}

TEST_F(AnRpcServer, TakesClientsWhomOthersHaveNamed) {
  serve();
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  server->admit(kj::AutoCloseFd(ends[0]), 4001);
  EXPECT_EQ(seen.uid, 4001u);
  EXPECT_EQ(seen.gid, getegid());
  RpcClient client(loop, ends[1], LinkLimits{}, [] {});
  auto request = client.bootstrap().typelessRequest(1, 0, nullptr);
  EXPECT_STREQ(loop.await(request.send()).getAs<capnp::Text>().cStr(), "answer");
}

TEST_F(AnRpcServer, LetsThoseWaitWhoComeWhileItRests) {
  serve();
  Client before(loop, path);
  EXPECT_EQ(ask(before, 0), "answer");
  server->rest(true);
  server->rest(true);
  Client during(loop, path);
  turns();
  EXPECT_EQ(server->stats().accepted, 1u);
  EXPECT_EQ(ask(before, 0), "answer");
  server->rest(false);
  EXPECT_EQ(ask(during, 0), "answer");
}

TEST_F(AnRpcServer, KeepsItsClientsWhenItStopsAccepting) {
  serve();
  Client client(loop, path);
  EXPECT_EQ(ask(client, 0), "answer");
  server->stopAccepting();
  EXPECT_EQ(ask(client, 0), "answer");
  EXPECT_THROW(static_cast<void>(connectUnix(path)), kj::Exception);
}

}  // namespace
}  // namespace sallyport
