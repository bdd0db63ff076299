// lockdown.cc - see lockdown.h. Part of: hsmd (worker).
#include "hsmd/lockdown.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/log.h"
#include "sandbox/sandbox.h"

namespace sallyport::hsmd {

using sandbox::PathAccess;
using sandbox::PathRule;

namespace {

constexpr uint64_t MAX_OPEN_FILES = 1024;

sandbox::Profile policyFor(ModuleProfile profile) {
  switch (profile) {
    case ModuleProfile::SoftHsm: return sandbox::Profile::HsmSoftHsm;
    case ModuleProfile::Nss:
    case ModuleProfile::Custom:
    case ModuleProfile::Auto: return sandbox::Profile::HsmNss;
    case ModuleProfile::Tpm2:
    case ModuleProfile::Pcscd: return sandbox::Profile::HsmLocal;
    case ModuleProfile::YubiHsmConnector:
    case ModuleProfile::Network: return sandbox::Profile::HsmNetwork;
  }
  return sandbox::Profile::HsmNss;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Where SoftHSM keeps its tokens: as its own configuration says, else as Debian's does.
std::string softHsmFolder() {
  const std::string given = environment("SOFTHSM2_CONF");
  std::ifstream file(given.empty() ? "/etc/softhsm/softhsm2.conf" : given);
  for (std::string line; std::getline(file, line);) {
    const auto equals = line.find('=');
    if (line.find("directories.tokendir") != 0 || equals == line.npos) continue;
    const auto begin = line.find_first_not_of(" \t", equals + 1);
    const auto end = line.find_last_not_of(" \t\r");
    if (begin != line.npos) return line.substr(begin, end - begin + 1);
  }
  return "/var/lib/softhsm/tokens";
}

// Threads that are here already: Landlock will not hold for them.
size_t otherThreads() {
  std::error_code fault;
  size_t count = 0;
  for (std::filesystem::directory_iterator at("/proc/self/task", fault), end; !fault && at != end; at.increment(fault))
    ++count;
  return count > 1 ? count - 1 : 0;
}

}  // namespace

std::string nssFolder(const std::string& initArguments) {
  constexpr std::string_view KEY = "configdir=";
  const auto at = initArguments.find(KEY);
  if (at == initArguments.npos) return "";
  std::string value = initArguments.substr(at + KEY.size());
  const char quote = value.empty() ? '\0' : value.front();
  const bool quoted = quote == '\'' || quote == '"';
  value = quoted ? value.substr(1, value.find(quote, 1) - 1) : value.substr(0, value.find(' '));
  for (const std::string_view kind : {"sql:", "dbm:", "extern:"}) {
    if (value.starts_with(kind)) value.erase(0, kind.size());
  }
  return value;
}

std::vector<PathRule> pathsOf(const WorkerSettings& settings) {
  std::vector<PathRule> rules;
  const auto add = [&rules](const std::string& path, PathAccess access) {
    if (!path.empty()) rules.push_back({.path = path, .access = access, .optional = true});
  };
  const auto addAll = [&add](std::initializer_list<const char*> paths, PathAccess access) {
    for (const char* path : paths) add(path, access);
  };
  switch (settings.profile) {
    case ModuleProfile::SoftHsm: add(softHsmFolder(), PathAccess::Modify); break;
    case ModuleProfile::Nss: add(nssFolder(settings.initArguments), PathAccess::Modify); break;
    case ModuleProfile::Tpm2:
      addAll({"/dev/tpmrm0", "/dev/tpm0"}, PathAccess::Device);
      addAll({"/etc/tpm2-tss", "/etc/tpm2_pkcs11"}, PathAccess::Read);
      add(environment("TPM2_PKCS11_STORE"), PathAccess::Modify);
      break;
    case ModuleProfile::Pcscd: addAll({"/etc/opensc", "/run/pcscd"}, PathAccess::Read); break;
    case ModuleProfile::Custom:
    case ModuleProfile::Auto: break;  // what the configuration names
    case ModuleProfile::YubiHsmConnector:
    case ModuleProfile::Network:
      // What a resolver reads, and libraries that it loads late.
      addAll({"/etc", "/usr/share", "/run/systemd/resolve"}, PathAccess::Read);
      addAll({"/usr/lib", "/lib", "/lib64"}, PathAccess::Execute);
      break;
  }
  // Seeds and time stamps.
  addAll({"/dev/urandom", "/dev/null", "/etc/localtime"}, PathAccess::Read);
  for (const std::string& path : settings.readPaths) add(path, PathAccess::Read);
  for (const std::string& path : settings.writePaths) add(path, PathAccess::Modify);
  return rules;
}

bool lockDown(const Birth& birth, const WorkerSettings& settings, hsm::Status login, bool restricted,
              std::string_view why) {
  if (!restricted) {
    birth.up(login, why);
    const auto state = static_cast<uint8_t>(sandbox::LayerState::Disabled);
    const char* off = settings.operatorMode ? "off while an operator makes keys" : "off until the token is logged in";
    for (const char* layer : {"landlock", "seccomp"}) birth.layer(layer, state, off);
    return true;
  }
  sandbox::Options options;
  options.profile = policyFor(settings.profile);
  options.requirement = settings.requirement;
  options.paths = pathsOf(settings);
  options.maxOpenFiles = MAX_OPEN_FILES;
  options.countRefusals = true;
  sandbox::Sandbox sandbox(options);
  const size_t threads = otherThreads();
  // Before it is up a call that is refused would wait for a keeper that doesn't know where to listen: nothing but the
  // sending of that descriptor comes between.
  auto report = sandbox.lockDown();
  if (sandbox.refusals() >= 0) {
    birth.listener(sandbox.refusals());
    close(sandbox.refusals());
  }
  if (!report) {
    logError(report.error().message);
    return false;
  }
  birth.up(login);
  birth.layer("profile", static_cast<uint8_t>(sandbox::LayerState::Active), name(settings.profile));
  for (const sandbox::Layer& layer : report->layers) {
    std::string detail = layer.detail;
    if (layer.name == "landlock" && threads > 0)
      detail = "not for " + std::to_string(threads) + " threads of the module that were there before; " + detail;
    birth.layer(layer.name, static_cast<uint8_t>(layer.state), detail);
  }
  return true;
}

}  // namespace sallyport::hsmd
