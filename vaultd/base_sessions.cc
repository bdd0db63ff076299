#include "vaultd/base_sessions.h"

#include <algorithm>
#include <new>

namespace sallyport::vaultd {

namespace {

constexpr size_t FRAMES_BYTES = (sizeof(BaseSessions::Frames) + 63) / 64 * 64;
static_assert(alignof(BaseSessions::Frames) <= SecretSlot::SLOT_BYTES);

}  // namespace

BaseSessions::BaseSessions(SecretArena& arena, BlockClaims& claims) : claims_(claims), sessions_(MAX_LIVE) {
  if (arena.freePairBytes() >= MAX_LIVE * FRAMES_BYTES) memory_ = arena.takeBlock(MAX_LIVE * FRAMES_BYTES);
  cipher_.forget();
}

BaseSessions::~BaseSessions() { endAll(); }

MutableByteSpan BaseSessions::memoryOf(const Session& session) {
  return memory_.subspan(static_cast<size_t>(&session - sessions_.data()) * FRAMES_BYTES, FRAMES_BYTES);
}

BaseSessions::Frames& BaseSessions::frames(const Session& session) {
  CHECK(session.number != 0);
  return *std::launder(reinterpret_cast<Frames*>(memoryOf(session).data()));
}

BaseSessions::Session* BaseSessions::freePlace() {
  Session* oldest = nullptr;
  for (Session& session : sessions_) {
    if (session.number == 0) return &session;
    if (!session.claimed && (oldest == nullptr || session.number < oldest->number)) oldest = &session;
  }
  // A stranger who connects and says nothing must not keep the other party out.
  if (oldest != nullptr) end(*oldest);
  return oldest;
}

Result<uint64_t, Refusal> BaseSessions::begin(std::string_view entry, bool isListen, const PeerRule& rule,
                                              const VaultVersion& version) {
  if (!version.facts.unused || claims_.isClaimed(version.facts.publicKey)) return refuse(Refusal::BLOCK_USED);
  Session* session = memory_.empty() ? nullptr : freePlace();
  if (session == nullptr) return refuse(Refusal::TOO_MANY_OBJECTS);
  session->number = ++lastNumber_;
  session->entry = entry;
  session->isListen = isListen;
  session->key = rule.key;
  session->version = version.facts;
  const auto block = version.secret->block().view();
  const wire::PeerParty party = *rule.key->header.party;
  const PeerFraming& framing = rule.framing;
  new (memoryOf(*session).data())
      Frames{BaseSealing(peer::baseSealer(block, party, framing.rotateFrames), framing.maxFrameBytes),
             BaseOpening(peer::baseOpener(block, party, framing.maxFrameBytes, framing.rotateFrames))};
  wipeDeadStack();
  return session->number;
}

BaseSessions::Session* BaseSessions::find(uint64_t number) {
  const auto found = std::ranges::find(sessions_, number, &Session::number);
  return number == 0 || found == sessions_.end() ? nullptr : &*found;
}

Result<void, Refusal> BaseSessions::claim(Session& session, int64_t nowUnix) {
  if (session.claimed) return {};
  const auto claimed = claims_.claim(session.version.publicKey, nowUnix);
  if (!claimed) {
    return refuse(claimed.error() == ClaimRefusal::Used ? Refusal::BLOCK_USED : Refusal::NONCE_UNAVAILABLE);
  }
  session.claimed = true;
  return {};
}

void BaseSessions::end(Session& session) {
  frames(session).~Frames();
  wipe(memoryOf(session));
  auto ending = kj::mv(session.ending);
  session = {};
  KJ_IF_MAYBE (waiting, ending) (*waiting)->fulfill();
}

kj::Promise<void> BaseSessions::whenEnded(uint64_t number) {
  Session* session = find(number);
  if (session == nullptr) return kj::READY_NOW;
  if (session->ending == nullptr) {
    auto pair = kj::newPromiseAndFulfiller<void>();
    session->ending = kj::mv(pair.fulfiller);
    session->ended = pair.promise.fork();
  }
  return session->ended.addBranch();
}

void BaseSessions::end(uint64_t number) {
  if (Session* session = find(number)) end(*session);
}

void BaseSessions::endOf(const VaultKey& key) {
  endIf([&](const Session& session) { return session.key == &key; });
}

void BaseSessions::endAll() {
  endIf([](const Session&) { return true; });
}

size_t BaseSessions::live() const {
  return static_cast<size_t>(std::ranges::count_if(sessions_, [](const Session& each) { return each.number != 0; }));
}

}  // namespace sallyport::vaultd
