// incoming_base.h - an accepted connection of the peer protocol's base mode until its first good frame. Part of:
// netd-worker (edge). docs/protocol.md §13.3. There is no preamble: the first byte is a frame's. The vault is asked
// when a whole header is there, and judges it in the same step: who holds the block has it from then on, and who
// doesn't leaves nothing behind. It uses the block up only for bytes that are genuine. A source whose connections prove
// nothing has a bounded number of questions a second, so that it doesn't use up the key's rate.
#pragma once

#include <kj/io.h>

#include "netd/base_session.h"
#include "netd/connection.h"
#include "netd/sources.h"
#include "netd/vault_client.h"

namespace sallyport::netd {

class IncomingBase final : public Connection, EventLoop::Watcher {
 public:
  IncomingBase(Worker& worker, std::shared_ptr<const Entry> entry, kj::AutoCloseFd socket, const Origin& origin,
               Sources::Ticket ticket);
  ~IncomingBase() noexcept(false) override;

  wire::DropReason timeoutReason() const override;
  Dropped describe(wire::DropReason reason) const override;

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void begin(uint32_t events);
  void readSome();
  void onOpened(Result<BaseSession::Opened, wire::DropReason> opened);
  void established();

  kj::AutoCloseFd socket_;
  Origin origin_;
  Sources::Ticket ticket_;
  std::unique_ptr<VaultClient::Question> question_;
  BaseLink link_;
  bool opening_ = false;
};

}  // namespace sallyport::netd
