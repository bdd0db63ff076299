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
bool hasCapability(unsigned capability);
Layer dropCapabilities();
Layer setNoNewPrivileges();

// memory.cc
Layer forbidDumps();
Layer forbidNewCode();
Layer setLimits(const Options& options);

// namespaces.cc
Layer enterNamespaces(bool& ownMounts);
Layer emptyRoot(bool ownMounts);

// landlock.cc
Layer restrictPaths(const Options& options);

// filter.cc
Layer loadFilter(const Options& options, int& refusals);

}  // namespace sallyport::sandbox
