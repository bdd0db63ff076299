// outgoing.h - a connection to a configured server until it is a session. Part of: netd-worker (edge).
// docs/protocol.md §3, the client's side: dial, Hello, Cookie, vouch from the vault, Initiate; one deadline for all of
// it.
#pragma once

#include <optional>

#include <kj/function.h>

#include "netd/connection.h"
#include "netd/dialed_socket.h"
#include "netd/handshake.h"
#include "netd/vault_client.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

class OutgoingHandshake final : public Connection, EventLoop::Watcher {
 public:
  // `onDone` is called once, with the session or the reason why there is none.
  using OnDone = kj::Function<void(Result<WireSession, wire::DropReason>)>;
  OutgoingHandshake(Worker& worker, std::shared_ptr<const Entry> entry, OnDone onDone);
  ~OutgoingHandshake() noexcept(false) override;

  wire::DropReason timeoutReason() const override;

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void onDialed(kj::Maybe<kj::AutoCloseFd> socket);
  void readCookie();
  void perform(ClientHandshake::Step step);
  void drop(wire::DropReason reason);
  [[nodiscard]] bool sendWhole(ByteSpan frame);

  OnDone onDone_;
  bool told_ = false;
  kj::AutoCloseFd socket_;
  ClientHandshake machine_;
  std::unique_ptr<VaultClient::Question> question_;
  std::unique_ptr<DialedSocket> dial_;
  std::array<std::byte, wire::FRAME_HEADER_BYTES + wire::COOKIE_PACKET_BYTES> packet_;
  size_t have_ = 0;
};

}  // namespace sallyport::netd
