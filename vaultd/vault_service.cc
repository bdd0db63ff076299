#include "vaultd/vault_service.h"

namespace sallyport::vaultd {

namespace {

std::string_view view(capnp::Text::Reader text) { return {text.begin(), text.size()}; }

ByteSpan view(capnp::Data::Reader data) { return std::as_bytes(std::span(data.begin(), data.size())); }

// The field as a fixed-size span; nothing if it has another size.
template <size_t N>
std::optional<std::span<const std::byte, N>> exactly(capnp::Data::Reader data) {
  const ByteSpan bytes = view(data);
  if (bytes.size() != N) return std::nullopt;
  return bytes.template first<N>();
}

template <size_t N>
std::span<std::byte, N> writable(capnp::Data::Builder data) {
  return std::as_writable_bytes(std::span(data.begin(), data.size())).template first<N>();
}

void copyInto(capnp::Data::Builder data, ByteSpan bytes) { std::memcpy(data.begin(), bytes.data(), bytes.size()); }

// Enough for the answer in one piece: the first segment never has to grow. Words: list tag, and per item the struct,
// its pointers' content rounded up.
capnp::MessageSize answerSize(size_t items, size_t wordsPerItem) { return {8 + items * wordsPerItem, 0}; }

// Answers each item of a list by itself, in order; a list that is too long is refused whole, with one outcome.
template <typename Requests, typename Builder, typename Step>
void answerEach(Counters& counters, Count done, Count refused, Requests requests, Builder outcomes, Step step) {
  for (unsigned i = 0; i < requests.size(); ++i) {
    auto result = step(requests[i], outcomes[i]);
    if (result) {
      counters.add(done);
      continue;
    }
    outcomes[i].setRefused(result.error());
    counters.add(refused);
    counters.addRefusal(result.error());
  }
  wipeDeadStack();
}

template <typename Builder>
void refuseWhole(Counters& counters, Count refused, Builder outcomes) {
  outcomes[0].setRefused(Refusal::TOO_MANY);
  counters.add(refused);
  counters.addRefusal(Refusal::TOO_MANY);
}

}  // namespace

kj::Promise<void> NetService::sealCookies(SealCookiesContext context) {
  return guarded([&] {
    const auto hellos = context.getParams().getHellos();
    const unsigned count = hellos.size();
    constexpr size_t WORDS = 3 + (wire::LONG_NONCE_BYTES + wire::COOKIE_PACKET_BOX_BYTES) / 8;
    if (count > MAX_ITEMS) {
      return refuseWhole(state_.counters, Count::CookiesRefused, context.getResults().initOutcomes(1));
    }
    answerEach(state_.counters, Count::CookiesSealed, Count::CookiesRefused, hellos,
               context.getResults(answerSize(count, WORDS)).initOutcomes(count),
               [&](auto request, auto outcome) { return sealCookie(request, outcome); });
  });
}

Result<void, Refusal> NetService::sealCookie(proto::Hello::Reader hello, proto::CookieOutcome::Builder outcome) {
  const ListenRule* rule = state_.policy.listen(view(hello.getEntry()));
  if (rule == nullptr) return refuse(Refusal::UNKNOWN_ENTRY);
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  const auto clientEphemeral = exactly<wire::KEY_BYTES>(hello.getClientEphemeral());
  const auto box = exactly<wire::HELLO_BOX_BYTES>(hello.getBox());
  const auto serverEphemeral = exactly<wire::KEY_BYTES>(hello.getServerEphemeral());
  const auto cookie = exactly<wire::COOKIE_BYTES>(hello.getCookie());
  if (!clientEphemeral || !box || !serverEphemeral || !cookie) return refuse(Refusal::BAD_SIZE);
  // Before the multiplication: that is what the limit protects.
  if (!rule->key->sealRate.take(state_.nowMs())) return refuse(Refusal::RATE_LIMITED);

  std::array<std::byte, wire::COOKIE_PACKET_BOX_BYTES> sealedBox;
  const LongTermBox::HelloStep step{PublicKey(*clientEphemeral), *box, PublicKey(*serverEphemeral), *cookie};
  auto nonce = rule->key->box.sealCookie(step, rule->key->cookieNonces, sealedBox);
  if (!nonce) return refuse(nonce.error());
  auto sealed = outcome.initSealed();
  copyInto(sealed.initNonce(LongNonceBytes::SIZE), nonce->span());
  copyInto(sealed.initBox(sealedBox.size()), sealedBox);
  return {};
}

kj::Promise<void> NetService::verifyVouches(VerifyVouchesContext context) {
  return guarded([&] {
    const auto vouches = context.getParams().getVouches();
    const unsigned count = vouches.size();
    constexpr size_t WORDS = 2 + 9;  // a peer's name of 64 characters
    if (count > MAX_ITEMS) {
      return refuseWhole(state_.counters, Count::VouchesRefused, context.getResults().initOutcomes(1));
    }
    answerEach(state_.counters, Count::VouchesVerified, Count::VouchesRefused, vouches,
               context.getResults(answerSize(count, WORDS)).initOutcomes(count),
               [&](auto request, auto outcome) { return verifyVouch(request, outcome); });
  });
}

Result<void, Refusal> NetService::verifyVouch(proto::Vouch::Reader vouch, proto::VouchOutcome::Builder outcome) {
  const ListenRule* rule = state_.policy.listen(view(vouch.getEntry()));
  if (rule == nullptr) return refuse(Refusal::UNKNOWN_ENTRY);
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  const auto client = exactly<wire::KEY_BYTES>(vouch.getClient());
  const auto nonce = exactly<wire::LONG_NONCE_BYTES>(vouch.getNonce());
  const auto box = exactly<wire::VOUCH_BYTES>(vouch.getBox());
  const auto clientEphemeral = exactly<wire::KEY_BYTES>(vouch.getClientEphemeral());
  if (!client || !nonce || !box || !clientEphemeral) return refuse(Refusal::BAD_SIZE);
  if (!rule->key->verifyRate.take(state_.nowMs())) return refuse(Refusal::RATE_LIMITED);

  const PublicKey clientKey(*client);
  const auto allowed = rule->allowed.find(clientKey);
  const bool mayEnter = allowed != rule->allowed.end();
  bool cached = false;
  auto genuine = rule->key->box.verifyVouch({clientKey, LongNonceBytes(*nonce), *box, PublicKey(*clientEphemeral)},
                                            mayEnter, cached);
  state_.counters.add(cached ? Count::SharedKeyHits : Count::SharedKeyMisses);
  if (!genuine) return refuse(genuine.error());
  if (!mayEnter) return refuse(Refusal::PEER_NOT_ALLOWED);
  outcome.setPeer(kj::StringPtr(allowed->second.c_str(), allowed->second.size()));
  return {};
}

kj::Promise<void> NetService::makeVouches(MakeVouchesContext context) {
  return guarded([&] {
    const auto requests = context.getParams().getRequests();
    const unsigned count = requests.size();
    constexpr size_t WORDS = 4 + (wire::KEY_BYTES + wire::LONG_NONCE_BYTES + wire::VOUCH_BYTES) / 8;
    if (count > MAX_ITEMS) {
      return refuseWhole(state_.counters, Count::VouchesNotMade, context.getResults().initOutcomes(1));
    }
    answerEach(state_.counters, Count::VouchesMade, Count::VouchesNotMade, requests,
               context.getResults(answerSize(count, WORDS)).initOutcomes(count),
               [&](auto request, auto outcome) { return makeVouch(request, outcome); });
  });
}

Result<void, Refusal> NetService::makeVouch(proto::VouchRequest::Reader request,
                                            proto::MadeVouchOutcome::Builder outcome) {
  const ConnectRule* rule = state_.policy.connect(view(request.getEntry()));
  if (rule == nullptr) return refuse(Refusal::UNKNOWN_ENTRY);
  if (rule->key == nullptr) return refuse(Refusal::UNKNOWN_KEY);
  const auto clientEphemeral = exactly<wire::KEY_BYTES>(request.getClientEphemeral());
  if (!clientEphemeral) return refuse(Refusal::BAD_SIZE);
  if (!rule->key->makeRate.take(state_.nowMs())) return refuse(Refusal::RATE_LIMITED);

  std::array<std::byte, wire::VOUCH_BYTES> box;
  bool cached = false;
  auto nonce = rule->key->box.makeVouch(rule->server, PublicKey(*clientEphemeral), rule->key->vouchNonces, box, cached);
  state_.counters.add(cached ? Count::SharedKeyHits : Count::SharedKeyMisses);
  if (!nonce) return refuse(nonce.error());
  auto made = outcome.initMade();
  copyInto(made.initClient(wire::KEY_BYTES), rule->key->box.publicKey().span());
  copyInto(made.initNonce(LongNonceBytes::SIZE), nonce->span());
  copyInto(made.initBox(box.size()), box);
  return {};
}

kj::Promise<void> NetService::ping(PingContext context) {
  return guarded([&] { state_.counters.add(Count::Pings); });
}

kj::Promise<void> AppService::publicKey(PublicKeyContext context) {
  return guarded([&] {
    auto outcome = context.getResults().initOutcome();
    const VaultKey* key = state_.keys.find(view(context.getParams().getKey()));
    if (key == nullptr) {
      state_.counters.addRefusal(Refusal::UNKNOWN_KEY);
      outcome.setRefused(Refusal::UNKNOWN_KEY);
      return;
    }
    state_.counters.add(Count::PublicKeysGiven);
    copyInto(outcome.initPublicKey(wire::KEY_BYTES), key->box.publicKey().span());
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

}  // namespace sallyport::vaultd
