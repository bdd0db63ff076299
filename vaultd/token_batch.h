// token_batch.h - what one call needs of tokens, asked for before it is answered. Process: vaultd alone.
//
//   look at the items  those of a key in a token are judged (policy, then rate) and what they need is noted
//   answered()         all of it is asked of the tokens; the call waits, and the loop serves others
//   run()              the items are answered as those of software keys are, within one turn, with the results at hand
//
// Policy is asked again in run(): a reload or a lock may have come in between. A rate is paid once, in the first look,
// and what was refused there stays refused: nothing is derived for it. What the tokens didn't do is refused by the box
// as hsmUnavailable. A call of software keys alone makes none of this.
#pragma once

#include <array>
#include <bitset>
#include <memory>
#include <optional>

#include <kj/async.h>

#include "vaultd/batch.h"
#include "vaultd/keyring.h"
#include "vaultd/token_results.h"

namespace sallyport::vaultd {

class Tokens;

// What the first look found, by the item's place in the call.
class Admissions {
 public:
  bool paid(unsigned item) const { return item < MAX_ITEMS && paid_[item]; }
  std::optional<Refusal> refused(unsigned item) const {
    return item < MAX_ITEMS ? refused_[item] : std::optional<Refusal>();
  }
  void pay(unsigned item) { paid_.set(item); }
  void refuse(unsigned item, Refusal refusal) { refused_[item] = refusal; }

 private:
  std::bitset<MAX_ITEMS> paid_;
  std::array<std::optional<Refusal>, MAX_ITEMS> refused_;
};

// Answers one item as the first look left it: refused, or `answer(paid)`.
template <typename Answer>
Result<void, Refusal> orRefused(const Admissions& admissions, unsigned item, Answer&& answer) {
  if (const auto refused = admissions.refused(item)) return refuse(*refused);
  return answer(admissions.paid(item));
}

class TokenBatch {
 public:
  TokenBatch(Keyring& keys, Tokens& tokens, int64_t nowUnix);
  TokenBatch(const TokenBatch&) = delete;

  Admissions admissions;

  // What the key needs to open something of `peer` (each version that may open), or to box to it (the active one).
  void open(VaultKey& key, const PublicKey& peer);
  void box(VaultKey& key, const PublicKey& peer);
  void sign(VaultKey& key, ByteSpan text);

  // When every token has answered, or refused. Once.
  kj::Promise<void> answered();
  // Runs `answer(admissions)` with the results, which are gone afterwards.
  template <typename Answer>
  auto run(Answer&& answer) {
    auto answered = [&] {
      const TokenResults::Use use(keys_.tokenResults(), pending_->set);
      return answer(std::as_const(admissions));
    }();
    pending_->set = {};
    return answered;
  }

 private:
  struct Pending {
    SecretArena* arena = nullptr;
    TokenResults::Set set;
    size_t open = 1;  // one is ours, until everything was asked for
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
    void close() {
      if (--open == 0 && fulfiller.get() != nullptr) fulfiller->fulfill();
    }
  };
  void derive(VaultKey& key, const VaultVersion& version, const PublicKey& peer);

  Keyring& keys_;
  Tokens& tokens_;
  const int64_t nowUnix_;
  std::shared_ptr<Pending> pending_;  // the tokens know it weakly: a caller that left leaves no trace
  std::vector<std::pair<SharedKeyCache::KeyId, PublicKey>> asked_;
};

// Looks at each item with `look(item, place, need)`, where `need()` gives the batch and makes it first. Null if no item
// needs a token.
template <typename Items, typename Look>
std::unique_ptr<TokenBatch> lookAhead(Keyring& keys, Tokens* tokens, int64_t nowUnix, Items items, Look&& look) {
  if (tokens == nullptr || items.size() > MAX_ITEMS) return nullptr;
  std::unique_ptr<TokenBatch> batch;
  const auto need = [&]() -> TokenBatch& {
    if (!batch) batch = std::make_unique<TokenBatch>(keys, *tokens, nowUnix);
    return *batch;
  };
  for (unsigned i = 0; i < items.size(); ++i) look(items[i], i, need);
  return batch;
}

// Answers now, or when the tokens have. `answer(admissions)` gives a promise.
template <typename Answer>
kj::Promise<void> whenReady(std::unique_ptr<TokenBatch> batch, Answer&& answer) {
  if (!batch) return answer(Admissions());
  auto ready = batch->answered();
  return ready.then([batch = kj::mv(batch), answer = kj::fwd<Answer>(answer)]() mutable {
    return batch->run([&](const Admissions& admissions) { return answer(admissions); });
  });
}

}  // namespace sallyport::vaultd
