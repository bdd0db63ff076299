// accounts.h - the names of users and groups, as numbers. Part of: common (vaultd before lock-down, the CLI).
// A snapshot: after lock-down vaultd can't open /etc/passwd any more, so a reload finds in here only the names that the
// host had when vaultd started.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/config.h"

namespace sallyport {

struct Accounts {
  // All that the host lists, and those that `config` names, which a directory service may know without listing them.
  static Accounts ofThisHost(const Config& config);

  // The number of a name, or of a number in decimal.
  std::optional<uid_t> user(std::string_view text) const;
  std::optional<gid_t> group(std::string_view text) const;

  std::map<std::string, uid_t, std::less<>> users;
  std::map<std::string, gid_t, std::less<>> groups;
};

}  // namespace sallyport
