// peer_service.cc - the steps of the peer protocol: those of NetService, and PeerSession. See peer_service.h.
#include "vaultd/peer_service.h"

#include "vaultd/key_life.h"
#include "vaultd/steps.h"
#include "vaultd/vault_service.h"

namespace sallyport::vaultd {

namespace {

proto::PeerParty toProto(wire::PeerParty party) {
  return party == wire::PeerParty::A ? proto::PeerParty::A : proto::PeerParty::B;
}

// The entry's rule, if it is of this mode and its key can serve it.
Result<const PeerRule*, Refusal> ruleOf(const Policy& policy, proto::PeerEntry::Reader entry, PeerMode mode) {
  const auto name = view(entry.getName());
  const PeerRule* rule = policy.peerEntry(name, entry.getListen());
  if (rule == nullptr) return refuse(policy.hasEntry(name) ? Refusal::WRONG_PROTOCOL : Refusal::UNKNOWN_ENTRY);
  if (rule->framing.mode != mode) return refuse(Refusal::WRONG_PROTOCOL);
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  if (rule->key->header.kind != KeyKind::PeerBlock) return refuse(Refusal::WRONG_KIND);
  return rule;
}

// The secrets of both directions, into an outcome that has fields for them.
template <typename Builder>
void deriveInto(Builder out, const VaultVersion& version, wire::PeerParty party, const wire::PeerSalt& ownSalt,
                const wire::PeerSalt& peerSalt) {
  const auto block = version.secret->block().view();
  const auto sendSecret = peer::hardSendSecret(block, party, ownSalt, peerSalt);
  copyInto(out.initSendSecret(wire::PEER_SECRET_BYTES), sendSecret.expose());
  const auto receiveSecret = peer::hardReceiveSecret(block, party, ownSalt, peerSalt);
  copyInto(out.initReceiveSecret(wire::PEER_SECRET_BYTES), receiveSecret.expose());
  out.setVersion(version.facts.number);
}

// What the other host may have active while a block is being rotated: the one before (open-only), and one that is
// pending here: its confirmation is to come, or its time, which the other host's clock can have told already. So many
// as can be pending at a time, and the one before.
constexpr size_t MAX_OTHERS = MAX_WAITING_BLOCKS + 2;
std::vector<const VaultVersion*> otherVersions(const VaultKey& key, int64_t nowUnix) {
  std::vector<const VaultVersion*> others;
  for (const VaultVersion& version : key.versions) {
    const VersionState state = stateOf(version.facts, nowUnix);
    const bool mayServe = state == VersionState::OpenOnly || state == VersionState::Pending;
    if (version.secret && mayServe) others.push_back(&version);
  }
  // The newest are the likeliest, and come first.
  if (others.size() > MAX_OTHERS) others.resize(MAX_OTHERS);
  return others;
}

// What a piece of a stream may have, so that its answer fits a message.
constexpr size_t MAX_PIECE_BYTES = MAX_TEXT_BYTES;
using Piece = SecretBytes<struct PieceTag, MAX_PIECE_BYTES + MAX_HELD>;

}  // namespace

// --- hard mode ---

kj::Promise<void> NetService::peerSalts(PeerSaltsContext context) {
  return recorded(state_, context, [&] {
    const auto entries = context.getParams().getEntries();
    constexpr size_t WORDS = 2 + wire::PEER_SALT_BYTES / 8;
    answerEach(
        context, entries, std::min(entries.size(), MAX_ITEMS) * WORDS,
        [&](auto entry, auto outcome) {
          return recordedStep(state_, "peer_salt", view(entry.getName()),
                              [&](StepRecord&) { return drawSalt(entry, outcome); });
        },
        tally(state_.counters, Count::PeerSaltsDrawn, Count::PeerSaltsRefused));
  });
}

Result<void, Refusal> NetService::drawSalt(proto::PeerEntry::Reader entry, proto::PeerSaltOutcome::Builder outcome) {
  const auto rule = ruleOf(state_.policy, entry, PeerMode::Hard);
  if (!rule) return refuse(rule.error());
  VaultKey& key = *(*rule)->key;
  if (!key.takeRate(&VaultKey::peerRate, state_.nowMs())) return refuse(Refusal::RATE_LIMITED);
  const auto version = key.active(state_.nowUnix());
  if (!version) return refuse(version.error());
  auto drawn = outcome.initDrawn();
  drawn.setVersion((*version)->facts.number);
  drawn.setParty(toProto(*key.header.party));
  const auto salt = state_.salts.draw(view(entry.getName()), entry.getListen(), state_.nowMs());
  copyInto(drawn.initSalt(wire::PEER_SALT_BYTES), salt.span());
  return {};
}

kj::Promise<void> NetService::peerKeys(PeerKeysContext context) {
  return recorded(state_, context, [&] {
    const auto requests = context.getParams().getRequests();
    constexpr size_t WORDS = 3 + 2 * wire::PEER_SECRET_BYTES / 8;
    answerEach(
        context, requests, std::min(requests.size(), MAX_ITEMS) * WORDS,
        [&](auto request, auto outcome) {
          return recordedStep(state_, "peer_keys", view(request.getEntry().getName()),
                              [&](StepRecord&) { return deriveKeys(request, outcome); });
        },
        tally(state_.counters, Count::PeerKeysDerived, Count::PeerKeysRefused));
  });
}

Result<void, Refusal> NetService::deriveKeys(proto::PeerKeysRequest::Reader request,
                                             proto::PeerKeysOutcome::Builder outcome) {
  const auto entry = request.getEntry();
  const auto own = exactly<wire::PEER_SALT_BYTES>(request.getOwnSalt());
  const auto other = exactly<wire::PEER_SALT_BYTES>(request.getPeerSalt());
  if (!own || !other) return refuse(Refusal::BAD_SIZE);
  const wire::PeerSalt ownSalt(*own);
  const wire::PeerSalt peerSalt(*other);
  // Before anything else, so that it is used up whatever becomes of the request.
  const bool fresh = state_.salts.take(ownSalt, view(entry.getName()), entry.getListen(), state_.nowMs());
  const auto rule = ruleOf(state_.policy, entry, PeerMode::Hard);
  if (!rule) return refuse(rule.error());
  if (!fresh) return refuse(Refusal::EXPIRED);
  VaultKey& key = *(*rule)->key;
  const auto version = key.active(state_.nowUnix());
  if (!version) return refuse(version.error());
  deriveInto(outcome.initDerived(), **version, *key.header.party, ownSalt, peerSalt);
  return {};
}

kj::Promise<void> NetService::peerAccept(PeerAcceptContext context) {
  return recorded(state_, context, [&] {
    const auto requests = context.getParams().getRequests();
    constexpr size_t WORDS = 5 + (wire::PEER_SALT_BYTES + 2 * wire::PEER_SECRET_BYTES) / 8;
    answerEach(
        context, requests, std::min(requests.size(), MAX_ITEMS) * WORDS,
        [&](auto request, auto outcome) {
          return recordedStep(state_, "peer_accept", view(request.getEntry().getName()),
                              [&](StepRecord&) { return acceptPeer(request, outcome); });
        },
        tally(state_.counters, Count::PeersAccepted, Count::PeersNotAccepted));
  });
}

Result<void, Refusal> NetService::acceptPeer(proto::PeerAcceptRequest::Reader request,
                                             proto::PeerAcceptOutcome::Builder outcome) {
  const auto rule = ruleOf(state_.policy, request.getEntry(), PeerMode::Hard);
  if (!rule) return refuse(rule.error());
  const auto other = exactly<wire::PEER_SALT_BYTES>(request.getPeerSalt());
  if (!other) return refuse(Refusal::BAD_SIZE);
  VaultKey& key = *(*rule)->key;
  if (!key.takeRate(&VaultKey::peerRate, state_.nowMs())) return refuse(Refusal::RATE_LIMITED);
  const auto version = key.active(state_.nowUnix());
  if (!version) return refuse(version.error());
  // Not the caller's, so that these keys were never anybody's before.
  wire::PeerSalt ownSalt;
  fillRandom(ownSalt.mutableSpan());
  const wire::PeerParty party = *key.header.party;
  const wire::PeerSalt peerSalt(*other);
  auto accepted = outcome.initAccepted();
  accepted.setParty(toProto(party));
  copyInto(accepted.initOwnSalt(wire::PEER_SALT_BYTES), ownSalt.span());
  deriveInto(accepted, **version, party, ownSalt, peerSalt);
  const auto others = otherVersions(key, state_.nowUnix());
  if (others.empty()) return {};
  auto list = accepted.initOthers(static_cast<uint>(others.size()));
  for (uint i = 0; i < list.size(); ++i) deriveInto(list[i], *others[i], party, ownSalt, peerSalt);
  return {};
}

// --- base mode ---

kj::Promise<void> NetService::peerSession(PeerSessionContext context) {
  return recorded(state_, context, [&] {
    const auto entry = context.getParams().getEntry();
    const ByteSpan first = view(context.getParams().getFirst());
    auto outcome = context.getResults(capnp::MessageSize{24 + wordsFor(first.size() + MAX_HELD), 1}).initOutcome();
    const auto begun = recordedStep(state_, "peer_session", view(entry.getName()),
                                    [&](StepRecord&) { return beginSession(entry, first, outcome); });
    if (!begun) outcome.setRefused(begun.error());
    tally(state_.counters, Count::PeerSessionsBegun,
          Count::PeerSessionsRefused)(begun ? std::optional<Refusal>() : std::optional(begun.error()));
  });
}

Result<void, Refusal> NetService::beginSession(proto::PeerEntry::Reader entry, ByteSpan first,
                                               proto::PeerSessionOutcome::Builder outcome) {
  const auto rule = ruleOf(state_.policy, entry, PeerMode::Base);
  if (!rule) return refuse(rule.error());
  VaultKey& key = *(*rule)->key;
  if (!key.takeRate(&VaultKey::peerRate, state_.nowMs())) return refuse(Refusal::RATE_LIMITED);
  const auto version = key.active(state_.nowUnix());
  if (!version) return refuse(version.error());
  if (state_.base == nullptr) return refuse(Refusal::BLOCK_USED);
  if (state_.peerSessionObjects >= PeerSessionService::MAX_OBJECTS) return refuse(Refusal::TOO_MANY_OBJECTS);
  const auto number = state_.base->begin(view(entry.getName()), entry.getListen(), **rule, **version);
  if (!number) return refuse(number.error());
  auto session = kj::heap<PeerSessionService>(state_, *number);
  auto begun = outcome.initBegun();
  if (!first.empty()) {
    if (auto opened = session->openFirst(first, begun.initOpened()); !opened) return opened;
  }
  begun.setSession(kj::mv(session));
  begun.setParty(toProto(*key.header.party));
  return {};
}

PeerSessionService::~PeerSessionService() noexcept {
  --state_.peerSessionObjects;
  state_.base->end(number_);
}

Result<BaseSessions::Session*, Refusal> PeerSessionService::session() {
  BaseSessions::Session* session = state_.base->find(number_);
  if (session == nullptr) return refuse(Refusal::EXPIRED);
  if (!state_.inForce(*session)) {
    state_.base->end(number_);
    return refuse(Refusal::EXPIRED);
  }
  if (!state_.mayUse()) return refuse(Refusal::NOT_RECORDED);
  return session;
}

Result<void, Refusal> PeerSessionService::claim(BaseSessions::Session& session) {
  if (session.claimed) return {};
  const auto claimed = state_.base->claim(session, state_.nowUnix());
  state_.counters.add(claimed ? Count::BlocksClaimed : Count::BlocksNotClaimed);
  AuditRecord record;
  record.verb = "claim_block";
  record.key = session.key->header.name;
  record.version = session.version.number;
  record.entry = session.entry;
  record.outcome = claimed ? "ok" : std::string(Counters::nameOf(static_cast<size_t>(claimed.error())));
  state_.recordEvent(std::move(record));
  return claimed;
}

// Answers one call by `step(frames, outcome)`. `words`: of the outcome beside the frames.
template <typename Context, typename Step>
kj::Promise<void> PeerSessionService::answer(Context& context, size_t words, Step&& step) {
  return recorded(state_, context, [&] {
    const ByteSpan frames = view(context.getParams().getFrames());
    auto outcome = context.getResults(capnp::MessageSize{words + wordsFor(frames.size() + MAX_HELD), 0}).initOutcome();
    const auto done = step(frames, outcome);
    // No key schedule stays behind.
    state_.base->cipher().forget();
    wipeDeadStack();
    if (done) return;
    outcome.setRefused(done.error());
    state_.counters.addRefusal(done.error());
  });
}

kj::Promise<void> PeerSessionService::seal(SealContext context) {
  return answer(context, 8, [this](ByteSpan frames, auto outcome) { return sealInto(frames, outcome); });
}

Result<void, Refusal> PeerSessionService::sealInto(ByteSpan frames, proto::SealedOutcome::Builder outcome) {
  const auto current = session();
  if (!current) return refuse(current.error());
  if (frames.size() > MAX_PIECE_BYTES) return refuse(Refusal::BAD_SIZE);
  if (auto claimed = frames.empty() ? Result<void, Refusal>() : claim(**current); !claimed) {
    state_.base->end(number_);
    return refuse(claimed.error());
  }
  Piece out;
  const auto sealed = state_.base->frames(**current).sealing.seal(state_.base->cipher(), frames, out.exposeMutable());
  if (!sealed) {
    return refuse(sealed.error() == wire::DropReason::FrameTooLarge ? Refusal::TOO_LONG : Refusal::NONCE_UNAVAILABLE);
  }
  outcome.setFrames(capnp::Data::Reader(out.exposeData(), *sealed));
  return {};
}

kj::Promise<void> PeerSessionService::open(OpenContext context) {
  return answer(context, 16, [this](ByteSpan frames, auto outcome) { return openInto(frames, outcome); });
}

Result<void, Refusal> PeerSessionService::openFirst(ByteSpan frames, proto::OpenedOutcome::Builder outcome) {
  auto done = openInto(frames, outcome);
  state_.base->cipher().forget();
  wipeDeadStack();
  const BaseSessions::Session* session = state_.base->find(number_);
  if (done && session != nullptr && !session->claimed && outcome.getOpened().getFault().size() > 0)
    state_.base->end(number_);
  return done;
}

Result<void, Refusal> PeerSessionService::openInto(ByteSpan frames, proto::OpenedOutcome::Builder outcome) {
  const auto current = session();
  if (!current) return refuse(current.error());
  if (frames.size() > MAX_PIECE_BYTES) return refuse(Refusal::BAD_SIZE);
  Piece out;
  std::optional<Refusal> notClaimed;
  const auto opened =
      state_.base->frames(**current).opening.open(state_.base->cipher(), frames, out.exposeMutable(), [&] {
        const auto claimed = claim(**current);
        if (!claimed) notClaimed = claimed.error();
        return claimed.has_value();
      });
  if (notClaimed) {
    state_.base->end(number_);
    return refuse(*notClaimed);
  }
  if (opened.fault) state_.counters.add(Count::PeerFaults);
  auto result = outcome.initOpened();
  result.setFrames(capnp::Data::Reader(out.exposeData(), opened.bytes));
  result.setSanctified(static_cast<uint32_t>(opened.sanctified));
  result.setFault(opened.fault ? literal(wire::name(*opened.fault)) : kj::StringPtr(""));
  return {};
}

kj::Promise<void> PeerSessionService::close(CloseContext context) {
  return guarded([&] { state_.base->end(number_); });
}

kj::Promise<void> PeerSessionService::ended(EndedContext context) {
  context.allowCancellation();  // this call holds us: who lets go of the session withdraws it
  return state_.base->whenEnded(number_);
}

}  // namespace sallyport::vaultd
