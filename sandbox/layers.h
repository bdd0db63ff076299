// layers.h - the single layers behind Sandbox. Part of: sandbox (any daemon). Each puts up one layer and says in a
// Layer whether it holds; none throws, none logs. The order in which they may be called is lockDown()'s business.
#pragma once

#include <cerrno>

#include "sandbox/sandbox.h"

namespace sallyport::sandbox {

// A sanitizer's runtime needs memory and calls that the layers otherwise refuse.
#ifdef SALLYPORT_SANITIZED
inline constexpr bool SANITIZED = true;
#else
inline constexpr bool SANITIZED = false;
#endif

// "setresuid: Operation not permitted"
std::string problemOf(std::string_view call, int errorNumber);
// Answers by which a kernel, container or service manager says "not here", as opposed to "you did it wrong".
bool isRefusedByHost(int errorNumber);
Layer offered(std::string layerName, std::string detail, bool mandatory);
Layer notHeld(std::string layerName, std::string_view call, int errorNumber, bool mandatory);

// privileges.cc
Layer becomeUser(const Options& options);  // keeps just the capabilities that later layers need
// Who the configuration wants root to become, whether it can or not.
Identity configuredIdentity(const Options& options);
// Why this root can't become `target`; empty if it can.
std::string obstacleTo(const Identity& target);
// Has the map, /proc/self/uid_map or gid_map, a number for this one?
bool namesId(const char* mapFile, uint32_t id);
bool hasCapability(unsigned capability);
Layer dropCapabilities();
Layer setNoNewPrivileges();

// memory.cc
Layer forbidDumps();
Layer forbidNewCode();
Layer setLimits(const Options& options);

// namespaces.cc
// Of the users at the other ends of its sockets. An own user namespace maps one uid at most; SO_PEERCRED shows all
// others as OVERFLOW_ID.
enum class MustSee : uint8_t {
  Nobody,     // the worker: its monitor tells it
  Itself,     // a vault that isn't root's: all that belongs to it runs as the same user
  Everybody,  // a vault of root: netd has a user of its own, and grants name others
};
Layer enterNamespaces(MustSee users, bool& ownMounts);
Layer emptyRoot(bool ownMounts);

// landlock.cc
Layer restrictPaths(const Options& options);

// filter.cc
Layer loadFilter(const Options& options, int& refusals);

}  // namespace sallyport::sandbox
