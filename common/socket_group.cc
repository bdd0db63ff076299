// socket_group.cc - see socket_group.h.
#include "common/socket_group.h"

#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sallyport {

std::optional<gid_t> findGroup(const std::string& name) {
  const group* entry = getgrnam(name.c_str());
  return entry == nullptr ? std::nullopt : std::optional(entry->gr_gid);
}

ConfigError unknownGroup(const std::string& name) {
  return {"`socket_group`: there is no group `" + name + "`", 0, "groupadd --system " + name};
}

Result<gid_t, ConfigError> shareWithGroup(const std::filesystem::path& socket, const std::string& group) {
  const auto gid = findGroup(group);
  if (!gid) return refuse(unknownGroup(group));
  // First the group, then its rights.
  if (chown(socket.c_str(), static_cast<uid_t>(-1), *gid) != 0 || chmod(socket.c_str(), 0660) != 0) {
    return refuse(
        ConfigError{socket.string() + ": can't be given to the group `" + group + "`: " + std::strerror(errno), 0,
                    "the daemon must be started by root or by a member of the group"});
  }
  return *gid;
}

}  // namespace sallyport
