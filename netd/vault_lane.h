// vault_lane.h - what VaultClient asks about one key: a key in a token that hangs must keep nobody waiting but those
// who need it. Part of: netd-worker, and private to VaultClient. Each lane has calls of its own, so no question of
// another key waits for their answers; CallRoom is what all lanes share.
#pragma once

#include <list>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "netd/vault_steps.h"

namespace sallyport::netd {

template <typename Step>
struct VaultCall {
  std::string entry;
  typename Step::Request request;
  VaultClient::OnAnswer<typename Step::Answer> onAnswer;  // empty: withdrawn

  void answer(Result<typename Step::Answer, wire::DropReason> result) {
    if (auto callback = std::exchange(onAnswer, nullptr)) callback(std::move(result));
  }
};

// The questions of one kind.
template <typename Step>
class VaultQueue {
 public:
  using Batch = std::vector<std::shared_ptr<VaultCall<Step>>>;
  static constexpr size_t MAX_BATCH = 64;       // the vault refuses more
  static constexpr unsigned MAX_UNDER_WAY = 2;  // one being served, one ready behind it

  size_t waiting() const { return waiting_.size(); }
  bool mayBegin() const { return underWay_ < MAX_UNDER_WAY && !waiting_.empty(); }
  void add(std::shared_ptr<VaultCall<Step>> call) { waiting_.push_back(std::move(call)); }
  // Those of the next call; empty if all were withdrawn.
  Batch take() {
    Batch batch;
    while (!waiting_.empty() && batch.size() < MAX_BATCH) {
      if (waiting_.front()->onAnswer) batch.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    if (!batch.empty()) ++underWay_;
    return batch;
  }
  void ended() { --underWay_; }
  void putBack(const Batch& batch) { waiting_.insert(waiting_.begin(), batch.begin(), batch.end()); }
  // A question's connection is gone. While nobody takes them out they must not pile up.
  void withdraw() {
    if (++withdrawn_ < MAX_BATCH || withdrawn_ * 2 < waiting_.size()) return;
    std::erase_if(waiting_, [](const auto& call) { return !call->onAnswer; });
    withdrawn_ = 0;
  }

 private:
  std::list<std::shared_ptr<VaultCall<Step>>> waiting_;
  unsigned underWay_ = 0;
  size_t withdrawn_ = 0;  // at most, of those in `waiting_`
};

// Lives while something of it waits or is under way.
struct VaultLane {
  template <typename Step>
  VaultQueue<Step>& queue() {
    return std::get<VaultQueue<Step>>(queues);
  }
  size_t waiting() const {
    return std::apply([](const auto&... queue) { return (queue.waiting() + ...); }, queues);
  }
  bool idle() const { return calls == 0 && waiting() == 0; }

  std::tuple<VaultQueue<VerifyStep>, VaultQueue<PeerKeysStep>, VaultQueue<PeerAcceptStep>, VaultQueue<MakeStep>,
             VaultQueue<PeerSaltStep>, VaultQueue<CookieStep>>
      queues;
  unsigned calls = 0;  // under way, of all kinds
};

// Destroying it withdraws the question.
template <typename Step>
class VaultQuestion final : public VaultClient::Question {
 public:
  VaultQuestion(std::shared_ptr<VaultCall<Step>> call, std::shared_ptr<VaultLane> lane)
      : call_(std::move(call)), lane_(std::move(lane)) {}
  ~VaultQuestion() override {
    if (!call_->onAnswer) return;
    call_->onAnswer = nullptr;
    lane_->template queue<Step>().withdraw();
  }

 private:
  std::shared_ptr<VaultCall<Step>> call_;
  std::shared_ptr<VaultLane> lane_;  // the client may die first
};

}  // namespace sallyport::netd
