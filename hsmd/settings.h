// settings.h - what hsmd and a worker are told of the configuration: their own [token.NAME] and nothing of the rest.
// Part of: hsmd. token-guard, which has read sallyport.toml, writes each into a sealed memfd, and they read it there:
// so a file that was changed since, or broken, is nothing to those that are started again.
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

// Of the processes that start workers: nothing that a module has to know.
struct LauncherSettings {
  std::string token;
  uint64_t stepMs = 0;  // keeper.h
  SandboxRequirement requirement = SandboxRequirement::Full;
  std::vector<std::string> environment;  // NAME=value: all that a worker has

  std::string write() const;
  static std::optional<LauncherSettings> parse(std::string_view text);
};

// A sealed memfd; -1: errno says why.
int settingsFile(const std::string& text);
// Empty: it can't be read.
std::string readSettings(int fd);

// The descriptors that a worker finds, in this order from 3 on.
enum ChildFd : int { CALLS_FD = 3, PAGE_FD, PIN_FD, BOARD_FD, BIRTH_FD, SETTINGS_FD, CHILD_FD_END };

// Those that hsmd finds: what it has itself, then what its workers get. All of it outlives it, in token-guard.
enum HeldFd : int {
  HELD_CONTROL = 3,
  HELD_SETTINGS,    // LauncherSettings
  HELD_LAST_EPOCH,  // a page with one number: launcher.h
  HELD_PROGRAM,     // hsmd-worker, O_PATH
  HELD_CALLS,
  HELD_PAGE,
  HELD_PIN,
  HELD_BOARD,
  HELD_WORKER_SETTINGS,
  HELD_FD_END
};

inline constexpr size_t LAST_EPOCH_BYTES = 4096;

}  // namespace sallyport::hsmd
