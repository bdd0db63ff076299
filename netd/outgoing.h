// outgoing.h - a connection to a configured host until it is a session, whatever its protocol. Part of: netd-worker
// (edge). docs/protocol.md §3, §13. Dial, handshake; one deadline for all of it. The handshakes themselves are in
// outgoing_curve.cc and outgoing_peer.cc.
#pragma once

#include <kj/function.h>

#include "netd/connection.h"
#include "netd/dialed_socket.h"
#include "netd/vault_client.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

template <typename Link>
class OutgoingOf : public Connection, protected EventLoop::Watcher {
 public:
  // `onDone` is called once, with the session or the reason why there is none.
  using OnDone = kj::Function<void(Result<WireSessionOf<Link>, wire::DropReason>)>;
  OutgoingOf(Worker& worker, std::shared_ptr<const Entry> entry, OnDone onDone);
  ~OutgoingOf() noexcept(false) override;

  wire::DropReason timeoutReason() const override;

 protected:
  // The host is connected.
  virtual void start() = 0;
  virtual void onReadable() = 0;
  void release(bool failed) override;
  void drop(wire::DropReason reason);
  void established(Link link);

  kj::AutoCloseFd socket_;
  std::unique_ptr<VaultClient::Question> question_;

 private:
  void onEvents(uint32_t events) override;
  void onDialed(kj::Maybe<kj::AutoCloseFd> socket);

  OnDone onDone_;
  bool told_ = false;
  std::unique_ptr<DialedSocket> dial_;
};

}  // namespace sallyport::netd
