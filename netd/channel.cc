// channel.cc - see channel.h.
#include "netd/channel.h"

#include <sys/socket.h>

#include "netd/channel_life.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
constexpr uint32_t FIRST_WORD_MS = 20;
}  // namespace

Inbox::~Inbox() { wipeAll(); }

bool Inbox::full() const {
  if (bytes_.size() >= (claimed_ ? room_ : MAX_UNCLAIMED_BYTES) || messages_.size() >= MAX_MESSAGES) return true;
  return !bytes_.empty() && budget_ != nullptr && budget_->exceeded();
}

void Inbox::push(ByteSpan message, uint32_t code) {
  if (budget_ != nullptr) budget_->take(message.size());
  bytes_.append(message);
  messages_.push_back({static_cast<uint32_t>(message.size()), code});
}

void Inbox::pop() {
  popPart(messages_.front().bytes);
  messages_.pop_front();
}

void Inbox::popPart(size_t bytes) {
  if (budget_ != nullptr) budget_->give(bytes);
  bytes_.consume(bytes);
  messages_.front().bytes -= static_cast<uint32_t>(bytes);
}

void Inbox::wipeAll() {
  if (budget_ != nullptr) budget_->give(bytes_.size());
  bytes_.clear();
  messages_.clear();
}

template <typename Link>
ChannelConnectionOf<Link>::ChannelConnectionOf(Worker& worker, std::shared_ptr<const Entry> entry,
                                               const PublicKey& peer, WireSessionOf<Link> wire,
                                               std::shared_ptr<ChannelState> state)
    : Connection(worker, std::move(entry), peer),
      socket_(kj::mv(wire.socket)),
      link_(std::move(wire.link)),
      ticket_(std::move(wire.ticket)),
      state_(std::move(state)) {
  takeChannel(*state_, *this, worker_, this->entry());
  worker_.loop().add(socket_, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, *this);
  if constexpr (Link::DIALLER_SPEAKS_FIRST) {
    if (link_.owesFirstWord()) {
      firstWordTimer_ = worker_.loop()
                            .timer()
                            .afterDelay(FIRST_WORD_MS * kj::MILLISECONDS)
                            .then([this] { worker_.soon([this] { sayOpen(); }); })
                            .eagerlyEvaluate(nullptr);
    }
  }
}

// The program has sent nothing: perhaps it waits for the other to speak.
template <typename Link>
void ChannelConnectionOf<Link>::sayOpen() {
  if constexpr (Link::DIALLER_SPEAKS_FIRST) {
    if (over() || !link_.owesFirstWord()) return;
    if (auto fault = link_.sealOpen(worker_.ciphers(), worker_.scratch().template first<Link::OPEN_BYTES>()))
      return breakOff(*fault);
    sendSealed(Link::OPEN_BYTES);
  }
}

template <typename Link>
ChannelConnectionOf<Link>::~ChannelConnectionOf() noexcept(false) = default;

template <typename Link>
void ChannelConnectionOf<Link>::release(bool failed) {
  worker_.loop().remove(socket_, *this);
  link_.clear(worker_.budget());
  toWire_.clear(worker_.budget());
  socket_ = nullptr;
  lingerTimer_ = nullptr;
  firstWordTimer_ = nullptr;
  ticket_ = {};
  leaveChannel(state_, worker_, failed ? failure() : std::nullopt);
}

template <typename Link>
void ChannelConnectionOf<Link>::breakOff(DropReason reason) {
  if (over()) return;
  state_->broken = reason;
  fail(reason);
}

template <typename Link>
void ChannelConnectionOf<Link>::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable_ = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hungUp_ = true;
  pump();
}

// A peer that has closed resets the connection when it is sent something, and what it sent before still lies in the
// socket: its messages go to the program before the end is told, as ever. (The kernel tells of the reset once. A read
// behind it looks like a clean end, which is why `broken` is set here.)
template <typename Link>
void ChannelConnectionOf<Link>::onWriteFailed() {
  if (closing_) return breakOff(DropReason::TransportError);
  deaf_ = true;
  state_->broken = DropReason::TransportError;
  toWire_.clear(worker_.budget());
  shutdown(socket_, SHUT_RDWR);  // whatever failed: no more arrives
  readable_ = hungUp_ = true;
  worker_.yield(*this);
  // Not now: a program's object may be the caller.
  worker_.soon([state = state_] {
    if (state->onSent) state->onSent();
  });
}

template <typename Link>
void ChannelConnectionOf<Link>::pump() {
  if (!toWire_.empty()) {
    switch (flushStash(socket_, toWire_, worker_.budget())) {
      case IoState::Done:
        if (closing_ && !lingering_) linger();
        if (state_->onSent) state_->onSent();
        break;
      case IoState::Blocked: break;
      case IoState::Failed: onWriteFailed(); break;
    }
    if (over()) return;
  }
  static constexpr int ROUNDS = 4;
  const size_t before = state_->inbox.count();
  const bool headerBefore = state_->underWay.has_value();
  for (int round = 0; round < ROUNDS && !over(); ++round) {
    if (!readSome()) break;
    touch();
  }
  if (over()) return;
  onNews(before, headerBefore);
  if (over()) return;
  // protocol §13.2: both directions have their authenticated end, and nothing waits.
  if (gotEnd_ && state_->sentEnd && toWire_.empty() && !lingering_ && !deaf_) return finish();
  noteWaiting();
  if (readable_ && !state_->inbox.full()) worker_.yield(*this);
}

template <typename Link>
void ChannelConnectionOf<Link>::onNews(size_t countBefore, bool headerBefore) {
  if constexpr (Link::CHANNELS_END) state_->underWay = link_.underWay();
  state_->partialBytes = link_.partialBytes();
  const bool news =
      state_->inbox.count() != countBefore || (!headerBefore && state_->underWay) || (gotEnd_ && !state_->ended);
  if (gotEnd_) state_->ended = true;
  if (news && state_->onNews) state_->onNews();
}

template <typename Link>
void ChannelConnectionOf<Link>::noteWaiting() {
  worker_.setWaiting(*this, !toWire_.empty() || link_.partial() || !state_->inbox.empty());
}

template <typename Link>
bool ChannelConnectionOf<Link>::readSome() {
  if (!readable_ || state_->inbox.full()) return false;
  const WireRead read = link_.read(socket_, worker_.scratch(), Link::FRAMES_PER_TURN, hungUp_, worker_.budget());
  readable_ = read.state == ReadState::More;
  state_->inbox.expect(read.bytes.size());
  uint64_t bytes = 0;
  uint64_t messages = 0;
  const auto use = [&](const OpenedFrame& opened) -> std::optional<DropReason> {
    if constexpr (Link::CHANNELS_END) {
      if (opened.end) {
        gotEnd_ = state_->peerEnded = true;
        return std::nullopt;
      }
    }
    if (!closing_) state_->inbox.push(opened.text, opened.code);
    bytes += opened.text.size();
    ++messages;
    return std::nullopt;
  };
  const auto fault = link_.openEach(worker_.ciphers(), read, worker_.budget(), use);
  link_.done(worker_.budget());
  worker_.stats().add(Counter::MessagesOpened, messages);
  worker_.stats().add(Counter::BytesOpened, bytes);
  if (lingering_ && (fault || read.state == ReadState::EofInside || read.state == ReadState::Failed)) {
    finish();  // nobody is left to be told
    return false;
  }
  if (fault) return breakOff(*fault), false;
  switch (read.state) {
    case ReadState::Drained:
    case ReadState::More: return messages > 0;
    case ReadState::Eof: return onEof();
    case ReadState::EofInside: breakOff(deaf_ ? DropReason::TransportError : DropReason::Truncated); return false;
    case ReadState::Failed: breakOff(DropReason::TransportError); return false;
  }
  return false;
}

// The wire ended at a frame's boundary.
template <typename Link>
bool ChannelConnectionOf<Link>::onEof() {
  if (deaf_)
    breakOff(DropReason::TransportError);
  else if (!Link::CHANNELS_END || lingering_)
    finish();  // curve_tun 1.0 has no other goodbye
  else if (!gotEnd_)
    breakOff(DropReason::Truncated);
  // Else the peer has closed its half, and may still read.
  return false;
}

template <typename Link>
void ChannelConnectionOf<Link>::resumeReading() {
  if (!over()) noteWaiting();
  if (!over() && readable_ && !state_->inbox.full()) worker_.yield(*this);
}

// Seals messages from the front as long as they fit into `frames`. The bytes they take; nothing after a fault.
template <typename Link>
std::optional<size_t> ChannelConnectionOf<Link>::sealInto(MutableByteSpan frames,
                                                          std::span<const OutgoingMessage>& messages) {
  size_t at = 0;
  while (!messages.empty() && frames.size() - at >= Link::AROUND_BYTES + messages.front().text.size()) {
    const auto [text, code] = messages.front();
    messages = messages.subspan(1);
    const MutableByteSpan frame = frames.subspan(at, Link::AROUND_BYTES + text.size());
    std::copy(text.begin(), text.end(), frame.begin() + Link::HEAD_BYTES);
    if (auto fault = link_.seal(worker_.ciphers(), frame, code)) {
      breakOff(*fault);
      return std::nullopt;
    }
    worker_.stats().add(Counter::MessagesSealed);
    worker_.stats().add(Counter::BytesSealed, text.size());
    at += frame.size();
  }
  return at;
}

// What lies sealed in the worker's scratch memory.
template <typename Link>
void ChannelConnectionOf<Link>::sendSealed(size_t bytes) {
  iovec part{.iov_base = worker_.scratch().data(), .iov_len = bytes};
  if (sendAll(socket_, std::span(&part, 1), toWire_, worker_.budget()) == IoState::Failed) onWriteFailed();
}

template <typename Link>
void ChannelConnectionOf<Link>::send(std::span<const OutgoingMessage> messages) {
  CHECK(!sending());
  if (messages.empty() || deaf_ || over()) return;
  touch();
  // From the worker's scratch memory, as much at a time as goes into it and the socket takes.
  while (!messages.empty() && !sending()) {
    const auto sealed = sealInto(worker_.scratch(), messages);
    if (!sealed) return;
    if (*sealed == 0) break;  // one that is too long for that
    sendSealed(*sealed);
    if (deaf_ || over()) return;
  }
  // The rest in one block, behind what the socket didn't take.
  if (!messages.empty()) {
    const bool waits = sending();
    size_t total = 0;
    for (const OutgoingMessage& message : messages) total += Link::AROUND_BYTES + message.text.size();
    if (!sealInto(toWire_.extend(worker_.budget(), total), messages)) return;
    if (!waits && flushStash(socket_, toWire_, worker_.budget()) == IoState::Failed) return onWriteFailed();
  }
  noteWaiting();
}

template <typename Link>
void ChannelConnectionOf<Link>::sendEnd() {
  CHECK(!sending());
  if (deaf_ || over() || state_->sentEnd) return;
  state_->sentEnd = true;
  touch();
  if (auto fault = link_.sealEnd(worker_.ciphers(), MutableByteSpan(worker_.scratch()).first(Link::AROUND_BYTES)))
    return breakOff(*fault);
  worker_.stats().add(Counter::MessagesSealed);
  sendSealed(Link::AROUND_BYTES);
  if (!over()) noteWaiting();
}

template <typename Link>
void ChannelConnectionOf<Link>::close(bool orderly) {
  if (deaf_) return breakOff(DropReason::TransportError);
  closing_ = true;
  state_->inbox.wipeAll();
  state_->onNews = nullptr;
  state_->onSent = nullptr;
  if constexpr (Link::CHANNELS_END) {
    if (orderly && !over() && !state_->sentEnd) {
      if (!sending()) {
        sendEnd();
      } else if (auto fault = link_.sealEnd(worker_.ciphers(), toWire_.extend(worker_.budget(), Link::AROUND_BYTES))) {
        return breakOff(*fault);
      }
      state_->sentEnd = true;
    }
  }
  if (!over() && toWire_.empty()) linger();
}

// A close with bytes unread would be a reset, which takes what we sent last from the peer's hands: first our half, then
// whatever still comes is read and thrown away, for a moment.
template <typename Link>
void ChannelConnectionOf<Link>::linger() {
  lingering_ = true;
  shutdown(socket_, SHUT_WR);
  lingerTimer_ = lingerThen(worker_, [this] { finish(); });
  worker_.yield(*this);
}

template class ChannelConnectionOf<CurveLink>;
template class ChannelConnectionOf<PeerLink>;

}  // namespace sallyport::netd
