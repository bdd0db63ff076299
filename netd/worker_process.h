// worker_process.h - one worker as the monitor sees it: started, watched, started again. Part of: netd (monitor).
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>

#include <kj/io.h>

#include "common/config.h"
#include "netd/control.h"
#include "netd/sandbox_report.h"
#include "netd/stats.h"

namespace sallyport::netd {

// A program opened before lock-down: it can be run later although its path can't be reached any more.
class Program {
 public:
  // Finds `name` beside this program, in its source folder's place of a build tree, or in libexec. Throws
  // kj::Exception.
  static Program find(const char* name);
  const std::string& path() const { return path_; }
  // A path to it that needs no way through folders: /proc/self/fd/N.
  std::string handle() const { return "/proc/self/fd/" + std::to_string(file_.get()); }
  // Starts it; descriptor `fds[i]` becomes 3 + i. Throws kj::Exception.
  pid_t start(std::vector<std::string> arguments, const std::vector<int>& fds) const;

 private:
  Program(std::string path, kj::AutoCloseFd file) : path_(std::move(path)), file_(kj::mv(file)) {}
  std::string path_;
  kj::AutoCloseFd file_;
};

class WorkerProcess {
 public:
  WorkerProcess(EventLoop& loop, unsigned index, const Program& program, SandboxRequirement requirement);

  unsigned index() const { return index_; }
  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0; }
  bool ready() const { return ready_; }
  uint32_t restarts() const { return restarts_; }
  uint64_t startedAtMs() const { return startedAtMs_; }
  const ReportedSandbox& sandbox() const { return sandbox_; }
  // Its statistics page, for others to read: the descriptor can't write.
  int statsReadOnlyFd() const { return statsReadOnlyFd_; }
  bool wantsVault = false;
  kj::Promise<void> startingAgain = nullptr;

  using OnRecord = std::function<void(WorkerProcess&, ControlChannel::Received&)>;
  void start(OnRecord onRecord);
  void markReady(std::string_view report);
  // It has done what it may not: nothing that it says counts any more.
  void condemn();
  // After waitpid. Returns how long to wait before the next start, in milliseconds.
  uint32_t exited();
  void send(const ControlRecord& record, ByteSpan payload = {}, std::vector<kj::AutoCloseFd> fds = {});
  // Hands over a connection to the vault and ends the one before it.
  void sendVaultLink(kj::AutoCloseFd link);
  bool mayHaveVaultLink() const;
  void sendFd(ControlKind kind, uint32_t target, int fd);  // a copy of it

 private:
  EventLoop& loop_;
  unsigned index_;
  const Program& program_;
  SandboxRequirement requirement_;
  kj::AutoCloseFd statsFd_;
  kj::AutoCloseFd statsReadOnlyFd_;
  kj::AutoCloseFd vaultLink_;
  uint64_t vaultLinkAtMs_ = 0;
  Stats& stats_;
  pid_t pid_ = 0;
  bool ready_ = false;
  uint32_t restarts_ = 0;
  uint32_t backOffMs_ = 0;
  uint64_t startedAtMs_ = 0;
  ReportedSandbox sandbox_;
  std::unique_ptr<ControlChannel> control_;
};

}  // namespace sallyport::netd
