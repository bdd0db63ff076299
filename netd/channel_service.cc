// channel_service.cc - see channel_service.h. The queue between incoming channels and accepting programs.
#include "netd/channel_service.h"

#include <algorithm>

#include "netd/net_rpc.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
constexpr size_t MAX_WAITING_CHANNELS = 1024;
constexpr LinkLimits NET_LINK_LIMITS{.maxMessageBytes = 2 << 20,
                                     .maxSegments = 16,
                                     .maxQueuedBytes = 4 << 20,
                                     .maxOpenQuestions = 1024,
                                     .stallTimeoutMs = 30000};
// What all programs together may make the worker hold: connections, messages half sent, answers not read.
constexpr size_t MAX_LINK_BYTES = size_t{20} << 20;
constexpr size_t MAX_CLIENTS = 256;
}  // namespace

ChannelService::ChannelService(Worker& worker, kj::AutoCloseFd listener)
    : worker_(worker),
      alive_(std::make_shared<bool>(true)),
      budget_(worker.loop(), MAX_LINK_BYTES),
      server_(
          worker.loop(), listener.release(),
          // Who may connect is decided by the socket file's owner and mode.
          [&worker](const PeerCredentials& program) -> kj::Maybe<capnp::Capability::Client> {
            return makeNetwork(worker, program.charge);
          },
          NET_LINK_LIMITS, MAX_CLIENTS, &budget_) {
  server_.onCutOff = [&worker](CutOff) { worker.stats().add(Counter::RpcCutOff); };
  server_.onUnnamed = [&worker](kj::AutoCloseFd program) { worker.askWhoCalls(NET_SOCKET, kj::mv(program)); };
}

ChannelService::~ChannelService() { *alive_ = false; }

void ChannelService::offer(const Entry& entry, const PublicKey& peer, std::string peerName, std::string address,
                           Open open) {
  OfferedChannel offered{std::make_shared<ChannelState>(), std::move(peerName), peer, std::move(address)};
  const std::string name = entry.name;
  if (names_[name].acceptors.empty() && waitingChannels_ >= MAX_WAITING_CHANNELS)
    return worker_.drop({.reason = DropReason::NoAcceptor, .entry = entry, .peer = &peer});
  worker_.own(open(offered.state));
  Name& queue = names_[name];
  if (!queue.acceptors.empty()) {
    Acceptor* acceptor = queue.acceptors.front();
    queue.acceptors.pop_front();
    return acceptor->give(std::move(offered));
  }
  const uint64_t number = nextNumber_++;
  auto deadline = worker_.loop()
                      .timer()
                      .afterDelay(worker_.limits().acceptTimeoutMs * kj::MILLISECONDS)
                      .then([this, name, number] {
                        // Not inside the timer that goes with it.
                        worker_.soon([this, name, number, alive = alive_] {
                          if (*alive) expire(name, number);
                        });
                      })
                      .eagerlyEvaluate(nullptr);
  queue.channels.push_back({number, std::move(offered), kj::mv(deadline)});
  ++waitingChannels_;
}

void ChannelService::expire(const std::string& name, uint64_t number) {
  auto& channels = names_[name].channels;
  const auto found = std::ranges::find(channels, number, &Waiting::number);
  if (found == channels.end()) return;
  const auto state = found->channel.state;
  channels.erase(found);
  --waitingChannels_;
  if (state->connection != nullptr) state->connection->breakOff(DropReason::NoAcceptor);
}

void ChannelService::waitFor(const std::string& name, Acceptor& acceptor) {
  Name& queue = names_[name];
  while (!queue.channels.empty()) {
    OfferedChannel channel = std::move(queue.channels.front().channel);
    queue.channels.pop_front();
    --waitingChannels_;
    // One whose peer left without a word is nobody's loss.
    if (channel.state->connection == nullptr && channel.state->inbox.empty()) continue;
    return acceptor.give(std::move(channel));
  }
  queue.acceptors.push_back(&acceptor);
}

bool ChannelService::serves(const std::string& name) const {
  const auto entry = worker_.entries().find(name, true);
  return entry != nullptr && entry->service == EntryService::Channel;
}

void ChannelService::onConfig() {
  for (auto& [name, queue] : names_) {
    if (serves(name)) continue;
    while (!queue.acceptors.empty()) {
      Acceptor* acceptor = queue.acceptors.front();
      queue.acceptors.pop_front();
      acceptor->entryGone();
    }
  }
}

void ChannelService::stopWaiting(const std::string& name, Acceptor& acceptor) {
  std::erase(names_[name].acceptors, &acceptor);
}

}  // namespace sallyport::netd
