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

bool isOfOneWorker(const ListenEntry& entry) { return std::holds_alternative<ChannelService>(entry.service); }

}  // namespace

// Entries of both configurations that other workers serve in the fresh one.
std::vector<uint32_t> Monitor::changeOfWorkers(const Config& fresh) {
  std::vector<uint32_t> changed;
  for (const ListenEntry& before : config_.listens) {
    const auto after = std::ranges::find(fresh.listens, before.name, &ListenEntry::name);
    if (after != fresh.listens.end() && isOfOneWorker(before) != isOfOneWorker(*after))
      changed.push_back(ids_.of(true, before.name));
  }
  return changed;
}

Monitor::Addresses Monitor::addressesOf(const Config& config) {
  Addresses addresses;
  for (const ListenEntry& entry : config.listens) addresses.emplace(ids_.of(true, entry.name), toString(entry.address));
  for (const ConnectEntry& entry : config.connects) {
    if (entry.listen) addresses.emplace(ids_.of(false, entry.name), toString(*entry.listen));
  }
  return addresses;
}

Result<Monitor::NewListeners, ConfigError> Monitor::bindNew(const Config& fresh) {
  NewListeners result;
  const Addresses wanted = addressesOf(fresh);
  // An address that goes from one entry to another (a new name, or two that swap) keeps its sockets.
  const auto giverOf = [&](const std::string& text) {
    return std::ranges::find_if(listeners_, [&](const auto& each) {
      const auto still = wanted.find(each.first);
      return each.second.address == text && (still == wanted.end() || still->second != text);
    });
  };
  std::vector<std::filesystem::path> made;  // files of sockets
  const auto bind = [&](uint32_t id, const Address& address, unsigned line) -> Result<void, ConfigError> {
    const std::string text = toString(address);
    const auto known = listeners_.find(id);
    if (known != listeners_.end() && known->second.address == text) return {};
    if (const auto giver = giverOf(text); giver != listeners_.end()) {
      result.heirs.emplace(giver->first, id);
      result.bound.emplace(id, Listening{text, {}});  // apply() hands the sockets over
      return {};
    }
    auto sockets = bindListeners(address, ENTRY_SOCKET_MODE, workerCount_, line, reloadSocket_ ? &config_ : nullptr);
    if (!sockets) {
      for (const auto& path : made) ::unlink(path.c_str());  // nothing is left of what is not taken up
      return refuse(sockets.error());
    }
    if (const auto* local = std::get_if<UnixAddress>(&address)) made.push_back(local->path);
    result.bound.emplace(id, Listening{text, std::move(*sockets)});
    return {};
  };
  for (const ListenEntry& entry : fresh.listens) {
    if (auto done = bind(ids_.of(true, entry.name), entry.address, entry.line); !done) return refuse(done.error());
  }
  for (const ConnectEntry& entry : fresh.connects) {
    if (!entry.listen) continue;
    if (auto done = bind(ids_.of(false, entry.name), *entry.listen, entry.line); !done) return refuse(done.error());
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

// Channels and their programs are in worker 0, which has every socket of their addresses: the kernel deals connections
// to each of them, and one that nobody accepts on would swallow its share. So an entry's service can change without a
// socket being bound or closed, and what waits in a queue waits for whoever serves the entry then.
void Monitor::sendListener(WorkerProcess& worker, uint32_t id, const Listening& listening) {
  KJ_REQUIRE(!listening.sockets.empty());
  const auto entry =
      std::ranges::find_if(config_.listens, [&](const ListenEntry& each) { return ids_.of(true, each.name) == id; });
  const auto kind = entry != config_.listens.end() ? ControlKind::WireListener : ControlKind::PlainListener;
  if (entry != config_.listens.end() && isOfOneWorker(*entry)) {
    if (worker.index() != 0) return;
    for (const auto& socket : listening.sockets) worker.sendFd(kind, id, socket);
    return;
  }
  const size_t own = std::min<size_t>(worker.index(), listening.sockets.size() - 1);
  worker.sendFd(kind, id, listening.sockets[own]);
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
