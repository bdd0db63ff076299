// echo.h - the built-in echo service: each frame is returned as it came, whatever the protocol (link.h). Part of:
// netd-worker (edge). For health checks and tests. The end of a stream is returned too; the empty message of curve_tun
// is one like any other here (docs/protocol.md §5), the end of the peer protocol ends the connection (§13.2).
#pragma once

#include "netd/connection.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

template <typename Link>
class EchoSessionOf final : public Connection, EventLoop::Watcher {
 public:
  EchoSessionOf(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer, WireSessionOf<Link> wire);

  void resume() override { pump(); }
  int wireFd() const override { return socket_; }
  size_t heldBytes() const override { return toWire_.held() + link_.held(); }
  std::optional<uint32_t> blockVersion() const override { return link_.blockVersion(); }

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void pump();
  bool echoSome();

  kj::AutoCloseFd socket_;
  Link link_;
  Sources::Ticket ticket_;
  Stash toWire_;
  bool readable_ = true;
  bool hungUp_ = false;
  bool ended_ = false;  // the peer's direction by its authenticated end, and ours by the same, given back
};

extern template class EchoSessionOf<CurveLink>;
extern template class EchoSessionOf<PeerLink>;

}  // namespace sallyport::netd
