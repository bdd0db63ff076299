// status_view.h - what both daemons tell of themselves, for people and as JSON. Part of: cli. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "common/bytes.h"
#include "proto/net.capnp.h"
#include "proto/vault_admin.capnp.h"

namespace sallyport::cli {

// A daemon's answer, or why there is none; and the names of [peers], for keys that only a peer's name makes readable.
struct BothStatus {
  std::optional<proto::VaultStatus::Reader> vault;
  std::string vaultProblem;
  std::optional<proto::NetStatus::Reader> net;
  std::string netProblem;
  std::map<PublicKey, std::string> peers;
};

std::string statusText(const BothStatus& both);
// {"vaultd": {...}, "netd": {...}}; a daemon that doesn't answer is {"error": "..."}.
std::string statusJson(const BothStatus& both);
// The vault's tokens and their keys, for `sallyport hsm status`; empty if it has none.
std::string tokensText(proto::VaultStatus::Reader status);

}  // namespace sallyport::cli
