// steps.h - how a protocol step of netd is counted and written down. Process: vaultd alone. See vault_service.h.
#pragma once

#include "vaultd/batch.h"
#include "vaultd/recorded.h"

namespace sallyport::vaultd {

inline auto tally(Counters& counters, Count done, Count refused) {
  return [&counters, done, refused](std::optional<Refusal> refusal) {
    counters.add(refusal ? refused : done);
    if (refusal) counters.addRefusal(*refusal);
  };
}

// Carries out one step, `step(record)`, unless it couldn't be recorded, and writes it down.
template <typename Step>
Result<void, Refusal> recordedStep(VaultState& state, std::string_view verb, std::string_view entry, Step&& step) {
  // A name that the configuration doesn't know is netd's invention, and could be another one each time.
  StepRecord record{verb, state.policy.hasEntry(entry) ? entry : std::string_view()};
  const auto done = state.mayUse() ? step(record) : Result<void, Refusal>(refuse(Refusal::NOT_RECORDED));
  if (!done) record.refused = done.error();
  state.recordStep(record);
  return done;
}

}  // namespace sallyport::vaultd
