// send_queue.h - send calls of one channel, one after the other. Part of: netd-worker 0 (edge).
// Each goes out when what came before it has left, and is answered when it has left itself. A call that waits is in the
// queue as long as its caller waits for it, and no longer: its context dies with it.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <kj/async.h>
#include <kj/debug.h>

#include "netd/channel.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

inline constexpr size_t MAX_CALLS_WAITING = 256;  // on one object
// What a caller hears whose call is one too many: a constant, and no KJ_REQUIRE, which would show our code.
inline kj::Exception tooManyCalls() {
  return {kj::Exception::Type::OVERLOADED, __FILE__, 0, kj::str("too many calls wait")};
}

class SendQueue {
 public:
  explicit SendQueue(std::shared_ptr<ChannelState> state) : state_(std::move(state)) {}

  // `start` hands what the call holds to the connection. `isEnd`: nothing may go out behind it, see over().
  template <typename Context, typename Start>
  kj::Promise<void> enqueue(Context context, Start start, bool isEnd = false) {
    if (sends_.empty() && state_->connection != nullptr && !state_->connection->sending()) {
      start(*state_->connection, context);
      if (state_->connection == nullptr || !state_->connection->sending()) {
        answer(context);
        return kj::READY_NOW;
      }
      return wait(kj::mv(context), std::optional<Start>(), false);
    }
    if (state_->connection == nullptr) {
      answer(context);
      return kj::READY_NOW;
    }
    return wait(kj::mv(context), std::optional(std::move(start)), isEnd);
  }
  // Our direction has its end, or it waits here for what comes before it: whoever wants to send more is too late.
  bool over() const {
    return state_->sentEnd || std::ranges::any_of(sends_, [](const auto& waiting) { return waiting->isEnd; });
  }

  // What was given to the connection has left, or the connection is gone.
  void goOn() {
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
      if (sends_.empty() || sends_.front() != next) return;  // answered meanwhile
      sends_.pop_front();
      if (next->answer) next->answer();
    }
  }
  // The channel is closed.
  void answerAll() {
    for (auto& waiting : std::exchange(sends_, {})) {
      if (waiting->answer) waiting->answer();
    }
  }
  // The callers are gone.
  void forget() { sends_.clear(); }

 private:
  struct Waiting {
    std::function<void()> start;  // empty: done, or given up
    std::function<void()> answer;
    std::function<void()> fail;
    bool isEnd = false;
  };

  template <typename Context>
  void answer(Context& context) {
    auto outcome = context.getResults().initOutcome();
    if (state_->broken)  // what has arrived may still be there to receive
      outcome.setBroken(std::string(wire::name(*state_->broken)));
    else if (state_->connection != nullptr)
      outcome.setSent();
    else
      outcome.setBroken("ended");
  }

  template <typename Context, typename Start>
  kj::Promise<void> wait(Context context, std::optional<Start> start, bool isEnd) {
    if (sends_.size() >= MAX_CALLS_WAITING) return tooManyCalls();
    context.allowCancellation();
    auto paf = kj::newPromiseAndFulfiller<void>();
    struct State {
      Context context;
      kj::Own<kj::PromiseFulfiller<void>> done;
    };
    auto shared = std::make_shared<State>(State{kj::mv(context), kj::mv(paf.fulfiller)});
    auto waiting = std::make_shared<Waiting>();
    waiting->isEnd = isEnd;
    if (start) waiting->start = [this, shared, start] { (*start)(*state_->connection, shared->context); };
    waiting->answer = [this, shared] {
      answer(shared->context);
      shared->done->fulfill();
    };
    waiting->fail = [shared] { shared->done->reject(KJ_EXCEPTION(FAILED, "the messages can't be read")); };
    sends_.push_back(waiting);
    // A caller that gives up: what was sealed goes out, what was not is forgotten, nobody is answered.
    return paf.promise.attach(kj::defer([weak = std::weak_ptr(waiting)] {
      if (const auto given = weak.lock()) *given = Waiting{};
    }));
  }

  std::shared_ptr<ChannelState> state_;
  std::deque<std::shared_ptr<Waiting>> sends_;
};

}  // namespace sallyport::netd
