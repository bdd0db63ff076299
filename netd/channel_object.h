// channel_object.h - what the RPC objects of both kinds of channel have in common. Part of: netd-worker 0 (edge).
// channel_rpc.cc gives out messages, peer_channel_rpc.cc bytes of frames; what either does here is the same: it claims
// the channel and ends with it, sends in order (send_queue.h), and keeps the receives that wait. A call that waits is
// in a queue as long as its caller waits for it, and no longer: its context dies with it.
#pragma once

#include <deque>
#include <memory>
#include <utility>

#include <kj/async.h>

#include "netd/channel.h"
#include "netd/live_objects.h"
#include "netd/send_queue.h"
#include "netd/worker.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

// `Interface` is proto::Channel or proto::PeerChannel. At most `mostReceives` wait at once.
template <typename Interface>
class ChannelObject : public Interface::Server {
 public:
  using ReceiveContext = typename Interface::Server::ReceiveContext;
  using SendContext = typename Interface::Server::SendContext;
  using FinishContext = typename Interface::Server::FinishContext;
  using CloseContext = typename Interface::Server::CloseContext;

  ChannelObject(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count, size_t mostReceives)
      : worker_(worker),
        state_(std::move(state)),
        sends_(state_),
        counted_(std::move(count)),
        alive_(std::make_shared<bool>(true)),
        mostReceives_(mostReceives) {
    state_->inbox.claim();
    state_->onNews = [this] { answerReceives(); };
    state_->onSent = [this] { sends_.goOn(); };
    if (state_->connection != nullptr) state_->connection->resumeReading();
  }
  ~ChannelObject() noexcept(false) {
    *alive_ = false;
    receives_.clear();  // their callers are gone
    sends_.forget();
    closeNow(false);
  }

  kj::Promise<void> finish(FinishContext context) override {
    if (closed_) return refuseSend(context, proto::NetRefusal::CLOSED);
    return sends_.enqueue(
        kj::mv(context), [](ChannelWire& connection, FinishContext&) { connection.sendEnd(); }, true);
  }

  kj::Promise<void> receive(ReceiveContext context) override {
    if (closed_) {
      answerClosed(context, false);
      return kj::READY_NOW;
    }
    if (receives_.empty() && answer(context)) return kj::READY_NOW;
    if (receives_.size() >= mostReceives_) return tooManyCalls();
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
    return paf.promise.attach(kj::defer([this, weak = std::weak_ptr(waiting), alive = alive_] {
      if (*alive) std::erase(receives_, weak.lock());
    }));
  }

  kj::Promise<void> close(CloseContext) override {
    closeNow(true);
    return kj::READY_NOW;
  }

 protected:
  // Tells a receive what can be told now. False: nothing, so it has to wait.
  virtual bool answer(ReceiveContext& context) = 0;
  virtual void answerTimeout(ReceiveContext& context) = 0;
  // The program has closed the channel; `waited`: while this call waited.
  virtual void answerClosed(ReceiveContext& context, bool waited) = 0;

  // Nothing can be sent any more.
  bool sendsAreOver() const { return closed_ || sends_.over(); }
  template <typename Context>
  static kj::Promise<void> refuseSend(Context& context, proto::NetRefusal reason) {
    context.getResults().initOutcome().setRefused(reason);
    return kj::READY_NOW;
  }

  Worker& worker_;
  std::shared_ptr<ChannelState> state_;
  SendQueue sends_;

 private:
  struct WaitingReceive {
    ReceiveContext context;
    kj::Own<kj::PromiseFulfiller<void>> done;
    kj::Maybe<kj::Promise<void>> timer;
  };

  void answerReceives() {
    while (!receives_.empty()) {
      const auto waiting = receives_.front();
      if (!answer(waiting->context)) return;
      std::erase(receives_, waiting);
      waiting->timer = nullptr;
      waiting->done->fulfill();
    }
  }

  void onReceiveTimeout(const std::weak_ptr<WaitingReceive>& weak) {
    // Not inside the timer that the call owns.
    worker_.loop().defer([this, weak, alive = alive_] {
      if (!*alive) return;
      const auto waiting = weak.lock();
      if (waiting == nullptr || std::erase(receives_, waiting) == 0) return;  // answered meanwhile
      answerTimeout(waiting->context);
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
    for (const auto& waiting : std::exchange(receives_, {})) {
      waiting->timer = nullptr;
      answerClosed(waiting->context, true);
      waiting->done->fulfill();
    }
    sends_.answerAll();
  }

  Counted counted_;
  std::shared_ptr<bool> alive_;
  std::deque<std::shared_ptr<WaitingReceive>> receives_;
  size_t mostReceives_;
  bool closed_ = false;
};

}  // namespace sallyport::netd
