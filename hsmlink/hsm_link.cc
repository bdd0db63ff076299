#include "hsmlink/hsm_link.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "common/secret_bytes.h"

namespace sallyport::hsmlink {

namespace {

constexpr int DATAGRAMS_A_TURN = 64;
constexpr uint64_t TICK_MS = 50;

// What answers each verb when all is well.
bool answers(size_t verb, const hsm::Answer& answer) {
  const auto is = [&]<typename T>(std::in_place_type_t<T>) { return std::holds_alternative<T>(answer); };
  static constexpr size_t HELLO = 0, LIST = 1, DERIVE = 2, SIGN = 3, WRAP = 4, UNWRAP = 5, GENERATE = 6, IMPORT = 7,
                          RANDOM = 8, PING = 9, LOGIN = 10, LOGOUT = 11, PROBE = 12;
  static_assert(std::is_same_v<std::variant_alternative_t<SIGN, hsm::Ask>, hsm::Sign> &&
                std::is_same_v<std::variant_alternative_t<PROBE, hsm::Ask>, hsm::Probe> &&
                std::variant_size_v<hsm::Ask> == PROBE + 1);
  switch (verb) {
    case HELLO: return is(std::in_place_type<hsm::HelloReply>);
    case LIST:
    case GENERATE:
    case IMPORT: return is(std::in_place_type<hsm::KeyInfo>);
    case SIGN: return is(std::in_place_type<hsm::SignReply>);
    case WRAP: return is(std::in_place_type<hsm::WrapReply>);
    case PING: return is(std::in_place_type<hsm::PingReply>);
    case PROBE: return is(std::in_place_type<hsm::ProbeReply>);
    case DERIVE:
    case UNWRAP:
    case RANDOM:
    case LOGIN:
    case LOGOUT: return is(std::in_place_type<hsm::Done>);
    default: return false;
  }
}

}  // namespace

std::string_view describe(Failure failure) {
  switch (failure) {
    case Failure::NotUp: return "its process isn't there";
    case Failure::Busy: return "too much is under way";
    case Failure::WorkerGone: return "its process ended";
    case Failure::Late: return "no answer in time";
    case Failure::Garbage: return "what it answered is no answer";
    case Failure::Dropped: return "everything was dropped";
  }
  return "unknown";
}

HsmLink::HsmLink(EventLoop& loop, KeeperEnds ends, Events& events)
    : loop_(loop),
      calls_(std::move(ends.calls)),
      control_(std::move(ends.control)),
      page_(std::move(ends.page)),
      events_(events) {
  for (uint16_t slot = hsm::SLOT_COUNT; slot-- > 0;) freeSlots_.push_back(slot);
  loop_.add(calls_.get(), EPOLLIN, callsEnd_);
  loop_.add(control_.get(), EPOLLIN, controlEnd_);
}

HsmLink::~HsmLink() noexcept(false) {
  if (!ended_) {
    loop_.remove(calls_.get(), callsEnd_);
    loop_.remove(control_.get(), controlEnd_);
  }
}

std::optional<uint16_t> HsmLink::takeSlot() {
  if (freeSlots_.empty()) return std::nullopt;
  const uint16_t slot = freeSlots_.back();
  freeSlots_.pop_back();
  wipe(page_->slot(slot));  // whoever has the page may have written there since it was given back
  return slot;
}

void HsmLink::giveSlot(uint16_t slot) {
  wipe(page_->slot(slot));
  (dying() ? spoiledSlots_ : freeSlots_).push_back(slot);
}

void HsmLink::giveMessage() {
  wipe(page_->message());
  messageTaken_ = dying();  // as its slots
}

void HsmLink::send(const hsm::Ask& ask, std::optional<uint16_t> slot, uint64_t deadlineMs, Done done) {
  const bool message = std::holds_alternative<hsm::Sign>(ask);
  const auto refused = [&](Failure failure) {
    if (slot) giveSlot(*slot);
    if (message && !messageTaken_) wipe(page_->message());
    done(refuse(failure));
  };
  if (!up_ || dying()) return refused(Failure::NotUp);
  if (message && messageTaken_) return refused(Failure::Busy);
  const uint64_t id = nextId_++;
  const auto frame = hsm::writeRequest({epoch_, id, ask});
  const auto sent = ::send(calls_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(frame.size())) return refused(Failure::Busy);
  if (message) messageTaken_ = true;
  pending_.emplace(id, Pending{epoch_, ask.index(), slot, message, loop_.nowMs() + deadlineMs, std::move(done)});
  watchDeadlines();
}

void HsmLink::finish(std::map<uint64_t, Pending>::iterator call, const Outcome& outcome) {
  // Out of the table first: `done` may send the next.
  auto node = pending_.extract(call);
  Pending& pending = node.mapped();
  if (pending.done) pending.done(outcome);
  if (pending.slot) giveSlot(*pending.slot);
  if (pending.message) giveMessage();
}

void HsmLink::failAll(Failure failure) {
  // Those that are asked meanwhile are not among them.
  const uint64_t before = nextId_;
  while (!pending_.empty() && pending_.begin()->first < before) finish(pending_.begin(), refuse(failure));
}

// Nobody writes into the page now: the worker is dead, and the next one has no call of ours yet.
void HsmLink::endEpoch() {
  up_ = false;
  failAll(Failure::WorkerGone);
  page_->wipeAll();
  freeSlots_.insert(freeSlots_.end(), spoiledSlots_.begin(), spoiledSlots_.end());
  spoiledSlots_.clear();
  messageTaken_ = false;
}

void HsmLink::dropAll() {
  std::vector<Done> dropped;
  for (auto& [id, call] : pending_) {
    if (call.done) dropped.push_back(std::exchange(call.done, nullptr));
  }
  page_->wipeAll();
  for (const Done& done : dropped) done(refuse(Failure::Dropped));
}

void HsmLink::readCalls() {
  for (int i = 0; i < DATAGRAMS_A_TURN && !ended_; ++i) {
    hsm::ReplyFrame frame;
    // With MSG_TRUNC a longer datagram tells its length, and isn't taken for one that fits.
    const auto got = ::recv(calls_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return end();
    const auto reply =
        got == static_cast<ssize_t>(frame.size()) ? hsm::parseReply(frame) : refuse(hsm::FrameProblem::Length);
    if (reply) {
      take(*reply);
    } else {
      garbage();
    }
  }
}

void HsmLink::take(const hsm::Reply& reply) {
  const auto call = pending_.find(reply.id);
  if (call == pending_.end() || call->second.epoch != reply.epoch) {
    ++counts_.stale;
    return;
  }
  if (!call->second.done) {  // late, or dropped: nobody waits for it
    ++counts_.stale;
    return finish(call, refuse(Failure::Late));
  }
  if (reply.status == hsm::Status::Ok && !answers(call->second.verb, reply.answer)) {
    garbage();  // first: what this call has of the page is not given to another one while that worker lives
    const auto same = pending_.find(reply.id);
    if (same != pending_.end()) finish(same, refuse(Failure::Garbage));
    return;
  }
  ++counts_.answered;
  finish(call, reply);
}

void HsmLink::garbage() {
  ++counts_.garbage;
  kill(hsm::KillReason::Garbage);
}

void HsmLink::readControl() {
  for (int i = 0; i < DATAGRAMS_A_TURN && !ended_; ++i) {
    hsm::ControlFrame frame;
    const auto got = ::recv(control_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return end();
    const auto control =
        got == static_cast<ssize_t>(frame.size()) ? hsm::parseControl(frame) : refuse(hsm::FrameProblem::Length);
    if (control) {
      takeControl(*control);
    } else {
      ++counts_.garbage;  // the keeper loads no module: a frame that it got wrong is a bug, not an attack
    }
  }
}

void HsmLink::takeControl(const hsm::Control& control) {
  if (const auto* worker = std::get_if<hsm::WorkerUp>(&control)) {
    endEpoch();
    up_ = true;
    epoch_ = worker->epoch;
  } else if (const auto* died = std::get_if<hsm::WorkerDied>(&control)) {
    endEpoch();
    deadEpoch_ = died->epoch;
  }
  events_.onControl(control);
}

void HsmLink::end() {
  ended_ = true;
  loop_.remove(calls_.get(), callsEnd_);
  loop_.remove(control_.get(), controlEnd_);
  endEpoch();
  // The keeper takes its worker along when it goes: with the other ends closed nobody can start another.
  calls_ = nullptr;
  control_ = nullptr;
  events_.onEnd();
}

void HsmLink::kill(hsm::KillReason reason) {
  if (!up_ || killedEpoch_ == epoch_) return;
  killedEpoch_ = epoch_;
  if (sendControl(hsm::KillWorker{epoch_, reason})) events_.onKill(reason);
}

void HsmLink::hurry() {
  if (!up_ && deadEpoch_ != 0) sendControl(hsm::KillWorker{deadEpoch_, hsm::KillReason::Operator});
}

void HsmLink::stop() { sendControl(hsm::Stop{}); }

bool HsmLink::sendControl(const hsm::Control& control) {
  if (ended_) return false;
  const auto frame = hsm::writeControl(control);
  if (::send(control_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL) ==
      static_cast<ssize_t>(frame.size()))
    return true;
  // A keeper that doesn't read its few words has lost its mind: closing its socket ends it, and the worker with it.
  end();
  return false;
}

void HsmLink::watchDeadlines() {
  if (!deadlines_.isSet()) deadlines_.set(TICK_MS);
}

void HsmLink::checkDeadlines() {
  const uint64_t nowMs = loop_.nowMs();
  std::vector<Done> late;
  for (auto& [id, call] : pending_) {
    if (!call.done || call.deadlineAtMs > nowMs) continue;
    late.push_back(std::exchange(call.done, nullptr));
  }
  counts_.late += late.size();
  if (!late.empty()) kill(hsm::KillReason::Deadline);
  for (const Done& done : late) done(refuse(Failure::Late));
  if (!pending_.empty()) watchDeadlines();
}

}  // namespace sallyport::hsmlink
