// status_view.h - what both daemons tell of themselves, for people and as JSON. Part of: cli. Pure.
#pragma once

#include <optional>
#include <string>

#include "proto/net.capnp.h"
#include "proto/vault_admin.capnp.h"

namespace sallyport::cli {

// A daemon's answer, or why there is none.
struct BothStatus {
  std::optional<proto::VaultStatus::Reader> vault;
  std::string vaultProblem;
  std::optional<proto::NetStatus::Reader> net;
  std::string netProblem;
};

std::string statusText(const BothStatus& both);
// {"vaultd": {...}, "netd": {...}}; a daemon that doesn't answer is {"error": "..."}.
std::string statusJson(const BothStatus& both);

}  // namespace sallyport::cli
