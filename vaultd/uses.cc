// uses.cc - see uses.h and VaultState::recordUse.
#include "vaultd/uses.h"

#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

bool VaultState::recordUse(const UseRecord& use) { return recorder == nullptr || recorder->record(use); }

}  // namespace sallyport::vaultd
