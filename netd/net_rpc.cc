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
#include "netd/channel.h"
#include "netd/channel_service.h"
#include "netd/outgoing.h"
#include "netd/status.h"
#include "netd/worker.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

using proto::NetRefusal;
using wire::DropReason;

namespace {

constexpr size_t MAX_OBJECTS = 1024;           // of one client
constexpr size_t MAX_CALLS_WAITING = 256;      // on one object
constexpr size_t RECEIVE_BYTES = 1500 * 1024;  // texts in one answer: below the link's message limit

using ObjectCount = std::shared_ptr<size_t>;

// Counts one live object of a client.
class Counted {
 public:
  explicit Counted(ObjectCount count) : count_(std::move(count)) { ++*count_; }
  Counted(const Counted&) = delete;
  ~Counted() { --*count_; }

 private:
  ObjectCount count_;
};

NetRefusal refusalOf(DropReason reason) {
  switch (reason) {
    case DropReason::TargetUnavailable: return NetRefusal::UNREACHABLE;
    case DropReason::HandshakeTimeout: return NetRefusal::TIMED_OUT;
    case DropReason::ShuttingDown: return NetRefusal::SHUTTING_DOWN;
    case DropReason::VaultUnavailable:
    case DropReason::VaultRefused:
    case DropReason::NonceUnavailable:
    case DropReason::RateLimited:
    case DropReason::PeerNotAllowed: return NetRefusal::VAULT_REFUSED;
    default: return NetRefusal::HANDSHAKE_FAILED;
  }
}

// --- Channel ---------------------------------------------------------------------------------------------------------

class ChannelImpl final : public proto::Channel::Server {
 public:
  ChannelImpl(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count)
      : worker_(worker), state_(std::move(state)), counted_(std::move(count)), alive_(std::make_shared<bool>(true)) {
    state_->inbox.claim();
    state_->onNews = [this] { answerReceives(); };
    state_->onSent = [this] { continueSends(); };
    if (state_->connection != nullptr) state_->connection->resumeReading();
  }
  ~ChannelImpl() noexcept(false) {
    *alive_ = false;
    receives_.clear();  // their callers are gone
    sends_.clear();
    closeNow();
  }

  kj::Promise<void> send(SendContext context) override {
    if (closed_) return refuseSend(context, NetRefusal::CLOSED);
    for (auto message : context.getParams().getMessages()) {
      if (message.getData().size() > wire::MAX_MESSAGE_BYTES) return refuseSend(context, NetRefusal::TOO_BIG);
    }
    return enqueue(kj::mv(context));
  }

  kj::Promise<void> finish(FinishContext context) override {
    if (closed_) {
      context.getResults().initOutcome().setRefused(NetRefusal::CLOSED);
      return kj::READY_NOW;
    }
    return enqueue(kj::mv(context));
  }

  kj::Promise<void> receive(ReceiveContext context) override {
    if (closed_) {
      context.getResults().initReceived().setEnd(proto::ChannelEnd::BROKEN);
      context.getResults().getReceived().setReason("closed");
      return kj::READY_NOW;
    }
    if (receives_.empty() && ready()) {
      fill(context);
      return kj::READY_NOW;
    }
    KJ_REQUIRE(receives_.size() < MAX_CALLS_WAITING, "too many calls wait");
    context.allowCancellation();  // a client that leaves must not keep the channel by its open call
    const uint32_t timeoutMs = context.getParams().getTimeoutMs();
    auto paf = kj::newPromiseAndFulfiller<void>();
    auto waiting = std::make_shared<WaitingReceive>(WaitingReceive{kj::mv(context), kj::mv(paf.fulfiller), nullptr});
    if (timeoutMs != 0) {
      waiting->timer = worker_.loop()
                           .timer()
                           .afterDelay(timeoutMs * kj::MILLISECONDS)
                           .then([this, weak = std::weak_ptr(waiting)] { onReceiveTimeout(weak); })
                           .eagerlyEvaluate(nullptr);
    }
    receives_.push_back(waiting);
    // The context dies with the call: a caller that gives up takes it out of the queue.
    return paf.promise.attach(kj::defer([this, weak = std::weak_ptr(waiting), alive = alive_] {
      if (*alive) std::erase(receives_, weak.lock());
    }));
  }

  kj::Promise<void> close(CloseContext) override {
    closeNow();
    return kj::READY_NOW;
  }

 private:
  struct WaitingReceive {
    ReceiveContext context;
    kj::Own<kj::PromiseFulfiller<void>> done;
    kj::Maybe<kj::Promise<void>> timer;
  };
  struct WaitingSend {
    std::function<void()> start;  // hands the messages to the connection; empty: done, or given up
    std::function<void()> answer;
    std::function<void()> fail;
  };

  static kj::Promise<void> refuseSend(SendContext& context, NetRefusal reason) {
    context.getResults().initOutcome().setRefused(reason);
    return kj::READY_NOW;
  }

  bool ready() const { return !state_->inbox.empty() || state_->ended; }

  void fill(ReceiveContext& context) {
    const size_t limit =
        std::min<size_t>(std::max<uint32_t>(context.getParams().getMaxMessages(), 1), state_->inbox.count());
    // The list's size must be known before it is made: count what fits.
    sizesScratch_.clear();
    size_t bytes = 0;
    state_->inbox.peekSizes(limit, [&](size_t size) {
      bytes += size + 24;
      if (bytes > RECEIVE_BYTES && !sizesScratch_.empty()) return false;
      sizesScratch_.push_back(size);
      return true;
    });
    auto received =
        context.getResults(capnp::MessageSize{bytes / sizeof(capnp::word) + 32 + 3 * sizesScratch_.size(), 0})
            .initReceived();
    auto list = received.initMessages(static_cast<uint>(sizesScratch_.size()));
    for (uint i = 0; i < list.size(); ++i) {
      list[i].setData(toData(state_->inbox.front()));
      state_->inbox.pop();
    }
    if (state_->inbox.empty() && state_->ended) {
      received.setEnd(state_->broken ? proto::ChannelEnd::BROKEN : proto::ChannelEnd::ENDED);
      if (state_->broken) received.setReason(std::string(wire::name(*state_->broken)));
    }
    if (state_->connection != nullptr) state_->connection->resumeReading();
  }

  void answerReceives() {
    while (!receives_.empty() && ready()) {
      auto waiting = receives_.front();
      receives_.pop_front();
      waiting->timer = nullptr;
      fill(waiting->context);
      waiting->done->fulfill();
    }
  }

  void onReceiveTimeout(const std::weak_ptr<WaitingReceive>& weak) {
    // Not inside the timer that the call owns.
    worker_.loop().defer([this, weak, alive = alive_] {
      if (!*alive) return;
      const auto waiting = weak.lock();
      if (waiting == nullptr || std::erase(receives_, waiting) == 0) return;  // answered meanwhile
      waiting->context.getResults().initReceived().setEnd(proto::ChannelEnd::OPEN);
      waiting->done->fulfill();
    });
  }

  void sendTo(ChannelConnection& connection, SendContext& context) {
    auto messages = context.getParams().getMessages();
    spans_.clear();
    for (auto message : messages) spans_.push_back(toBytes(message.getData()));
    connection.send(spans_);
  }
  void sendTo(ChannelConnection& connection, FinishContext&) {
    static constexpr std::array<ByteSpan, 1> END{};
    connection.send(END);
  }

  template <typename Context>
  void answerSend(Context& context) {
    auto outcome = context.getResults().initOutcome();
    if (state_->connection != nullptr)
      outcome.setSent();
    else if (state_->broken)
      outcome.setBroken(std::string(wire::name(*state_->broken)));
    else
      outcome.setBroken("ended");
  }

  // Sends go out one after the other: each when what came before it has left.
  template <typename Context>
  kj::Promise<void> enqueue(Context context) {
    if (sends_.empty() && state_->connection != nullptr && !state_->connection->sending()) {
      sendTo(*state_->connection, context);
      if (state_->connection == nullptr || !state_->connection->sending()) {
        answerSend(context);
        return kj::READY_NOW;
      }
      return waitSent(kj::mv(context), false);
    }
    if (state_->connection == nullptr) {
      answerSend(context);
      return kj::READY_NOW;
    }
    return waitSent(kj::mv(context), true);
  }

  template <typename Context>
  kj::Promise<void> waitSent(Context context, bool notYetStarted) {
    KJ_REQUIRE(sends_.size() < MAX_CALLS_WAITING, "too many calls wait");
    context.allowCancellation();
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      Context context;
      kj::Own<kj::PromiseFulfiller<void>> done;
    };
    auto shared = std::make_shared<State>(State{kj::mv(context), kj::mv(paf.fulfiller)});
    auto waiting = std::make_shared<WaitingSend>();
    if (notYetStarted) waiting->start = [this, shared] { sendTo(*state_->connection, shared->context); };
    waiting->answer = [this, shared] {
      answerSend(shared->context);
      shared->done->fulfill();
    };
    waiting->fail = [shared] { shared->done->reject(KJ_EXCEPTION(FAILED, "the messages can't be read")); };
    sends_.push_back(waiting);
    // A caller that gives up: what was sealed goes out, what was not is forgotten, nobody is answered.
    return paf.promise.attach(kj::defer([weak = std::weak_ptr(waiting)] {
      if (const auto given = weak.lock()) *given = WaitingSend{};
    }));
  }

  void continueSends() {
    while (!sends_.empty()) {
      const auto next = sends_.front();
      const auto start = std::exchange(next->start, nullptr);
      if (start && state_->connection != nullptr) {
        try {
          start();
        } catch (const kj::Exception&) {
          // Parameters that are more than the reader's limits allow, e.g. one blob named many times.
          next->answer = std::exchange(next->fail, nullptr);
        }
      }
      if (state_->connection != nullptr && state_->connection->sending()) return;
      sends_.pop_front();
      if (next->answer) next->answer();
    }
  }

  void closeNow() {
    if (closed_) return;
    closed_ = true;
    state_->onNews = nullptr;
    state_->onSent = nullptr;
    if (state_->connection != nullptr) state_->connection->close();
    state_->ended = true;
    state_->inbox.wipeAll();
    auto receives = std::move(receives_);
    for (auto& waiting : receives) {
      waiting->timer = nullptr;
      waiting->context.getResults().initReceived().setEnd(proto::ChannelEnd::ENDED);
      waiting->done->fulfill();
    }
    auto sends = std::move(sends_);
    for (auto& waiting : sends) {
      if (waiting->answer) waiting->answer();
    }
  }

  Worker& worker_;
  std::shared_ptr<ChannelState> state_;
  Counted counted_;
  std::shared_ptr<bool> alive_;
  std::deque<std::shared_ptr<WaitingReceive>> receives_;
  std::deque<std::shared_ptr<WaitingSend>> sends_;
  std::vector<ByteSpan> spans_;
  std::vector<size_t> sizesScratch_;
  bool closed_ = false;
};

// --- Listener --------------------------------------------------------------------------------------------------------

class ListenerImpl final : public proto::Listener::Server {
 public:
  ListenerImpl(Worker& worker, std::string name, ObjectCount count)
      : worker_(worker), name_(std::move(name)), count_(count), counted_(count), alive_(std::make_shared<bool>(true)) {}
  ~ListenerImpl() noexcept(false) {
    *alive_ = false;
    for (auto& call : waiting_) worker_.channels()->stopWaiting(name_, *call);  // their callers are gone
    waiting_.clear();
  }

  kj::Promise<void> accept(AcceptContext context) override {
    if (closed_) {
      context.getResults().initOutcome().setRefused(NetRefusal::CLOSED);
      return kj::READY_NOW;
    }
    if (*count_ >= MAX_OBJECTS) {
      context.getResults().initOutcome().setRefused(NetRefusal::TOO_MANY_OBJECTS);
      return kj::READY_NOW;
    }
    KJ_REQUIRE(waiting_.size() < MAX_CALLS_WAITING, "too many calls wait");
    context.allowCancellation();
    const uint32_t timeoutMs = context.getParams().getTimeoutMs();
    auto paf = kj::newPromiseAndFulfiller<void>();
    auto call = std::make_shared<Call>(*this, kj::mv(context), kj::mv(paf.fulfiller));
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
      worker_.channels()->stopWaiting(name_, *given);  // the next channel is for somebody who still waits
    }));
  }

  kj::Promise<void> close(CloseContext) override {
    closeNow();
    return kj::READY_NOW;
  }

 private:
  struct Call final : ChannelService::Acceptor {
    Call(ListenerImpl& owner, AcceptContext callContext, kj::Own<kj::PromiseFulfiller<void>> fulfiller)
        : listener(owner), context(kj::mv(callContext)), done(kj::mv(fulfiller)) {}
    void give(OfferedChannel channel) override { listener.onChannel(*this, std::move(channel)); }
    ListenerImpl& listener;
    AcceptContext context;
    kj::Own<kj::PromiseFulfiller<void>> done;
    kj::Maybe<kj::Promise<void>> timer;
  };

  void onChannel(Call& call, OfferedChannel channel) {
    const auto found = std::ranges::find_if(waiting_, [&call](const auto& other) { return other.get() == &call; });
    CHECK(found != waiting_.end());
    const auto answered = *found;
    waiting_.erase(found);
    answered->timer = nullptr;
    auto accepted = answered->context.getResults().initOutcome().initAccepted();
    accepted.setChannel(kj::heap<ChannelImpl>(worker_, channel.state, count_));
    accepted.setPeer(channel.peer);
    accepted.setPeerKey(toData(channel.peerKey.span()));
    accepted.setAddress(channel.address);
    answered->done->fulfill();
  }

  void end(const std::shared_ptr<Call>& call, NetRefusal reason) {
    if (std::erase(waiting_, call) == 0) return;
    worker_.channels()->stopWaiting(name_, *call);
    call->timer = nullptr;
    call->context.getResults().initOutcome().setRefused(reason);
    call->done->fulfill();
  }

  void closeNow() {
    closed_ = true;
    while (!waiting_.empty()) end(std::shared_ptr(waiting_.front()), NetRefusal::CLOSED);
  }

  Worker& worker_;
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
  explicit NetworkImpl(Worker& worker) : worker_(worker), objects_(std::make_shared<size_t>(0)) {
    worker_.stats().add(Counter::RpcClients);
  }
  ~NetworkImpl() noexcept(false) { worker_.stats().subtract(Counter::RpcClients); }

  kj::Promise<void> connect(ConnectContext context) override {
    auto entry = worker_.entries().find(std::string(context.getParams().getName()), false);
    auto refuseWith = [&context](NetRefusal reason) -> kj::Promise<void> {
      context.getResults().initOutcome().setRefused(reason);
      return kj::READY_NOW;
    };
    if (entry == nullptr) return refuseWith(NetRefusal::UNKNOWN_NAME);
    if (*objects_ >= MAX_OBJECTS || !worker_.mayStartOutgoing(entry->id))
      return refuseWith(NetRefusal::TOO_MANY_OBJECTS);
    if (worker_.draining()) return refuseWith(NetRefusal::SHUTTING_DOWN);
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      ConnectContext context;
      kj::Own<kj::PromiseFulfiller<void>> done;
      std::unique_ptr<Counted> counted;  // a connection under way is a live object too
    };
    auto state =
        std::make_shared<State>(State{kj::mv(context), kj::mv(paf.fulfiller), std::make_unique<Counted>(objects_)});
    auto connection = std::make_unique<OutgoingHandshake>(
        worker_, entry, [&worker = worker_, entry, state, objects = objects_](Result<WireSession, DropReason> outcome) {
          auto result = state->context.getResults().initOutcome();
          if (outcome) {
            auto channel = std::make_shared<ChannelState>();
            worker.own(std::make_unique<ChannelConnection>(worker, entry, entry->server, std::move(*outcome), channel));
            result.setChannel(kj::heap<ChannelImpl>(worker, channel, objects));
          } else {
            result.setRefused(refusalOf(outcome.error()));
          }
          state->done->fulfill();
        });
    worker_.startHandshake(*connection, false);
    worker_.own(std::move(connection));
    return kj::mv(paf.promise);
  }

  kj::Promise<void> listen(ListenContext context) override {
    return guarded([&] {
      auto outcome = context.getResults().initOutcome();
      const std::string name = context.getParams().getName();
      const auto entry = worker_.entries().find(name, true);
      if (entry == nullptr) return outcome.setRefused(NetRefusal::UNKNOWN_NAME);
      if (entry->service != EntryService::Channel) return outcome.setRefused(NetRefusal::NOT_A_CHANNEL);
      if (*objects_ >= MAX_OBJECTS) return outcome.setRefused(NetRefusal::TOO_MANY_OBJECTS);
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
  template <typename Context, typename Write>
  kj::Promise<void> askMonitor(ControlKind kind, Context context, Write write) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      Context context;
      kj::Own<kj::PromiseFulfiller<void>> done;
    };
    auto state = std::make_shared<State>(State{kj::mv(context), kj::mv(paf.fulfiller)});
    worker_.request(kind, [state, write](ControlChannel::Received& received) {
      write(state->context, received);
      state->done->fulfill();
    });
    return kj::mv(paf.promise);
  }

  Worker& worker_;
  ObjectCount objects_;
};

}  // namespace

capnp::Capability::Client makeNetwork(Worker& worker) { return proto::Network::Client(kj::heap<NetworkImpl>(worker)); }

}  // namespace sallyport::netd
