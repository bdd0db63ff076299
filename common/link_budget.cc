#include "common/link_budget.h"

#include <malloc.h>

#include <algorithm>

namespace sallyport {

void LinkBudget::add(Holder& holder, uid_t owner) {
  holder.owner_ = owner;
  holder.held_ = 0;
  holders_.push_back(&holder);
  holds(holder, 0);
}

void LinkBudget::remove(Holder& holder) {
  set(holder, 0);
  std::erase(holders_, &holder);
  if (holder.waits_) std::erase(owners_[holder.owner_].waiting, &holder);
}

void LinkBudget::holds(Holder& holder, size_t bytes) { set(holder, LINK_BYTES + bytes); }

// --- bytes -----------------------------------------------------------------------------------------------------------

void LinkBudget::set(Holder& holder, size_t bytes) {
  held_ = held_ - holder.held_ + bytes;
  holder.held_ = bytes;
  if (held_ <= maxBytes_ || relieving_) return;
  relieving_ = true;
  loop_.defer([this, alive = alive_] {
    if (*alive) relieve();
  });
}

void LinkBudget::relieve() {
  while (held_ > maxBytes_) {
    Holder* const holder = greediest();
    if (holder == nullptr) break;
    holder->overBudget();
    set(*holder, 0);  // it is on its way out
  }
  relieving_ = false;
}

LinkBudget::Holder* LinkBudget::greediest() const {
  std::map<uid_t, size_t> owners;
  for (const Holder* holder : holders_) owners[holder->owner_] += holder->held_;
  const auto most = std::ranges::max_element(owners, {}, [](const auto& owner) { return owner.second; });
  Holder* result = nullptr;
  for (Holder* holder : holders_) {
    if (holder->owner_ == most->first && holder->held_ > (result == nullptr ? 0 : result->held_)) result = holder;
  }
  return result;
}

void LinkBudget::left() {
  static constexpr auto PERIOD = 1 * kj::SECONDS;
  if (trimming_ != nullptr) return;
  trimming_ = loop_.timer()
                  .afterDelay(PERIOD)
                  .then([this] {
                    // The heap keeps what lies below a block that is still used: a crowd would be remembered for ever.
                    ::malloc_trim(0);
                    // Not within the promise that runs us.
                    loop_.defer([this, alive = alive_] {
                      if (*alive) trimming_ = nullptr;
                    });
                  })
                  .eagerlyEvaluate(nullptr);
}

// --- turns -----------------------------------------------------------------------------------------------------------

bool LinkBudget::takeTurn(Holder& holder) {
  if (holder.waits_) return false;
  Owner& owner = owners_[holder.owner_];
  const bool given = owner.waiting.empty() && owner.taken < TURN_MESSAGES;
  if (given) {
    ++owner.taken;
  } else {
    holder.waits_ = true;
    owner.waiting.push_back(&holder);
  }
  endTurnLater();
  return given;
}

void LinkBudget::endTurnLater() {
  if (turning_) return;
  turning_ = true;
  loop_.yield([this, alive = alive_] {
    if (*alive) endTurn();
  });
}

// The next turn begins with those who wait.
void LinkBudget::endTurn() {
  turning_ = false;
  std::vector<Holder*> next;
  for (auto& [uid, owner] : owners_) {
    owner.taken = 0;
    for (; owner.taken < TURN_MESSAGES && !owner.waiting.empty(); ++owner.taken) {
      next.push_back(owner.waiting.front());
      owner.waiting.pop_front();
    }
  }
  std::erase_if(owners_, [](const auto& owner) { return owner.second.taken == 0; });
  if (!owners_.empty()) endTurnLater();
  for (Holder* holder : next) holder->waits_ = false;
  // What a message does to its own link or to others is done later, by promises: all of them are still there.
  for (Holder* holder : next) holder->yourTurn();
}

}  // namespace sallyport
