// recorded.h - an answer that waits for its record in the audit log, and is taken back without one. Process: vaultd
// alone. See docs/protocol.md §10. What must never happen here: a result that leaves beside a refusal.
#pragma once

#include <capnp/any.h>

#include "common/rpc.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

// Empties an outcome, whatever it held, and refuses it.
template <typename Outcome>
void takeBack(Counters& counters, Outcome outcome) {
  auto raw = capnp::toAny(outcome);
  for (auto pointer : raw.getPointerSection()) pointer.clear();
  wipe(std::as_writable_bytes(std::span(raw.getDataSection().begin(), raw.getDataSection().size())));
  outcome.setRefused(Refusal::NOT_RECORDED);
  counters.addRefusal(Refusal::NOT_RECORDED);
}

template <typename Results>
void takeBackAll(Counters& counters, Results results) {
  if constexpr (requires { results.getOutcomes(); }) {
    for (auto outcome : results.getOutcomes()) takeBack(counters, outcome);
  } else {
    takeBack(counters, results.getOutcome());
  }
}

// guarded(), and then the record.
template <typename Context, typename Method>
kj::Promise<void> recorded(VaultState& state, Context& context, Method&& method) {
  auto done = guarded(std::forward<Method>(method));
  if (state.recorder == nullptr) return done;
  KJ_IF_MAYBE (written, state.recorder->settled()) {
    return done.then([&counters = state.counters, context, written = kj::mv(*written)]() mutable {
      return written.then([&counters, context](bool good) mutable {
        if (!good) takeBackAll(counters, context.getResults());
      });
    });
  }
  return done;
}

}  // namespace sallyport::vaultd
