// channel.h - a message channel between the wire and a local program. Part of: netd-worker (edge).
// Whole messages, in order; what arrived before an end is delivered before the end is told. The inbox is bounded: while
// it is full the wire is not read. The RPC object (channel_rpc.cc) and the connection share the inbox and die
// independently.
#pragma once

#include <deque>
#include <optional>

#include <kj/async.h>

#include "common/byte_queue.h"
#include "netd/connection.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

// A message, or in the peer protocol a frame, with its code.
struct OutgoingMessage {
  ByteSpan text;
  uint32_t code = 0;
};

// The connection under a channel, whatever its protocol.
class ChannelWire {
 public:
  // Seals all `messages` and starts to send them. Only when nothing waits (see sending()).
  virtual void send(std::span<const OutgoingMessage> messages) = 0;
  // Sends the end of our direction of a stream, once. Likewise.
  virtual void sendEnd() = 0;
  virtual bool sending() const = 0;
  // The inbox has room again.
  virtual void resumeReading() = 0;
  // Sends what waits, then closes. `orderly`: the program wanted it so, and where the protocol has an authenticated end
  // the peer is told; a program that died makes no end.
  virtual void close(bool orderly) = 0;
  virtual void breakOff(wire::DropReason reason) = 0;

 protected:
  ~ChannelWire() = default;
};

// Messages that arrived and who waits for them.
class Inbox {
 public:
  Inbox() = default;
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;
  ~Inbox();
  bool empty() const { return messages_.empty(); }
  size_t count() const { return messages_.size(); }
  // No more is read from the wire. Before a program has claimed the channel it may hold little.
  bool full() const;
  void claim() { claimed_ = true; }
  // So much may lie in it before it is full.
  void setRoom(size_t bytes) { room_ = bytes; }
  void setBudget(std::shared_ptr<BufferBudget> budget) { budget_ = std::move(budget); }
  // Room for so many bytes at once, instead of a little with each message.
  void expect(size_t bytes) { bytes_.room(bytes); }
  void push(ByteSpan message, uint32_t code = 0);
  // The front message; valid until the next call.
  ByteSpan front() const { return bytes_.bytes().first(messages_.front().bytes); }
  uint32_t frontCode() const { return messages_.front().code; }
  void pop();
  size_t held() const { return bytes_.size(); }
  // Takes the first bytes of the front message away; what is left of it stays in front, even if that is nothing.
  void popPart(size_t bytes);
  // Calls `use` with the sizes of the first `limit` messages until it says no.
  template <typename Use>
  void peekSizes(size_t limit, Use&& use) const {
    for (size_t i = 0; i < limit && use(size_t{messages_[i].bytes}); ++i) {}
  }
  // The same of all, with their codes.
  template <typename Use>
  void peek(Use&& use) const {
    for (auto it = messages_.begin(); it != messages_.end() && use(size_t{it->bytes}, it->code); ++it) {}
  }
  void wipeAll();

 private:
  static constexpr size_t MAX_UNCLAIMED_BYTES = 1;  // so: one read's worth
  static constexpr size_t MAX_MESSAGES = 65536;
  struct Message {
    uint32_t bytes;
    uint32_t code;
  };
  std::shared_ptr<BufferBudget> budget_;
  size_t room_ = 1 << 20;
  bool claimed_ = false;
  ByteQueue bytes_{wire::MAX_FRAME_BYTES};
  std::deque<Message> messages_;
};

// What an RPC object sees of a channel.
struct ChannelState {
  Inbox inbox;
  ChannelWire* connection = nullptr;                   // null when the wire is gone
  bool ended = false;                                  // no message will come any more
  bool peerEnded = false;                              // because the peer said so, authenticated
  bool sentEnd = false;                                // nor will we send any
  uint32_t maxMessageBytes = wire::MAX_MESSAGE_BYTES;  // that may be sent
  bool reservesCode = false;                           // hard mode: one code is the protocol's own
  std::optional<wire::PeerHeader> underWay;            // of a frame that isn't whole yet
  size_t partialBytes = 0;                             // that have arrived of such a frame, its header included
  std::optional<wire::DropReason> broken;              // why it did or will, and sends fail; nothing: the peer ended it
  std::function<void()> onNews;                        // messages came, or the end
  std::function<void()> onSent;                        // what was given to send() has left, or the wire is gone
};

template <typename Link>
class ChannelConnectionOf final : public Connection, public ChannelWire, EventLoop::Watcher {
 public:
  ChannelConnectionOf(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer,
                      WireSessionOf<Link> wire, std::shared_ptr<ChannelState> state);
  ~ChannelConnectionOf() noexcept(false) override;

  void resume() override { pump(); }
  int wireFd() const override { return socket_; }
  size_t heldBytes() const override { return toWire_.held() + link_.held() + state_->inbox.held(); }
  std::optional<uint32_t> blockVersion() const override { return link_.blockVersion(); }

  void send(std::span<const OutgoingMessage> messages) override;
  void sendEnd() override;
  bool sending() const override { return !toWire_.empty(); }
  void resumeReading() override;
  void close(bool orderly) override;
  void breakOff(wire::DropReason reason) override;

 private:
  void onEvents(uint32_t events) override;
  void release(bool failed) override;
  void pump();
  bool readSome();
  void noteWaiting();
  void linger();
  std::optional<size_t> sealInto(MutableByteSpan frames, std::span<const OutgoingMessage>& messages);
  void sendSealed(size_t bytes);
  void sayOpen();
  void onWriteFailed();
  void onNews(size_t countBefore, bool headerBefore);
  bool onEof();

  kj::AutoCloseFd socket_;
  Link link_;
  Sources::Ticket ticket_;
  Stash toWire_;
  std::shared_ptr<ChannelState> state_;
  bool readable_ = true;
  bool hungUp_ = false;
  bool closing_ = false;
  bool deaf_ = false;  // the peer takes nothing any more; what it sent before is still read
  bool gotEnd_ = false;
  bool lingering_ = false;
  kj::Maybe<kj::Promise<void>> lingerTimer_;
  kj::Maybe<kj::Promise<void>> firstWordTimer_;
};

extern template class ChannelConnectionOf<CurveLink>;
extern template class ChannelConnectionOf<PeerLink>;

}  // namespace sallyport::netd
