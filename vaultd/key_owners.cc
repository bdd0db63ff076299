#include "vaultd/key_owners.h"

#include <unistd.h>

namespace sallyport::vaultd {

sandbox::Options identityOptions(const VaultConfig& config) {
  sandbox::Options options;
  options.profile = sandbox::Profile::Vaultd;
  options.requirement = config.requireSandbox;
  options.user = config.user;
  return options;
}

FileOwners keyOwners(const VaultConfig& config) {
  return {{0, ::geteuid(), sandbox::targetIdentity(identityOptions(config)).uid}};
}

}  // namespace sallyport::vaultd
