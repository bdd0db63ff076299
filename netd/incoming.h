// incoming.h - an accepted connection until it is a session, whatever its protocol. Part of: netd-worker (edge).
// docs/protocol.md §3, §13. What the protocols have in common here: a connection is half-open until its peer has proved
// who it is, it counts as such, and only then anything is dialled or anybody told. The deadline runs from accept and
// nothing extends it. The handshakes themselves are in incoming_curve.cc and incoming_peer.cc.
#pragma once

#include <optional>

#include "netd/connection.h"
#include "netd/dialed_socket.h"
#include "netd/sources.h"
#include "netd/vault_client.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

template <typename Link>
class IncomingOf : public Connection, protected EventLoop::Watcher {
 public:
  IncomingOf(Worker& worker, std::shared_ptr<const Entry> entry, kj::AutoCloseFd socket, const Origin& origin,
             Sources::Ticket ticket);
  ~IncomingOf() noexcept(false) override;

  Dropped describe(wire::DropReason reason) const override;
  std::optional<uint32_t> blockVersion() const override { return link_ ? link_->blockVersion() : std::nullopt; }

 protected:
  // The peer is who it has to be. `peer` and `name` are what is known of it, if anything.
  void established(Link link, const PublicKey& peer, const std::string& name);
  // While the handshake is under way.
  virtual void onHandshakeEvents() = 0;
  void release(bool failed) override;

  kj::AutoCloseFd socket_;
  std::unique_ptr<VaultClient::Question> question_;

 private:
  void onEvents(uint32_t events) override;
  void onDialed(kj::Maybe<kj::AutoCloseFd> target);
  WireSessionOf<Link> takeSession();

  Origin origin_;
  Sources::Ticket ticket_;
  std::optional<Link> link_;  // when it is established
  std::unique_ptr<DialedSocket> dial_;
  bool counted_ = true;  // as half-open
  bool gone_ = false;    // the peer; what it sent before may still be in the socket
};

}  // namespace sallyport::netd
