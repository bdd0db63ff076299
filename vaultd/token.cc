#include "vaultd/token.h"

#include <sodium.h>

#include <algorithm>

#include "common/log.h"
#include "vaultd/box.h"
#include "vaultd/signer.h"

namespace sallyport::vaultd {

using hsm::Status;
using hsmlink::Failure;
using hsmlink::Outcome;

namespace {

bool isGone(Status status) {
  return status == Status::NoToken || status == Status::AmbiguousToken || status == Status::DeviceRemoved ||
         status == Status::PinLocked;
}

// The call's own fault, or the token's?
// What a worker or its keeper says is foreign text.
std::string withDetail(std::string why, const hsm::Detail& detail) {
  return detail.length == 0 ? why : why + ": " + sanitized(detail.text());
}

bool isFailure(const Outcome& outcome) { return !outcome || outcome->status != Status::Ok; }

void setSlot(hsm::Ask& ask, uint16_t slot) {
  std::visit(
      [slot](auto& body) {
        if constexpr (requires { body.slot; }) body.slot = slot;
      },
      ask);
}

hsm::WrapAlgorithm algorithmOf(TokenCipher cipher) {
  switch (cipher) {
    case TokenCipher::AesGcm: return hsm::WrapAlgorithm::Gcm;
    case TokenCipher::OaepSha256: return hsm::WrapAlgorithm::OaepSha256;
    case TokenCipher::OaepSha1: return hsm::WrapAlgorithm::OaepSha1;
  }
  return hsm::WrapAlgorithm::Gcm;
}

// Modules differ in what they say to a point above 2^255-19; X25519 takes it for what is left of it. They get that.
hsm::Block32 canonicalPoint(const PublicKey& peer) {
  hsm::Block32 point;
  std::ranges::copy(peer.span(), point.begin());
  point[31] &= std::byte{0x7f};
  const bool above = std::to_integer<unsigned>(point[0]) >= 0xed && point[31] == std::byte{0x7f} &&
                     std::all_of(point.begin() + 1, point.end() - 1, [](std::byte b) { return b == std::byte{0xff}; });
  if (above) {
    const auto rest = std::byte(std::to_integer<unsigned>(point[0]) - 0xed);
    point.fill(std::byte{0});
    point[0] = rest;
  }
  return point;
}

}  // namespace

std::string_view describe(TokenState state) {
  switch (state) {
    case TokenState::Starting: return "starting";
    case TokenState::Proving: return "proving";
    case TokenState::Up: return "up";
    case TokenState::NoPin: return "no pin";
    case TokenState::Resting: return "resting";
    case TokenState::Down: return "down";
    case TokenState::Ended: return "ended";
  }
  return "unknown";
}

Token::Token(EventLoop& loop, const TokenConfig& config, Result<hsmlink::KeeperEnds, std::string> ends,
             Observer& observer, Times times)
    : loop_(loop),
      observer_(observer),
      name_(config.name),
      deadlineMs_(config.deadlineMs),
      memoryKiB_(uint64_t{config.memoryMiB} * 1024),
      presenceAlways_(config.presenceAlways),
      recheckMs_(uint64_t{config.recheckMinutes} * 60'000),
      times_(times) {
  if (const auto* pin = std::get_if<PinDescriptor>(&config.pin)) pinFd_ = pin->fd;
  if (!ends) {
    state_ = TokenState::Ended;
    why_ = ends.error();
    lost_ = true;
    return;
  }
  facts_.page = std::string(ends->page->describe());
  link_.emplace(loop, std::move(*ends), static_cast<hsmlink::HsmLink::Events&>(*this));
  health_.set(times_.healthMs);
  losing_.set(times_.lostAfterMs);
}

// --- state -----------------------------------------------------------------------------------------------------------

std::string Token::describe() const {
  return "token " + name_ +
         (state_ == TokenState::NoPin ? " has no PIN" : " is " + std::string(vaultd::describe(state_))) +
         (why_.empty() ? "" : ": " + why_);
}

void Token::enter(TokenState state, std::string why, Status cause) {
  const TokenState before = std::exchange(state_, state);
  const bool told = before == state && why_ == why;
  why_ = std::move(why);
  cause_ = cause;
  if (state == TokenState::Up) {
    losing_.unset();
    lost_ = false;
    if (before == TokenState::Up) return;
    logInfo("token " + name_ + " is up");
    observer_.onTokenEvent(*this, "token_up", "ok", "worker " + std::to_string(facts_.epoch));
    return;
  }
  refuseWaiting();
  if (!lost_ && !losing_.isSet()) losing_.set(times_.lostAfterMs);
  if (told || state == TokenState::Proving || (state == TokenState::Starting)) return;
  logWarning(describe());
  observer_.onTokenEvent(*this, "token_down", std::string(vaultd::describe(state)), why_);
}

void Token::lose(std::string_view why) {
  losing_.unset();
  if (std::exchange(lost_, true)) return;
  observer_.onTokenEvent(*this, "token_lost", "ok", std::string(why));
  observer_.onTokenLost(*this);
}

void Token::onControl(const hsm::Control& control) {
  if (const auto* up = std::get_if<hsm::WorkerUp>(&control)) {
    facts_.epoch = up->epoch;
    facts_.pid = up->pid;
    loggingOut_ = loggingIn_ = false;
    planned_.clear();
    facts_.layers.clear();
    listed_.clear();
    failuresInARow_ = 0;
    proofsUnderWay_ = 0;
    for (auto& [own, key] : keys_) {
      key.index.reset();
      key.proved = key.wrong = false;
      key.problem = "not proved yet";
    }
    // The worker that was to forget the PIN has died of something else: this one has it, and may not use it.
    if (pinToForget_) {
      enter(TokenState::NoPin, "its PIN was forgotten in a panic", Status::NotLoggedIn);
      return forgetPin();
    }
    if (up->login == Status::Ok) {
      if (!heldLogin_) return sayHello();
      // It has no need of the PIN that waits. Who brought that one hears so, which says hello, too.
      Wish login = std::move(*heldLogin_);
      heldLogin_.reset();
      return login.done(hsm::Reply{.epoch = facts_.epoch, .id = 0, .status = Status::Ok}, {});
    }
    enter(TokenState::NoPin, withDetail(std::string(hsm::describe(up->login)), up->detail), up->login);
    if (isGone(up->login)) lose(why_);
    if (heldLogin_) {
      Wish login = std::move(*heldLogin_);
      heldLogin_.reset();
      askLogin(std::move(login));
    }
  } else if (const auto* died = std::get_if<hsm::WorkerDied>(&control)) {
    onWorkerDied(*died);
  } else if (const auto* layer = std::get_if<hsm::WorkerLayer>(&control)) {
    constexpr size_t MOST_LAYERS = 16;
    constexpr std::string_view STATES[] = {"active", "unavailable", "disabled", "failed"};
    const std::string_view is = layer->state < std::size(STATES) ? STATES[layer->state] : "unknown";
    if (facts_.layers.size() < MOST_LAYERS) {
      facts_.layers.push_back(sanitized(layer->layer.text()) + " " + std::string(is) + ": " +
                              sanitized(layer->detail.text()));
    }
  } else if (const auto* denials = std::get_if<hsm::Denials>(&control)) {
    facts_.denials = denials->total;
    facts_.lastDenied = sanitized(denials->lastCall.text());
  }
}

void Token::onWorkerDied(const hsm::WorkerDied& died) {
  const bool wasUp = died.epoch == facts_.epoch;
  ++facts_.restarts;
  facts_.pid = 0;
  resting_.unset();
  // Ok: it ended itself because it was told to, to begin anew with another PIN or none.
  if (died.status == Status::Ok && (loggingIn_ || loggingOut_))
    planned_ = loggingIn_ ? "with its PIN" : "without its PIN";
  if (wasUp && !planned_.empty()) {
    enter(TokenState::Starting, "its process is started again " + std::exchange(planned_, {}));
    return;
  }
  planned_.clear();
  std::string why(died.status == Status::Ok ? "its process has ended" : hsm::describe(died.status));
  why = withDetail(std::move(why), died.detail);
  if (died.restartInMs > 0) why += ", started again in " + std::to_string(died.restartInMs) + " ms";
  enter(TokenState::Down, std::move(why), died.status);
  if (isGone(died.status)) lose(why_);
  // Who has brought a PIN doesn't wait for a worker that may never come. One that was up is followed by another.
  if (wasUp || !heldLogin_ || died.status == Status::KeeperDied) return;
  const Wish login = std::move(*heldLogin_);
  heldLogin_.reset();
  login.done(hsm::Reply{.epoch = died.epoch, .id = 0, .status = died.status}, {});
}

// Not only when it is dead: a keeper that is stopped, or a host in trouble, may be long about that.
void Token::onKill(hsm::KillReason reason) {
  resting_.unset();
  if (!planned_.empty()) return enter(TokenState::Starting, "its process is started again " + planned_);
  enter(TokenState::Down, "its process is being ended: " + std::string(hsm::describe(reason)));
}

void Token::onEnd() {
  facts_.pid = 0;
  dropHeldLogin();
  enter(TokenState::Ended, "its hsmd has ended, and vaultd, locked down, can't start another: restart vaultd");
  lose(why_);
}

void Token::rest(std::string why) {
  enter(TokenState::Resting, std::move(why));
  resting_.set(restMs_);
  restMs_ = std::min(restMs_ * 2, MAX_REST_MS);
  if (presenceAlways_) lose(why_);
}

// --- calls -----------------------------------------------------------------------------------------------------------

void Token::ask(Wish wish) {
  if (!link_) return wish.done(refuse(Failure::NotUp), {});
  std::optional<uint16_t> slot;
  if (wish.needs == Needs::Slot) {
    slot = link_->takeSlot();
    if (!slot) return wish.done(refuse(Failure::Busy), {});
    setSlot(wish.ask, *slot);
    std::ranges::copy(wish.content.span(), link_->page().slot(*slot).begin());
  } else if (wish.needs == Needs::Message && link_->messageIsFree()) {
    std::ranges::copy(wish.content.span(), link_->page().message().begin());
  }
  link_->send(wish.ask, slot, deadlineMs_, [this, slot, done = std::move(wish.done)](const Outcome& outcome) {
    // Once, and then it is ours: the other side may write there at any time.
    SecretBytes<struct SlotCopyTag, hsm::SLOT_BYTES> copy;
    if (slot && outcome) std::ranges::copy(link_->page().slot(*slot), copy.exposeMutable().begin());
    done(outcome, copy.expose());
  });
}

void Token::enqueue(Wish wish, bool first) {
  const bool sign = wish.needs == Needs::Message;
  auto& queue = sign ? signsWaiting_ : waiting_;
  // A full queue refuses; proofs are few, and what decides about all the others.
  if (!first && queue.size() >= (sign ? MAX_SIGNS_WAITING : MAX_WAITING)) return wish.done(refuse(Failure::Busy), {});
  wish.untilMs = loop_.nowMs() + deadlineMs_;
  if (first) {
    queue.push_front(std::move(wish));
  } else {
    queue.push_back(std::move(wish));
  }
  pump();
}

void Token::pump() {
  while (up() && callsUnderWay_ < mostUnderWay_) {
    const bool sign = !signsWaiting_.empty() && link_->messageIsFree();
    if (!sign && waiting_.empty()) return;
    auto& queue = sign ? signsWaiting_ : waiting_;
    Wish wish = std::move(queue.front());
    queue.pop_front();
    if (loop_.nowMs() >= wish.untilMs) {
      wish.done(refuse(Failure::Late), {});
      continue;
    }
    ++callsUnderWay_;
    ask({std::move(wish.ask), wish.needs, std::move(wish.content), 0,
         [this, done = std::move(wish.done)](const Outcome& outcome, ByteSpan slot) {
           --callsUnderWay_;
           noteOutcome(outcome);
           done(outcome, slot);
           // Not from in here: the slot of this call is given back only now.
           loop_.defer([this, alive = std::weak_ptr<bool>(alive_)] {
             if (!alive.expired()) pump();
           });
         }});
  }
}

void Token::refuseWaiting() {
  for (auto* queue : {&waiting_, &signsWaiting_}) {
    std::deque<Wish> refused;
    refused.swap(*queue);
    for (Wish& wish : refused) wish.done(refuse(Failure::NotUp), {});
  }
}

void Token::noteOutcome(const Outcome& outcome) {
  if (!isFailure(outcome)) {
    failuresInARow_ = 0;
    return;
  }
  if (++failuresInARow_ < FAILURES_BEFORE_PROOF) return;
  failuresInARow_ = 0;
  if (up()) proveAll();
}

void Token::derive(const PublicKey& own, const PublicKey& peer, Derived done) {
  const auto key = keys_.find(own);
  if (!up() || key == keys_.end() || !key->second.proved) {
    ++facts_.refused;
    return done(nullptr);
  }
  enqueue({hsm::Derive{*key->second.index, 0, canonicalPoint(peer)},
           Needs::Slot,
           {},
           0,
           [this, own, done = std::move(done)](const Outcome& outcome, ByteSpan slot) {
             if (!isFailure(outcome)) {
               const auto result = slot.first<32>();
               if (!reveal(sodium_is_zero(uchars(ByteSpan(result)), result.size()) == 1)) {
                 ++facts_.derived;
                 return done(&result);
               }
               // For a point of low order it would be right, but those are never asked.
               bar(own, "it gave an all-zero result");
             }
             ++facts_.refused;
             done(nullptr);
           }});
}

void Token::sign(const PublicKey& own, ByteSpan message, Signed done) {
  const auto key = keys_.find(own);
  if (!up() || key == keys_.end() || !key->second.proved || message.size() > hsm::MESSAGE_BYTES) {
    ++facts_.refused;
    return done(nullptr);
  }
  const hsm::Sign ask{*key->second.index, static_cast<uint32_t>(message.size())};
  enqueue(
      {ask, Needs::Message, WipedBytes(message), 0, [this, done = std::move(done)](const Outcome& outcome, ByteSpan) {
         if (isFailure(outcome)) {
           ++facts_.refused;
           return done(nullptr);
         }
         ++facts_.signedTexts;
         done(&std::get<hsm::SignReply>(outcome->answer).signature);  // who asked checks it
       }});
}

const hsm::KeyInfo* Token::wrappingKey(const TokenWrap& wrap) const {
  const auto wanted = wrap.cipher == TokenCipher::AesGcm ? hsm::KeyKind::Aes : hsm::KeyKind::Rsa;
  const auto found = std::ranges::find_if(listed_, [&](const hsm::KeyInfo& info) {
    return info.kind == wanted && std::ranges::equal(info.id.span(), wrap.keyId);
  });
  return found == listed_.end() ? nullptr : &*found;
}

void Token::unwrap(const TokenWrap& wrap, const hsm::Block32& bound, Unwrapped done) {
  const hsm::KeyInfo* key = wrappingKey(wrap);
  const auto blob = hsm::Blob::of(wrap.blob);
  if (!up() || key == nullptr || !blob) return done(nullptr);
  enqueue({hsm::Unwrap{key->index, 0, algorithmOf(wrap.cipher), bound, *blob},
           Needs::Slot,
           {},
           0,
           [done = std::move(done)](const Outcome& outcome, ByteSpan slot) {
             if (isFailure(outcome)) return done(nullptr);
             const auto result = slot.first<32>();
             done(&result);
           }});
}

void Token::login(ByteSpan pin, bool force, std::function<void(Status)> done) {
  if (pin.empty() || pin.size() > hsm::MAX_PIN_BYTES) return done(Status::BadRequest);
  Wish wish{hsm::Login{0, static_cast<uint16_t>(pin.size()), force}, Needs::Slot, WipedBytes(pin), 0,
            [this, done = std::move(done)](const Outcome& outcome, ByteSpan) {
              Status status = outcome ? outcome->status : Status::DeviceRemoved;
              if (!outcome && outcome.error() == Failure::Dropped) status = Status::NotLoggedIn;
              if (status != Status::Ok) loggingIn_ = false;
              if (status == Status::Ok && !up()) {
                sayHello();
              } else if (status != Status::Ok && outcome && !up() && link_->up()) {
                enter(TokenState::NoPin, std::string(hsm::describe(status)), status);
              }
              done(status);
            }};
  // Who forgets a PIN ends, and the next one has to get this one: it must not be lost with the first.
  const bool taken = link_ && link_->serves() && !loggingOut_ && !pinToForget_;
  if (taken || !link_ || link_->ended()) return askLogin(std::move(wish));
  dropHeldLogin();
  heldLogin_.emplace(std::move(wish));
  link_->hurry();
}

void Token::askLogin(Wish wish) {
  loggingIn_ = true;
  ask(std::move(wish));
}

void Token::dropHeldLogin() {
  if (!heldLogin_) return;
  const Wish dropped = std::move(*heldLogin_);
  heldLogin_.reset();
  dropped.done(refuse(Failure::WorkerGone), {});
}

void Token::panic() {
  if (!link_ || state_ == TokenState::Ended) return;
  for (auto& [own, key] : keys_) {
    key.proved = false;
    key.problem = "everything was wiped in a panic";
  }
  dropHeldLogin();
  resting_.unset();
  enter(TokenState::NoPin, "its PIN was forgotten in a panic", Status::NotLoggedIn);
  link_->dropAll();  // what waits for it hears so now, and nothing is read from the page that was wiped
  pinToForget_ = true;
  forgetPin();
}

void Token::forgetPin() {
  if (!link_->up()) return;  // the next worker has to
  loggingOut_ = true;
  ask({hsm::Logout{}, Needs::Nothing, {}, 0, [this](const Outcome& outcome, ByteSpan) {
         if (outcome && outcome->status == Status::Ok) {
           pinToForget_ = false;
         } else if (link_->up()) {
           planned_ = "to forget its PIN";
           link_->kill(hsm::KillReason::Operator);
         }
       }});
}

Token::Facts Token::facts() const {
  Facts facts = facts_;
  if (link_) {
    facts.stale = link_->counts().stale;
    facts.garbage = link_->counts().garbage;
    facts.late = link_->counts().late;
  }
  return facts;
}

}  // namespace sallyport::vaultd
