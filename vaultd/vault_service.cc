#include "vaultd/vault_service.h"

#include "vaultd/steps.h"

namespace sallyport::vaultd {

namespace {

Refusal noEntry(const Policy& policy, std::string_view name) {
  const bool peer = policy.peerEntry(name, true) != nullptr || policy.peerEntry(name, false) != nullptr;
  return peer ? Refusal::WRONG_PROTOCOL : Refusal::UNKNOWN_ENTRY;
}

}  // namespace

template <typename Need>
void NetService::admit(VaultKey* key, TokenBucket VaultKey::*rate, unsigned place, Need& need,
                       void (TokenBatch::*what)(VaultKey&, const PublicKey&), const std::optional<PublicKey>& peer) {
  if (key == nullptr || !key->inToken() || !peer || !state_.mayUse()) return;
  TokenBatch& batch = need();
  if (!key->takeRate(rate, state_.nowMs())) return batch.admissions.refuse(place, Refusal::RATE_LIMITED);
  batch.admissions.pay(place);
  (batch.*what)(*key, *peer);
}

kj::Promise<void> NetService::sealCookies(SealCookiesContext context) {
  auto batch = lookAhead(state_.keys, state_.tokens, state_.nowUnix(), context.getParams().getHellos(),
                         [&](auto hello, unsigned place, auto& need) {
                           const ListenRule* rule = state_.policy.listen(view(hello.getEntry()));
                           admit(rule == nullptr ? nullptr : rule->key, &VaultKey::sealRate, place, need,
                                 &TokenBatch::open, PublicKey::tryFrom(view(hello.getClientEphemeral())));
                         });
  return whenReady(kj::mv(batch), [this, context](const Admissions& admissions) mutable {
    return recorded(state_, context, [&] {
      const auto hellos = context.getParams().getHellos();
      constexpr size_t WORDS = 3 + (wire::LONG_NONCE_BYTES + wire::COOKIE_PACKET_BOX_BYTES) / 8;
      NonceBatch nonces(std::min(hellos.size(), MAX_ITEMS));
      unsigned place = 0;
      answerEach(
          context, hellos, std::min(hellos.size(), MAX_ITEMS) * WORDS,
          [&](auto request, auto outcome) {
            const unsigned at = place++;
            return recordedStep(state_, "seal_cookie", view(request.getEntry()), [&](StepRecord&) {
              return orRefused(admissions, at, [&](bool paid) { return sealCookie(request, outcome, nonces, paid); });
            });
          },
          tally(state_.counters, Count::CookiesSealed, Count::CookiesRefused));
    });
  });
}

Result<void, Refusal> NetService::sealCookie(proto::Hello::Reader hello, proto::CookieOutcome::Builder outcome,
                                             NonceBatch& nonces, bool paid) {
  const auto name = view(hello.getEntry());
  const ListenRule* rule = state_.policy.listen(name);
  if (rule == nullptr) return refuse(noEntry(state_.policy, name));
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  if (rule->key->header.kind != KeyKind::X25519) return refuse(Refusal::WRONG_KIND);
  const auto clientEphemeral = exactly<wire::KEY_BYTES>(hello.getClientEphemeral());
  const auto box = exactly<wire::HELLO_BOX_BYTES>(hello.getBox());
  const auto serverEphemeral = exactly<wire::KEY_BYTES>(hello.getServerEphemeral());
  const auto cookie = exactly<wire::COOKIE_BYTES>(hello.getCookie());
  if (!clientEphemeral || !box || !serverEphemeral || !cookie) return refuse(Refusal::BAD_SIZE);
  // Before the multiplication: that is what the limit protects.
  if (!paid && !rule->key->takeRate(&VaultKey::sealRate, state_.nowMs())) return refuse(Refusal::RATE_LIMITED);

  std::array<std::byte, wire::COOKIE_PACKET_BOX_BYTES> sealedBox;
  const LongTermBox::HelloStep step{PublicKey(*clientEphemeral), *box, PublicKey(*serverEphemeral), *cookie};
  LongNonceBytes nonce;
  const auto version = rule->key->tryOpening(state_.nowUnix(), [&](VaultVersion& each) -> Result<void, Refusal> {
    auto made = each.secret->box().sealCookie(step, each.secret->cookieNonces, nonces, sealedBox);
    if (!made) return refuse(made.error());
    nonce = *made;
    return {};
  });
  if (!version) return refuse(version.error());
  auto sealed = outcome.initSealed();
  copyInto(sealed.initNonce(LongNonceBytes::SIZE), nonce.span());
  copyInto(sealed.initBox(sealedBox.size()), sealedBox);
  return {};
}

kj::Promise<void> NetService::verifyVouches(VerifyVouchesContext context) {
  auto batch = lookAhead(state_.keys, state_.tokens, state_.nowUnix(), context.getParams().getVouches(),
                         [&](auto vouch, unsigned place, auto& need) {
                           const ListenRule* rule = state_.policy.listen(view(vouch.getEntry()));
                           admit(rule == nullptr ? nullptr : rule->key, &VaultKey::verifyRate, place, need,
                                 &TokenBatch::open, PublicKey::tryFrom(view(vouch.getClient())));
                         });
  return whenReady(kj::mv(batch), [this, context](const Admissions& admissions) mutable {
    return recorded(state_, context, [&] {
      const auto vouches = context.getParams().getVouches();
      constexpr size_t WORDS = 2 + 9;  // a peer's name of 64 characters
      unsigned place = 0;
      answerEach(
          context, vouches, std::min(vouches.size(), MAX_ITEMS) * WORDS,
          [&](auto request, auto outcome) {
            const unsigned at = place++;
            return recordedStep(state_, "verify_vouch", view(request.getEntry()), [&](StepRecord& record) {
              auto done = orRefused(admissions, at, [&](bool paid) { return verifyVouch(request, outcome, paid); });
              if (done) record.peer = view(outcome.asReader().getPeer());
              return done;
            });
          },
          tally(state_.counters, Count::VouchesVerified, Count::VouchesRefused));
    });
  });
}

Result<void, Refusal> NetService::verifyVouch(proto::Vouch::Reader vouch, proto::VouchOutcome::Builder outcome,
                                              bool paid) {
  const auto name = view(vouch.getEntry());
  const ListenRule* rule = state_.policy.listen(name);
  if (rule == nullptr) return refuse(noEntry(state_.policy, name));
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  if (rule->key->header.kind != KeyKind::X25519) return refuse(Refusal::WRONG_KIND);
  const auto client = exactly<wire::KEY_BYTES>(vouch.getClient());
  const auto nonce = exactly<wire::LONG_NONCE_BYTES>(vouch.getNonce());
  const auto box = exactly<wire::VOUCH_BYTES>(vouch.getBox());
  const auto clientEphemeral = exactly<wire::KEY_BYTES>(vouch.getClientEphemeral());
  if (!client || !nonce || !box || !clientEphemeral) return refuse(Refusal::BAD_SIZE);
  if (!paid && !rule->key->takeRate(&VaultKey::verifyRate, state_.nowMs())) return refuse(Refusal::RATE_LIMITED);

  const PublicKey clientKey(*client);
  const auto allowed = rule->allowed.find(clientKey);
  const bool mayEnter = allowed != rule->allowed.end();
  const LongTermBox::VouchStep step{clientKey, LongNonceBytes(*nonce), *box, PublicKey(*clientEphemeral)};
  const auto version = rule->key->tryOpening(state_.nowUnix(), [&](VaultVersion& each) {
    bool cached = false;
    auto genuine = each.secret->box().verifyVouch(step, mayEnter, cached);
    state_.counters.add(cached ? Count::SharedKeyHits : Count::SharedKeyMisses);
    return genuine;
  });
  if (!version) return refuse(version.error());
  if (!mayEnter) return refuse(Refusal::PEER_NOT_ALLOWED);
  outcome.setPeer(kj::StringPtr(allowed->second.c_str(), allowed->second.size()));
  return {};
}

kj::Promise<void> NetService::makeVouches(MakeVouchesContext context) {
  auto batch = lookAhead(state_.keys, state_.tokens, state_.nowUnix(), context.getParams().getRequests(),
                         [&](auto request, unsigned place, auto& need) {
                           const ConnectRule* rule = state_.policy.connect(view(request.getEntry()));
                           if (rule == nullptr || request.getClientEphemeral().size() != wire::KEY_BYTES) return;
                           admit(rule->key, &VaultKey::makeRate, place, need, &TokenBatch::box, rule->server);
                         });
  return whenReady(kj::mv(batch), [this, context](const Admissions& admissions) mutable {
    return recorded(state_, context, [&] {
      const auto requests = context.getParams().getRequests();
      constexpr size_t WORDS = 4 + (wire::KEY_BYTES + wire::LONG_NONCE_BYTES + wire::VOUCH_BYTES) / 8;
      NonceBatch nonces(std::min(requests.size(), MAX_ITEMS));
      unsigned place = 0;
      answerEach(
          context, requests, std::min(requests.size(), MAX_ITEMS) * WORDS,
          [&](auto request, auto outcome) {
            const unsigned at = place++;
            return recordedStep(state_, "make_vouch", view(request.getEntry()), [&](StepRecord&) {
              return orRefused(admissions, at, [&](bool paid) { return makeVouch(request, outcome, nonces, paid); });
            });
          },
          tally(state_.counters, Count::VouchesMade, Count::VouchesNotMade));
    });
  });
}

Result<void, Refusal> NetService::makeVouch(proto::VouchRequest::Reader request,
                                            proto::MadeVouchOutcome::Builder outcome, NonceBatch& nonces, bool paid) {
  const auto name = view(request.getEntry());
  const ConnectRule* rule = state_.policy.connect(name);
  if (rule == nullptr) return refuse(noEntry(state_.policy, name));
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  if (rule->key->header.kind != KeyKind::X25519) return refuse(Refusal::WRONG_KIND);
  const auto clientEphemeral = exactly<wire::KEY_BYTES>(request.getClientEphemeral());
  if (!clientEphemeral) return refuse(Refusal::BAD_SIZE);
  if (!paid && !rule->key->takeRate(&VaultKey::makeRate, state_.nowMs())) return refuse(Refusal::RATE_LIMITED);

  const auto version = rule->key->active(state_.nowUnix());
  if (!version) return refuse(version.error());
  VersionSecret& secret = *(*version)->secret;
  std::array<std::byte, wire::VOUCH_BYTES> box;
  bool cached = false;
  auto nonce =
      secret.box().makeVouch(rule->server, PublicKey(*clientEphemeral), secret.vouchNonces, nonces, box, cached);
  state_.counters.add(cached ? Count::SharedKeyHits : Count::SharedKeyMisses);
  if (!nonce) return refuse(nonce.error());
  auto made = outcome.initMade();
  copyInto(made.initClient(wire::KEY_BYTES), secret.box().publicKey().span());
  copyInto(made.initNonce(LongNonceBytes::SIZE), nonce->span());
  copyInto(made.initBox(box.size()), box);
  return {};
}

kj::Promise<void> NetService::ping(PingContext context) {
  return guarded([&] { state_.counters.add(Count::Pings); });
}

}  // namespace sallyport::vaultd
