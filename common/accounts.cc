// accounts.cc - see accounts.h.
#include "common/accounts.h"

#include <grp.h>
#include <pwd.h>

#include <charconv>

namespace sallyport {
namespace {

constexpr size_t MAX_LISTED = 65536;  // a directory service may list a whole company

std::optional<uint32_t> find(const std::map<std::string, uint32_t, std::less<>>& ids, std::string_view text) {
  if (const auto found = ids.find(text); found != ids.end()) return found->second;
  uint32_t id = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), id);
  if (text.empty() || parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return id;
}

}  // namespace

Accounts Accounts::ofThisHost(const Config& config) {
  Accounts accounts;
  setpwent();
  for (const passwd* entry = getpwent(); entry != nullptr && accounts.users.size() < MAX_LISTED; entry = getpwent())
    accounts.users.emplace(entry->pw_name, entry->pw_uid);
  endpwent();
  setgrent();
  for (const ::group* entry = getgrent(); entry != nullptr && accounts.groups.size() < MAX_LISTED; entry = getgrent())
    accounts.groups.emplace(entry->gr_name, entry->gr_gid);
  endgrent();
  const auto addUser = [&](const std::string& name) {
    if (const passwd* entry = accounts.user(name) ? nullptr : getpwnam(name.c_str()))
      accounts.users.emplace(name, entry->pw_uid);
  };
  const auto addGroup = [&](const std::string& name) {
    if (const ::group* entry = accounts.group(name) ? nullptr : getgrnam(name.c_str()))
      accounts.groups.emplace(name, entry->gr_gid);
  };
  for (const GrantEntry& grant : config.grants) {
    for (const std::string& user : grant.users) addUser(user);
    for (const std::string& group : grant.groups) addGroup(group);
  }
  for (const VaultSocket& socket : config.vaultSockets) addGroup(socket.group);
  return accounts;
}

std::optional<uid_t> Accounts::user(std::string_view text) const { return find(users, text); }
std::optional<gid_t> Accounts::group(std::string_view text) const { return find(groups, text); }

}  // namespace sallyport
