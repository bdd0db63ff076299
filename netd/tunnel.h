// tunnel.h - a byte stream carried over an encrypted connection, whatever its protocol (link.h). Part of: netd-worker
// (edge). docs/protocol.md §5. A stream travels in non-empty frames; one of them is the authenticated end of its
// direction. The wire's own end without it is truncation: the local side gets a reset, never a clean end of file.
// Back-pressure is end to end: while bytes wait for one side, the other is not read.
#pragma once

#include "netd/connection.h"
#include "netd/wire_session.h"

namespace sallyport::netd {

template <typename Link>
class TunnelOf final : public Connection {
 public:
  // `local` has TCP_NODELAY, and setAbruptClose(): a worker that is killed in the middle must not look like the end of
  // the stream.
  TunnelOf(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer, WireSessionOf<Link> wire,
           kj::AutoCloseFd local);
  ~TunnelOf() noexcept(false) override;

  void resume() override { pump(); }
  int wireFd() const override { return wire_.fd; }
  size_t heldBytes() const override { return toWire_.held() + toLocal_.held() + link_.held(); }
  std::optional<uint32_t> blockVersion() const override { return link_.blockVersion(); }

 private:
  struct Side final : EventLoop::Watcher {
    explicit Side(TunnelOf& owner) : tunnel(owner) {}
    void onEvents(uint32_t events) override;
    TunnelOf& tunnel;
    kj::AutoCloseFd fd;
    // As last reported by the (edge-triggered) loop or found out by a call.
    bool readable = false;
    bool writable = false;
    bool hungUp = false;
  };
  enum class Moved : uint8_t { Nothing, Something };

  void release(bool failed) override;
  void pump();
  Moved sealSome();
  Moved openSome();
  void sayOpen();
  bool writeWire(size_t bytes);
  void writeLocal(std::span<iovec> parts);
  [[nodiscard]] std::optional<wire::DropReason> openFrames(const WireRead& read);
  bool flush(Side& to, Stash& stash, wire::DropReason reason);
  void afterLocalWrite();
  void noteWaiting();

  Side wire_;
  Side local_;
  Link link_;
  Sources::Ticket ticket_;
  size_t textBytes_;        // of a full frame of ours
  Stash toWire_;            // sealed
  Stash toLocal_;           // text
  uint8_t frames_ = 1;      // how many a turn may move: grows with a fast stream, falls back when one side is slow
  bool sentEnd_ = false;    // our direction is over
  bool gotEnd_ = false;     // theirs is
  bool localShut_ = false;  // and the local side was told
};

extern template class TunnelOf<CurveLink>;
extern template class TunnelOf<PeerLink>;

}  // namespace sallyport::netd
