// messages.cc - messages through a channel as a program sends them: batches over net.capnp, from one site to the other.
// Part of: tests/bench.
//
//   messages NEAR_SOCKET FAR_SOCKET NAME [--size BYTES] [--batch N] [--calls N] [--secs S] [--pids P,P]
//
// A child listens and accepts at FAR_SOCKET and counts what it receives; this process connects at NEAR_SOCKET and keeps
// so many send() calls of so many messages each under way. The answer is one line of JSON.
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <atomic>
#include <deque>

#include <kj/debug.h>

#include "common/capnp_bytes.h"
#include "common/rpc.h"
#include "proto/net.capnp.h"
#include "tests/bench/measure.h"

namespace sallyport::bench {
namespace {

constexpr LinkLimits LIMITS{
    .maxMessageBytes = 2 << 20, .maxSegments = 16, .maxQueuedBytes = 8 << 20, .maxOpenQuestions = 1024};
constexpr double WARM_UP_S = 0.3;

struct Options {
  std::string nearSocket;
  std::string farSocket;
  std::string name;
  size_t size = 64;
  uint batch = 1024;
  size_t calls = 4;
  double secs = 1.5;
  std::vector<int> pids;
};

// A program's connection to a netd.
struct Program {
  explicit Program(const std::string& socket)
      : rpc(loop, connectUnix(socket), LIMITS, [] { KJ_FAIL_REQUIRE("netd has gone"); }),
        network(rpc.bootstrap().castAs<proto::Network>()) {}
  EventLoop loop;
  RpcClient rpc;
  proto::Network::Client network;
};

// Keeps `width` calls of one kind under way for ever: as one is answered, the next is made.
template <typename Start>
kj::Promise<void> keepCalling(Start& start) {
  return start().then([&start] { return keepCalling(start); });
}

[[noreturn]] void receive(const Options& options, std::atomic<uint64_t>& received, std::atomic<bool>& listening) {
  Program program(options.farSocket);
  auto listenRequest = program.network.listenRequest();
  listenRequest.setName(options.name);
  auto listened = program.loop.await(kj::Promise<capnp::Response<proto::Network::ListenResults>>(listenRequest.send()));
  KJ_REQUIRE(listened.getOutcome().isListener(), "listen was refused");
  auto listener = listened.getOutcome().getListener();
  auto acceptRequest = listener.acceptRequest();
  auto pending = acceptRequest.send();
  listening = true;
  auto accepted = program.loop.await(kj::Promise<capnp::Response<proto::Listener::AcceptResults>>(kj::mv(pending)));
  auto channel = accepted.getOutcome().getAccepted().getChannel();
  auto start = [&]() -> kj::Promise<void> {
    auto request = channel.receiveRequest();
    request.setMaxMessages(8192);
    return request.send().then([&](capnp::Response<proto::Channel::ReceiveResults>&& answer) {
      auto messages = answer.getReceived().getMessages();
      for (auto message : messages) KJ_REQUIRE(message.getData().size() == options.size);
      received += messages.size();
      if (answer.getReceived().getEnd() != proto::ChannelEnd::OPEN) std::exit(0);
    });
  };
  std::vector<kj::Promise<void>> calls;
  for (int i = 0; i < 2; ++i) calls.push_back(keepCalling(start).eagerlyEvaluate(nullptr));
  program.loop.run();
  std::exit(0);
}

void send(const Options& options, std::atomic<uint64_t>& received) {
  Program program(options.nearSocket);
  auto connectRequest = program.network.connectRequest();
  connectRequest.setName(options.name);
  auto connected =
      program.loop.await(kj::Promise<capnp::Response<proto::Network::ConnectResults>>(connectRequest.send()));
  KJ_REQUIRE(connected.getOutcome().isChannel(), "connect was refused");
  auto channel = connected.getOutcome().getChannel();
  const std::vector<std::byte> text(options.size);
  const size_t words = options.batch * (2 + (options.size + 7) / 8) + 64;
  auto start = [&]() -> kj::Promise<void> {
    auto request = channel.sendRequest(capnp::MessageSize{words, 0});
    auto messages = request.initMessages(options.batch);
    for (auto message : messages) message.setData(toData(text));
    return request.send().then([](capnp::Response<proto::Channel::SendResults>&& answer) {
      KJ_REQUIRE(answer.getOutcome().isSent(), "the channel broke");
    });
  };
  std::vector<kj::Promise<void>> calls;
  for (size_t i = 0; i < options.calls; ++i) calls.push_back(keepCalling(start).eagerlyEvaluate(nullptr));

  const auto turnUntil = [&](double end) {
    while (now() < end) program.loop.turn(20);
  };
  turnUntil(now() + WARM_UP_S);
  const double began = now();
  const uint64_t before = received;
  const double cpuBefore = cpuSeconds(options.pids);
  turnUntil(began + options.secs);
  const double count = static_cast<double>(received - before);
  report({{"per_s", count / (now() - began)},
          {"cpu_us", count > 0 ? (cpuSeconds(options.pids) - cpuBefore) * 1e6 / count : 0}});
}

int run(int argc, char** argv) {
  if (argc < 4) return std::fputs("usage: see the top of tests/bench/messages.cc\n", stderr), 2;
  Options options{.nearSocket = argv[1], .farSocket = argv[2], .name = argv[3], .pids = {}};
  for (int i = 4; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--size") options.size = std::strtoul(argv[i + 1], nullptr, 10);
    if (name == "--batch") options.batch = static_cast<uint>(std::atoi(argv[i + 1]));
    if (name == "--calls") options.calls = std::strtoul(argv[i + 1], nullptr, 10);
    if (name == "--secs") options.secs = std::atof(argv[i + 1]);
    if (name == "--pids") options.pids = parsePids(argv[i + 1]);
  }
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  KJ_REQUIRE(page != MAP_FAILED);
  struct Shared {
    std::atomic<uint64_t> received = 0;
    std::atomic<bool> listening = false;
  };
  auto* shared = new (page) Shared;
  const pid_t child = fork();
  KJ_REQUIRE(child >= 0);
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    receive(options, shared->received, shared->listening);
  }
  const double limit = now() + 5;
  while (!shared->listening && now() < limit) usleep(1000);
  send(options, shared->received);
  kill(child, SIGKILL);
  // Nothing is left to tidy, and a link's end would be taken for a failure.
  std::_Exit(0);
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) {
  // What is to be measured is not how the kernel clears pages for this program's requests.
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  try {
    return sallyport::bench::run(argc, argv);
  } catch (const kj::Exception& e) {
    std::fprintf(stderr, "messages: error: %s\n", e.getDescription().cStr());
    return 1;
  }
}
