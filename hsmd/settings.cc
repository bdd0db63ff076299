// settings.cc - see settings.h. Part of: hsmd.
#include "hsmd/settings.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>

namespace sallyport::hsmd {

namespace {

// Each value is its length in decimal, a colon, and its bytes.
void put(std::string& out, std::string_view value) { out += std::to_string(value.size()) + ":" + std::string(value); }
void put(std::string& out, uint64_t value) { put(out, std::to_string(value)); }

constexpr uint32_t MOST_PATHS = 64;
constexpr uint32_t MOST_VARIABLES = 4096;  // the configuration's own bound is its length

struct Reader {
  std::string_view rest;
  bool good = true;

  std::string text() {
    size_t length = 0;
    const auto [end, fault] = std::from_chars(rest.data(), rest.data() + rest.size(), length);
    const auto used = static_cast<size_t>(end - rest.data());
    if (!good || fault != std::errc() || used >= rest.size() || rest[used] != ':' || rest.size() - used - 1 < length) {
      good = false;
      return {};
    }
    std::string value(rest.substr(used + 1, length));
    rest.remove_prefix(used + 1 + length);
    return value;
  }
  template <typename Number>
  Number number(Number most) {
    const std::string digits = text();
    Number value = 0;
    const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (fault != std::errc() || end != digits.data() + digits.size() || value > most) good = false;
    return good ? value : 0;
  }
  std::vector<std::string> texts(uint32_t most) {
    std::vector<std::string> values(number(most));
    for (auto& value : values) value = text();
    return values;
  }
};

}  // namespace

WorkerSettings WorkerSettings::of(const TokenConfig& token, bool operatorMode) {
  WorkerSettings settings{.module = token.module.string(),
                          .uri = token.uri,
                          .initArguments = token.initArgs,
                          .profile = token.profile,
                          .requirement = token.requireSandbox,
                          .maxSessions = token.maxSessions,
                          .workers = token.workers,
                          .sessionCopy = token.sessionCopy,
                          .operatorMode = operatorMode,
                          .readPaths = {},
                          .writePaths = {}};
  for (const auto& path : token.readPaths) settings.readPaths.push_back(path.string());
  for (const auto& path : token.writePaths) settings.writePaths.push_back(path.string());
  return settings;
}

std::string WorkerSettings::write() const {
  std::string out;
  put(out, module);
  put(out, uri);
  put(out, initArguments);
  put(out, static_cast<uint64_t>(profile));
  put(out, static_cast<uint64_t>(requirement));
  put(out, maxSessions);
  put(out, workers);
  put(out, uint64_t{sessionCopy});
  put(out, uint64_t{operatorMode});
  for (const auto* paths : {&readPaths, &writePaths}) {
    put(out, paths->size());
    for (const auto& path : *paths) put(out, path);
  }
  return out;
}

std::optional<WorkerSettings> WorkerSettings::parse(std::string_view text) {
  Reader reader{text};
  WorkerSettings settings;
  settings.module = reader.text();
  settings.uri = reader.text();
  settings.initArguments = reader.text();
  settings.profile = static_cast<ModuleProfile>(reader.number(static_cast<uint32_t>(ModuleProfile::Custom)));
  settings.requirement =
      static_cast<SandboxRequirement>(reader.number(static_cast<uint32_t>(SandboxRequirement::None)));
  settings.maxSessions = reader.number(1024U);
  settings.workers = reader.number(16U);
  settings.sessionCopy = reader.number(1U) == 1;
  settings.operatorMode = reader.number(1U) == 1;
  settings.readPaths = reader.texts(MOST_PATHS);
  settings.writePaths = reader.texts(MOST_PATHS);
  if (!reader.good || !reader.rest.empty()) return std::nullopt;
  return settings;
}

std::string LauncherSettings::write() const {
  std::string out;
  put(out, token);
  put(out, stepMs);
  put(out, static_cast<uint64_t>(requirement));
  put(out, environment.size());
  for (const auto& variable : environment) put(out, variable);
  return out;
}

std::optional<LauncherSettings> LauncherSettings::parse(std::string_view text) {
  Reader reader{text};
  LauncherSettings settings;
  settings.token = reader.text();
  settings.stepMs = reader.number(UINT64_MAX);
  settings.requirement =
      static_cast<SandboxRequirement>(reader.number(static_cast<uint32_t>(SandboxRequirement::None)));
  settings.environment = reader.texts(MOST_VARIABLES);
  if (!reader.good || !reader.rest.empty()) return std::nullopt;
  return settings;
}

int settingsFile(const std::string& text) {
  const int fd = memfd_create("hsmd-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  if (write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0)
    return fd;
  const int problem = errno;
  close(fd);
  errno = problem;
  return -1;
}

std::string readSettings(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0 || status.st_size <= 0) return {};
  std::string text(static_cast<size_t>(status.st_size), '\0');
  if (pread(fd, text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) return {};
  return text;
}

}  // namespace sallyport::hsmd
