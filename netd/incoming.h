// incoming.h - an accepted connection until it is a session. Part of: netd-worker (edge).
// docs/protocol.md §3. Reads no byte beyond the packet that the state expects, so what a client sends right behind its
// Initiate is still in the socket when the session begins. Holds 226 bytes and a hash; the deadline runs from accept
// and nothing extends it.
#pragma once

#include <sys/socket.h>

#include <optional>

#include "netd/connection.h"
#include "netd/dialed_socket.h"
#include "netd/handshake.h"
#include "netd/sources.h"
#include "netd/vault_client.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

class IncomingHandshake final : public Connection, EventLoop::Watcher {
 public:
  IncomingHandshake(Worker& worker, std::shared_ptr<const Entry> entry, kj::AutoCloseFd socket,
                    const sockaddr_storage& address, Sources::Ticket ticket);
  ~IncomingHandshake() noexcept(false) override;

  wire::DropReason timeoutReason() const override;
  Dropped describe(wire::DropReason reason) const override;

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void readPacket();
  void perform(ServerHandshake::Step step);
  void onEstablished(Established established);
  void onDialed(kj::Maybe<kj::AutoCloseFd> target);

  kj::AutoCloseFd socket_;
  sockaddr_storage address_;
  Sources::Ticket ticket_;
  ServerHandshake machine_;
  std::unique_ptr<VaultClient::Question> question_;
  PublicKey claimed_;  // the long-term key in the Initiate; the vault says whether the peer has it
  std::optional<Established> established_;
  std::unique_ptr<DialedSocket> dial_;
  std::array<std::byte, wire::FRAME_HEADER_BYTES + wire::INITIATE_BYTES> packet_;
  size_t have_ = 0;
  bool counted_ = true;  // as half-open
};

}  // namespace sallyport::netd
