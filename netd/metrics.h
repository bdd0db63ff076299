// metrics.h - counters as text for Prometheus. Part of: netd-worker 0 (edge).
// Serves GET /metrics over the listening socket that the monitor bound (Unix, or loopback). The request is read up to
// its first line and 4 KiB, whatever it says after that is ignored; one answer, then the connection is closed. Nothing
// secret is in a counter.
#pragma once

#include <list>
#include <memory>
#include <string>

#include <kj/async.h>
#include <kj/io.h>

#include "common/event_loop.h"

namespace sallyport::netd {

class Worker;

class MetricsServer final : EventLoop::Watcher {
 public:
  MetricsServer(Worker& worker, kj::AutoCloseFd listener);
  ~MetricsServer();

 private:
  class Client;
  void onEvents(uint32_t events) override;
  std::string page() const;
  void drop(Client& client);
  void pause();

  Worker& worker_;
  kj::AutoCloseFd listener_;
  std::list<std::unique_ptr<Client>> clients_;
  std::shared_ptr<bool> alive_;
  bool paused_ = false;
  kj::Promise<void> resuming_ = nullptr;
};

}  // namespace sallyport::netd
