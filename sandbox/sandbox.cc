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

std::vector<std::string> problems(const Report& report, SandboxRequirement requirement) {
  std::vector<std::string> result;
  if (requirement != SandboxRequirement::Full) return result;
  bool pathsRestricted = false;
  for (const Layer& layer : report.layers) {
    const bool active = layer.state == LayerState::Active;
    if (active && (layer.name == "root" || layer.name == "landlock")) pathsRestricted = true;
    if (layer.state == LayerState::Failed || (layer.mandatory && !active))
      result.push_back(layer.name + ": " + layer.detail);
  }
  // The monitor and its resolvers need real paths; where there is no Landlock their uid alone limits them.
  if (holdsSecretsOrParses(report.profile) && !pathsRestricted) {
    result.push_back("neither an empty root nor landlock is to be had");
  }
  return result;
}

Identity targetIdentity(const Options& options) {
  Identity identity{.uid = geteuid(), .gid = getegid(), .name = "uid " + std::to_string(geteuid())};
  if (identity.uid != 0 || options.requirement == SandboxRequirement::None) return identity;
  const passwd* entry = options.user.empty() ? nullptr : getpwnam(options.user.c_str());
  if (entry != nullptr) return {.uid = entry->pw_uid, .gid = entry->pw_gid, .name = options.user};
  const uid_t fallback = options.profile == Profile::Vaultd      ? FALLBACK_VAULT_ID
                         : options.profile >= Profile::HsmKeeper ? FALLBACK_HSM_ID
                                                                 : FALLBACK_NET_ID;
  return {.uid = fallback, .gid = fallback, .name = "uid " + std::to_string(fallback)};
}

Sandbox::Sandbox(Options options) : options_(std::move(options)) {
  report_.profile = options_.profile;
  report_.sanitizerBuild = SANITIZED;
}

void Sandbox::add(Layer layer) { report_.layers.push_back(std::move(layer)); }

void Sandbox::enter() {
  if (entered_ || options_.requirement == SandboxRequirement::None) return;
  entered_ = true;
  prctl(PR_GET_PDEATHSIG, &parentDeathSignal_);
  add(becomeUser(options_));
  // The monitor and the resolver live in the host's network and see its files; a pid namespace is wanted by none: it
  // would need one more process, would hide peers' pids, and kill and ptrace are taken away by seccomp, Landlock and
  // the uid anyway.
  if (holdsSecretsOrParses(options_.profile)) add(enterNamespaces(ownMounts_));
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
  if (std::vector<std::string> early = problems(report_, options_.requirement); !early.empty()) {
    // Judged before the filter, so that the daemon can still tell and exit as usual.
    std::string message = "the sandbox can't be put up: " + early.front();
    for (size_t i = 1; i < early.size(); ++i) message += "; " + early[i];
    return refuse(Refusal{.message = std::move(message),
                          .hint = "require_sandbox = \"available\" serves with the layers that could be had",
                          .report = std::move(report_)});
  }
  // The kernel forgets it with each change of uid or namespace; who started us still wants us to end with it.
  if (parentDeathSignal_ != 0) prctl(PR_SET_PDEATHSIG, parentDeathSignal_);
#ifdef SALLYPORT_SANITIZED
  lockedDown = true;
#endif
  add(loadFilter(options_, refusals_));
  if (std::vector<std::string> late = problems(report_, options_.requirement); !late.empty()) {
    return refuse(Refusal{.message = "the sandbox can't be put up: " + late.front(),
                          .hint = "require_sandbox = \"available\" serves with the layers that could be had",
                          .report = std::move(report_)});
  }
  return std::move(report_);
}

}  // namespace sallyport::sandbox
