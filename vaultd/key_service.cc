#include "vaultd/key_service.h"

#include "vaultd/recorded.h"

namespace sallyport::vaultd {

namespace {

constexpr Verb VERBS[] = {Verb::Box, Verb::Open, Verb::Sign, Verb::FreshNonce};
static_assert(static_cast<int>(proto::Verb::BOX) == static_cast<int>(Verb::Box) &&
              static_cast<int>(proto::Verb::FRESH_NONCE) == static_cast<int>(Verb::FreshNonce));

constexpr size_t BOXED_WORDS = 3;  // the structs of the outcomes
constexpr size_t OPENED_WORDS = 2;
constexpr size_t SIGNED_WORDS = 2;

// How many of a list are looked at at all.
unsigned bounded(unsigned count) { return std::min(count, MAX_ITEMS); }

}  // namespace

VerbSet verbsFrom(capnp::List<proto::Verb>::Reader verbs) {
  VerbSet result;
  for (const proto::Verb wanted : verbs) {
    for (const Verb verb : VERBS) {
      if (static_cast<int>(verb) == static_cast<int>(wanted)) result.add(verb);
    }
  }
  return result;
}

std::vector<proto::Verb> toProto(VerbSet verbs) {
  std::vector<proto::Verb> result;
  for (const Verb verb : VERBS) {
    if (verbs.has(verb)) result.push_back(static_cast<proto::Verb>(verb));
  }
  return result;
}

uint64_t leaseMsFor(const std::vector<const Grant*>& grants, VerbSet verbs, uint64_t wantedMs) {
  const uint64_t longestMs = longestLeaseS(grants, verbs) * 1000;
  if (wantedMs == 0) return longestMs;
  return longestMs == 0 ? wantedMs : std::min(wantedMs, longestMs);
}

KeyService::KeyService(VaultState& state, std::shared_ptr<AppSession> session, std::string name, VerbSet verbs,
                       uint64_t leaseMs)
    : state_(state), session_(std::move(session)), name_(std::move(name)), verbs_(verbs) {
  ++session_->liveKeys;
  ++session_->objects;
  session_->charge->bytes += AppSession::OBJECT_BYTES;
  ++state_.objects[session_->caller.uid];
  ++state_.allObjects;
  beginLease(leaseMs);
}

KeyService::~KeyService() noexcept {
  if (!closed_) --session_->liveKeys;
  --session_->objects;
  session_->charge->bytes -= AppSession::OBJECT_BYTES;
  --state_.allObjects;
  const auto ofUser = state_.objects.find(session_->caller.uid);
  if (--ofUser->second == 0) state_.objects.erase(ofUser);
}

void KeyService::beginLease(uint64_t leaseMs) {
  constexpr uint64_t FAR = uint64_t{1} << 62;
  endsMs_ = leaseMs == 0 ? 0 : state_.nowMs() + std::min(leaseMs, FAR);
}

bool KeyService::ended() const { return closed_ || (endsMs_ != 0 && state_.nowMs() >= endsMs_); }

void KeyService::countRefusal(std::optional<Refusal> refused) {
  if (refused) state_.counters.addRefusal(*refused);
}

KeyService::Call KeyService::begin(Verb verb) const {
  Call call{verb, state_.keys.find(name_), {}, {}};
  if (ended() || call.key == nullptr) {
    call.refused = Refusal::EXPIRED;
  } else if (!verbs_.has(verb)) {
    call.refused = Refusal::NOT_PERMITTED;
  } else {
    call.grants = state_.authority.grants().find(session_->caller, name_, {verb});
    if (call.grants.empty()) call.refused = Refusal::EXPIRED;  // revoked
  }
  if (!call.refused && verb == Verb::Open && state_.breakers.isOpen(session_->caller, state_.nowMs())) {
    call.refused = Refusal::BREAKER_OPEN;
  }
  if (!call.refused && !state_.mayUse()) call.refused = Refusal::NOT_RECORDED;
  return call;
}

KeyService::Call KeyService::begin(Verb verb, KeyKind wanted) const {
  Call call = begin(verb);
  if (!call.refused && call.key->header.kind != wanted) call.refused = Refusal::WRONG_KIND;
  return call;
}

class KeyService::Timed {
 public:
  Timed(VaultState& state, Verb verb) : state_(state), verb_(verb), begunNs_(state.preciseNs()) {
    const uint64_t turnNs = state.turnNs();
    state_.uses[verb].queued.add(begunNs_ - std::min(turnNs, begunNs_));
  }
  ~Timed() { state_.uses[verb_].executed.add(state_.preciseNs() - begunNs_); }
  Timed(const Timed&) = delete;

 private:
  VaultState& state_;
  Verb verb_;
  uint64_t begunNs_;
};

template <typename Step>
Result<void, Refusal> KeyService::use(const Call& call, size_t bytes, Step&& step) {
  UseRecord record{session_->caller, session_->pid, name_, call.verb};
  record.bytes = bytes;
  auto made = call.refused ? Result<Made, Refusal>(refuse(*call.refused)) : step(record);
  if (made) {
    record.version = made->version;
  } else {
    record.refused = made.error();
  }
  if (!state_.recordUse(record) && made) {
    wipe(made->bytes);
    return refuse(Refusal::NOT_RECORDED);
  }
  if (!made) return refuse(made.error());
  return {};
}

template <typename PeerReader>
Result<KeyService::Peer, Refusal> KeyService::peerOf(PeerReader reader) const {
  if (reader.isName()) {
    const auto* known = state_.policy.peer(view(reader.getName()));
    if (known == nullptr) return refuse(Refusal::PEER_NOT_ALLOWED);
    return Peer{known->second, known->first};
  }
  const auto bytes = exactly<PublicKey::SIZE>(reader.getKey());
  if (!bytes) return refuse(Refusal::BAD_SIZE);
  const PublicKey key(*bytes);
  return Peer{key, state_.policy.peerName(key)};
}

Result<void, Refusal> KeyService::permit(const Call& call, const Use& use, uint32_t uses) {
  return state_.authority.permit(call.grants, use, state_.nowMs(), uses);
}

template <typename Items, typename Look>
std::unique_ptr<TokenBatch> KeyService::lookAt(Verb verb, KeyKind wanted, Items items, Look&& look) {
  if (state_.tokens == nullptr) return nullptr;
  const Call call = begin(verb, wanted);
  if (call.refused || !call.key->inToken()) return nullptr;
  return lookAhead(state_.keys, state_.tokens, state_.nowUnix(), items, [&](auto item, unsigned place, auto& need) {
    TokenBatch& batch = need();
    const Result<void, Refusal> admitted = look(call, item, batch);
    if (admitted) {
      batch.admissions.pay(place);
    } else {
      batch.admissions.refuse(place, admitted.error());
    }
  });
}

kj::Promise<void> KeyService::box(BoxContext context) {
  auto batch = lookAt(Verb::Box, KeyKind::X25519, context.getParams().getItems(),
                      [&](const Call& first, auto item, TokenBatch& need) -> Result<void, Refusal> {
                        const auto peer = peerOf(item.getPeer());
                        if (!peer) return refuse(peer.error());
                        const Use use{Verb::Box, &peer->key, item.getText().size(), {}};
                        if (auto may = permit(first, use); !may) return refuse(may.error());
                        need.box(*first.key, peer->key);
                        return {};
                      });
  return whenReady(kj::mv(batch),
                   [this, context](const Admissions& admissions) mutable { return boxAll(context, admissions); });
}

kj::Promise<void> KeyService::boxAll(BoxContext context, const Admissions& admissions) {
  return recorded(state_, context, [&] {
    const Timed timed(state_, Verb::Box);
    const Call call = begin(Verb::Box, KeyKind::X25519);
    const auto items = context.getParams().getItems();
    unsigned place = 0;
    const unsigned count = bounded(items.size());
    size_t words = count * (BOXED_WORDS + wordsFor(AppNonceBytes::SIZE) + wordsFor(wire::BOX_TAG_BYTES));
    for (unsigned i = 0; i < count; ++i) words += wordsFor(items[i].getText().size());
    AnswerRoom room(count, BOXED_WORDS);
    NonceBatch batch(call.refused ? 0 : count);
    answerEach(
        context, items, call.refused ? count * BOXED_WORDS : std::min(words, MAX_ANSWER_WORDS),
        [&](auto item, auto outcome) {
          return boxOne(call, {admissions, place++}, item, outcome, room, batch);
        },
        [&](auto refused) { countRefusal(refused); });
  });
}

Result<void, Refusal> KeyService::boxOne(const Call& call, Admitted admitted, proto::BoxItem::Reader item,
                                         proto::BoxOutcome::Builder outcome, AnswerRoom& room, NonceBatch& batch) {
  const ByteSpan text = view(item.getText());
  return use(call, text.size(), [&](UseRecord& record) -> Result<Made, Refusal> {
    const auto peer = peerOf(item.getPeer());
    if (!peer) return refuse(peer.error());
    record.peer = peer->key;
    record.peerName = peer->name;
    if (const auto refused = admitted.refused()) return refuse(*refused);
    const Use asked{Verb::Box, &peer->key, text.size(), {}};
    if (auto may = permit(call, asked, admitted.uses()); !may) return refuse(may.error());
    const auto version = call.key->active(state_.nowUnix());
    if (!version) return refuse(version.error());
    const size_t boxBytes = text.size() + wire::BOX_TAG_BYTES;
    if (!room.take({AppNonceBytes::SIZE, boxBytes})) return refuse(Refusal::TOO_LONG);

    auto boxed = outcome.initBoxed();
    const MutableByteSpan box = view(boxed.initBox(static_cast<unsigned>(boxBytes)));
    bool cached = false;
    VersionSecret& secret = *(*version)->secret;
    const auto nonce =
        secret.box().sealText(peer->key, text, secret.appNonces, batch, box, !peer->name.empty(), cached);
    state_.counters.add(cached ? Count::SharedKeyHits : Count::SharedKeyMisses);
    if (!nonce) return refuse(nonce.error());
    copyInto(boxed.initNonce(AppNonceBytes::SIZE), nonce->span());
    boxed.setVersion((*version)->facts.number);
    return Made{(*version)->facts.number, box};
  });
}

kj::Promise<void> KeyService::open(OpenContext context) {
  auto batch = lookAt(Verb::Open, KeyKind::X25519, context.getParams().getItems(),
                      [&](const Call& first, auto item, TokenBatch& need) -> Result<void, Refusal> {
                        const auto peer = peerOf(item.getPeer());
                        if (!peer) return refuse(peer.error());
                        const auto nonce = AppNonceBytes::tryFrom(view(item.getNonce()));
                        if (!nonce || !isAppNonce(*nonce)) return refuse(Refusal::BAD_NONCE);
                        const size_t boxBytes = item.getBox().size();
                        if (boxBytes < wire::BOX_TAG_BYTES) return refuse(Refusal::BAD_SIZE);
                        const Use use{Verb::Open, &peer->key, boxBytes - wire::BOX_TAG_BYTES, {}};
                        if (auto may = permit(first, use); !may) return refuse(may.error());
                        need.open(*first.key, peer->key);
                        return {};
                      });
  return whenReady(kj::mv(batch),
                   [this, context](const Admissions& admissions) mutable { return openAll(context, admissions); });
}

kj::Promise<void> KeyService::openAll(OpenContext context, const Admissions& admissions) {
  return recorded(state_, context, [&] {
    const Timed timed(state_, Verb::Open);
    const Call call = begin(Verb::Open, KeyKind::X25519);
    const auto items = context.getParams().getItems();
    unsigned place = 0;
    const unsigned count = bounded(items.size());
    size_t words = count * OPENED_WORDS;
    for (unsigned i = 0; i < count; ++i) words += wordsFor(items[i].getBox().size());
    AnswerRoom room(count, OPENED_WORDS);
    answerEach(
        context, items, call.refused ? count * OPENED_WORDS : std::min(words, MAX_ANSWER_WORDS),
        [&](auto item, auto outcome) {
          return openOne(call, {admissions, place++}, item, outcome, room);
        },
        [&](auto refused) { countRefusal(refused); });
  });
}

Result<void, Refusal> KeyService::openOne(const Call& call, Admitted admitted, proto::OpenItem::Reader item,
                                          proto::OpenOutcome::Builder outcome, AnswerRoom& room) {
  const ByteSpan box = view(item.getBox());
  const size_t bytes = box.size() - std::min(box.size(), wire::BOX_TAG_BYTES);
  return use(call, bytes, [&](UseRecord& record) -> Result<Made, Refusal> {
    const auto peer = peerOf(item.getPeer());
    if (!peer) return refuse(peer.error());
    record.peer = peer->key;
    record.peerName = peer->name;
    const auto nonce = AppNonceBytes::tryFrom(view(item.getNonce()));
    if (!nonce || !isAppNonce(*nonce)) return refuse(Refusal::BAD_NONCE);
    if (box.size() < wire::BOX_TAG_BYTES) return refuse(Refusal::BAD_SIZE);
    if (const auto refused = admitted.refused()) return refuse(*refused);
    if (auto may = permit(call, {Verb::Open, &peer->key, bytes, {}}, admitted.uses()); !may) return refuse(may.error());
    if (!room.take({bytes})) return refuse(Refusal::TOO_LONG);

    auto opened = outcome.initOpened();
    const MutableByteSpan text = view(opened.initText(static_cast<unsigned>(bytes)));
    const auto version = call.key->tryOpening(state_.nowUnix(), [&](VaultVersion& each) {
      bool cached = false;
      auto done = each.secret->box().openText(peer->key, *nonce, box, text, !peer->name.empty(), cached);
      state_.counters.add(cached ? Count::SharedKeyHits : Count::SharedKeyMisses);
      return done;
    });
    if (!version) return refuse(version.error());
    opened.setVersion((*version)->facts.number);
    return Made{(*version)->facts.number, text};
  });
}

kj::Promise<void> KeyService::openSealed(OpenSealedContext context) {
  auto batch = lookAt(Verb::Open, KeyKind::X25519, context.getParams().getBoxes(),
                      [&](const Call& first, auto box, TokenBatch& need) -> Result<void, Refusal> {
                        if (box.size() < SEALED_BOX_BYTES) return refuse(Refusal::BAD_SIZE);
                        const Use use{Verb::Open, nullptr, box.size() - SEALED_BOX_BYTES, {}};
                        if (auto may = permit(first, use); !may) return refuse(may.error());
                        need.open(*first.key, PublicKey(view(box).first(PublicKey::SIZE)));
                        return {};
                      });
  return whenReady(kj::mv(batch), [this, context](const Admissions& admissions) mutable {
    return openSealedAll(context, admissions);
  });
}

kj::Promise<void> KeyService::openSealedAll(OpenSealedContext context, const Admissions& admissions) {
  return recorded(state_, context, [&] {
    const Timed timed(state_, Verb::Open);
    const Call call = begin(Verb::Open, KeyKind::X25519);
    const auto boxes = context.getParams().getBoxes();
    unsigned place = 0;
    const unsigned count = bounded(boxes.size());
    size_t words = count * OPENED_WORDS;
    for (unsigned i = 0; i < count; ++i) words += wordsFor(boxes[i].size());
    AnswerRoom room(count, OPENED_WORDS);
    answerEach(
        context, boxes, call.refused ? count * OPENED_WORDS : std::min(words, MAX_ANSWER_WORDS),
        [&](auto box, auto outcome) {
          return openSealedOne(call, {admissions, place++}, view(box), outcome, room);
        },
        [&](auto refused) { countRefusal(refused); });
  });
}

Result<void, Refusal> KeyService::openSealedOne(const Call& call, Admitted admitted, ByteSpan box,
                                                proto::OpenOutcome::Builder outcome, AnswerRoom& room) {
  const size_t bytes = box.size() - std::min(box.size(), SEALED_BOX_BYTES);
  return use(call, bytes, [&](UseRecord&) -> Result<Made, Refusal> {
    if (box.size() < SEALED_BOX_BYTES) return refuse(Refusal::BAD_SIZE);
    if (const auto refused = admitted.refused()) return refuse(*refused);
    if (auto may = permit(call, {Verb::Open, nullptr, bytes, {}}, admitted.uses()); !may) return refuse(may.error());
    if (!room.take({bytes})) return refuse(Refusal::TOO_LONG);

    auto opened = outcome.initOpened();
    const MutableByteSpan text = view(opened.initText(static_cast<unsigned>(bytes)));
    const auto version = call.key->tryOpening(
        state_.nowUnix(), [&](VaultVersion& each) { return each.secret->box().openAnonymous(box, text); });
    if (!version) return refuse(version.error());
    opened.setVersion((*version)->facts.number);
    return Made{(*version)->facts.number, text};
  });
}

kj::Promise<void> KeyService::sign(SignContext context) {
  auto batch = lookAt(Verb::Sign, KeyKind::Ed25519, context.getParams().getMessages(),
                      [&](const Call& first, auto message, TokenBatch& need) -> Result<void, Refusal> {
                        if (auto may = permit(first, {Verb::Sign, nullptr, message.size(), {}}); !may)
                          return refuse(may.error());
                        need.sign(*first.key, view(message));
                        return {};
                      });
  return whenReady(kj::mv(batch),
                   [this, context](const Admissions& admissions) mutable { return signAll(context, admissions); });
}

kj::Promise<void> KeyService::signAll(SignContext context, const Admissions& admissions) {
  return recorded(state_, context, [&] {
    const Timed timed(state_, Verb::Sign);
    const Call call = begin(Verb::Sign, KeyKind::Ed25519);
    const auto messages = context.getParams().getMessages();
    unsigned place = 0;
    const size_t words = bounded(messages.size()) * (SIGNED_WORDS + wordsFor(SIGNATURE_BYTES));
    answerEach(
        context, messages, words,
        [&](auto message, auto outcome) {
          return signOne(call, {admissions, place++}, view(message), outcome);
        },
        [&](auto refused) { countRefusal(refused); });
  });
}

Result<void, Refusal> KeyService::signOne(const Call& call, Admitted admitted, ByteSpan message,
                                          proto::SignOutcome::Builder outcome) {
  return use(call, message.size(), [&](UseRecord&) -> Result<Made, Refusal> {
    if (const auto refused = admitted.refused()) return refuse(*refused);
    const Use asked{Verb::Sign, nullptr, message.size(), {}};
    if (auto may = permit(call, asked, admitted.uses()); !may) return refuse(may.error());
    const auto version = call.key->active(state_.nowUnix());
    if (!version) return refuse(version.error());
    auto result = outcome.initSigned();
    const MutableByteSpan signature = view(result.initSignature(SIGNATURE_BYTES));
    const auto done = (*version)->secret->signer().sign(message, signature.first<SIGNATURE_BYTES>());
    if (!done) return refuse(done.error());
    result.setVersion((*version)->facts.number);
    return Made{(*version)->facts.number, signature};
  });
}

kj::Promise<void> KeyService::freshNonces(FreshNoncesContext context) {
  return recorded(state_, context, [&] {
    const Timed timed(state_, Verb::FreshNonce);
    Call call = begin(Verb::FreshNonce);
    if (!call.refused && call.key->header.kind == KeyKind::PeerBlock) call.refused = Refusal::WRONG_KIND;
    const auto params = context.getParams();
    const uint32_t count = params.getCount();
    const size_t words = 2 + size_t{bounded(count)} * (1 + wordsFor(LongNonceBytes::SIZE));
    auto outcome = context.getResults(capnp::MessageSize{words + 8, 0}).initOutcome();
    const auto drawn = drawNonces(call, view(params.getDomain()), count, outcome);
    if (!drawn) outcome.setRefused(drawn.error());
    countRefusal(drawn ? std::optional<Refusal>() : std::optional(drawn.error()));
    wipeDeadStack();
  });
}

Result<void, Refusal> KeyService::drawNonces(const Call& call, std::string_view domainName, uint32_t count,
                                             proto::NoncesOutcome::Builder outcome) {
  return use(call, size_t{count} * LongNonceBytes::SIZE, [&](UseRecord& record) -> Result<Made, Refusal> {
    if (count > MAX_ITEMS) return refuse(Refusal::TOO_MANY);
    const auto domain = NonceDomain::named(domainName);
    if (!domain) return refuse(Refusal::BAD_DOMAIN);
    record.domain = domainName;
    if (auto may = permit(call, {Verb::FreshNonce, nullptr, 0, domainName}, count); !may) return refuse(may.error());
    const auto version = call.key->active(state_.nowUnix());
    if (!version) return refuse(version.error());

    DomainNonces& nonces = (*version)->secret->domainNonces(*domain);
    NonceBatch batch(count);
    auto list = outcome.initNonces(count);
    for (uint32_t i = 0; i < count; ++i) {
      const auto nonce = nonces.draw(batch);
      if (!nonce) return refuse(Refusal::NONCE_UNAVAILABLE);
      copyInto(list.init(i, LongNonceBytes::SIZE), nonce->span());
    }
    return Made{(*version)->facts.number, {}};
  });
}

kj::Promise<void> KeyService::renew(RenewContext context) {
  return guarded([&] {
    auto outcome = context.getResults().initOutcome();
    const auto grants = state_.authority.grants().find(session_->caller, name_, verbs_);
    if (ended() || grants.empty()) {
      countRefusal(Refusal::EXPIRED);
      return outcome.setRefused(Refusal::EXPIRED);
    }
    const uint64_t leaseMs = leaseMsFor(grants, verbs_ & verbsOf(grants), context.getParams().getLeaseMs());
    beginLease(leaseMs);
    outcome.setLeaseMs(leaseMs);
  });
}

kj::Promise<void> KeyService::close(CloseContext context) {
  return guarded([&] {
    if (!closed_) --session_->liveKeys;
    closed_ = true;
  });
}

}  // namespace sallyport::vaultd
