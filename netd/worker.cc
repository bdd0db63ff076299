// worker.cc - see worker.h.
#include "netd/worker.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include <kj/debug.h>

#include "common/log.h"
#include "netd/channel_service.h"
#include "netd/dialed_socket.h"
#include "netd/listener.h"
#include "netd/memory_file.h"
#include "netd/metrics.h"
#include "netd/socket_options.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {
constexpr uint32_t TICK_MS = 50;
constexpr int RESERVED_DESCRIPTORS = 448;  // 256 RPC clients, what a datagram brings, listeners, and some
constexpr int MIN_DESCRIPTORS = 64;
constexpr uint32_t ACCEPT_PAUSE_MS = 100;
constexpr uint32_t RECHECK_MS = 500;
// How often it is asked whether the peers are still there: a part of the time that they have.
constexpr uint32_t CHECKS_PER_TIMEOUT = 8;
constexpr uint32_t MIN_CHECK_MS = 100;
// Dials that the monitor hasn't read yet; connections bound them.
constexpr size_t MAX_WAITING_RECORDS = 65536;
}  // namespace

Worker::Worker(EventLoop& loop, int controlFd, Stats& stats)
    : loop_(loop),
      alive_(std::make_shared<bool>(true)),
      stats_(stats),
      budget_(std::make_shared<BufferBudget>(stats)),
      control_(
          loop, controlFd, MAX_WAITING_RECORDS, [this](ControlChannel::Received& received) { onControl(received); },
          [this] {
            logError("the monitor is gone");
            loop_.stop();
          }),
      vault_(loop, stats, [this] { control_.send({.kind = ControlKind::VaultLost}); }),
      scratch_(std::make_unique<std::array<std::byte, SCRATCH_BYTES>>()),
      allStats_{&stats} {
  rlimit limit{};
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  descriptorCeiling_ =
      std::max(static_cast<int>(std::min<rlim_t>(limit.rlim_cur, INT32_MAX)) - RESERVED_DESCRIPTORS, MIN_DESCRIPTORS);
}

Worker::~Worker() {
  *alive_ = false;
  listeners_.clear();
  while (Connection* connection = connections_.front()) { connection->fail(DropReason::ShuttingDown); }
  dead_.clear();
}

void Worker::announce(std::string_view report) { control_.send({.kind = ControlKind::Ready}, asBytes(report)); }

void Worker::drop(const Dropped& dropped) {
  stats_.drop(dropped.reason);
  stats_.add(dropped.entry.id, EntryCounter::Drops);
  if (dropped.reason == DropReason::PeerNotAllowed && dropped.peer != nullptr) {
    stats_.setRefused(dropped.entry.id, {*dropped.peer, loop_.nowMs()});
  }
  if (const auto line = dropLog_.note(dropped, loop_.nowMs())) logInfo(*line);
}

// --- registry --------------------------------------------------------------------------------------------------------

void Worker::own(std::unique_ptr<Connection> connection) {
  CHECK(!connection->over());
  connections_.pushBack(*connection.release());
}

void Worker::bury(Connection& connection) {
  CHECK(connection.hook.linked());
  connection.hook.unlink();
  ciphers_.frame.forget();  // may still know its key
  dead_.emplace_back(&connection);
  // One at a time and in order: what it had to do soon, when it still lived, was put off earlier and comes first.
  soon([this] {
    dead_.pop_front();
    if (draining_) checkDrained();
  });
}

void Worker::soon(std::function<void()> work) {
  loop_.defer([alive = alive_, work = std::move(work)] {
    if (*alive) work();
  });
}

void Worker::yield(Connection& connection) {
  if (connection.runHook.linked()) return;
  const bool first = runnable_.empty();
  runnable_.pushBack(connection);
  if (!first) return;
  loop_.yield([this, alive = alive_] {
    if (!*alive) return;
    // Those that yield again while this runs wait for the next turn.
    IntrusiveList<Connection, &Connection::runHook> batch;
    while (Connection* next = runnable_.front()) {
      next->runHook.unlink();
      batch.pushBack(*next);
    }
    while (Connection* next = batch.front()) {
      next->runHook.unlink();
      next->resume();
    }
  });
}

void Worker::startHandshake(Connection& connection, bool incoming) {
  (incoming ? halfOpen_ : outgoingList_).pushBack(connection);
  armTick();
}

// --- time ------------------------------------------------------------------------------------------------------------

void Worker::armTick() {
  if (tickArmed_) return;
  tickArmed_ = true;
  tick_ = loop_.timer()
              .afterDelay(TICK_MS * kj::MILLISECONDS)
              .then([this] { soon([this] { onTick(); }); })
              .eagerlyEvaluate(nullptr);
}

void Worker::timeOut(IntrusiveList<Connection, &Connection::waitingHook>& list) {
  while (Connection* oldest = list.front()) {
    if (loop_.nowMs() < oldest->startedMs() + limits().handshakeTimeoutMs) return;
    oldest->fail(oldest->timeoutReason());
  }
}

void Worker::onTick() {
  tickArmed_ = false;
  timeOut(halfOpen_);
  timeOut(outgoingList_);
  if (limits().idleTimeoutMs != 0) {
    for (Connection* c = connections_.front(); c != nullptr;) {
      Connection* next = connections_.next(*c);
      if (loop_.nowMs() > c->lastActiveMs() + limits().idleTimeoutMs) c->fail(DropReason::IdleTimeout);
      c = next;
    }
  }
  if (draining_ && loop_.nowMs() >= drainDeadlineMs_) {
    while (Connection* connection = connections_.front()) connection->fail(DropReason::ShuttingDown);
    checkDrained();
  }
  if (halfOpen_.front() != nullptr || outgoingList_.front() != nullptr || limits().idleTimeoutMs != 0 || draining_)
    armTick();
}

void Worker::watchPeers() {
  peerCheck_ = nullptr;
  if (limits().userTimeoutMs == 0) return;
  peerCheck_ = loop_.timer()
                   .afterDelay(std::max(limits().userTimeoutMs / CHECKS_PER_TIMEOUT, MIN_CHECK_MS) * kj::MILLISECONDS)
                   .then([this] { soon([this] { checkPeers(); }); })
                   .eagerlyEvaluate(nullptr);
}

// A peer that reads nothing acknowledges what asks it to: it lives, however long it pauses. One that was asked again
// and again, and acknowledged nothing in the time it has, is gone.
void Worker::checkPeers() {
  const uint32_t limitMs = limits().userTimeoutMs;
  for (Connection* c = connections_.front(); c != nullptr;) {
    Connection* next = connections_.next(*c);
    const Hearing hearing = c->wireFd() < 0 ? Hearing{} : hearingOf(c->wireFd());
    if (!hearing.asked)
      c->unheardSinceMs = 0;
    else if (c->unheardSinceMs == 0)
      c->unheardSinceMs = loop_.nowMs();
    else if (loop_.nowMs() - c->unheardSinceMs >= limitMs && hearing.silentMs >= limitMs)
      c->fail(DropReason::TransportError);
    c = next;
  }
  watchPeers();
}

// --- accepting -------------------------------------------------------------------------------------------------------

void Worker::outgoingStarted(uint32_t entryId) {
  ++outgoing_[entryId];
  updateListeners();
}

void Worker::outgoingEnded(uint32_t entryId) {
  const auto found = outgoing_.find(entryId);
  CHECK(found != outgoing_.end());
  if (--found->second == 0) outgoing_.erase(found);
  updateListeners();
}

bool Worker::mayStartOutgoing(uint32_t entryId) const {
  const auto found = outgoing_.find(entryId);
  return found == outgoing_.end() || found->second < MAX_OUTGOING;
}

void Worker::pauseAccepting() {
  paused_ = true;
  updateListeners();
  pause_ = loop_.timer()
               .afterDelay(ACCEPT_PAUSE_MS * kj::MILLISECONDS)
               .then([this] {
                 paused_ = false;
                 updateListeners();
               })
               .eagerlyEvaluate(nullptr);
}

void Worker::updateListeners() {
  for (auto& [id, listener] : listeners_) {
    listener->rest(paused_ || (listener->kind() == Listener::Kind::Plain && !mayStartOutgoing(id)) ||
                   !mayAskWhoCalls(id));
  }
  if (channels_ != nullptr) channels_->rest(!mayAskWhoCalls(NET_SOCKET));
}

bool Worker::mayAskWhoCalls(uint32_t target) const {
  const auto found = unnamed_.find(target);
  return found == unnamed_.end() || found->second < MAX_UNNAMED;
}

void Worker::askWhoCalls(uint32_t target, kj::AutoCloseFd socket) {
  std::vector<kj::AutoCloseFd> fds;
  fds.push_back(kj::mv(socket));
  control_.send({.kind = ControlKind::WhoCalls, .target = target}, {}, kj::mv(fds));
  if (++unnamed_[target] == MAX_UNNAMED) updateListeners();
}

void Worker::onCaller(ControlChannel::Received& received) {
  const uint32_t target = received.record.target;
  const auto asked = unnamed_.find(target);
  KJ_REQUIRE(asked != unnamed_.end() && asked->second > 0, "a caller that wasn't asked about");
  if (asked->second-- == MAX_UNNAMED) updateListeners();
  if (received.fds.empty()) return;
  const LocalUser user{static_cast<uid_t>(received.record.value)};
  if (target == NET_SOCKET) return channels_->admit(kj::mv(received.fds[0]), user.uid);
  const auto listener = listeners_.find(target);
  if (listener == listeners_.end()) return;  // nobody listens for him any more
  listener->second->acceptFrom(kj::mv(received.fds[0]), user);
}

// --- asking the monitor ----------------------------------------------------------------------------------------------

uint64_t Worker::startDial(DialedSocket& dial, uint32_t entryId, uint64_t attempt) {
  const uint64_t request = nextRequest_++;
  dials_.emplace(request, &dial);
  control_.send({.kind = ControlKind::Dial, .target = entryId, .request = request, .value = attempt});
  return request;
}

void Worker::tellDialed(uint32_t entryId, int error) {
  control_.send({.kind = ControlKind::DialOutcome, .target = entryId, .value = static_cast<uint64_t>(error)});
}

void Worker::expireDial(uint64_t request) {
  const auto found = dials_.find(request);
  if (found == dials_.end()) return;
  DialedSocket* dial = found->second;
  dials_.erase(found);
  dial->expire();
}

void Worker::request(ControlKind kind, std::function<void(ControlChannel::Received&)> onAnswer) {
  // Who asks while the same question is under way gets the same answer: a flood of callers costs the monitor one.
  for (auto& [number, pending] : requests_) {
    if (pending.kind == kind) return pending.callbacks.push_back(std::move(onAnswer));
  }
  const uint64_t request = nextRequest_++;
  requests_.emplace(request, PendingRequest{kind, {std::move(onAnswer)}});
  control_.send({.kind = kind, .request = request});
}

// --- what the monitor says -------------------------------------------------------------------------------------------

void Worker::onControl(ControlChannel::Received& received) {
  try {
    handle(received);
  } catch (const kj::Exception& e) {
    // Most likely a descriptor that found no room. Without its configuration a worker would serve whom it should not.
    logError("a record of the monitor is lost: " + sanitized(std::string(e.getDescription().cStr())));
    if (received.record.kind == ControlKind::Config) loop_.stop();
    if (received.record.kind == ControlKind::VaultLink) control_.send({.kind = ControlKind::VaultLost});
  }
}

void Worker::handle(ControlChannel::Received& received) {
  const ControlRecord& record = received.record;
  const auto fd = [&received]() {
    KJ_REQUIRE(!received.fds.empty(), "a control record without its descriptor");
    return kj::mv(received.fds[0]);
  };
  switch (record.kind) {
    case ControlKind::Stats:
      allStats_.clear();
      for (auto& page : received.fds) allStats_.push_back(&Stats::mapReadOnly(page));
      return;
    case ControlKind::Config: return onConfig(fd());
    case ControlKind::WireListener:
    case ControlKind::PlainListener: {
      const auto kind = record.kind == ControlKind::WireListener ? Listener::Kind::Wire : Listener::Kind::Plain;
      listeners_.emplace(record.target, std::make_unique<Listener>(*this, kind, record.target, fd()));
      return updateListeners();
    }
    case ControlKind::RemoveListener: listeners_.erase(record.target); return;
    case ControlKind::NetListener: channels_ = std::make_unique<ChannelService>(*this, fd()); return;
    case ControlKind::MetricsListener:
      metrics_ = std::make_unique<TextPageServer>(loop_, fd(), [this] { return metricsPage(*this); });
      return;
    case ControlKind::VaultLink: return vault_.connect(fd().release());
    case ControlKind::CookieKey:
      KJ_REQUIRE(received.payload.size() == MinuteKey::SIZE);
      return cookieKeys_.rotate(MinuteKey(received.payload));
    case ControlKind::Dialed:
    case ControlKind::DialFailed: {
      const auto found = dials_.find(record.request);
      if (found == dials_.end()) return;  // given up meanwhile; the socket is closed with the datagram
      return found->second->onAnswer(received);
    }
    case ControlKind::StatusReport:
    case ControlKind::ReloadDone: {
      const auto found = requests_.find(record.request);
      if (found == requests_.end()) return;
      const auto callbacks = std::move(found->second.callbacks);
      requests_.erase(found);
      for (const auto& onAnswer : callbacks) onAnswer(received);
      return;
    }
    case ControlKind::Drain: return drain();
    case ControlKind::Caller: return onCaller(received);
    case ControlKind::Ready:
    case ControlKind::Dial:
    case ControlKind::VaultLost:
    case ControlKind::StatusRequest:
    case ControlKind::ReloadRequest:
    case ControlKind::Drained:
    case ControlKind::DialOutcome:
    case ControlKind::WhoCalls: break;
  }
  KJ_FAIL_REQUIRE("an unknown control record");
}

void Worker::onConfig(kj::AutoCloseFd fd) {
  entries_ = readEntries(readMemoryFile(fd));
  ++configNumber_;
  vault_.forgetPeerSalts();
  budget_->setLimit(limits().bufferBytes);
  if (limits().idleTimeoutMs != 0) armTick();
  watchPeers();
  for (const auto& [id, listener] : listeners_) listener->onConfig();
  if (channels_ != nullptr) channels_->onConfig();
  // A revoked peer's sessions end; the others don't notice.
  for (Connection* c = connections_.front(); c != nullptr;) {
    Connection* next = connections_.next(*c);
    c->reconsider(entries_.find(c->entry().id));
    c = next;
  }
  recheckBlocks();
  relieve();  // the limit may be lower
}

// Sessions don't outlive the block that they were made with: what the vault would use now is asked, once an entry.
void Worker::recheckBlocks() {
  rechecks_.clear();
  for (Connection* c = connections_.front(); c != nullptr; c = connections_.next(*c)) {
    const Entry& entry = c->entry();
    if (!c->blockVersion() || rechecks_.contains(entry.id)) continue;
    rechecks_[entry.id] = vault_.drawPeerSalt(entry, {.listen = entry.isListen}, [this, id = entry.id](auto drawn) {
      rechecks_.erase(id);
      const bool noVerdict =
          !drawn && (drawn.error() == DropReason::VaultUnavailable || drawn.error() == DropReason::RateLimited);
      if (noVerdict) return recheckBlocksLater();
      onBlockVersion(id, drawn ? std::optional(drawn->blockVersion) : std::nullopt);
    });
  }
}

// However many were asked for under the old configuration: one look, when those of this turn are there.
void Worker::recheckBlocksSoon() {
  if (recheckSoon_) return;
  recheckSoon_ = true;
  soon([this] {
    recheckSoon_ = false;
    // Verdicts that are awaited are not thrown away for those that came since: these are looked at once more, later.
    if (rechecks_.empty())
      recheckBlocks();
    else
      recheckBlocksLater();
  });
}

// Who uses up the rate while the operator reloads must not stay for it.
void Worker::recheckBlocksLater() {
  if (recheckArmed_) return;
  recheckArmed_ = true;
  recheck_ = loop_.timer()
                 .afterDelay(RECHECK_MS * kj::MILLISECONDS)
                 .then([this] {
                   soon([this] {
                     recheckArmed_ = false;
                     recheckBlocks();
                   });
                 })
                 .eagerlyEvaluate(nullptr);
}

void Worker::onBlockVersion(uint32_t entryId, std::optional<uint32_t> version) {
  for (Connection* c = connections_.front(); c != nullptr;) {
    Connection* next = connections_.next(*c);
    if (c->entry().id == entryId && c->blockVersion() && c->blockVersion() != version) c->fail(DropReason::PeerRevoked);
    c = next;
  }
}

void Worker::drain() {
  draining_ = true;
  drainDeadlineMs_ = loop_.nowMs() + limits().drainTimeoutMs;
  listeners_.clear();
  // A handshake isn't yet anybody's session.
  while (Connection* connection = halfOpen_.front()) connection->fail(DropReason::ShuttingDown);
  armTick();
  soon([this] { checkDrained(); });
}

void Worker::checkDrained() {
  if (connections_.front() != nullptr || !dead_.empty()) return;
  control_.send({.kind = ControlKind::Drained});
  control_.flush();
  loop_.stop();
}

}  // namespace sallyport::netd
