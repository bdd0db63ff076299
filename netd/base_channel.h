// base_channel.h - a channel of the peer protocol's base mode. Part of: netd-worker (edge). docs/protocol.md §13.3.
// The vault seals and opens the frames (base_session.h). There is no authenticated end: the end of the wire is told as
// truncation, whatever it was. Never here: a byte given out before the vault called it sanctified.
#pragma once

#include "netd/base_session.h"
#include "netd/channel.h"

namespace sallyport::netd {

class BaseChannel final : public Connection, public ChannelWire, EventLoop::Watcher {
 public:
  BaseChannel(Worker& worker, std::shared_ptr<const Entry> entry, WireSessionOf<BaseLink> wire,
              std::shared_ptr<ChannelState> state);
  ~BaseChannel() noexcept(false) override;

  void resume() override { pump(); }
  int wireFd() const override { return socket_; }
  size_t heldBytes() const override {
    return toWire_.held() + plain_.size() + link_.received->size() + state_->inbox.held();
  }

  void send(std::span<const OutgoingMessage> messages) override;
  void sendEnd() override;
  bool sending() const override { return sealing_ || !plain_.empty() || !toWire_.empty(); }
  void resumeReading() override;
  void close(bool orderly) override;
  void breakOff(wire::DropReason reason) override;

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void pump();
  void readSome();
  void onOpened(Result<BaseSession::Opened, wire::DropReason> opened);
  void takeReceived();
  void deliver();
  void notePartial();
  void sealSome();
  void onSealed(Result<ByteSpan, wire::DropReason> sealed);
  void endWithSession();
  void afterSending();
  void onWriteFailed();
  void noteWaiting();
  void discard();
  void linger();

  kj::AutoCloseFd socket_;
  BaseLink link_;
  Sources::Ticket ticket_;
  std::shared_ptr<ChannelState> state_;
  ByteQueue plain_{BASE_PIECE_BYTES};  // frames that are still to be sealed; counted in the budget
  Stash toWire_;                       // sealed
  bool sealing_ = false;               // a piece is with the vault
  size_t opening_ = 0;                 // received bytes that are with the vault
  bool readable_ = true;
  bool ended_ = false;  // the wire, for reading
  std::optional<wire::DropReason> sessionEnded_;
  bool closing_ = false;
  bool deaf_ = false;  // the peer takes nothing any more; what it sent before is still read
  bool lingering_ = false;
  kj::Maybe<kj::Promise<void>> lingerTimer_;
};

// The built-in echo service for a channel: returns each frame with its code, until the channel ends.
void echoFrames(const std::shared_ptr<ChannelState>& state);

}  // namespace sallyport::netd
