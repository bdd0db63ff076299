// sandbox_probe.h - what the probe tries. Part of: tests (never installed).
#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <string_view>

#include "sandbox/sandbox.h"

namespace sallyport::probe {

// How an attack must end in a profile. Ended: any of SIGSYS, or for a foreign ABI that the kernel lacks, SIGSEGV.
enum class End : uint8_t {
  Skip,     // not meant for this profile
  Killed,   // SIGSYS
  Refused,  // an error of the kernel, Landlock or the policy
  Allowed,  // by design, with its reason in the table
};

struct Attack {
  const char* name;
  long (*attempt)();  // the call's result; errno if it is -1
  End vaultd;
  End worker;
  End monitor;
  End resolver;
};
std::span<const Attack> attacks();
// Called before lock-down: opens and maps what attacks start from.
void prepareAttacks();

// What a daemon must still be able to do; an empty text, or what went wrong. Runs locked down.
std::string vaultLoad();
std::string workerLoad();
std::string monitorLoad();
std::string resolverLoad();
// Called before lock-down: sockets and files for the loads.
void prepareLoads();

// For the monitor's load: what this program is when it runs itself as a child.
inline constexpr const char* CHILD_WORKER = "--child-worker";
inline constexpr const char* CHILD_RESOLVER = "--child-resolver";

// Locks down as a daemon of `profile` would.
sandbox::Report lockDownOrExit(sandbox::Profile profile, bool verbose);
std::string ownProgram();

}  // namespace sallyport::probe
