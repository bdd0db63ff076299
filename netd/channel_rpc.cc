// channel_rpc.cc - see channel_rpc.h. A call that waits is in a queue as long as its caller waits for it, and no
// longer: its context dies with it.
#include "netd/channel_rpc.h"

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include <kj/async.h>

#include "common/capnp_bytes.h"
#include "netd/send_queue.h"
#include "netd/worker.h"

namespace sallyport::netd {

using proto::NetRefusal;

namespace {

constexpr size_t MAX_ANSWER_BYTES = (2 << 20) - 4096;  // what a message of [net] socket may hold
constexpr size_t RECEIVE_BYTES = 256 * 1024;           // texts in one answer: about what a socket takes at once

class ChannelImpl final : public proto::Channel::Server {
 public:
  ChannelImpl(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count)
      : worker_(worker),
        state_(std::move(state)),
        counted_(std::move(count)),
        alive_(std::make_shared<bool>(true)),
        sends_(state_) {
    state_->inbox.claim();
    state_->onNews = [this] { answerReceives(); };
    state_->onSent = [this] { sends_.goOn(); };
    if (state_->connection != nullptr) state_->connection->resumeReading();
  }
  ~ChannelImpl() noexcept(false) {
    *alive_ = false;
    receives_.clear();  // their callers are gone
    sends_.forget();
    closeNow(false);
  }

  kj::Promise<void> send(SendContext context) override {
    if (closed_ || sends_.over()) return refuseSend(context, NetRefusal::CLOSED);
    for (auto message : context.getParams().getMessages()) {
      if (message.getData().size() > state_->maxMessageBytes) return refuseSend(context, NetRefusal::TOO_BIG);
    }
    return sends_.enqueue(kj::mv(context), [](ChannelWire& connection, SendContext& call) {
      std::vector<OutgoingMessage> outgoing;
      for (auto message : call.getParams().getMessages()) outgoing.push_back({.text = toBytes(message.getData())});
      connection.send(outgoing);
    });
  }

  kj::Promise<void> finish(FinishContext context) override {
    if (closed_) {
      context.getResults().initOutcome().setRefused(NetRefusal::CLOSED);
      return kj::READY_NOW;
    }
    return sends_.enqueue(
        kj::mv(context), [](ChannelWire& connection, FinishContext&) { connection.sendEnd(); }, true);
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
    closeNow(true);
    return kj::READY_NOW;
  }

 private:
  struct WaitingReceive {
    ReceiveContext context;
    kj::Own<kj::PromiseFulfiller<void>> done;
    kj::Maybe<kj::Promise<void>> timer;
  };

  static kj::Promise<void> refuseSend(SendContext& context, NetRefusal reason) {
    context.getResults().initOutcome().setRefused(reason);
    return kj::READY_NOW;
  }

  bool ready() const { return !state_->inbox.empty() || state_->ended; }

  void fill(ReceiveContext& context) {
    // A foreign peer's frame that no answer can hold: for this interface it is too large.
    if (!state_->inbox.empty() && state_->inbox.front().size() > MAX_ANSWER_BYTES) {
      if (state_->connection != nullptr) state_->connection->breakOff(wire::DropReason::FrameTooLarge);
      state_->broken = wire::DropReason::FrameTooLarge;
      state_->ended = true;
      state_->inbox.wipeAll();
    }
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

  void closeNow(bool orderly) {
    if (closed_) return;
    closed_ = true;
    state_->onNews = nullptr;
    state_->onSent = nullptr;
    if (state_->connection != nullptr) state_->connection->close(orderly);
    state_->ended = true;
    state_->inbox.wipeAll();
    auto receives = std::move(receives_);
    for (auto& waiting : receives) {
      waiting->timer = nullptr;
      waiting->context.getResults().initReceived().setEnd(proto::ChannelEnd::ENDED);
      waiting->done->fulfill();
    }
    sends_.answerAll();
  }

  Worker& worker_;
  std::shared_ptr<ChannelState> state_;
  Counted counted_;
  std::shared_ptr<bool> alive_;
  std::deque<std::shared_ptr<WaitingReceive>> receives_;
  SendQueue sends_;
  std::vector<size_t> sizesScratch_;
  bool closed_ = false;
};

}  // namespace

proto::Channel::Client makeChannel(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count) {
  return kj::heap<ChannelImpl>(worker, std::move(state), std::move(count));
}

}  // namespace sallyport::netd
