// program_fixture.h - a local program on [net] socket of the worker under test. Part of: tests/unit/netd.
#pragma once

#include "proto/net.capnp.h"
#include "tests/unit/netd/worker_fixture.h"

namespace sallyport::netd::test {

inline constexpr LinkLimits CLIENT_LIMITS{.maxMessageBytes = 2 << 20, .maxQueuedBytes = 64 << 20};

// `Base` is WorkerTest, or made of it.
template <typename Base>
class WithProgram : public Base {
 protected:
  ~WithProgram() noexcept override {
    listener.reset();
    network.reset();
    program.reset();
  }
  // Starts the worker, and a program that listens on the entry `name`.
  void serveProgram(const char* name, const Options& options = {}) {
    this->start(options);
    this->sendFd({.kind = ControlKind::NetListener}, kj::AutoCloseFd(listenUnix(this->folder / "net", 0600)));
    this->turns();
    program.emplace(this->loop, connectUnix(this->folder / "net"), CLIENT_LIMITS, [] {});
    network.emplace(program->bootstrap().template castAs<proto::Network>());
    auto request = network->listenRequest();
    request.setName(name);
    listener.emplace(answer(request.send())->getOutcome().getListener());
  }
  template <typename Results>
  std::optional<capnp::Response<Results>> answer(capnp::RemotePromise<Results> call) {
    std::optional<capnp::Response<Results>> result;
    auto waiting = call.then([&](capnp::Response<Results>&& response) { result.emplace(kj::mv(response)); })
                       .eagerlyEvaluate(nullptr);
    EXPECT_TRUE(this->until([&] { return result.has_value(); })) << "no answer";
    return result;
  }
  // What who waits for a message for a moment is told of one that isn't whole.
  uint32_t underWay(proto::Channel::Client& channel) {
    auto request = channel.receiveRequest();
    request.setTimeoutMs(1);
    const auto response = answer(request.send());
    const auto received = response->getReceived();
    EXPECT_EQ(received.getMessages().size(), 0u);
    EXPECT_EQ(received.getEnd(), proto::ChannelEnd::OPEN);
    return received.getUnderWay();
  }
  // Makes the call and gives it up: a Finish before its Return.
  template <typename Request>
  void callAndGiveUp(Request request) {
    {
      const auto call = request.send();
      this->turns(3);
    }
    this->turns(3);
  }

  std::optional<RpcClient> program;
  std::optional<proto::Network::Client> network;
  std::optional<proto::Listener::Client> listener;
};

}  // namespace sallyport::netd::test
