// settings.cc - see settings.h. Part of: hsmd.
#include "hsmd/settings.h"

#include <charconv>

namespace sallyport::hsmd {

namespace {

// Each value is its length in decimal, a colon, and its bytes.
void put(std::string& out, std::string_view value) { out += std::to_string(value.size()) + ":" + std::string(value); }
void put(std::string& out, uint64_t value) { put(out, std::to_string(value)); }

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
  uint32_t number(uint32_t most) {
    const std::string digits = text();
    uint32_t value = 0;
    const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (fault != std::errc() || end != digits.data() + digits.size() || value > most) good = false;
    return good ? value : 0;
  }
  std::vector<std::string> texts() {
    std::vector<std::string> values(number(64));
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
  settings.maxSessions = reader.number(1024);
  settings.workers = reader.number(16);
  settings.sessionCopy = reader.number(1) == 1;
  settings.operatorMode = reader.number(1) == 1;
  settings.readPaths = reader.texts();
  settings.writePaths = reader.texts();
  if (!reader.good || !reader.rest.empty()) return std::nullopt;
  return settings;
}

}  // namespace sallyport::hsmd
