// child.h - one daemon as a child process: start, signal, restart with back-off. Part of: cli (`sallyport up`).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/result.h"

namespace sallyport::cli {

// How long to wait before the next start: 100 ms, doubling to 5 s, and from the beginning after a second of running.
class BackOff {
 public:
  static constexpr uint64_t FIRST_MS = 100;
  static constexpr uint64_t MAX_MS = 5000;
  static constexpr uint64_t GOOD_MS = 1000;

  // The pause after a run of `ranMs`.
  uint64_t next(uint64_t ranMs);

 private:
  uint64_t pauseMs_ = 0;
};

// What a daemon gets of the descriptors that we were started with. One may be a PIN (`pin = "fd:N"`): the vault's
// alone.
enum class Descriptors : uint8_t { All, StandardAlone };
// What a daemon has of our terminal. Ctrl-C there is for us alone, and we pass it on in order: a daemon in a group of
// its own doesn't hear of it, and one that may have to ask for a passphrase is started with SIGINT ignored.
enum class Terminal : uint8_t { None, ToAskOnly };

class Child {
 public:
  Child(std::string name, std::filesystem::path program, std::filesystem::path configFile, Terminal terminal,
        Descriptors descriptors)
      : name_(std::move(name)),
        program_(std::move(program)),
        configFile_(std::move(configFile)),
        descriptors_(descriptors),
        terminal_(terminal) {}
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  const std::string& name() const { return name_; }
  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }

  // Runs `PROGRAM -c FILE`. It dies with us, with SIGTERM, as far as the kernel can see to that: it forgets when the
  // daemon changes its user. The error is for people.
  Result<void, std::string> start(uint64_t nowMs);
  void signal(int number) const;
  // Notes an end reported by waitpid(), and when to start again. Gives the words for it.
  std::string onExit(int waitStatus, uint64_t nowMs);
  // Time to start it again; never while it runs.
  bool isDue(uint64_t nowMs) const { return !running() && nowMs >= restartAtMs_; }
  uint64_t restartAtMs() const { return restartAtMs_; }

 private:
  std::string name_;
  std::filesystem::path program_;
  std::filesystem::path configFile_;
  Descriptors descriptors_;
  Terminal terminal_;
  pid_t pid_ = -1;
  uint64_t startedMs_ = 0;
  uint64_t restartAtMs_ = 0;
  BackOff backOff_;
};

}  // namespace sallyport::cli
