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

void Tunnel::Side::onEvents(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) readable = true;
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) writable = true;
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hungUp = true;
  tunnel.pump();
}

Tunnel::Tunnel(Worker& worker, std::shared_ptr<const Entry> entry, const PublicKey& peer, WireSession wire,
               kj::AutoCloseFd local)
    : Connection(worker, std::move(entry), peer),
      wire_(*this),
      local_(*this),
      session_(std::move(wire.session)),
      ticket_(std::move(wire.ticket)) {
  wire_.fd = kj::mv(wire.socket);
  local_.fd = kj::mv(local);
  setNoDelay(local_.fd);  // the wire's was set when its handshake began
  // A worker that is killed in the middle must not look like the end of the stream.
  setAbruptClose(local_.fd);
  static constexpr uint32_t EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  worker_.loop().add(wire_.fd, EVENTS, wire_);
  worker_.loop().add(local_.fd, EVENTS, local_);
  worker_.stats().add(Counter::Tunnels);
  worker_.stats().add(Counter::Connections);
}

Tunnel::~Tunnel() noexcept(false) = default;

void Tunnel::release(bool failed) {
  worker_.loop().remove(wire_.fd, wire_);
  worker_.loop().remove(local_.fd, local_);
  reader_.clear(worker_.budget());
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

void Tunnel::pump() {
  for (int round = 0; round < ROUNDS && !over(); ++round) {
    const bool sealed = sealSome() == Moved::Something;
    const bool opened = !over() && openSome() == Moved::Something;
    if (!sealed && !opened) break;
    touch();
  }
  if (over()) return;
  // Both directions have their authenticated end, and nothing waits: the connection is done.
  if (sentEnd_ && gotEnd_ && toWire_.empty() && toLocal_.empty()) return finish();
  noteWaiting();
  const bool canSeal = local_.readable && !sentEnd_ && toWire_.empty();
  const bool canOpen = wire_.readable && toLocal_.empty();
  if (canSeal || canOpen) worker_.yield(*this);
}

void Tunnel::noteWaiting() { worker_.setWaiting(*this, !toWire_.empty() || !toLocal_.empty() || reader_.partial()); }

// True if nothing is left to flush.
bool Tunnel::flush(Side& to, Stash& stash, DropReason reason) {
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
Tunnel::Moved Tunnel::sealSome() {
  if (!flush(wire_, toWire_, DropReason::TransportError) || sentEnd_ || !local_.readable) return Moved::Nothing;
  const auto scratch = worker_.scratch();
  std::array<iovec, FRAMES_PER_READ> parts;
  for (size_t i = 0; i < frames_; ++i) {
    parts[i] = {.iov_base = scratch.data() + i * wire::MAX_FRAME_BYTES + MESSAGE_TEXT_OFFSET,
                .iov_len = wire::MAX_MESSAGE_BYTES};
  }
  const size_t room = frames_ * wire::MAX_MESSAGE_BYTES;
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
  if (text == room) frames_ = static_cast<uint8_t>(std::min<size_t>(frames_ * 2, FRAMES_PER_READ));
  size_t sealed = 0;
  do {
    // The last turn of an ended stream seals the empty message: its authenticated end.
    const size_t length = std::min(text, wire::MAX_MESSAGE_BYTES);
    if (auto fault =
            session_.seal(worker_.cipher(), MutableByteSpan(scratch).subspan(sealed, MESSAGE_TEXT_OFFSET + length))) {
      fail(*fault);
      return Moved::Nothing;
    }
    sealed += MESSAGE_TEXT_OFFSET + length;
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

bool Tunnel::writeWire(size_t bytes) {
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
Tunnel::Moved Tunnel::openSome() {
  if (!flush(local_, toLocal_, DropReason::LocalError)) return Moved::Nothing;
  afterLocalWrite();
  if (!wire_.readable) return Moved::Nothing;
  const auto outcome = reader_.read(wire_.fd, worker_.scratch(), frames_, wire_.hungUp, worker_.budget());
  if (outcome.state == ReadState::More)
    frames_ = static_cast<uint8_t>(std::min<size_t>(frames_ * 2, FRAMES_PER_READ));
  else
    wire_.readable = false;
  if (!outcome.frames.empty()) {
    if (auto fault = openFrames(outcome.frames)) {
      fail(*fault);
      return Moved::Nothing;
    }
    afterLocalWrite();
  }
  if (over()) return Moved::Nothing;
  switch (outcome.state) {
    case ReadState::Drained:
    case ReadState::More: return outcome.frames.empty() ? Moved::Nothing : Moved::Something;
    case ReadState::Eof:
      // protocol §5: after its authenticated end the peer may close its half of the wire; before, that is truncation.
      if (!gotEnd_) fail(DropReason::Truncated);
      return Moved::Nothing;
    case ReadState::EofInside: fail(DropReason::Truncated); return Moved::Nothing;
    case ReadState::Failed: fail(gotEnd_ ? DropReason::TransportError : DropReason::Truncated); return Moved::Nothing;
  }
  return Moved::Nothing;
}

std::optional<DropReason> Tunnel::openFrames(MutableByteSpan frames) {
  std::array<iovec, MAX_PARTS> parts;
  size_t count = 0;
  uint64_t bytes = 0;
  const auto fault = forEachPacket(frames, [&](MutableByteSpan packet) -> std::optional<DropReason> {
    auto text = session_.open(worker_.cipher(), packet);
    if (!text) return text.error();
    worker_.stats().add(Counter::MessagesOpened);
    // protocol §5: nothing follows the end of a direction.
    if (gotEnd_) return DropReason::AfterEnd;
    if (text->empty()) {
      gotEnd_ = true;
      return std::nullopt;
    }
    bytes += text->size();
    if (count > 0 && (text->size() <= COMPACT_BYTES || count == MAX_PARTS)) {
      iovec& last = parts[count - 1];
      std::memmove(static_cast<std::byte*>(last.iov_base) + last.iov_len, text->data(), text->size());
      last.iov_len += text->size();
    } else {
      parts[count++] = {.iov_base = text->data(), .iov_len = text->size()};
    }
    return std::nullopt;
  });
  worker_.stats().add(Counter::BytesOpened, bytes);
  // What was genuine before a fault is delivered; the reset follows.
  if (count > 0) writeLocal(std::span(parts).first(count));
  return over() ? std::nullopt : fault;
}

void Tunnel::writeLocal(std::span<iovec> parts) {
  switch (sendAll(local_.fd, parts, toLocal_, worker_.budget())) {
    case IoState::Done: return;
    case IoState::Blocked:
      local_.writable = false;
      frames_ = 1;
      return;
    case IoState::Failed: fail(DropReason::LocalError); return;
  }
}

void Tunnel::afterLocalWrite() {
  if (over() || !gotEnd_ || localShut_ || !toLocal_.empty()) return;
  localShut_ = true;
  shutdown(local_.fd, SHUT_WR);
}

}  // namespace sallyport::netd
