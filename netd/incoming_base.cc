// incoming_base.cc - see incoming_base.h.
#include "netd/incoming_base.h"

#include <cerrno>

#include "netd/base_channel.h"
#include "netd/channel_service.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
// Of a stranger, as long as not even a header was genuine: a call of the vault costs what is in it.
constexpr size_t FIRST_PIECE_BYTES = 1024;
}  // namespace

IncomingBase::IncomingBase(Worker& worker, std::shared_ptr<const Entry> entry, kj::AutoCloseFd socket,
                           const Origin& origin, Sources::Ticket ticket)
    : Connection(worker, std::move(entry), {}), socket_(kj::mv(socket)), origin_(origin), ticket_(std::move(ticket)) {
  ticket_.heldBy(*this);
  worker_.stats().add(Counter::HalfOpen);
  worker_.stats().add(Counter::Connections);
  worker_.loop().add(socket_, EPOLLIN | EPOLLRDHUP | EPOLLET, *this);
}

IncomingBase::~IncomingBase() noexcept(false) = default;

void IncomingBase::release(bool) {
  worker_.stats().subtract(Counter::HalfOpen);
  question_ = nullptr;
  link_.session = nullptr;
  if (socket_.get() >= 0) {
    worker_.stats().subtract(Counter::Connections);
    worker_.loop().remove(socket_, *this);
    socket_ = nullptr;
  }
  ticket_ = {};
}

DropReason IncomingBase::timeoutReason() const {
  return question_ != nullptr || opening_ ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout;
}

Dropped IncomingBase::describe(DropReason reason) const {
  Dropped dropped = Connection::describe(reason);
  dropped.from = &origin_;
  return dropped;
}

void IncomingBase::onEvents(uint32_t events) {
  if (question_ != nullptr || opening_) return;  // what comes meanwhile is read when the vault has answered
  if (link_.session != nullptr) return readSome();
  begin(events);
}

// Less than a header proves nothing, and the vault isn't asked about it: it stays in the socket.
void IncomingBase::begin(uint32_t events) {
  const auto first = MutableByteSpan(worker_.scratch()).first(FIRST_PIECE_BYTES);
  ssize_t got;
  do got = recv(socket_, first.data(), first.size(), MSG_DONTWAIT | MSG_PEEK);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return;
  if (got <= 0) return fail(DropReason::ClosedInHandshake);
  if (static_cast<size_t>(got) < wire::PEER_HEADER_BYTES) {
    // Who closes its half behind that never completes it; a peek alone wouldn't tell.
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) fail(DropReason::ClosedInHandshake);
    return;
  }
  if (!worker_.sources().mayTry(sourceOf(origin_), worker_.loop().nowMs())) return fail(DropReason::SourceLimit);
  got = recv(socket_, first.data(), first.size(), MSG_DONTWAIT);
  if (got < static_cast<ssize_t>(wire::PEER_HEADER_BYTES)) return fail(DropReason::ClosedInHandshake);
  question_ = worker_.vault().openPeerSession(entry(), true, first.first(static_cast<size_t>(got)), [this](auto begun) {
    question_ = nullptr;
    if (!begun) return fail(begun.error());
    link_ = {std::move(begun->session), std::make_unique<BaseFrames>(worker_.sharedBudget())};
    if (!begun->opened) return fail(DropReason::VaultRefused);
    onOpened(*begun->opened);
  });
}

void IncomingBase::readSome() {
  const auto scratch = MutableByteSpan(worker_.scratch()).first(BASE_PIECE_BYTES);
  size_t have = 0;
  const Received received = receiveInto(socket_, scratch, have);
  if (received == Received::NothingYet) return;
  if (received == Received::Closed) return fail(DropReason::ClosedInHandshake);
  opening_ = true;
  link_.session->open(scratch.first(have), [this](auto opened) { onOpened(std::move(opened)); });
}

void IncomingBase::onOpened(Result<BaseSession::Opened, DropReason> opened) {
  if (over()) return;
  opening_ = false;
  if (!opened) return fail(opened.error());
  link_.received->add(*opened);
  if (link_.received->hasGenuine()) return established();  // a fault behind the first frame is the channel's
  if (opened->fault) return fail(*opened->fault);
  if (!worker_.mayHold(link_.received->size())) return fail(DropReason::MemoryLimit);
  readSome();
}

void IncomingBase::established() {
  worker_.stats().add(Counter::ServerHandshakes);
  worker_.stats().add(entry().id, EntryCounter::Handshakes);
  worker_.sources().proved(sourceOf(origin_));
  waitingHook.unlink();
  ticket_.settle();
  worker_.loop().remove(socket_, *this);
  worker_.stats().subtract(Counter::Connections);  // the next owner counts it again
  const auto open = [this](std::shared_ptr<ChannelState> state) {
    return std::make_unique<BaseChannel>(
        worker_, entry_, WireSessionOf<BaseLink>{kj::mv(socket_), std::move(link_), std::move(ticket_)}, state);
  };
  if (entry().service == EntryService::Echo) {
    auto state = std::make_shared<ChannelState>();
    worker_.own(open(state));
    echoFrames(state);
  } else if (entry().service == EntryService::Channel && worker_.channels() != nullptr) {
    worker_.channels()->offer(entry(), peer(), "", printable(origin_), open);
  } else {
    worker_.drop(describe(DropReason::NoAcceptor));
  }
  // Not now: the session's callback is the caller.
  socket_ = nullptr;
  worker_.soon([this] { finish(); });
}

}  // namespace sallyport::netd
