// uses.cc - see uses.h and VaultState::recordUse.
#include "vaultd/uses.h"

#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

bool VaultState::mayUse() const { return recorder == nullptr || recorder->admits(); }

bool VaultState::recordUse(const UseRecord& use) { return recorder == nullptr || recorder->record(use); }

void VaultState::recordStep(const StepRecord& step) {
  if (recorder != nullptr) recorder->step(step);
}

void VaultState::recordEvent(AuditRecord record) {
  if (recorder != nullptr) recorder->event(std::move(record));
}

}  // namespace sallyport::vaultd
