// base_channel.cc - see base_channel.h.
#include "netd/base_channel.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "netd/channel_life.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {

void put32(std::byte* to, uint32_t value) {
  value = __builtin_bswap32(value);
  std::memcpy(to, &value, sizeof value);
}

}  // namespace

BaseChannel::BaseChannel(Worker& worker, std::shared_ptr<const Entry> entry, WireSessionOf<BaseLink> wire,
                         std::shared_ptr<ChannelState> state)
    : Connection(worker, std::move(entry), {}),
      socket_(kj::mv(wire.socket)),
      link_(std::move(wire.link)),
      ticket_(std::move(wire.ticket)),
      state_(std::move(state)) {
  takeChannel(*state_, *this, worker_, this->entry());
  worker_.loop().add(socket_, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
  link_.session->whenEnded([this](DropReason reason) {
    sessionEnded_ = reason;
    worker_.soon([this] { endWithSession(); });  // not inside the session's own call
  });
}

BaseChannel::~BaseChannel() noexcept(false) = default;

void BaseChannel::release(bool failed) {
  worker_.loop().remove(socket_, *this);
  toWire_.clear(worker_.budget());
  worker_.budget().give(plain_.size());
  plain_.clear();
  socket_ = nullptr;
  link_.session = nullptr;
  lingerTimer_ = nullptr;
  ticket_ = {};
  leaveChannel(state_, worker_, failed ? failure() : std::nullopt);
}

void BaseChannel::breakOff(DropReason reason) {
  if (over()) return;
  state_->broken = reason;
  fail(reason);
}

// The session is over in the vault, whether anything is sent or not. What is with the vault at the moment is answered
// first: that may be good yet, or tells why better. Who only waits for the wire's end needs no vault.
void BaseChannel::endWithSession() {
  if (over() || !sessionEnded_ || opening_ > 0 || sealing_ || lingering_) return;
  takeReceived();
  breakOff(deaf_ ? DropReason::TransportError : *sessionEnded_);
}

void BaseChannel::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  pump();
}

void BaseChannel::pump() {
  if (!toWire_.empty()) {
    switch (flushStash(socket_, toWire_, worker_.budget())) {
      case IoState::Done: afterSending(); break;
      case IoState::Blocked: break;
      case IoState::Failed: onWriteFailed(); break;
    }
  }
  if (over()) return;
  if (lingering_) return discard();
  takeReceived();
  if (!over()) readSome();
  if (!over()) noteWaiting();
}

// Whoever holds memory, for a slow reader, a slow vault or a frame that isn't whole, may be the one to go.
void BaseChannel::noteWaiting() {
  worker_.setWaiting(*this,
                     !toWire_.empty() || !plain_.empty() || link_.received->size() > 0 || !state_->inbox.empty());
}

// --- wire to program -------------------------------------------------------------------------------------------------

void BaseChannel::readSome() {
  if (opening_ > 0 || !readable_ || ended_ || state_->inbox.full()) return;
  const auto scratch = worker_.scratch().first(BASE_PIECE_BYTES);
  ssize_t got;
  do got = recv(socket_, scratch.data(), scratch.size(), MSG_DONTWAIT);
  while (got < 0 && errno == EINTR);
  if (got < 0) {
    readable_ = false;
    if (errno != EAGAIN) breakOff(DropReason::TransportError);
    return;
  }
  if (got == 0) {
    // protocol §13.3: nobody can know whether the peer meant to end it.
    ended_ = true;
    return breakOff(deaf_ ? DropReason::TransportError : DropReason::Truncated);
  }
  touch();
  opening_ = static_cast<size_t>(got);
  notePartial();
  link_.session->open(scratch.first(opening_), [this](auto opened) { onOpened(std::move(opened)); });
}

void BaseChannel::onOpened(Result<BaseSession::Opened, DropReason> opened) {
  opening_ = 0;
  if (over()) return;
  if (!opened) return breakOff(opened.error());
  if (lingering_) return discard();
  link_.received->add(*opened);
  takeReceived();
  endWithSession();
  if (!over()) worker_.yield(*this);
}

// What was genuine before a fault is delivered; the end follows.
void BaseChannel::takeReceived() {
  deliver();
  if (const auto fault = link_.received->fault()) breakOff(*fault);
}

void BaseChannel::deliver() {
  size_t count = 0;
  while (const auto frame = link_.received->front()) {
    if (!closing_) state_->inbox.push(frame->text, frame->code);
    worker_.stats().add(Counter::MessagesOpened);
    worker_.stats().add(Counter::BytesOpened, frame->text.size());
    link_.received->pop();
    ++count;
  }
  const bool hadHeader = state_->underWay.has_value();
  state_->underWay = link_.received->underWay();
  notePartial();
  if ((count > 0 || (!hadHeader && state_->underWay)) && state_->onNews) state_->onNews();
}

// What is with the vault may be whole messages, but nobody knows yet.
void BaseChannel::notePartial() { state_->partialBytes = link_.received->partialBytes() + opening_; }

void BaseChannel::resumeReading() {
  if (!over()) worker_.yield(*this);
}

// --- program to wire -------------------------------------------------------------------------------------------------

void BaseChannel::send(std::span<const OutgoingMessage> messages) {
  CHECK(!sending());
  if (messages.empty() || deaf_ || over()) return;
  touch();
  const size_t before = plain_.size();
  for (const auto& [text, code] : messages) {
    std::array<std::byte, wire::PEER_HEADER_BYTES> header{};
    put32(header.data(), static_cast<uint32_t>(text.size()));
    put32(header.data() + 4, code);
    plain_.append(header);
    plain_.append(text);
    plain_.append(std::array<std::byte, wire::PEER_TAG_BYTES>{});
    worker_.stats().add(Counter::MessagesSealed);
    worker_.stats().add(Counter::BytesSealed, text.size());
  }
  worker_.budget().take(plain_.size() - before);
  sealSome();
  noteWaiting();
}

void BaseChannel::sealSome() {
  if (sealing_ || plain_.empty() || !toWire_.empty()) return;
  const ByteSpan piece = plain_.bytes().first(std::min(plain_.size(), BASE_PIECE_BYTES));
  sealing_ = true;
  link_.session->seal(piece, [this](auto sealed) { onSealed(std::move(sealed)); });
  worker_.budget().give(piece.size());
  plain_.consume(piece.size());
}

void BaseChannel::onSealed(Result<ByteSpan, DropReason> sealed) {
  sealing_ = false;
  if (over()) return;
  if (!sealed) return breakOff(sealed.error());
  iovec part{.iov_base = const_cast<std::byte*>(sealed->data()), .iov_len = sealed->size()};
  if (!sealed->empty()) {
    switch (sendAll(socket_, std::span(&part, 1), toWire_, worker_.budget())) {
      case IoState::Done:
      case IoState::Blocked: break;
      case IoState::Failed: return onWriteFailed();
    }
  }
  if (toWire_.empty()) afterSending();
  endWithSession();
  if (!over()) noteWaiting();  // a socket that was never full tells of nothing
}

// As ChannelConnectionOf: what arrived before is the program's.
void BaseChannel::onWriteFailed() {
  if (closing_) return breakOff(DropReason::TransportError);
  deaf_ = true;
  state_->broken = DropReason::TransportError;
  worker_.budget().give(plain_.size());
  plain_.clear();
  toWire_.clear(worker_.budget());
  shutdown(socket_, SHUT_RDWR);  // whatever failed: no more arrives
  readable_ = true;
  worker_.yield(*this);
  worker_.soon([state = state_] {
    if (state->onSent) state->onSent();
  });
}

void BaseChannel::afterSending() {
  sealSome();
  if (sending()) return;
  if (closing_ && !lingering_) return linger();
  if (state_->sentEnd) shutdown(socket_, SHUT_WR);
  if (state_->onSent) state_->onSent();
}

// There is no end to send: the half of the wire is closed, and what that means is the peer's to guess.
void BaseChannel::sendEnd() {
  CHECK(!sending());
  if (deaf_ || over() || state_->sentEnd) return;
  state_->sentEnd = true;
  shutdown(socket_, SHUT_WR);
}

void BaseChannel::close(bool) {
  if (deaf_) return breakOff(DropReason::TransportError);
  closing_ = true;
  state_->inbox.wipeAll();
  state_->onNews = nullptr;
  state_->onSent = nullptr;
  if (!over() && !sending()) linger();
}

// As ChannelConnectionOf: what still comes is read and thrown away, so that the close is no reset.
void BaseChannel::linger() {
  lingering_ = true;
  shutdown(socket_, SHUT_WR);
  lingerTimer_ = lingerThen(worker_, [this] { finish(); });
  worker_.yield(*this);
}

void BaseChannel::discard() {
  // A peer that sends as fast as this reads must not have the worker for itself.
  static constexpr int ROUNDS = 4;
  for (int round = 0; round < ROUNDS; ++round) {
    const ssize_t got = recv(socket_, worker_.scratch().data(), BASE_PIECE_BYTES, MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EINTR)) continue;
    if (got == 0 || errno != EAGAIN) finish();
    return;
  }
  worker_.yield(*this);
}

void echoFrames(const std::shared_ptr<ChannelState>& state) {
  state->inbox.claim();
  const auto goOn = [weak = std::weak_ptr(state)] {
    const auto held = weak.lock();
    if (held == nullptr) return;
    while (held->connection != nullptr && !held->connection->sending() && !held->inbox.empty()) {
      const OutgoingMessage frame{.text = held->inbox.front(), .code = held->inbox.frontCode()};
      held->connection->send(std::span(&frame, 1));
      held->inbox.pop();
    }
    if (held->connection != nullptr) held->connection->resumeReading();
  };
  state->onNews = goOn;
  state->onSent = goOn;
}

}  // namespace sallyport::netd
