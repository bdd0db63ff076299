// net_rpc.cc - see net_rpc.h. Each object answers from its own state; nothing of an exception but a constant text
// leaves the process.
#include "netd/net_rpc.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include <kj/async.h>

#include "common/capnp_bytes.h"
#include "common/rpc.h"
#include "netd/channel_rpc.h"
#include "netd/channel_service.h"
#include "netd/outgoing_channel.h"
#include "netd/peer_channel_rpc.h"
#include "netd/send_queue.h"
#include "netd/status.h"
#include "netd/worker.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

using proto::NetRefusal;
using wire::DropReason;

namespace {

constexpr size_t MAX_OBJECTS = 1024;  // of one client
constexpr size_t MAX_QUESTIONS = 16;  // of one client, to the monitor; an answer is some kilobytes

NetRefusal refusalOf(DropReason reason) {
  switch (reason) {
    case DropReason::TargetUnavailable: return NetRefusal::UNREACHABLE;
    case DropReason::HandshakeTimeout: return NetRefusal::TIMED_OUT;
    case DropReason::ShuttingDown: return NetRefusal::SHUTTING_DOWN;
    case DropReason::VaultUnavailable:
    case DropReason::VaultRefused:
    case DropReason::NonceUnavailable:
    case DropReason::HsmUnavailable:
    case DropReason::BlockUsed:
    case DropReason::RateLimited:
    case DropReason::PeerNotAllowed: return NetRefusal::VAULT_REFUSED;
    default: return NetRefusal::HANDSHAKE_FAILED;
  }
}

// --- Listener --------------------------------------------------------------------------------------------------------

class ListenerImpl final : public proto::Listener::Server {
 public:
  ListenerImpl(Worker& worker, std::string name, ObjectCount count)
      : worker_(worker),
        workerAlive_(worker.alive()),
        name_(std::move(name)),
        count_(count),
        counted_(count),
        alive_(std::make_shared<bool>(true)) {}
  ~ListenerImpl() noexcept(false) {
    *alive_ = false;
    for (auto& call : waiting_) stopWaiting(*call);  // their callers are gone
    waiting_.clear();
  }

  kj::Promise<void> accept(AcceptContext context) override {
    return wait(kj::mv(context), [this](auto& outcome, OfferedChannel& channel) {
      auto accepted = outcome.initAccepted();
      accepted.setChannel(makeChannel(worker_, channel.state, count_));
      accepted.setPeer(channel.peer);
      accepted.setPeerKey(toData(channel.peerKey.span()));
      accepted.setAddress(channel.address);
    });
  }

  kj::Promise<void> acceptPeer(AcceptPeerContext context) override {
    const auto entry = worker_.entries().find(name_, true);
    if (entry != nullptr && !entry->framing) {
      context.getResults().initOutcome().setRefused(NetRefusal::WRONG_PROTOCOL);
      return kj::READY_NOW;
    }
    return wait(kj::mv(context), [this](auto& outcome, OfferedChannel& channel) {
      auto accepted = outcome.initAccepted();
      accepted.setChannel(makePeerChannel(worker_, channel.state, count_));
      accepted.setAddress(channel.address);
    });
  }

  kj::Promise<void> close(CloseContext) override {
    closeNow();
    return kj::READY_NOW;
  }

 private:
  struct Call final : ChannelService::Acceptor {
    explicit Call(ListenerImpl& owner) : listener(owner) {}
    void give(OfferedChannel channel) override { listener.onChannel(*this, std::move(channel)); }
    void entryGone() override { listener.end(listener.sharedOf(*this), NetRefusal::UNKNOWN_NAME); }
    ListenerImpl& listener;
    std::function<void(OfferedChannel&)> answer;
    std::function<void(NetRefusal)> refuse;
    kj::Maybe<kj::Promise<void>> timer;
  };

  // `accepted` writes the channel into the call's outcome.
  template <typename Context, typename Accepted>
  kj::Promise<void> wait(Context context, Accepted accepted) {
    auto refuseWith = [&context](NetRefusal reason) -> kj::Promise<void> {
      context.getResults().initOutcome().setRefused(reason);
      return kj::READY_NOW;
    };
    if (closed_) return refuseWith(NetRefusal::CLOSED);
    if (!worker_.channels()->serves(name_)) return refuseWith(NetRefusal::UNKNOWN_NAME);
    if (count_->count >= MAX_OBJECTS) return refuseWith(NetRefusal::TOO_MANY_OBJECTS);
    if (waiting_.size() >= MAX_CALLS_WAITING) return tooManyCalls();
    context.allowCancellation();
    const uint32_t timeoutMs = context.getParams().getTimeoutMs();
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      Context context;
      kj::Own<kj::PromiseFulfiller<void>> done;
    };
    auto state = std::make_shared<State>(State{kj::mv(context), kj::mv(paf.fulfiller)});
    auto call = std::make_shared<Call>(*this);
    call->answer = [state, accepted](OfferedChannel& channel) {
      auto outcome = state->context.getResults().initOutcome();
      accepted(outcome, channel);
      state->done->fulfill();
    };
    call->refuse = [state](NetRefusal reason) {
      state->context.getResults().initOutcome().setRefused(reason);
      state->done->fulfill();
    };
    waiting_.push_back(call);
    if (timeoutMs != 0) {
      call->timer = worker_.loop()
                        .timer()
                        .afterDelay(timeoutMs * kj::MILLISECONDS)
                        .then([this, weak = std::weak_ptr(call)] {
                          worker_.loop().defer([this, weak, alive = alive_] {
                            if (!*alive) return;
                            if (auto expired = weak.lock()) end(expired, NetRefusal::TIMED_OUT);
                          });
                        })
                        .eagerlyEvaluate(nullptr);
    }
    worker_.channels()->waitFor(name_, *call);
    return paf.promise.attach(kj::defer([this, weak = std::weak_ptr(call), alive = alive_] {
      const auto given = weak.lock();
      if (!*alive || given == nullptr || std::erase(waiting_, given) == 0) return;
      stopWaiting(*given);  // the next channel is for somebody who still waits
    }));
  }

  std::shared_ptr<Call> sharedOf(const Call& call) const {
    const auto found = std::ranges::find_if(waiting_, [&call](const auto& other) { return other.get() == &call; });
    CHECK(found != waiting_.end());
    return *found;
  }

  void onChannel(Call& call, OfferedChannel channel) {
    const auto answered = sharedOf(call);
    std::erase(waiting_, answered);
    answered->timer = nullptr;
    answered->answer(channel);
  }

  void end(const std::shared_ptr<Call>& call, NetRefusal reason) {
    if (std::erase(waiting_, call) == 0) return;
    stopWaiting(*call);
    call->timer = nullptr;
    call->refuse(reason);
  }

  // Calls of a client may end after the worker.
  void stopWaiting(Call& call) {
    if (*workerAlive_) worker_.channels()->stopWaiting(name_, call);
  }

  void closeNow() {
    closed_ = true;
    while (!waiting_.empty()) end(std::shared_ptr(waiting_.front()), NetRefusal::CLOSED);
  }

  Worker& worker_;
  std::shared_ptr<const bool> workerAlive_;
  std::string name_;
  ObjectCount count_;
  Counted counted_;
  std::shared_ptr<bool> alive_;
  std::deque<std::shared_ptr<Call>> waiting_;
  bool closed_ = false;
};

// --- Network ---------------------------------------------------------------------------------------------------------

class NetworkImpl final : public proto::Network::Server {
 public:
  NetworkImpl(Worker& worker, std::shared_ptr<LinkCharge> charge)
      : worker_(worker),
        stats_(worker.stats()),
        objects_(std::make_shared<LiveObjects>(LiveObjects{.charge = std::move(charge)})) {
    stats_.add(Counter::RpcClients);
  }
  // A call that waits may keep it longer than the worker.
  ~NetworkImpl() noexcept(false) { stats_.subtract(Counter::RpcClients); }

  kj::Promise<void> connect(ConnectContext context) override {
    const uint32_t timeoutMs = context.getParams().getTimeoutMs();
    return open(kj::mv(context), false, timeoutMs, [&worker = worker_](auto& outcome, auto state, auto objects) {
      outcome.setChannel(makeChannel(worker, std::move(state), std::move(objects)));
    });
  }

  kj::Promise<void> connectPeer(ConnectPeerContext context) override {
    return open(kj::mv(context), true, 0, [&worker = worker_](auto& outcome, auto state, auto objects) {
      outcome.setChannel(makePeerChannel(worker, std::move(state), std::move(objects)));
    });
  }

  kj::Promise<void> listen(ListenContext context) override {
    return guarded([&] {
      auto outcome = context.getResults().initOutcome();
      const std::string name = context.getParams().getName();
      const auto entry = worker_.entries().find(name, true);
      if (entry == nullptr) return outcome.setRefused(NetRefusal::UNKNOWN_NAME);
      if (entry->service != EntryService::Channel) return outcome.setRefused(NetRefusal::NOT_A_CHANNEL);
      if (objects_->count >= MAX_OBJECTS) return outcome.setRefused(NetRefusal::TOO_MANY_OBJECTS);
      outcome.setListener(kj::heap<ListenerImpl>(worker_, name, objects_));
    });
  }

  kj::Promise<void> status(StatusContext context) override {
    return askMonitor(ControlKind::StatusRequest, kj::mv(context),
                      [&worker = worker_](StatusContext& answer, ControlChannel::Received& received) {
                        writeStatus(worker, received, answer.getResults().initStatus());
                      });
  }

  kj::Promise<void> reload(ReloadContext context) override {
    return askMonitor(
        ControlKind::ReloadRequest, kj::mv(context), [](ReloadContext& answer, ControlChannel::Received& received) {
          const std::string text(reinterpret_cast<const char*>(received.payload.data()), received.payload.size());
          auto outcome = answer.getResults().initOutcome();
          if (received.record.value == 1) return outcome.setDone(text);
          auto refused = outcome.initRefused();
          refused.setReason(NetRefusal::FAILED);
          refused.setProblem(text);
        });
  }

 private:
  // `answer` makes the object that the caller asked for. `timeoutMs` 0: the limits of the worker alone.
  template <typename Context, typename Answer>
  kj::Promise<void> open(Context context, bool peerProtocol, uint32_t timeoutMs, Answer answer) {
    auto entry = worker_.entries().find(std::string(context.getParams().getName()), false);
    auto refuseWith = [&context](NetRefusal reason) -> kj::Promise<void> {
      context.getResults().initOutcome().setRefused(reason);
      return kj::READY_NOW;
    };
    if (entry == nullptr) return refuseWith(NetRefusal::UNKNOWN_NAME);
    if (peerProtocol && !entry->framing) return refuseWith(NetRefusal::WRONG_PROTOCOL);
    if (objects_->count >= MAX_OBJECTS || !worker_.mayStartOutgoing(entry->id))
      return refuseWith(NetRefusal::TOO_MANY_OBJECTS);
    if (worker_.draining()) return refuseWith(NetRefusal::SHUTTING_DOWN);
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      Context context;
      kj::Own<kj::PromiseFulfiller<void>> done;
      std::unique_ptr<Counted> counted;  // a connection under way is a live object too, though nobody waits any more
      kj::Maybe<kj::Promise<void>> timer{};
      bool answered = false;
    };
    auto state =
        std::make_shared<State>(State{kj::mv(context), kj::mv(paf.fulfiller), std::make_unique<Counted>(objects_)});
    if (timeoutMs != 0) {
      state->timer = worker_.loop()
                         .timer()
                         .afterDelay(timeoutMs * kj::MILLISECONDS)
                         .then([weak = std::weak_ptr(state)] {
                           const auto late = weak.lock();
                           if (late == nullptr || std::exchange(late->answered, true)) return;
                           late->context.getResults().initOutcome().setRefused(NetRefusal::TIMED_OUT);
                           late->done->fulfill();
                         })
                         .eagerlyEvaluate(nullptr);
    }
    connectChannel(worker_, entry, [state, answer, objects = objects_](auto channel) {
      if (std::exchange(state->answered, true)) {
        if (channel) (*channel)->connection->close(false);
        return;
      }
      auto result = state->context.getResults().initOutcome();
      if (channel) {
        answer(result, *channel, objects);
      } else {
        result.setRefused(refusalOf(channel.error()));
        result.setReason(std::string(name(channel.error())));
      }
      state->done->fulfill();
    });
    return kj::mv(paf.promise);
  }

  template <typename Context, typename Write>
  kj::Promise<void> askMonitor(ControlKind kind, Context context, Write write) {
    if (questions_->count >= MAX_QUESTIONS) return tooManyCalls();
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      State(Context asked, kj::Own<kj::PromiseFulfiller<void>> fulfiller, const ObjectCount& questions)
          : context(kj::mv(asked)), done(kj::mv(fulfiller)), counted(questions) {}
      Context context;
      kj::Own<kj::PromiseFulfiller<void>> done;
      Counted counted;
    };
    auto state = std::make_shared<State>(kj::mv(context), kj::mv(paf.fulfiller), questions_);
    worker_.request(kind, [state, write](ControlChannel::Received& received) {
      write(state->context, received);
      state->done->fulfill();
    });
    return kj::mv(paf.promise);
  }

  Worker& worker_;
  Stats& stats_;
  ObjectCount objects_;
  ObjectCount questions_ = std::make_shared<LiveObjects>();
};

}  // namespace

capnp::Capability::Client makeNetwork(Worker& worker, std::shared_ptr<LinkCharge> charge) {
  return proto::Network::Client(kj::heap<NetworkImpl>(worker, std::move(charge)));
}

}  // namespace sallyport::netd
