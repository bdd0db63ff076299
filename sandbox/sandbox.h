// sandbox.h - how a daemon gives up everything it no longer needs. Part of: every daemon, before it serves.
//
// A start goes: read config -> Sandbox::enter() -> open files and sockets, load keys -> Sandbox::lockDown() -> serve.
//
//   enter()     own uid (when started as root), own namespaces, no core dumps, not dumpable. Files, paths and Unix
//   sockets work
//               as before; in vaultd and in a worker new network sockets lead nowhere from here on. Optional:
//               lockDown() does it if the daemon did not. A daemon that must open files as root first calls only
//               lockDown().
//   lockDown()  the rest: rlimits, an empty root, no capabilities, no_new_privs, no new code in memory, Landlock, and
//   seccomp
//               last. After it no path can be opened and no other program run (the monitor: only those it was given).
//
// Both must be called with one thread. What was opened before stays open. Every layer says in the Report whether it
// holds. A layer that the kernel or the container doesn't offer is Unavailable; one that it offers but that could not
// be set up is Failed. What must hold whatever the kernel, also when "available" layers are enough: seccomp,
// no_new_privs, no capabilities, not root, not dumpable, no core dumps, and for who holds keys or parses network bytes
// one of {empty root, Landlock}. A root that has no right to become another user, or whose user namespace has no other,
// stays uid 0; unless it is an ordinary user outside of that namespace, this needs one of {empty root, Landlock} in
// every daemon. The calls: sandbox/*.policy. Nothing here reads a policy at run time.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/config.h"  // SandboxRequirement
#include "common/result.h"

namespace sallyport::sandbox {

enum class Profile : uint8_t {
  Vaultd,        // holds keys: reads and writes what it has open, takes connections of its inherited listeners
  Netd,          // the monitor: may bind, dial, run workers and resolvers; paths by Landlock
  NetdWorker,    // parses network bytes: sockets it was handed, nothing else
  NetdResolver,  // one getaddrinfo and gone
  HsmKeeper,     // watches over the processes that load a module; three sockets, and no way to a fourth
  HsmSoftHsm,    // a worker with a module loaded: what SoftHSM calls
  HsmNss,        // ... what NSS's softoken calls: files; also modules that nobody has described
  HsmLocal,      // ... what modules of TPMs and smart cards call: devices, Unix sockets
  HsmNetwork,    // ... and connections to elsewhere
};
// A worker of hsmd: foreign code runs in it, so what it may not do is refused and counted instead of killed.
constexpr bool loadsModule(Profile profile) { return profile >= Profile::HsmSoftHsm; }

enum class LayerState : uint8_t {
  Active,
  Unavailable,  // this kernel, container or service manager doesn't offer it: `detail` says what it answered
  Disabled,     // require_sandbox = "none"
  Failed,       // it should have worked here
};
std::string_view name(LayerState state);  // "active", "unavailable", "disabled", "failed"

struct Layer {
  std::string name;  // "seccomp", "landlock", "root", "namespaces", ...
  LayerState state = LayerState::Disabled;
  std::string detail;  // for people: what holds, or why it doesn't
  bool mandatory = false;
  std::string remedy{};  // for a refusal's hint; may be empty
};

enum class Verdict : uint8_t {
  Full,      // every layer of the profile is active
  Degraded,  // it serves, with less
  None,      // require_sandbox = "none"
};
std::string_view name(Verdict verdict);  // "full", "degraded", "none"

struct Report {
  Profile profile = Profile::Vaultd;
  std::vector<Layer> layers;  // in the order in which they were put up
  bool sanitizerBuild = false;

  Verdict verdict() const;
  const Layer* find(std::string_view layerName) const;
};

// One line a layer, for logs and for people: "  landlock     active       abi 7: no path, no tcp port, no foreign
// process".
std::string describe(const Report& report);

enum class PathAccess : uint8_t {
  Read,     // files and folders
  Execute,  // and run them
  Write,    // and write to files that exist
  Sockets,  // Read, and create and remove Unix sockets in the folder
  Modify,   // Write, and create, cut and remove files and folders in it
  Device,   // Read and Write, of devices and their controls
};

struct PathRule {
  std::filesystem::path path;  // a folder and everything beneath it, or one file
  PathAccess access = PathAccess::Read;
  bool optional = false;  // skipped if it doesn't exist; else that makes the Landlock layer Failed
};

struct Options {
  Profile profile = Profile::Vaultd;
  SandboxRequirement requirement = SandboxRequirement::Full;
  // Used when started as root that may become others: this user of passwd; if there is none, a fixed uid and gid
  // (FALLBACK_VAULT_ID, FALLBACK_NET_ID, FALLBACK_HSM_ID).
  std::string user;
  // Landlock, for Netd and modules only. Netd: the config file's folder (Read), the folders of its sockets (Sockets),
  // of the programs that it runs (Execute). System libraries, /etc and what a resolver reads are added by the profile.
  std::vector<PathRule> paths;
  uint64_t maxOpenFiles = 0;  // RLIMIT_NOFILE, at most the hard limit; 0: the soft limit is raised to the hard one
  // Modules: refused calls aren't answered by the filter but told on Sandbox::refusals(), whose reader counts and
  // refuses.
  bool countRefusals = false;
  uint64_t maxMemoryBytes = 0;  // RLIMIT_AS; 0: the profile's (none in sanitizer builds)
};

// Inside the first 65536, which is what most containers map; not handed out by adduser.
inline constexpr uid_t FALLBACK_VAULT_ID = 65201;
inline constexpr uid_t FALLBACK_NET_ID = 65202;
inline constexpr uid_t FALLBACK_HSM_ID = 65203;

// Why the daemon may not serve. `message` and `hint` are for `sallyport: error: …` and `sallyport: hint: …`.
struct Refusal {
  std::string message;
  std::string hint;
  Report report;
};

// Who it will be: for chown of sockets and folders before the change. As now: if it isn't root, can't become another,
// or for the requirement None.
struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::string name;  // of passwd, or "uid 65201"
};
Identity targetIdentity(const Options& options);
// Has this process's user namespace a number for the user? Else the kernel shows him as OVERFLOW_ID (common/config.h).
bool namesUser(uid_t uid);

class Sandbox {
 public:
  explicit Sandbox(Options options);

  // Idempotent. Reports nothing by itself: its layers are judged by lockDown().
  void enter();
  // Once. On a Refusal the process is in an undefined half-locked state: print it and exit.
  Result<Report, Refusal> lockDown();
  // After lockDown() with countRefusals: seccomp_unotify(2). -1: this kernel has none, calls are refused uncounted.
  int refusals() const { return refusals_; }

 private:
  void add(Layer layer);
  Refusal refusal(const std::vector<std::string>& problems);

  Options options_;
  Report report_;
  bool entered_ = false;
  int parentDeathSignal_ = 0;
  int refusals_ = -1;
  bool ownMounts_ = false;
};

// The rule of lockDown() as a function: nothing if a daemon with this report may serve, else why not.
std::vector<std::string> problems(const Report& report, SandboxRequirement requirement);

// For supervisors: "exited with status 1", "was killed by SIGKILL", "was killed by its syscall filter: ptrace is not
// allowed". The name of the call comes from the kernel's log, if this process may read it; else the text says where to
// look.
std::string explainExit(int waitStatus, pid_t pid);

}  // namespace sallyport::sandbox
