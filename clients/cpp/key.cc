// key.cc - Key: a capability that is asked for anew when its connection has gone; see include/sallyport/vault.h.
// Part of: libsallyport.
#include "clients/cpp/batch.h"
#include "clients/cpp/key_impl.h"

namespace sallyport::client {

namespace {

constexpr uint16_t APP_KEY = 2;
enum Method : uint16_t { BOX = 0, OPEN = 1, OPEN_SEALED = 2, SIGN = 3, FRESH_NONCES = 4, RENEW = 5, CLOSE = 6 };

template <typename Builder>
void setPeer(Builder out, const Peer& peer) {
  if (peer.isName()) {
    out.setName(toCapnp(peer.value()));
  } else {
    out.setKey(toData(asBytes(peer.value())));
  }
}

Outcome<Opened> openedOf(proto::OpenOutcome::Reader outcome) {
  if (outcome.isRefused()) return codeOf(outcome.getRefused());
  const auto opened = outcome.getOpened();
  return Opened{Plaintext(toBytes(opened.getText())), opened.getVersion()};
}

// An Each form: `fill(list, i, item)` writes one item, `read(outcome)` makes its Outcome.
template <typename Params, typename Results, typename Value, typename Item, typename Init, typename BytesOf,
          typename Fill, typename Read>
std::vector<Outcome<Value>> each(Key::Impl& key, Method method, std::span<const Item> items, Init init, BytesOf bytesOf,
                                 Fill fill, Read read) {
  std::vector<Outcome<Value>> outcomes(items.size());
  key.run([&](Turn& turn, uint32_t capability) {
    askInBatches<Params, Results>([&](std::span<Call> calls) { turn.askAll(calls); },
                                  Call{.interfaceId = KEY, .methodId = method, .target = capability}, items.size(),
                                  [&](size_t i) { return bytesOf(items[i]); },
                                  [&](auto params, const std::vector<size_t>& indices) {
                                    auto list = init(params, static_cast<unsigned>(indices.size()));
                                    for (unsigned i = 0; i < indices.size(); ++i) fill(list, i, items[indices[i]]);
                                  },
                                  [&](size_t i) { outcomes[i] = Code::tooLong; },
                                  [&](size_t i, auto outcome) { outcomes[i] = read(outcome); });
  });
  return outcomes;
}

Key::Impl& implOf(const std::unique_ptr<Key::Impl>& impl) {
  if (!impl) throw Error(Code::closed);
  return *impl;
}

}  // namespace

Key::Impl::~Impl() {
  if (!closed) vault->session.releaseLater(handle);
}

void Key::Impl::acquire(Turn& turn, std::chrono::milliseconds leaseAsked) {
  Code refusal = Code::ok;
  const auto fill = [&](proto::App::KeyParams::Builder params) {
    params.setName(toCapnp(name));
    auto list = params.initVerbs(static_cast<unsigned>(wantedVerbs.size()));
    for (unsigned i = 0; i < wantedVerbs.size(); ++i) list.set(i, static_cast<proto::Verb>(wantedVerbs[i]));
    params.setLeaseMs(static_cast<uint64_t>(leaseAsked.count()));
  };
  const auto take = [&](proto::App::KeyResults::Reader results, std::optional<uint32_t> id) {
    const auto outcome = results.getOutcome();
    if (outcome.isRefused()) {
      refusal = codeOf(outcome.getRefused());
      return;
    }
    if (!id) throw Error(Code::protocolError);
    const auto granted = outcome.getGranted();
    handle = {turn.connection(), *id};
    verbs = verbsOf(granted.getVerbs());
    lease = std::chrono::milliseconds(granted.getLeaseMs());
    leaseEnd = leaseAsked.count() > 0 ? Clock::now() + lease : Clock::time_point::max();
  };
  turn.ask(makeCall<proto::App::KeyParams, proto::App::KeyResults>(APP, APP_KEY, std::nullopt,
                                                                   name.size() + 2 * wantedVerbs.size(), fill, take));
  if (refusal != Code::ok) throw Error(refusal);
}

uint32_t Key::Impl::capability(Turn& turn) {
  if (closed) throw Error(Code::closed);
  if (!turn.holds(handle)) {
    auto left = std::chrono::milliseconds(0);
    if (leaseEnd != Clock::time_point::max()) {
      left = std::chrono::duration_cast<std::chrono::milliseconds>(leaseEnd - Clock::now());
      if (left.count() <= 0) throw Error(Code::expired);
    }
    acquire(turn, left);
  }
  return handle.id;
}

Key::Key(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Key::Key(Key&&) noexcept = default;
Key& Key::operator=(Key&&) noexcept = default;
Key::~Key() = default;

const std::string& Key::name() const { return implOf(impl_).name; }

std::vector<Verb> Key::verbs() const {
  Impl& impl = implOf(impl_);
  return impl.vault->session.guarded([&] { return impl.verbs; });
}

std::chrono::milliseconds Key::lease() const {
  Impl& impl = implOf(impl_);
  return impl.vault->session.guarded([&] { return impl.lease; });
}

std::vector<Outcome<Boxed>> Key::boxEach(std::span<const BoxItem> items) {
  return each<proto::Key::BoxParams, proto::Key::BoxResults, Boxed>(
      implOf(impl_), BOX, items, [](auto params, unsigned n) { return params.initItems(n); },
      [](const BoxItem& item) { return item.peer.value().size() + item.text.size(); },
      [](auto list, unsigned i, const BoxItem& item) {
        setPeer(list[i].getPeer(), item.peer);
        list[i].setText(toData(item.text.bytes()));
      },
      [](proto::BoxOutcome::Reader outcome) -> Outcome<Boxed> {
        if (outcome.isRefused()) return codeOf(outcome.getRefused());
        const auto boxed = outcome.getBoxed();
        const ByteSpan box = toBytes(boxed.getBox());
        return Boxed{fixed<24>(boxed.getNonce()), Bytes(box.begin(), box.end()), boxed.getVersion()};
      });
}

std::vector<Outcome<Opened>> Key::openEach(std::span<const OpenItem> items) {
  return each<proto::Key::OpenParams, proto::Key::OpenResults, Opened>(
      implOf(impl_), OPEN, items, [](auto params, unsigned n) { return params.initItems(n); },
      [](const OpenItem& item) { return item.peer.value().size() + item.nonce.size() + item.box.size(); },
      [](auto list, unsigned i, const OpenItem& item) {
        setPeer(list[i].getPeer(), item.peer);
        list[i].setNonce(toData(item.nonce.bytes()));
        list[i].setBox(toData(item.box.bytes()));
      },
      openedOf);
}

std::vector<Outcome<Opened>> Key::openSealedEach(std::span<const View> boxes) {
  return each<proto::Key::OpenSealedParams, proto::Key::OpenSealedResults, Opened>(
      implOf(impl_), OPEN_SEALED, boxes, [](auto params, unsigned n) { return params.initBoxes(n); },
      [](View box) { return box.size(); }, [](auto list, unsigned i, View box) { list.set(i, toData(box.bytes())); },
      openedOf);
}

std::vector<Outcome<Signed>> Key::signEach(std::span<const View> messages) {
  return each<proto::Key::SignParams, proto::Key::SignResults, Signed>(
      implOf(impl_), SIGN, messages, [](auto params, unsigned n) { return params.initMessages(n); },
      [](View message) { return message.size(); },
      [](auto list, unsigned i, View message) { list.set(i, toData(message.bytes())); },
      [](proto::SignOutcome::Reader outcome) -> Outcome<Signed> {
        if (outcome.isRefused()) return codeOf(outcome.getRefused());
        return Signed{fixed<64>(outcome.getSigned().getSignature()), outcome.getSigned().getVersion()};
      });
}

Boxed Key::box(const Peer& to, View text) {
  const BoxItem item{to, text};
  return std::move(boxEach({&item, 1})[0]).value();
}

Opened Key::open(const Peer& from, View nonce, View box) {
  const OpenItem item{from, nonce, box};
  return std::move(openEach({&item, 1})[0]).value();
}

Opened Key::openSealed(View box) { return std::move(openSealedEach({&box, 1})[0]).value(); }

Signed Key::sign(View message) { return std::move(signEach({&message, 1})[0]).value(); }

std::vector<FreshNonce> Key::freshNonces(std::string_view domain, uint32_t count) {
  if (count > MAX_ITEMS) throw Error(Code::tooMany);
  Outcome<std::vector<FreshNonce>> outcome;
  const auto fill = [&](proto::Key::FreshNoncesParams::Builder params) {
    params.setDomain(toCapnp(domain));
    params.setCount(count);
  };
  const auto take = [&](proto::Key::FreshNoncesResults::Reader results, std::optional<uint32_t>) {
    const auto answer = results.getOutcome();
    if (answer.isRefused()) {
      outcome = codeOf(answer.getRefused());
      return;
    }
    if (answer.getNonces().size() != count) throw Error(Code::protocolError);
    std::vector<FreshNonce> nonces;
    for (const auto& nonce : answer.getNonces()) nonces.push_back(fixed<16>(nonce));
    outcome = std::move(nonces);
  };
  implOf(impl_).run([&](Turn& turn, uint32_t capability) {
    turn.ask(makeCall<proto::Key::FreshNoncesParams, proto::Key::FreshNoncesResults>(KEY, FRESH_NONCES, capability,
                                                                                     domain.size(), fill, take));
  });
  return std::move(outcome).value();
}

std::chrono::milliseconds Key::renew(std::chrono::milliseconds lease) {
  if (lease.count() < 0) throw Error(Code::badArgument, "a lease is not negative");
  Impl& impl = implOf(impl_);
  impl.vault->session.run([&](Turn& turn) {
    if (impl.closed) throw Error(Code::closed);
    // After a restart there is nothing to renew: a new capability with this lease is the same.
    if (!turn.holds(impl.handle)) return impl.acquire(turn, lease);
    Code refusal = Code::ok;
    const auto fill = [&](proto::Key::RenewParams::Builder params) {
      params.setLeaseMs(static_cast<uint64_t>(lease.count()));
    };
    const auto take = [&](proto::Key::RenewResults::Reader results, std::optional<uint32_t>) {
      const auto outcome = results.getOutcome();
      if (outcome.isRefused()) {
        refusal = codeOf(outcome.getRefused());
        return;
      }
      impl.lease = std::chrono::milliseconds(outcome.getLeaseMs());
      impl.leaseEnd = lease.count() > 0 ? Impl::Clock::now() + impl.lease : Impl::Clock::time_point::max();
    };
    turn.ask(makeCall<proto::Key::RenewParams, proto::Key::RenewResults>(KEY, RENEW, impl.handle.id, 0, fill, take));
    if (refusal != Code::ok) throw Error(refusal);
  });
  return this->lease();
}

void Key::close() noexcept {
  if (!impl_) return;
  try {
    impl_->vault->session.guarded([&] { return std::exchange(impl_->closed, true); });
    impl_->vault->session.runIfConnected([&](Turn& turn) {
      if (!turn.holds(impl_->handle)) return;
      const Handle handle = std::exchange(impl_->handle, {});
      const auto nothing = [](auto...) {};
      turn.ask(makeCall<proto::Key::CloseParams, proto::Key::CloseResults>(KEY, CLOSE, handle.id, 0, nothing, nothing));
      turn.release(handle);
    });
  } catch (...) { return; }  // the connection has ended, and the capability with it
}

}  // namespace sallyport::client
