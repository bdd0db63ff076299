// text_page.h - one page of text for Prometheus. Part of: common (netd-worker 0 and vaultd; edge).
// Serves GET /metrics over a listening socket that was bound before lock-down (Unix, or loopback). The request is read
// up to its end and 4 KiB, whatever its lines say after the first is ignored; one answer, then the connection is
// closed. At most 16 clients at a time, 5 s each. What the page holds is the owner's business: nothing secret.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include <kj/async.h>
#include <kj/io.h>

#include "common/event_loop.h"

namespace sallyport {

class TextPageServer final : EventLoop::Watcher {
 public:
  using Page = std::function<std::string()>;
  TextPageServer(EventLoop& loop, kj::AutoCloseFd listener, Page page);
  ~TextPageServer();

 private:
  class Client;
  void onEvents(uint32_t events) override;
  void drop(Client& client);
  void pause();

  EventLoop& loop_;
  kj::AutoCloseFd listener_;
  Page page_;
  std::list<std::unique_ptr<Client>> clients_;  // the eldest in front
  uint64_t nextNumber_ = 0;
  std::shared_ptr<bool> alive_;
  bool paused_ = false;
  kj::Promise<void> resuming_ = nullptr;
};

}  // namespace sallyport
