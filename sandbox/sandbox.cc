// sandbox.cc - see sandbox.h: the order of the layers and the judgement over them. Part of: every daemon.
#include "sandbox/sandbox.h"

#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "common/check.h"
#include "sandbox/layers.h"

namespace sallyport::sandbox {

namespace {

#ifdef SALLYPORT_SANITIZED
bool lockedDown = false;
#endif

constexpr std::array LAYER_NAMES = {"user",         "dumps",        "namespaces", "rlimits",  "root",
                                    "capabilities", "no_new_privs", "w^x",        "landlock", "seccomp"};

bool holdsSecretsOrParses(Profile profile) { return profile == Profile::Vaultd || profile == Profile::NetdWorker; }

}  // namespace

#ifdef SALLYPORT_SANITIZED
// LeakSanitizer stops the process with ptrace from a helper thread: a locked process has neither.
extern "C" int __lsan_is_turned_off() { return lockedDown ? 1 : 0; }
#endif

std::string_view name(LayerState state) {
  switch (state) {
    case LayerState::Active: return "active";
    case LayerState::Unavailable: return "unavailable";
    case LayerState::Disabled: return "disabled";
    case LayerState::Failed: return "failed";
  }
  return "unknown";
}

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::Full: return "full";
    case Verdict::Degraded: return "degraded";
    case Verdict::None: return "none";
  }
  return "unknown";
}

Verdict Report::verdict() const {
  auto is = [](LayerState state) { return [state](const Layer& layer) { return layer.state == state; }; };
  if (std::all_of(layers.begin(), layers.end(), is(LayerState::Disabled))) return Verdict::None;
  if (std::all_of(layers.begin(), layers.end(), is(LayerState::Active))) return Verdict::Full;
  return Verdict::Degraded;
}

const Layer* Report::find(std::string_view layerName) const {
  auto found = std::find_if(layers.begin(), layers.end(), [&](const Layer& layer) { return layer.name == layerName; });
  return found == layers.end() ? nullptr : &*found;
}

std::string describe(const Report& report) {
  std::string text =
      "sandbox " + std::string(name(report.verdict())) + (report.sanitizerBuild ? " (sanitizer build)" : "") + "\n";
  auto padded = [](std::string_view word, size_t width) {
    std::string result(word);
    result.resize(std::max(width, result.size()), ' ');
    return result;
  };
  for (const Layer& layer : report.layers) {
    text += "  " + padded(layer.name, 13) + padded(name(layer.state), 12) + layer.detail + "\n";
  }
  return text;
}

namespace {

bool isProblem(const Layer& layer, SandboxRequirement requirement) {
  if (layer.state == LayerState::Active || requirement == SandboxRequirement::None) return false;
  return layer.mandatory || (layer.state == LayerState::Failed && requirement == SandboxRequirement::Full);
}

// Of the first problem that has a remedy; else what the configuration can do.
std::string hintFor(const Report& report, SandboxRequirement requirement) {
  for (const Layer& layer : report.layers) {
    if (isProblem(layer, requirement) && !layer.remedy.empty()) return layer.remedy;
  }
  if (problems(report, SandboxRequirement::Available).empty())
    return "require_sandbox = \"available\" serves with the layers that could be had";
  return "no daemon serves without these layers, except with require_sandbox = \"none\", which is for debugging";
}

}  // namespace

std::vector<std::string> problems(const Report& report, SandboxRequirement requirement) {
  std::vector<std::string> result;
  if (requirement == SandboxRequirement::None) return result;
  bool pathsRestricted = false;
  bool stillRoot = false;
  for (const Layer& layer : report.layers) {
    const bool active = layer.state == LayerState::Active;
    if (active && (layer.name == "root" || layer.name == "landlock")) pathsRestricted = true;
    if (!active && layer.name == "user") stillRoot = true;
    if (isProblem(layer, requirement)) result.push_back(layer.name + ": " + layer.detail);
  }
  // The monitor and its resolvers need real paths; where there is no Landlock their uid alone limits them, unless that
  // is root's.
  if ((holdsSecretsOrParses(report.profile) || stillRoot) && !pathsRestricted) {
    result.push_back("neither an empty root nor landlock is to be had");
  }
  return result;
}

Identity configuredIdentity(const Options& options) {
  const passwd* entry = options.user.empty() ? nullptr : getpwnam(options.user.c_str());
  if (entry != nullptr) return {.uid = entry->pw_uid, .gid = entry->pw_gid, .name = options.user};
  const uid_t fallback = options.profile == Profile::Vaultd      ? FALLBACK_VAULT_ID
                         : options.profile >= Profile::HsmKeeper ? FALLBACK_HSM_ID
                                                                 : FALLBACK_NET_ID;
  return {.uid = fallback, .gid = fallback, .name = "uid " + std::to_string(fallback)};
}

Identity targetIdentity(const Options& options) {
  if (geteuid() == 0 && options.requirement != SandboxRequirement::None) {
    Identity identity = configuredIdentity(options);
    if (obstacleTo(identity).empty()) return identity;
  }
  return {.uid = geteuid(), .gid = getegid(), .name = "uid " + std::to_string(geteuid())};
}

bool namesUser(uid_t uid) { return namesId("/proc/self/uid_map", uid); }

Sandbox::Sandbox(Options options) : options_(std::move(options)) {
  report_.profile = options_.profile;
  report_.sanitizerBuild = SANITIZED;
}

void Sandbox::add(Layer layer) { report_.layers.push_back(std::move(layer)); }

void Sandbox::enter() {
  if (entered_ || options_.requirement == SandboxRequirement::None) return;
  entered_ = true;
  prctl(PR_GET_PDEATHSIG, &parentDeathSignal_);
  const MustSee users = options_.profile != Profile::Vaultd ? MustSee::Nobody
                        : geteuid() == 0                    ? MustSee::Everybody
                                                            : MustSee::Itself;
  add(becomeUser(options_));
  // The monitor and the resolver live in the host's network and see its files; a pid namespace is wanted by none: it
  // would need one more process, would hide peers' pids, and kill and ptrace are taken away by seccomp, Landlock and
  // the uid anyway.
  if (holdsSecretsOrParses(options_.profile)) add(enterNamespaces(users, ownMounts_));
  // After the namespaces: a process that isn't dumpable may not write its own uid map.
  add(forbidDumps());
}

Result<Report, Refusal> Sandbox::lockDown() {
  if (options_.requirement == SandboxRequirement::None) {
    for (const char* layerName : LAYER_NAMES) {
      add({.name = layerName, .state = LayerState::Disabled, .detail = "require_sandbox = \"none\""});
    }
    return std::move(report_);
  }
  enter();
  if (holdsSecretsOrParses(options_.profile)) add(emptyRoot(ownMounts_));  // needs to fork, and its capability
  add(setLimits(options_));
  add(dropCapabilities());
  add(setNoNewPrivileges());
  add(forbidNewCode());
  add(restrictPaths(options_));
  // Judged before the filter, so that the daemon can still tell and exit as usual.
  if (std::vector<std::string> early = problems(report_, options_.requirement); !early.empty())
    return refuse(refusal(early));
  // The kernel forgets it with each change of uid or namespace; who started us still wants us to end with it.
  if (parentDeathSignal_ != 0) prctl(PR_SET_PDEATHSIG, parentDeathSignal_);
#ifdef SALLYPORT_SANITIZED
  lockedDown = true;
#endif
  add(loadFilter(options_, refusals_));
  if (std::vector<std::string> late = problems(report_, options_.requirement); !late.empty())
    return refuse(refusal(late));
  return std::move(report_);
}

Refusal Sandbox::refusal(const std::vector<std::string>& problems) {
  std::string message = "the sandbox can't be put up: " + problems.front();
  for (size_t i = 1; i < problems.size(); ++i) message += "; " + problems[i];
  return {.message = std::move(message), .hint = hintFor(report_, options_.requirement), .report = std::move(report_)};
}

}  // namespace sallyport::sandbox
