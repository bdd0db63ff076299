// channel.cc - see channel.h.
#include "netd/channel.h"

#include "common/secret_bytes.h"
#include "netd/sockets.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

void Inbox::push(ByteSpan message) {
  bytes_.insert(bytes_.end(), message.begin(), message.end());
  sizes_.push_back(static_cast<uint32_t>(message.size()));
}

void Inbox::pop() {
  wipe({bytes_.data() + start_, sizes_.front()});
  start_ += sizes_.front();
  sizes_.pop_front();
  if (sizes_.empty()) {
    start_ = 0;
    // A burst must not be remembered by an idle channel.
    if (bytes_.capacity() > wire::MAX_FRAME_BYTES)
      std::vector<std::byte>().swap(bytes_);
    else
      bytes_.clear();
  } else if (start_ > MAX_BYTES) {
    bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<ptrdiff_t>(start_));
    start_ = 0;
  }
}

void Inbox::wipeAll() {
  wipe(bytes_);
  std::vector<std::byte>().swap(bytes_);
  sizes_.clear();
  start_ = 0;
}

ChannelConnection::ChannelConnection(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer,
                                     WireSession wire, std::shared_ptr<ChannelState> state)
    : Connection(worker, std::move(entry), peer),
      socket_(kj::mv(wire.socket)),
      session_(std::move(wire.session)),
      ticket_(std::move(wire.ticket)),
      state_(std::move(state)) {
  state_->connection = this;
  setNoDelay(socket_);
  worker_.loop().add(socket_, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
  worker_.stats().add(Counter::Channels);
  worker_.stats().add(Counter::Connections);
}

ChannelConnection::~ChannelConnection() noexcept(false) = default;

void ChannelConnection::release(bool failed) {
  worker_.loop().remove(socket_, *this);
  reader_.clear(worker_.budget());
  toWire_.clear(worker_.budget());
  socket_ = nullptr;
  ticket_ = {};
  worker_.stats().subtract(Counter::Channels);
  worker_.stats().subtract(Counter::Connections);
  state_->connection = nullptr;
  if (failed && !state_->broken && !state_->ended) state_->broken = DropReason::PeerRevoked;
  state_->ended = true;
  // Not now: a program's object may be the caller.
  worker_.soon([state = state_] {
    if (state->onNews) state->onNews();
    if (state->onSent) state->onSent();
  });
}

void ChannelConnection::breakOff(DropReason reason) {
  if (over()) return;
  state_->broken = reason;
  fail(reason);
}

void ChannelConnection::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hungUp_ = true;
  pump();
}

void ChannelConnection::pump() {
  if (!toWire_.empty()) {
    switch (flushStash(socket_, toWire_, worker_.budget())) {
      case IoState::Done:
        if (closing_) return finish();
        if (state_->onSent) state_->onSent();
        break;
      case IoState::Blocked: break;
      case IoState::Failed: return breakOff(DropReason::TransportError);
    }
  }
  static constexpr int ROUNDS = 4;
  const size_t before = state_->inbox.count();
  for (int round = 0; round < ROUNDS && !over(); ++round) {
    if (!readSome()) break;
    touch();
  }
  if (over()) return;
  if (state_->inbox.count() != before && state_->onNews) state_->onNews();
  if (over()) return;
  worker_.setWaiting(*this, !toWire_.empty());
  if (readable_ && !state_->inbox.full()) worker_.yield(*this);
}

bool ChannelConnection::readSome() {
  if (!readable_ || state_->inbox.full()) return false;
  const auto outcome = reader_.read(socket_, worker_.scratch(), FRAMES_PER_READ, hungUp_, worker_.budget());
  readable_ = outcome.state == ReadState::More;
  uint64_t bytes = 0;
  uint64_t messages = 0;
  const auto fault = forEachPacket(outcome.frames, [&](MutableByteSpan packet) -> std::optional<DropReason> {
    auto text = session_.open(worker_.cipher(), packet);
    if (!text) return text.error();
    if (!closing_) state_->inbox.push(*text);
    bytes += text->size();
    ++messages;
    return std::nullopt;
  });
  worker_.stats().add(Counter::MessagesOpened, messages);
  worker_.stats().add(Counter::BytesOpened, bytes);
  if (fault) return breakOff(*fault), false;
  switch (outcome.state) {
    case ReadState::Drained:
    case ReadState::More: return messages > 0;
    case ReadState::Eof: finish(); return false;  // curve_tun 1.0 has no other goodbye
    case ReadState::EofInside: breakOff(DropReason::Truncated); return false;
    case ReadState::Failed: breakOff(DropReason::TransportError); return false;
  }
  return false;
}

void ChannelConnection::resumeReading() {
  if (!over() && readable_ && !state_->inbox.full()) worker_.yield(*this);
}

void ChannelConnection::send(std::span<const ByteSpan> messages) {
  CHECK(!sending());
  size_t total = 0;
  uint64_t bytes = 0;
  for (const ByteSpan message : messages) {
    total += MESSAGE_TEXT_OFFSET + message.size();
    bytes += message.size();
  }
  if (total == 0 || over()) return;
  // Sealed in the worker's scratch memory as long as it goes; one block for what doesn't fit there or into the socket.
  std::vector<std::byte> large;
  MutableByteSpan frames = worker_.scratch();
  if (total > frames.size()) {
    large.resize(total);
    frames = large;
  }
  size_t at = 0;
  for (const ByteSpan message : messages) {
    const MutableByteSpan frame = frames.subspan(at, MESSAGE_TEXT_OFFSET + message.size());
    std::copy(message.begin(), message.end(), frame.begin() + MESSAGE_TEXT_OFFSET);
    if (auto fault = session_.seal(worker_.cipher(), frame)) return breakOff(*fault);
    at += frame.size();
  }
  worker_.stats().add(Counter::MessagesSealed, messages.size());
  worker_.stats().add(Counter::BytesSealed, bytes);
  touch();
  iovec part{.iov_base = frames.data(), .iov_len = total};
  if (sendAll(socket_, std::span(&part, 1), toWire_, worker_.budget()) == IoState::Failed)
    return breakOff(DropReason::TransportError);
  worker_.setWaiting(*this, !toWire_.empty());
}

void ChannelConnection::close() {
  closing_ = true;
  state_->inbox.wipeAll();
  state_->onNews = nullptr;
  state_->onSent = nullptr;
  if (!over() && toWire_.empty()) finish();
}

}  // namespace sallyport::netd
