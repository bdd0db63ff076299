// keeper.h - starting an hsmd, the keeper of one token. Part of: hsmlink (vaultd before lock-down, CLI).
// This is the one place from which vaultd starts a program, and it does so before it has read a key or entered its
// sandbox: afterwards the system calls for it are gone. So it isn't hsmd itself that is started, but token-guard, which
// starts hsmd, and another one when that was killed, on the same descriptors. It gets three of them and our standard
// error; everything else of ours is close-on-exec. It ends when its control socket closes, so it never outlives us.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <kj/io.h>

#include "common/config.h"
#include "common/result.h"
#include "hsmlink/shared_page.h"

namespace sallyport::hsmlink {

// Our ends.
struct KeeperEnds {
  kj::AutoCloseFd calls;
  kj::AutoCloseFd control;
  std::unique_ptr<SharedPage> page;
};

struct KeeperStart {
  std::filesystem::path program;  // token-guard
  std::filesystem::path configFile;
  std::string token;
  bool asOperator = false;     // may generate, import and probe
  std::optional<int> pinFd{};  // of pin = "fd:N": goes to the keeper under its own number
};

// What has to be inherited for this token.
KeeperStart startOf(const TokenConfig& token, const std::filesystem::path& configFile, bool asOperator);
// The error is for people. A program that can't be run shows as the end of the control socket.
Result<KeeperEnds, std::string> startKeeper(const KeeperStart& start);

}  // namespace sallyport::hsmlink
