// echo.h - the built-in echo service: each message is returned as it came. Part of: netd-worker (edge).
// For health checks and tests. The empty message is returned too, so a stream that ends is answered with its end.
#pragma once

#include "netd/connection.h"
#include "netd/frame_reader.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

class EchoSession final : public Connection, EventLoop::Watcher {
 public:
  EchoSession(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer, WireSession wire);

  void resume() override { pump(); }

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void pump();
  bool echoSome();

  kj::AutoCloseFd socket_;
  Session session_;
  Sources::Ticket ticket_;
  FrameReader reader_;
  Stash toWire_;
  bool readable_ = true;
  bool hungUp_ = false;
};

}  // namespace sallyport::netd
