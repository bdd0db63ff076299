// echo.cc - see echo.h.
#include "netd/echo.h"

#include <cstring>

#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

template <typename Link>
EchoSessionOf<Link>::EchoSessionOf(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer,
                                   WireSessionOf<Link> wire)
    : Connection(worker, std::move(entry), peer),
      socket_(kj::mv(wire.socket)),
      link_(std::move(wire.link)),
      ticket_(std::move(wire.ticket)) {
  worker_.loop().add(socket_, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
  worker_.stats().add(Counter::Echoes);
  worker_.stats().add(Counter::Connections);
}

template <typename Link>
void EchoSessionOf<Link>::release(bool) {
  worker_.loop().remove(socket_, *this);
  link_.clear(worker_.budget());
  toWire_.clear(worker_.budget());
  socket_ = nullptr;
  ticket_ = {};
  worker_.stats().subtract(Counter::Echoes);
  worker_.stats().subtract(Counter::Connections);
}

template <typename Link>
void EchoSessionOf<Link>::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hungUp_ = true;
  pump();
}

template <typename Link>
void EchoSessionOf<Link>::pump() {
  static constexpr int ROUNDS = 4;
  for (int round = 0; round < ROUNDS && !over(); ++round) {
    if (!echoSome()) break;
    touch();
  }
  if (over()) return;
  // protocol §13.2: both directions have their authenticated end, and nothing waits, nor lies behind it.
  if (ended_ && toWire_.empty() && !readable_) return finish();
  worker_.setWaiting(*this, !toWire_.empty() || link_.partial());
  if (readable_ && toWire_.empty()) worker_.yield(*this);
}

template <typename Link>
bool EchoSessionOf<Link>::echoSome() {
  if (!toWire_.empty() && flushStash(socket_, toWire_, worker_.budget()) == IoState::Failed) {
    fail(DropReason::TransportError);
    return false;
  }
  if (!toWire_.empty() || !readable_) return false;
  const WireRead read = link_.read(socket_, worker_.scratch(), Link::FRAMES_PER_TURN, hungUp_, worker_.budget());
  readable_ = read.state == ReadState::More;
  // The text stays where it is, and so does the frame: opened and sealed again in place.
  std::byte* first = nullptr;
  size_t good = 0;
  const auto use = [&](const OpenedFrame& opened) -> std::optional<DropReason> {
    if constexpr (Link::CHANNELS_END) ended_ = opened.end;
    if (auto exhausted = link_.seal(worker_.ciphers(), opened.frame, opened.code)) return exhausted;
    worker_.stats().add(Counter::MessagesOpened);
    worker_.stats().add(Counter::MessagesSealed);
    if (first == nullptr) first = opened.frame.data();
    // A frame that isn't given back may have been between them.
    if (first + good != opened.frame.data()) std::memmove(first + good, opened.frame.data(), opened.frame.size());
    good += opened.frame.size();
    return std::nullopt;
  };
  const auto fault = link_.openEach(worker_.ciphers(), read, worker_.budget(), use);
  if (good > 0) {
    iovec part{.iov_base = first, .iov_len = good};
    if (sendAll(socket_, std::span(&part, 1), toWire_, worker_.budget()) == IoState::Failed) {
      fail(DropReason::TransportError);
      return false;
    }
  }
  link_.done(worker_.budget());
  if (fault) {
    fail(*fault);
    return false;
  }
  switch (read.state) {
    case ReadState::Drained:
    case ReadState::More: return good > 0;
    case ReadState::Eof:
      // The only goodbye of curve_tun 1.0; where there is an authenticated one, it hasn't come.
      if (Link::CHANNELS_END && !ended_)
        fail(DropReason::Truncated);
      else
        finish();
      return false;
    case ReadState::EofInside: fail(DropReason::Truncated); return false;
    case ReadState::Failed: fail(DropReason::TransportError); return false;
  }
  return false;
}

template class EchoSessionOf<CurveLink>;
template class EchoSessionOf<PeerLink>;

}  // namespace sallyport::netd
