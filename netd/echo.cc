// echo.cc - see echo.h.
#include "netd/echo.h"

#include "netd/socket_options.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

EchoSession::EchoSession(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer, WireSession wire)
    : Connection(worker, std::move(entry), peer),
      socket_(kj::mv(wire.socket)),
      session_(std::move(wire.session)),
      ticket_(std::move(wire.ticket)) {
  setNoDelay(socket_);
  worker_.loop().add(socket_, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
  worker_.stats().add(Counter::Echoes);
  worker_.stats().add(Counter::Connections);
}

void EchoSession::release(bool) {
  worker_.loop().remove(socket_, *this);
  reader_.clear(worker_.budget());
  toWire_.clear(worker_.budget());
  socket_ = nullptr;
  ticket_ = {};
  worker_.stats().subtract(Counter::Echoes);
  worker_.stats().subtract(Counter::Connections);
}

void EchoSession::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hungUp_ = true;
  pump();
}

void EchoSession::pump() {
  static constexpr int ROUNDS = 4;
  for (int round = 0; round < ROUNDS && !over(); ++round) {
    if (!echoSome()) break;
    touch();
  }
  if (over()) return;
  worker_.setWaiting(*this, !toWire_.empty() || reader_.partial());
  if (readable_ && toWire_.empty()) worker_.yield(*this);
}

bool EchoSession::echoSome() {
  if (!toWire_.empty() && flushStash(socket_, toWire_, worker_.budget()) == IoState::Failed) {
    fail(DropReason::TransportError);
    return false;
  }
  if (!toWire_.empty() || !readable_) return false;
  const auto outcome = reader_.read(socket_, worker_.scratch(), FRAMES_PER_READ, hungUp_, worker_.budget());
  readable_ = outcome.state == ReadState::More;
  // The text stays where it is, and so does the frame: opened and sealed again in place.
  size_t good = 0;
  const auto fault = forEachPacket(outcome.frames, [&](MutableByteSpan packet) -> std::optional<DropReason> {
    auto text = session_.open(worker_.cipher(), packet);
    if (!text) return text.error();
    const MutableByteSpan frame(packet.data() - wire::FRAME_HEADER_BYTES, packet.size() + wire::FRAME_HEADER_BYTES);
    if (auto exhausted = session_.seal(worker_.cipher(), frame)) return exhausted;
    worker_.stats().add(Counter::MessagesOpened);
    worker_.stats().add(Counter::MessagesSealed);
    good += frame.size();
    return std::nullopt;
  });
  if (good > 0) {
    iovec part{.iov_base = outcome.frames.data(), .iov_len = good};
    if (sendAll(socket_, std::span(&part, 1), toWire_, worker_.budget()) == IoState::Failed) {
      fail(DropReason::TransportError);
      return false;
    }
  }
  if (fault) {
    fail(*fault);
    return false;
  }
  switch (outcome.state) {
    case ReadState::Drained:
    case ReadState::More: return good > 0;
    case ReadState::Eof: finish(); return false;  // the only goodbye of curve_tun 1.0
    case ReadState::EofInside: fail(DropReason::Truncated); return false;
    case ReadState::Failed: fail(DropReason::TransportError); return false;
  }
  return false;
}

}  // namespace sallyport::netd
