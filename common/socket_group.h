// socket_group.h - lets a group of the system use a Unix socket that is otherwise its owner's. Part of: common (vaultd
// before lock-down, netd's monitor, the CLI's check): `socket_group` of sallyport.toml.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "common/config.h"

namespace sallyport {

// The group's number; nothing if there is none of this name.
std::optional<gid_t> findGroup(const std::string& name);
ConfigError unknownGroup(const std::string& name);
// Gives the socket's file to the group, mode 0660.
Result<gid_t, ConfigError> shareWithGroup(const std::filesystem::path& socket, const std::string& group);

}  // namespace sallyport
