// monitor.h - the part of netd that may open things. Part of: netd (monitor).
// Binds listeners, dials configured targets, holds the cookie keys, connects workers to the vault, starts and restarts
// workers, applies reloads. It never reads a byte from a peer: sockets pass through it unread.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <kj/async.h>
#include <kj/io.h>

#include "common/config.h"
#include "common/event_loop.h"
#include "netd/cookie_keys.h"
#include "netd/dialer.h"
#include "netd/period_timer.h"
#include "netd/reload_socket.h"
#include "netd/worker_config.h"
#include "netd/worker_process.h"

namespace sallyport::netd {

class Monitor {
 public:
  // Opens all that will be needed; before lock-down. Throws kj::Exception.
  Monitor(EventLoop& loop, Config config);
  ~Monitor();
  // Binds all listeners, as whoever started us.
  Result<void, ConfigError> openListeners();
  // After lock-down: starts the workers.
  void start(ReportedSandbox ownSandbox);
  // A worker would not serve from the start, e.g. as its sandbox can't be put up.
  bool failed() const { return failed_; }

  const Config& config() const { return config_; }
  // The programs that it runs, for the sandbox.
  std::vector<std::filesystem::path> programs() const { return {workerProgram_.handle(), resolverProgram_.handle()}; }

  // Applies a configuration: all or nothing. The text says what changed, or what is wrong.
  Result<Reloaded, NotReloaded> reload(std::string_view text);
  // Reads the file again, as far as our own uid may.
  Result<Reloaded, NotReloaded> reloadFile();
  // Stops accepting, lets sessions finish, then ends the loop.
  void drain();
  void onChildExit();

 private:
  struct Listening {
    std::string address;
    std::vector<kj::AutoCloseFd> sockets;  // one a worker, or one for all
  };
  using Listeners = std::map<uint32_t, Listening>;    // by entry
  using Addresses = std::map<uint32_t, std::string>;  // by entry
  struct NewListeners {
    Listeners bound;                     // those of heirs are empty until apply() moves the sockets
    std::map<uint32_t, uint32_t> heirs;  // from the entry that gives its sockets up to the one that takes them
  };

  void onRecord(WorkerProcess& worker, ControlChannel::Received& received);
  void handle(WorkerProcess& worker, ControlChannel::Received& received);
  Result<Reloaded, NotReloaded> apply(std::string_view text);
  void equip(WorkerProcess& worker);
  void sendListener(WorkerProcess& worker, uint32_t id, const Listening& listening);
  void takeFromWorkers(uint32_t id);
  void stopListening(uint32_t id, const Listening& listening);
  void startWorker(WorkerProcess& worker);
  void workerExited(WorkerProcess& worker, int status, pid_t pid);
  Result<void, ConfigError> bindOwnListeners();
  void mendListeners();
  void connectVault();
  void rotateCookieKey();
  void setTargets();
  std::vector<std::byte> statusReport() const;
  Addresses addressesOf(const Config& config);
  std::vector<uint32_t> changeOfWorkers(const Config& fresh);
  Result<NewListeners, ConfigError> bindNew(const Config& fresh);

  EventLoop& loop_;
  Config config_;
  EntryIds ids_;
  uint64_t generation_ = 1;
  unsigned workerCount_;
  Program workerProgram_;
  Program resolverProgram_;
  Dialer dialer_;
  kj::AutoCloseFd configFile_;  // opened by whoever started us
  kj::AutoCloseFd vaultFolder_;
  Listeners listeners_;
  kj::AutoCloseFd netListener_;
  kj::AutoCloseFd metricsListener_;
  std::unique_ptr<ReloadSocket> reloadSocket_;
  std::vector<std::unique_ptr<WorkerProcess>> workers_;
  std::optional<MinuteKey> cookieKey_;
  std::optional<MinuteKey> previousCookieKey_;
  PeriodTimer cookieTimer_;
  kj::Promise<void> vaultTimer_ = nullptr;
  bool vaultTimerArmed_ = false;
  std::string vaultState_ = "not connected yet";
  ReportedSandbox ownSandbox_;
  uint64_t startedAtMs_ = 0;
  bool draining_ = false;
  bool failed_ = false;
  kj::Promise<void> drainTimer_ = nullptr;
};

}  // namespace sallyport::netd
