// tunnel.cc - see tunnel.h.
#include "netd/tunnel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>

#include "netd/socket_options.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
// Texts up to this size are moved together, larger ones are written from where they lie.
constexpr size_t COMPACT_BYTES = 8 * 1024;
constexpr size_t MAX_PARTS = 64;
// So many reads a turn, then the other connections have theirs.
constexpr int ROUNDS = 4;
}  // namespace

template <typename Link>
void TunnelOf<Link>::Side::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) writable = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hungUp = true;
  tunnel.pump();
}

namespace {
// The longest text of a frame of ours: what the link makes at most, or the entry allows (on both hosts the same).
template <typename Link>
size_t longestText(const Entry& entry) {
  return entry.framing ? std::min<size_t>(Link::MAX_TEXT_BYTES, entry.framing->maxFrameBytes) : Link::MAX_TEXT_BYTES;
}
}  // namespace

template <typename Link>
TunnelOf<Link>::TunnelOf(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer,
                         WireSessionOf<Link> wire, kj::AutoCloseFd local)
    : Connection(worker, std::move(entry), peer),
      wire_(*this),
      local_(*this),
      link_(std::move(wire.link)),
      ticket_(std::move(wire.ticket)),
      textBytes_(longestText<Link>(this->entry())) {
  wire_.fd = kj::mv(wire.socket);
  wire_.readable = link_.partial();  // something may be kept that came before; what else is there the loop will tell
  local_.fd = kj::mv(local);
  static constexpr uint32_t EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  worker_.loop().add(wire_.fd, EVENTS, wire_);
  worker_.loop().add(local_.fd, EVENTS, local_);
  worker_.stats().add(Counter::Tunnels);
  worker_.stats().add(Counter::Connections);
}

template <typename Link>
TunnelOf<Link>::~TunnelOf() noexcept(false) = default;

template <typename Link>
void TunnelOf<Link>::release(bool failed) {
  worker_.loop().remove(wire_.fd, wire_);
  worker_.loop().remove(local_.fd, local_);
  link_.clear(worker_.budget());
  toWire_.clear(worker_.budget());
  toLocal_.clear(worker_.budget());
  // protocol §5: what did not end did not end well.
  if (!failed) setGentleClose(local_.fd);
  local_.fd = nullptr;
  wire_.fd = nullptr;
  ticket_ = {};
  worker_.stats().subtract(Counter::Tunnels);
  worker_.stats().subtract(Counter::Connections);
}

template <typename Link>
void TunnelOf<Link>::pump() {
  for (int round = 0; round < ROUNDS && !over(); ++round) {
    const bool sealed = sealSome() == Moved::Something;
    const bool opened = !over() && openSome() == Moved::Something;
    if (!sealed && !opened) break;
    touch();
  }
  if constexpr (Link::DIALLER_SPEAKS_FIRST) {
    if (!over() && local_.writable && link_.owesFirstWord()) sayOpen();
  }
  if (over()) return;
  // Both directions have their authenticated end, and nothing waits: the connection is done.
  if (sentEnd_ && gotEnd_ && toWire_.empty() && toLocal_.empty()) return finish();
  noteWaiting();
  const bool canSeal = local_.readable && !sentEnd_ && toWire_.empty();
  const bool canOpen = wire_.readable && toLocal_.empty();
  if (canSeal || canOpen) worker_.yield(*this);
}

template <typename Link>
void TunnelOf<Link>::noteWaiting() {
  worker_.setWaiting(*this, !toWire_.empty() || !toLocal_.empty() || link_.partial());
}

// True if nothing is left to flush.
template <typename Link>
bool TunnelOf<Link>::flush(Side& to, Stash& stash, DropReason reason) {
  if (stash.empty()) return true;
  if (!to.writable) return false;
  switch (flushStash(to.fd, stash, worker_.budget())) {
    case IoState::Done: return true;
    case IoState::Blocked: to.writable = false; return false;
    case IoState::Failed: fail(reason); return false;
  }
  return false;
}

// Local side to wire: read behind room for the headers, seal where it lies, write all frames at once.
template <typename Link>
auto TunnelOf<Link>::sealSome() -> Moved {
  if (!flush(wire_, toWire_, DropReason::TransportError) || sentEnd_ || !local_.readable) return Moved::Nothing;
  const auto scratch = worker_.scratch();
  std::array<iovec, Link::FRAMES_PER_TURN> parts;
  for (size_t i = 0; i < frames_; ++i) {
    parts[i] = {.iov_base = scratch.data() + i * (Link::AROUND_BYTES + textBytes_) + Link::HEAD_BYTES,
                .iov_len = textBytes_};
  }
  const size_t room = frames_ * textBytes_;
  ssize_t got;
  do got = readv(local_.fd, parts.data(), frames_);
  while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno != EAGAIN) {
      fail(DropReason::LocalError);
    } else {
      local_.readable = false;
    }
    return Moved::Nothing;
  }
  size_t text = static_cast<size_t>(got);
  if (text < room && !local_.hungUp) local_.readable = false;
  if (text == room) frames_ = static_cast<uint8_t>(std::min<size_t>(frames_ * 2, Link::FRAMES_PER_TURN));
  size_t sealed = 0;
  do {
    const size_t length = std::min(text, textBytes_);
    const auto frame = MutableByteSpan(scratch).subspan(sealed, Link::AROUND_BYTES + length);
    // The last turn of an ended stream seals its authenticated end.
    if (auto fault = got == 0 ? link_.sealEnd(worker_.ciphers(), frame) : link_.seal(worker_.ciphers(), frame, 0)) {
      fail(*fault);
      return Moved::Nothing;
    }
    sealed += frame.size();
    text -= length;
    worker_.stats().add(Counter::MessagesSealed);
  } while (text > 0);
  worker_.stats().add(Counter::BytesSealed, static_cast<uint64_t>(got));
  if (got == 0) {
    sentEnd_ = true;
    local_.readable = false;
  }
  return writeWire(sealed) ? Moved::Something : Moved::Nothing;
}

// The loop has told of the local side, and its program has sent nothing: perhaps it waits for the service to speak.
template <typename Link>
void TunnelOf<Link>::sayOpen() {
  if constexpr (Link::DIALLER_SPEAKS_FIRST) {
    if (auto fault = link_.sealOpen(worker_.ciphers(), worker_.scratch().template first<Link::OPEN_BYTES>()))
      return fail(*fault);
    writeWire(Link::OPEN_BYTES);
  }
}

template <typename Link>
bool TunnelOf<Link>::writeWire(size_t bytes) {
  iovec part{.iov_base = worker_.scratch().data(), .iov_len = bytes};
  switch (sendAll(wire_.fd, std::span(&part, 1), toWire_, worker_.budget())) {
    case IoState::Done: return true;
    case IoState::Blocked:
      wire_.writable = false;
      frames_ = 1;
      return true;
    case IoState::Failed: fail(DropReason::TransportError); return false;
  }
  return false;
}

// Wire to local side: read, open where it lies, write the texts from there.
template <typename Link>
auto TunnelOf<Link>::openSome() -> Moved {
  if (!flush(local_, toLocal_, DropReason::LocalError)) return Moved::Nothing;
  afterLocalWrite();
  if (!wire_.readable) return Moved::Nothing;
  const WireRead read = link_.read(wire_.fd, worker_.scratch(), frames_, wire_.hungUp, worker_.budget());
  if (read.state == ReadState::More)
    frames_ = static_cast<uint8_t>(std::min<size_t>(frames_ * 2, Link::FRAMES_PER_TURN));
  else
    wire_.readable = false;
  if (!read.bytes.empty()) {
    if (auto fault = openFrames(read)) {
      fail(*fault);
      return Moved::Nothing;
    }
    afterLocalWrite();
  }
  if (over()) return Moved::Nothing;
  switch (read.state) {
    case ReadState::Drained:
    case ReadState::More: return read.bytes.empty() ? Moved::Nothing : Moved::Something;
    case ReadState::Eof:
      // protocol §5: after its authenticated end the peer may close its half of the wire; before, that is truncation.
      if (!gotEnd_) fail(DropReason::Truncated);
      return Moved::Nothing;
    case ReadState::EofInside: fail(DropReason::Truncated); return Moved::Nothing;
    case ReadState::Failed: fail(gotEnd_ ? DropReason::TransportError : DropReason::Truncated); return Moved::Nothing;
  }
  return Moved::Nothing;
}

template <typename Link>
std::optional<DropReason> TunnelOf<Link>::openFrames(const WireRead& read) {
  std::array<iovec, MAX_PARTS> parts;
  size_t count = 0;
  uint64_t bytes = 0;
  const auto use = [&](const OpenedFrame& opened) -> std::optional<DropReason> {
    worker_.stats().add(Counter::MessagesOpened);
    // protocol §5: nothing follows the end of a direction. (In the peer protocol the link says so.)
    if (gotEnd_) return DropReason::AfterEnd;
    if (opened.end) {
      gotEnd_ = true;
      return std::nullopt;
    }
    const MutableByteSpan text = opened.text;
    bytes += text.size();
    if (count > 0 && (text.size() <= COMPACT_BYTES || count == MAX_PARTS)) {
      iovec& last = parts[count - 1];
      std::memmove(static_cast<std::byte*>(last.iov_base) + last.iov_len, text.data(), text.size());
      last.iov_len += text.size();
    } else {
      parts[count++] = {.iov_base = text.data(), .iov_len = text.size()};
    }
    return std::nullopt;
  };
  const auto fault = link_.openEach(worker_.ciphers(), read, worker_.budget(), use);
  worker_.stats().add(Counter::BytesOpened, bytes);
  // What was genuine before a fault is delivered; the reset follows.
  if (count > 0) writeLocal(std::span(parts).first(count));
  if (!over()) link_.done(worker_.budget());
  return over() ? std::nullopt : fault;
}

template <typename Link>
void TunnelOf<Link>::writeLocal(std::span<iovec> parts) {
  switch (sendAll(local_.fd, parts, toLocal_, worker_.budget())) {
    case IoState::Done: return;
    case IoState::Blocked:
      local_.writable = false;
      frames_ = 1;
      return;
    case IoState::Failed: fail(DropReason::LocalError); return;
  }
}

template <typename Link>
void TunnelOf<Link>::afterLocalWrite() {
  if (over() || !gotEnd_ || localShut_ || !toLocal_.empty()) return;
  localShut_ = true;
  shutdown(local_.fd, SHUT_WR);
}

template class TunnelOf<CurveLink>;
template class TunnelOf<PeerLink>;

}  // namespace sallyport::netd
