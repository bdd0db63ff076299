// monitor.cc - see monitor.h.
#include "netd/monitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include <kj/debug.h>

#include "common/log.h"
#include "common/rpc.h"
#include "netd/config_changes.h"
#include "netd/memory_file.h"
#include "netd/origin.h"
#include "netd/status_report.h"
#include "sandbox/sandbox.h"

namespace sallyport::netd {

namespace {

constexpr uint32_t VAULT_RETRY_MS = 100;
constexpr uint32_t KILL_AFTER_DRAIN_MS = 2000;

static_assert(MAX_WORKERS < MAX_PASSED_FDS);  // each worker's page goes to the first of them

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
  return kj::AutoCloseFd(copy);
}

kj::AutoCloseFd openForLater(const std::filesystem::path& path, int flags) {
  return kj::AutoCloseFd(open(path.c_str(), flags | O_CLOEXEC));
}

}  // namespace

Monitor::Monitor(EventLoop& loop, Config config)
    : loop_(loop),
      config_(std::move(config)),
      workerCount_(workerCount(config_.net)),
      workerProgram_(Program::find("netd-worker")),
      resolverProgram_(Program::find("netd-resolver")),
      dialer_(loop, resolverProgram_),
      configFile_(openForLater(config_.file, O_RDONLY)),
      vaultFolder_(openForLater(config_.vault.netSocket.parent_path(), O_PATH | O_DIRECTORY)),
      cookieTimer_(loop, wire::COOKIE_KEY_PERIOD_MS,
                   [this](uint64_t periods) {
                     // After a sleep of the machine both keys are old.
                     for (uint64_t i = 0; i < std::min<uint64_t>(periods, 2); ++i) rotateCookieKey();
                   }),
      startedAtMs_(loop.nowMs()) {
  dialer_.find = [this](unsigned index) { return workers_[index]->running() ? workers_[index].get() : nullptr; };
  for (unsigned i = 0; i < workerCount_; ++i) {
    workers_.push_back(std::make_unique<WorkerProcess>(loop_, i, workerProgram_, config_.net.requireSandbox));
  }
}

Monitor::~Monitor() {
  for (auto& worker : workers_) {
    if (worker->running()) kill(worker->pid(), SIGKILL);
  }
}

void Monitor::setTargets() {
  std::map<uint32_t, Address> targets;
  for (const ListenEntry& entry : config_.listens) {
    if (const auto* address = std::get_if<Address>(&entry.service))
      targets.emplace(ids_.of(true, entry.name), *address);
  }
  for (const ConnectEntry& entry : config_.connects) targets.emplace(ids_.of(false, entry.name), entry.address);
  dialer_.setTargets(std::move(targets));
}

// --- workers -------------------------------------------------------------------------------------------------------

void Monitor::start(ReportedSandbox ownSandbox) {
  ownSandbox_ = std::move(ownSandbox);
  rotateCookieKey();
  for (auto& worker : workers_) startWorker(*worker);
}

void Monitor::startWorker(WorkerProcess& worker) {
  try {
    worker.start([this](WorkerProcess& from, ControlChannel::Received& received) { onRecord(from, received); });
  } catch (const kj::Exception& e) {
    logError("can't start a worker: " + sanitized(std::string(e.getDescription().cStr())));
  }
}

// Whatever goes wrong with one worker's wish stays with that worker.
void Monitor::onRecord(WorkerProcess& worker, ControlChannel::Received& received) {
  if (!worker.running()) return;
  try {
    handle(worker, received);
  } catch (const kj::Exception& e) {
    logError("worker " + std::to_string(worker.index()) +
             " is ended: " + sanitized(std::string(e.getDescription().cStr())));
    worker.condemn();
  }
}

void Monitor::handle(WorkerProcess& worker, ControlChannel::Received& received) {
  const ControlRecord& record = received.record;
  const auto answerWith = [&](ControlKind kind, uint64_t value, std::string_view text) {
    worker.send({.kind = kind, .request = record.request, .value = value},
                asBytes(text.substr(0, MAX_CONTROL_BYTES - sizeof record)));
  };
  switch (record.kind) {
    case ControlKind::Ready:
      worker.markReady({reinterpret_cast<const char*>(received.payload.data()), received.payload.size()});
      return equip(worker);
    case ControlKind::Dial: return dialer_.dial(record.target, record.value, worker.index(), record.request);
    case ControlKind::DialOutcome: return dialer_.ended(record.target, static_cast<int>(record.value));
    case ControlKind::VaultLost:
      worker.wantsVault = true;
      vaultState_ = "lost; trying to connect";
      return connectVault();
    case ControlKind::StatusRequest: {
      if (worker.index() != 0) break;
      std::vector<kj::AutoCloseFd> fds;
      fds.push_back(writeMemoryFile("netd status", statusReport()));
      return worker.send({.kind = ControlKind::StatusReport, .request = record.request}, {}, std::move(fds));
    }
    case ControlKind::ReloadRequest: {
      if (worker.index() != 0) break;
      const auto outcome = reloadFile();
      return answerWith(ControlKind::ReloadDone, outcome ? 1 : 0, outcome ? outcome->changes : outcome.error().text());
    }
    case ControlKind::Drained: return;
    case ControlKind::WhoCalls: {
      // In its own user namespace a worker can't name the users of the host.
      LocalUser user{OVERFLOW_ID};
      std::vector<kj::AutoCloseFd> caller;
      if (!received.fds.empty()) {
        user = localUser(received.fds[0]);
        caller.push_back(kj::mv(received.fds[0]));
      }
      return worker.send({.kind = ControlKind::Caller, .target = record.target, .value = user.uid}, {},
                         std::move(caller));
    }
    default: break;
  }
  // A worker that says what this worker never says has been taken over, or is broken.
  KJ_FAIL_REQUIRE("it sent a record that it may not send");
}

// Hands a fresh worker everything it needs.
void Monitor::equip(WorkerProcess& worker) {
  logInfo("worker " + std::to_string(worker.index()) + " ready pid=" + std::to_string(worker.pid()) +
          " sandbox=" + worker.sandbox().verdict);
  if (worker.index() == 0) {
    std::vector<kj::AutoCloseFd> pages;
    for (const auto& other : workers_) pages.emplace_back(copyOf(other->statsReadOnlyFd()));
    worker.send({.kind = ControlKind::Stats}, {}, std::move(pages));
  }
  std::vector<kj::AutoCloseFd> config;
  config.push_back(writeMemoryFile("netd config", encodeWorkerConfig(config_, ids_, generation_, workerCount_)));
  worker.send({.kind = ControlKind::Config}, {}, std::move(config));
  if (previousCookieKey_) worker.send({.kind = ControlKind::CookieKey}, previousCookieKey_->expose());
  worker.send({.kind = ControlKind::CookieKey}, cookieKey_->expose());
  if (draining_) return worker.send({.kind = ControlKind::Drain});
  if (worker.index() == 0) {
    if (netListener_.get() >= 0) worker.sendFd(ControlKind::NetListener, NET_SOCKET, netListener_);
    if (metricsListener_.get() >= 0) worker.sendFd(ControlKind::MetricsListener, 0, metricsListener_);
  }
  for (const auto& [id, listening] : listeners_) sendListener(worker, id, listening);
  connectVault();
}

void Monitor::onChildExit() {
  int status = 0;
  while (true) {
    const pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0) return;
    if (dialer_.childExited(pid)) continue;
    for (auto& worker : workers_) {
      if (worker->pid() == pid) workerExited(*worker, status, pid);
    }
  }
}

void Monitor::workerExited(WorkerProcess& worker, int status, pid_t pid) {
  const bool wasReady = worker.ready();
  const uint32_t backOffMs = worker.exited();
  if (draining_) {
    if (std::ranges::none_of(workers_, [](const auto& other) { return other->running(); })) loop_.stop();
    return;
  }
  logWarning("worker " + std::to_string(worker.index()) + " " + sandbox::explainExit(status, pid) +
             "; starting it again in " + std::to_string(backOffMs) + " ms");
  if (!wasReady && worker.restarts() == 1 && WIFEXITED(status)) {
    logError("a worker refuses to serve: its own message stands above");
    failed_ = true;
    return loop_.stop();
  }
  mendListeners();
  worker.startingAgain = loop_.timer()
                             .afterDelay(backOffMs * kj::MILLISECONDS)
                             .then([this, &worker] {
                               if (!draining_ && !worker.running()) startWorker(worker);
                             })
                             .eagerlyEvaluate(nullptr);
}

// --- vault and cookie keys -----------------------------------------------------------------------------------------

void Monitor::connectVault() {
  bool waiting = false;
  for (auto& worker : workers_) {
    if (!worker->mayHaveVaultLink()) {
      waiting = waiting || (worker->wantsVault && worker->ready());
      continue;
    }
    try {
      // By the folder's descriptor: our own uid may be unable to walk the path.
      const auto path = vaultFolder_.get() >= 0
                            ? std::filesystem::path("/proc/self/fd/" + std::to_string(vaultFolder_.get())) /
                                  config_.vault.netSocket.filename()
                            : config_.vault.netSocket;
      worker->sendVaultLink(kj::AutoCloseFd(connectUnix(path)));
      vaultState_ = "connected";
    } catch (const kj::Exception&) {
      vaultState_ = "can't connect to " + config_.vault.netSocket.string() + ": is vaultd running?";
      waiting = true;
    }
  }
  if (!waiting || vaultTimerArmed_) return;
  vaultTimerArmed_ = true;
  vaultTimer_ = loop_.timer()
                    .afterDelay(VAULT_RETRY_MS * kj::MILLISECONDS)
                    .then([this] {
                      loop_.defer([this] {
                        vaultTimerArmed_ = false;
                        connectVault();
                      });
                    })
                    .eagerlyEvaluate(nullptr);
}

// protocol §7: a new key every minute, two kept.
void Monitor::rotateCookieKey() {
  if (cookieKey_) previousCookieKey_ = std::move(cookieKey_);
  cookieKey_ = MinuteKey::random();
  for (auto& worker : workers_) {
    if (worker->ready()) worker->send({.kind = ControlKind::CookieKey}, cookieKey_->expose());
  }
}

// --- reload and drain ----------------------------------------------------------------------------------------------

Result<Reloaded, NotReloaded> Monitor::reloadFile() {
  std::ifstream file(config_.file, std::ios::binary);
  if (file) {
    std::ostringstream text;
    text << file.rdbuf();
    return reload(text.str());
  }
  // As it was opened at the start, if nobody has put another file in its place.
  struct stat info {};
  if (configFile_.get() >= 0 && fstat(configFile_, &info) == 0 && info.st_nlink > 0) {
    auto text = readWhole(configFile_);
    return text ? reload(*text) : refuse(NotReloaded{text.error()});
  }
  return refuse(NotReloaded{"netd may not read " + config_.file.string() + " since it gave up root",
                            "use `sallyport reload`, which hands it over"});
}

Result<Reloaded, NotReloaded> Monitor::reload(std::string_view text) {
  try {
    return apply(text);
  } catch (const kj::Exception& e) {
    return refuse(NotReloaded{"out of resources: " + sanitized(std::string(e.getDescription().cStr()))});
  }
}

Result<Reloaded, NotReloaded> Monitor::apply(std::string_view text) {
  auto fresh = parseConfig(text, config_.file);
  if (!fresh) return refuse(NotReloaded::by(fresh.error(), config_.file));
  auto made = bindNew(*fresh);
  if (!made) return refuse(NotReloaded::by(made.error(), config_.file));
  auto& [bound, heirs] = *made;
  const Reloaded done{describeChanges(config_, *fresh), needsRestart(config_, *fresh)};
  const auto encoded = encodeWorkerConfig(*fresh, ids_, generation_ + 1, workerCount_);
  std::map<WorkerProcess*, kj::AutoCloseFd> configs;
  for (auto& worker : workers_) {
    if (worker->ready()) configs.emplace(worker.get(), writeMemoryFile("netd config", encoded));
  }

  // From here on it is done. Entries that are gone or moved lose their listeners first.
  const Addresses wanted = addressesOf(*fresh);
  for (auto it = listeners_.begin(); it != listeners_.end();) {
    auto& [id, listening] = *it;
    if (wanted.contains(id) && !bound.contains(id)) {
      ++it;
      continue;
    }
    if (const auto heir = heirs.find(id); heir != heirs.end()) {
      takeFromWorkers(id);
      bound[heir->second].sockets = std::move(listening.sockets);
    } else {
      stopListening(id, listening);
    }
    it = listeners_.erase(it);
  }
  std::vector<uint32_t> begun;
  for (const uint32_t id : changeOfWorkers(*fresh)) {
    if (!listeners_.contains(id)) continue;  // it has moved, too
    takeFromWorkers(id);
    begun.push_back(id);
  }
  for (auto& [id, listening] : bound) {
    begun.push_back(id);
    listeners_[id] = std::move(listening);
  }
  config_ = std::move(*fresh);
  ++generation_;
  setTargets();
  for (auto& [worker, file] : configs) {
    try {
      std::vector<kj::AutoCloseFd> fds;
      fds.push_back(kj::mv(file));
      worker->send({.kind = ControlKind::Config}, {}, std::move(fds));
      for (const uint32_t id : begun) sendListener(*worker, id, listeners_[id]);
    } catch (const kj::Exception& e) {
      // It gets all of it when it starts again.
      logError("worker " + std::to_string(worker->index()) +
               " can't be told of a reload: " + sanitized(std::string(e.getDescription().cStr())));
      worker->condemn();
    }
  }
  logInfo("reloaded: " + done.changes);
  return done;
}

void Monitor::drain() {
  if (draining_) return;
  draining_ = true;
  logInfo("draining: no new connections");
  listeners_.clear();
  bool any = false;
  for (auto& worker : workers_) {
    any = any || worker->running();
    worker->send({.kind = ControlKind::Drain});
  }
  if (!any) return loop_.stop();
  drainTimer_ = loop_.timer()
                    .afterDelay((config_.limits.drainTimeoutMs + KILL_AFTER_DRAIN_MS) * kj::MILLISECONDS)
                    .then([this] {
                      logWarning("workers did not end in time");
                      loop_.stop();  // the destructor kills them
                    })
                    .eagerlyEvaluate(nullptr);
}

// --- status --------------------------------------------------------------------------------------------------------

std::vector<std::byte> Monitor::statusReport() const {
  MonitorStatus status{.config = config_,
                       .self = {getpid(), startedAtMs_ / 1000, 0, ownSandbox_},
                       .workers = {},
                       .entry =
                           [this](bool isListen, const std::string& name) {
                             const uint32_t id = const_cast<EntryIds&>(ids_).of(isListen, name);
                             std::string problem = dialer_.problem(id);
                             const auto asks = [](const auto& worker) {
                               return worker->ready() && !worker->wantsVault;
                             };
                             if (problem.empty() && std::ranges::none_of(workers_, asks)) problem = "no vault to ask";
                             return MonitorStatus::Entry{id, std::move(problem)};
                           },
                       .workerCount = workerCount_,
                       .vault = vaultState_,
                       .draining = draining_};
  for (const auto& worker : workers_) {
    status.workers.push_back({worker->pid(), worker->startedAtMs() / 1000, worker->restarts(), worker->sandbox()});
  }
  return encodeStatusReport(status);
}

}  // namespace sallyport::netd
