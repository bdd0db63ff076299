// settings.h - what a worker is told of the configuration: its own [token.NAME] and nothing of the rest. Part of: hsmd.
// The keeper writes it into a sealed memfd; the worker, which never sees sallyport.toml, reads it there.
#pragma once

#include <optional>
#include <string>

#include "common/config.h"

namespace sallyport::hsmd {

struct WorkerSettings {
  std::string module;
  std::string uri;
  std::string initArguments;
  ModuleProfile profile = ModuleProfile::Custom;
  SandboxRequirement requirement = SandboxRequirement::Full;
  uint32_t maxSessions = 4;
  uint32_t workers = 2;
  bool sessionCopy = false;
  bool operatorMode = false;  // may make keys; is not locked down
  std::vector<std::string> readPaths, writePaths;

  static WorkerSettings of(const TokenConfig& token, bool operatorMode);
  std::string write() const;
  static std::optional<WorkerSettings> parse(std::string_view text);
};

// The descriptors that the keeper's children find, in this order from 3 on.
enum ChildFd : int { CALLS_FD = 3, PAGE_FD, PIN_FD, BOARD_FD, BIRTH_FD, SETTINGS_FD, CHILD_FD_END };

}  // namespace sallyport::hsmd
