#include "vaultd/app_service.h"

#include "common/rpc.h"

namespace sallyport::vaultd {

namespace {

void setVerbs(capnp::List<proto::Verb>::Builder list, const std::vector<proto::Verb>& verbs) {
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, verbs[i]);
}

}  // namespace

AppService::AppService(VaultState& state, Caller caller, pid_t pid, std::shared_ptr<LinkCharge> charge)
    : state_(state), session_(std::make_shared<AppSession>()) {
  session_->caller = std::move(caller);
  session_->pid = pid;
  if (charge) session_->charge = std::move(charge);
}

kj::Promise<void> AppService::publicKey(PublicKeyContext context) {
  return guarded([&] {
    auto outcome = context.getResults().initOutcome();
    const VaultKey* key = state_.keys.find(view(context.getParams().getKey()));
    const bool isBlock = key != nullptr && key->header.kind == KeyKind::PeerBlock;  // it has no public half
    const KeyVersion* version = key == nullptr || isBlock ? nullptr : key->activeFacts(state_.nowUnix());
    if (version == nullptr) {
      const Refusal refusal = key == nullptr ? Refusal::UNKNOWN_KEY
                              : isBlock      ? Refusal::WRONG_KIND
                                             : Refusal::WRONG_VERSION;
      state_.counters.addRefusal(refusal);
      outcome.setRefused(refusal);
      return;
    }
    state_.counters.add(Count::PublicKeysGiven);
    copyInto(outcome.initPublicKey(PublicKey::SIZE), version->publicKey.span());
    outcome.setVersion(version->number);
    const auto opening = openingVersions(key->header, state_.nowUnix());
    auto list = outcome.initOpening(static_cast<unsigned>(opening.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      copyInto(list.init(i, PublicKey::SIZE), opening[i]->publicKey.span());
    }
  });
}

kj::Promise<void> AppService::ping(PingContext context) {
  return guarded([&] {
    const uint64_t nowMs = state_.nowMs();
    if (!tested_ || nowMs - testedAtMs_ >= 1000) {
      tested_ = true;
      testedAtMs_ = nowMs;
      testResult_ = boxSelfTest();
      if (!testResult_) state_.counters.add(Count::SelfTestFailures);
    }
    state_.counters.add(Count::Pings);
    context.getResults().setSelfTest(testResult_);
  });
}

kj::Promise<void> AppService::key(KeyContext context) {
  return guarded([&] {
    auto outcome = context.getResults().initOutcome();
    const auto given = giveKey(context.getParams(), outcome);
    if (given) return state_.counters.add(Count::KeysGiven);
    state_.counters.addRefusal(given.error());
    outcome.setRefused(given.error());
  });
}

Result<void, Refusal> AppService::giveKey(proto::App::KeyParams::Reader params, proto::KeyOutcome::Builder outcome) {
  const std::string_view name = view(params.getName());
  const auto wanted = params.getVerbs();
  if (wanted.size() > MAX_ITEMS) return refuse(Refusal::TOO_MANY);
  const VerbSet asked = wanted.size() == 0 ? VerbSet::all() : verbsFrom(wanted);
  const auto grants = state_.authority.grants().find(session_->caller, name, asked);
  const VerbSet verbs = asked & verbsOf(grants);
  // A key that is not there is refused as one that isn't granted: which keys exist is nobody else's business.
  if (verbs.empty() || state_.keys.find(name) == nullptr) return refuse(Refusal::NOT_PERMITTED);
  const auto ofUser = state_.objects.find(session_->caller.uid);
  if (session_->liveKeys >= AppSession::MAX_LIVE_KEYS || session_->objects >= AppSession::MAX_OBJECTS ||
      (ofUser != state_.objects.end() && ofUser->second >= AppSession::MAX_OBJECTS_OF_USER) ||
      state_.allObjects >= AppSession::MAX_OBJECTS_OF_ALL) {
    return refuse(Refusal::TOO_MANY_OBJECTS);
  }
  if (state_.policy.isHoney(name)) state_.alarm(session_->caller, session_->pid, name, "key");
  const uint64_t leaseMs = leaseMsFor(grants, verbs, params.getLeaseMs());
  auto granted = outcome.initGranted();
  granted.setKey(kj::heap<KeyService>(state_, session_, std::string(name), verbs, leaseMs));
  granted.setLeaseMs(leaseMs);
  const auto list = toProto(verbs);
  setVerbs(granted.initVerbs(static_cast<unsigned>(list.size())), list);
  return {};
}

// What of a key fits the room that is left in an answer: all of its grants' names or, of the first key, as many as fit.
struct AppService::ListedKey {
  std::string_view name;
  const VaultKey* key;
  std::vector<const Grant*> grants;
  size_t namesThatFit = 0;

  bool fit(AnswerRoom& room, bool isFirst) {
    constexpr size_t VERBS_BYTES = VERB_COUNT * sizeof(uint16_t);
    const AnswerRoom before = room;
    if (!room.take({GRANTED_KEY_BYTES, name.size() + 1, MAX_KIND_BYTES, PublicKey::SIZE, VERBS_BYTES})) return false;
    for (; namesThatFit < grants.size(); ++namesThatFit) {
      if (!room.take({POINTER_BYTES, grants[namesThatFit]->name.size() + 1})) break;
    }
    if (namesThatFit == grants.size() || isFirst) return true;
    room = before;
    return false;
  }

  static constexpr size_t POINTER_BYTES = 8;
  static constexpr size_t GRANTED_KEY_BYTES = 5 * POINTER_BYTES;
  static constexpr size_t MAX_KIND_BYTES = 16;  // "peer-block" and its zero
};

kj::Promise<void> AppService::keys(KeysContext context) {
  return guarded([&] {
    std::vector<ListedKey> found;
    AnswerRoom room(0, 0);
    const auto& all = state_.keys.all();
    auto next = all.upper_bound(view(context.getParams().getAfter()));
    for (; next != all.end(); ++next) {
      ListedKey key{next->first, next->second.get(), state_.authority.grants().find(session_->caller, next->first)};
      if (key.grants.empty()) continue;
      if (!key.fit(room, found.empty())) break;
      found.push_back(std::move(key));
    }
    auto results = context.getResults(capnp::MessageSize{8 + room.taken(), 0});
    results.setMore(next != all.end());
    auto list = results.initKeys(static_cast<unsigned>(found.size()));
    for (unsigned i = 0; i < list.size(); ++i) {
      const ListedKey& key = found[i];
      list[i].setName({key.name.data(), key.name.size()});
      list[i].setKind(literal(describe(key.key->header.kind)));
      const KeyVersion* version = key.key->activeFacts(state_.nowUnix());
      if (version != nullptr && key.key->header.kind != KeyKind::PeerBlock) {
        copyInto(list[i].initPublicKey(PublicKey::SIZE), version->publicKey.span());
      }
      const auto verbs = toProto(verbsOf(key.grants));
      setVerbs(list[i].initVerbs(static_cast<unsigned>(verbs.size())), verbs);
      auto names = list[i].initGrants(static_cast<unsigned>(key.namesThatFit));
      for (unsigned j = 0; j < names.size(); ++j) names.set(j, toText(key.grants[j]->name));
    }
  });
}

kj::Promise<void> AppService::verify(VerifyContext context) {
  return guarded([&] {
    const auto items = context.getParams().getItems();
    answerEach(
        context, items, std::min(items.size(), MAX_ITEMS),
        [&](auto item, auto outcome) { return verifyOne(item, outcome); },
        [&](auto refused) {
          if (refused) return state_.counters.addRefusal(*refused);
          state_.counters.add(Count::SignaturesVerified);
        });
  });
}

Result<void, Refusal> AppService::verifyOne(proto::VerifyItem::Reader item, proto::VerifyOutcome::Builder outcome) {
  const auto key = exactly<PublicKey::SIZE>(item.getPublicKey());
  const auto signature = exactly<SIGNATURE_BYTES>(item.getSignature());
  if (!key || !signature) return refuse(Refusal::BAD_SIZE);
  if (!state_.mayVerify(session_->caller.uid)) return refuse(Refusal::RATE_LIMITED);
  if (auto good = verifySignature(PublicKey(*key), view(item.getMessage()), *signature); !good) {
    return refuse(good.error());
  }
  outcome.setGenuine();
  return {};
}

}  // namespace sallyport::vaultd
