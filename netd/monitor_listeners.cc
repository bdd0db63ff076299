// monitor_listeners.cc - what the monitor listens on, and hands to its workers: see monitor.h.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include <kj/debug.h>

#include "common/log.h"
#include "common/socket_group.h"
#include "netd/listening_sockets.h"
#include "netd/monitor.h"

namespace sallyport::netd {

namespace {

// Not if it was shut down, by whomever it was handed to. A TCP socket then no longer listens; a Unix socket seems to.
bool accepts(int socket) {
  int on = 0;
  socklen_t length = sizeof on;
  if (getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &on, &length) != 0 || on == 0) return false;
  pollfd end{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return poll(&end, 1, 0) == 0;
}

// What a socket is for belongs to it: the kernel deals connections to every socket of an address, so one that no worker
// accepts on would swallow them.
std::string purposeOf(const Address& address, bool oneWorker) {
  return toString(address) + (oneWorker ? " one worker" : "");
}

}  // namespace

Monitor::Purposes Monitor::purposesOf(const Config& config) {
  Purposes purposes;
  for (const ListenEntry& entry : config.listens) {
    const bool oneWorker = std::holds_alternative<ChannelService>(entry.service);
    purposes.emplace(ids_.of(true, entry.name), purposeOf(entry.address, oneWorker));
  }
  for (const ConnectEntry& entry : config.connects) {
    if (entry.listen) purposes.emplace(ids_.of(false, entry.name), purposeOf(*entry.listen, false));
  }
  return purposes;
}

Result<Monitor::NewListeners, ConfigError> Monitor::bindNew(const Config& fresh) {
  NewListeners result;
  const Purposes wanted = purposesOf(fresh);
  // An address that goes from one entry to another (a new name, or two that swap) keeps its sockets.
  const auto giverOf = [&](const std::string& purpose) {
    return std::ranges::find_if(listeners_, [&](const auto& each) {
      const auto still = wanted.find(each.first);
      return each.second.purpose == purpose && (still == wanted.end() || still->second != purpose);
    });
  };
  std::vector<std::filesystem::path> made;  // files of sockets
  const auto bind = [&](uint32_t id, const Address& address, mode_t unixMode, bool oneWorker,
                        unsigned line) -> Result<void, ConfigError> {
    const std::string purpose = purposeOf(address, oneWorker);
    const auto known = listeners_.find(id);
    if (known != listeners_.end() && known->second.purpose == purpose) return {};
    if (const auto giver = giverOf(purpose); giver != listeners_.end()) {
      result.heirs.emplace(giver->first, id);
      result.bound.emplace(id, Listening{purpose, {}});  // apply() hands the sockets over
      return {};
    }
    auto sockets =
        bindListeners(address, unixMode, oneWorker ? 1 : workerCount_, line, reloadSocket_ ? &config_ : nullptr);
    if (!sockets) {
      for (const auto& path : made) ::unlink(path.c_str());  // nothing is left of what is not taken up
      return refuse(sockets.error());
    }
    if (const auto* local = std::get_if<UnixAddress>(&address)) made.push_back(local->path);
    result.bound.emplace(id, Listening{purpose, std::move(*sockets)});
    return {};
  };
  for (const ListenEntry& entry : fresh.listens) {
    if (auto done = bind(ids_.of(true, entry.name), entry.address, ENTRY_SOCKET_MODE,
                         std::holds_alternative<ChannelService>(entry.service), entry.line);
        !done)
      return refuse(done.error());
  }
  for (const ConnectEntry& entry : fresh.connects) {
    if (!entry.listen) continue;
    if (auto done = bind(ids_.of(false, entry.name), *entry.listen, ENTRY_SOCKET_MODE, false, entry.line); !done)
      return refuse(done.error());
  }
  return result;
}

Result<void, ConfigError> Monitor::openListeners() {
  auto bound = bindNew(config_);
  if (!bound) return refuse(bound.error());
  listeners_ = std::move(bound->bound);
  if (auto own = bindOwnListeners(); !own) return own;
  reloadSocket_ = std::make_unique<ReloadSocket>(loop_, config_.net.adminSocket,
                                                 [this](std::string_view text) { return reload(text); });
  setTargets();
  return {};
}

// [net] socket and the metrics page, which worker 0 serves: those that don't listen, at the start or any more.
Result<void, ConfigError> Monitor::bindOwnListeners() {
  if (config_.net.metrics && !accepts(metricsListener_)) {
    metricsListener_ = nullptr;
    auto sockets = bindListeners(*config_.net.metrics, METRICS_SOCKET_MODE, 1, 0);
    if (!sockets) return refuse(sockets.error());
    KJ_SYSCALL(listen(sockets->front(), 16));
    metricsListener_ = kj::mv(sockets->front());
  }
  if (accepts(netListener_)) return {};
  netListener_ = nullptr;
  auto sockets = bindListeners(UnixAddress{config_.net.socket}, NET_SOCKET_MODE, 1, 0);
  if (!sockets) return refuse(sockets.error());
  netListener_ = kj::mv(sockets->front());
  if (const auto& group = config_.net.socketGroup; !group.empty()) {
    if (const auto shared = shareWithGroup(config_.net.socket, group); !shared) return refuse(shared.error());
  }
  return {};
}

// Channels and their programs are in worker 0: docs/decisions.
bool Monitor::servedBy(uint32_t id, const WorkerProcess& worker) const {
  if (worker.index() == 0) return true;
  return std::ranges::none_of(config_.listens, [&](const ListenEntry& entry) {
    return std::holds_alternative<ChannelService>(entry.service) &&
           const_cast<EntryIds&>(ids_).of(true, entry.name) == id;
  });
}

void Monitor::sendListener(WorkerProcess& worker, uint32_t id, const Listening& listening) {
  if (!servedBy(id, worker)) return;
  const bool isListen =
      std::ranges::any_of(config_.listens, [&](const ListenEntry& entry) { return ids_.of(true, entry.name) == id; });
  KJ_REQUIRE(!listening.sockets.empty());
  const size_t own = std::min<size_t>(worker.index(), listening.sockets.size() - 1);
  worker.sendFd(isListen ? ControlKind::WireListener : ControlKind::PlainListener, id, listening.sockets[own]);
}

void Monitor::takeFromWorkers(uint32_t id) {
  for (auto& worker : workers_) worker->send({.kind = ControlKind::RemoveListener, .target = id});
}

// Workers are told, and can do nothing else: the sockets themselves stop, so that their address is free.
void Monitor::stopListening(uint32_t id, const Listening& listening) {
  takeFromWorkers(id);
  for (const auto& socket : listening.sockets) shutdown(socket, SHUT_RDWR);
}

// A worker that was taken over can have shut a socket down, and with it every copy of it: those are bound anew.
void Monitor::mendListeners() {
  const auto giveUp = [](const std::string& why) {
    logError("a listener that a worker has broken can't be bound again: " + why + "; restart netd");
  };
  try {
    if (auto own = bindOwnListeners(); !own) giveUp(own.error().message);
  } catch (const kj::Exception& e) { giveUp(sanitized(std::string(e.getDescription().cStr()))); }
  Listeners whole;
  bool broken = false;
  for (auto& [id, listening] : listeners_) {
    if (std::ranges::all_of(listening.sockets, [](const auto& socket) { return accepts(socket); })) {
      whole.emplace(id, std::move(listening));
      continue;
    }
    broken = true;
    stopListening(id, listening);
  }
  listeners_ = std::move(whole);
  if (!broken) return;
  auto bound = bindNew(config_);
  if (!bound) return giveUp(bound.error().message);
  for (auto& [id, listening] : bound->bound) {
    for (auto& worker : workers_) {
      if (worker->ready()) sendListener(*worker, id, listening);
    }
    listeners_[id] = std::move(listening);
  }
}

}  // namespace sallyport::netd
