// listener.cc - see listener.h.
#include "netd/listener.h"

#include <sys/socket.h>

#include <cerrno>

#include "netd/incoming_base.h"
#include "netd/incoming_curve.h"
#include "netd/incoming_peer.h"
#include "netd/outgoing_curve.h"
#include "netd/outgoing_peer.h"
#include "netd/socket_options.h"
#include "netd/tunnel.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
constexpr int ACCEPTS_A_TURN = 64;
constexpr unsigned MAX_WOKEN_FOR_NOTHING = 16;
constexpr uint32_t REST_MS = 100;
}  // namespace

Listener::Listener(Worker& worker, Kind kind, uint32_t entryId, kj::AutoCloseFd socket)
    : worker_(worker), kind_(kind), entryId_(entryId), socket_(kj::mv(socket)) {
  onConfig();
  // Exclusive: a Unix listener is shared by all workers, and one is to wake up.
  worker_.loop().add(socket_, EPOLLIN | EPOLLEXCLUSIVE, *this);
}

Listener::~Listener() {
  if (!resting_) worker_.loop().remove(socket_, *this);
}

void Listener::onConfig() { setForAccepted(socket_, kind_ == Kind::Wire, worker_.limits()); }

void Listener::rest(bool resting) {
  if (resting == resting_) return;
  resting_ = resting;
  if (resting)
    worker_.loop().remove(socket_, *this);
  else
    worker_.loop().add(socket_, EPOLLIN | EPOLLEXCLUSIVE, *this);
}

// A socket that was shut down wakes up all who listen on it, again and again, and says no more than that nobody calls.
// The monitor makes another when the worker that did it is gone.
void Listener::restAMoment() {
  wokenForNothing_ = 0;
  rest(true);
  goingOn_ = worker_.loop()
                 .timer()
                 .afterDelay(REST_MS * kj::MILLISECONDS)
                 .then([this] { rest(false); })
                 .eagerlyEvaluate(nullptr);
}

void Listener::onEvents(uint32_t events) {
  for (int i = 0; i < ACCEPTS_A_TURN && !resting_; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int fd = accept4(socket_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EMFILE || errno == ENFILE) return makeRoom();
      const bool dead = errno == EINVAL || (events & (EPOLLHUP | EPOLLERR)) != 0;
      if (dead || (i == 0 && ++wokenForNothing_ > MAX_WOKEN_FOR_NOTHING)) restAMoment();
      return;
    }
    wokenForNothing_ = 0;
    kj::AutoCloseFd connected(fd);
    if (fd >= worker_.descriptorCeiling()) return tooManyDescriptors();
    if (kind_ == Kind::Plain) {
      acceptPlain(kj::mv(connected));
      continue;
    }
    const Origin origin = originOf(connected, address);
    if (isUnnamed(origin))
      worker_.askWhoCalls(entryId_, kj::mv(connected));
    else
      acceptFrom(kj::mv(connected), origin);
  }
}

// The last numbers are for sockets that the monitor hands over: without them no session could be finished.
void Listener::tooManyDescriptors() {
  if (const auto entry = worker_.entries().find(entryId_))
    worker_.drop({.reason = DropReason::ConnectionLimit, .entry = *entry});
  makeRoom();
}

// Out of descriptors: the oldest half-open connection gives its own; without one, what waits keeps waiting a moment.
void Listener::makeRoom() {
  if (Connection* oldest = worker_.oldestHalfOpen()) return oldest->fail(DropReason::HalfOpenLimit);
  worker_.pauseAccepting();
}

void Listener::acceptFrom(kj::AutoCloseFd socket, const Origin& origin) {
  if (socket.get() >= worker_.descriptorCeiling()) return tooManyDescriptors();
  const auto entry = worker_.entries().find(entryId_);
  if (entry == nullptr) return;
  Stats& stats = worker_.stats();
  const WorkerLimits& limits = worker_.limits();
  stats.add(Counter::Accepted);
  stats.add(entryId_, EntryCounter::Accepted);
  const auto drop = [&](DropReason reason) { worker_.drop({.reason = reason, .entry = *entry, .from = &origin}); };
  const SourceAddress source = sourceOf(origin);
  const Sources::Counts counts = worker_.sources().counts(source);
  if (counts.connections >= limits.connectionsPerSource) return drop(DropReason::SourceLimit);
  if (counts.halfOpen >= limits.halfOpenPerSource) {
    if (Connection* oldest = worker_.sources().oldestHalfOpen(source)) oldest->fail(DropReason::HalfOpenLimit);
  }
  if (stats.get(Counter::HalfOpen) >= limits.halfOpen) {
    if (Connection* oldest = worker_.oldestHalfOpen()) oldest->fail(DropReason::HalfOpenLimit);
  }
  if (stats.get(Counter::Connections) >= limits.connections) return drop(DropReason::ConnectionLimit);
  std::unique_ptr<Connection> connection;
  auto ticket = worker_.sources().take(source);
  if (entry->isBase())
    connection = std::make_unique<IncomingBase>(worker_, entry, kj::mv(socket), origin, std::move(ticket));
  else if (entry->framing)
    connection = std::make_unique<IncomingPeer>(worker_, entry, kj::mv(socket), origin, std::move(ticket));
  else
    connection = std::make_unique<IncomingHandshake>(worker_, entry, kj::mv(socket), origin, std::move(ticket));
  worker_.startHandshake(*connection, true);
  worker_.own(std::move(connection));
}

// The program at `local` waits until its tunnel is there.
template <typename Outgoing, typename Link>
static std::unique_ptr<Connection> openTunnel(Worker& worker, std::shared_ptr<const Entry> entry,
                                              kj::AutoCloseFd local) {
  return std::make_unique<Outgoing>(
      worker, entry, [&worker, entry, local = kj::mv(local)](Result<WireSessionOf<Link>, DropReason> outcome) mutable {
        if (!outcome) return closeWithReset(local.release());  // the program sees a failure, not an empty answer
        worker.own(std::make_unique<TunnelOf<Link>>(worker, entry, entry->server, std::move(*outcome), kj::mv(local)));
      });
}

void Listener::acceptPlain(kj::AutoCloseFd socket) {
  const auto entry = worker_.entries().find(entryId_);
  if (entry == nullptr) return;
  setAbruptClose(socket);
  worker_.stats().add(Counter::PlainAccepted);
  worker_.stats().add(entryId_, EntryCounter::Accepted);
  if (worker_.stats().get(Counter::Connections) >= worker_.limits().connections) {
    worker_.drop({.reason = DropReason::ConnectionLimit, .entry = *entry});
    return closeWithReset(socket.release());
  }
  auto connection = entry->framing ? openTunnel<OutgoingPeer, PeerLink>(worker_, entry, kj::mv(socket))
                                   : openTunnel<OutgoingHandshake, CurveLink>(worker_, entry, kj::mv(socket));
  worker_.startHandshake(*connection, false);
  worker_.own(std::move(connection));
}

}  // namespace sallyport::netd
