// vault.cc - Vault and its batches of verifications; see include/sallyport/vault.h. Part of: libsallyport.
#include <algorithm>

#include "clients/cpp/batch.h"
#include "clients/cpp/key_impl.h"
#include "common/secret_bytes.h"

namespace sallyport::client {

namespace {

enum Method : uint16_t { PUBLIC_KEY = 0, PING = 1, KEYS = 3, VERIFY = 4 };  // of App; KEY = 2 is in key.cc

Session& sessionOf(const std::shared_ptr<Vault::Impl>& impl) {
  if (!impl) throw Error(Code::closed);
  return impl->session;
}

template <typename Params, typename Results, typename Fill, typename Take>
void ask(Session& session, uint16_t method, size_t bytes, Fill&& fill, Take&& take) {
  session.run([&](Turn& turn) { turn.ask(makeCall<Params, Results>(APP, method, std::nullopt, bytes, fill, take)); });
}

}  // namespace

Peer Peer::named(std::string name) { return {true, std::move(name)}; }
Peer Peer::key(View publicKey) { return {false, std::string(toText(publicKey))}; }

Plaintext& Plaintext::operator=(Plaintext&& other) noexcept {
  if (this != &other) {
    wipe();
    bytes_ = std::move(other.bytes_);
  }
  return *this;
}
void Plaintext::wipe() noexcept {
  sallyport::wipe(bytes_);
  bytes_.clear();
}

Vault::Vault(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vault::Vault(Vault&&) noexcept = default;
Vault& Vault::operator=(Vault&&) noexcept = default;
Vault::~Vault() = default;

Vault Vault::connect(const std::string& path, Options options) {
  if (options.timeout.count() <= 0) throw Error(Code::badArgument, "the timeout is not positive");
  Vault vault(std::make_shared<Impl>(path, options));
  vault.ping();
  return vault;
}

void Vault::ping() {
  bool passed = false;
  ask<proto::App::PingParams, proto::App::PingResults>(
      sessionOf(impl_), PING, 0, [](auto) {}, [&](auto results, auto) { passed = results.getSelfTest(); });
  if (!passed) throw Error(Code::selfTestFailed);
}

PublicKey Vault::publicKey(std::string_view key) { return publicKeys(key).active; }

PublicKeys Vault::publicKeys(std::string_view key) {
  Outcome<PublicKeys> outcome;
  ask<proto::App::PublicKeyParams, proto::App::PublicKeyResults>(
      sessionOf(impl_), PUBLIC_KEY, key.size(), [&](auto params) { params.setKey(toCapnp(key)); },
      [&](auto results, auto) {
        const auto answer = results.getOutcome();
        if (!answer.isPublicKey()) {
          outcome = Outcome<PublicKeys>(codeOf(answer.getRefused()));
          return;
        }
        PublicKeys keys{fixed<32>(answer.getPublicKey()), answer.getVersion(), {}};
        for (const auto& each : answer.getOpening()) keys.opening.push_back(fixed<32>(each));
        if (keys.opening.empty()) keys.opening.push_back(keys.active);
        outcome = Outcome<PublicKeys>(std::move(keys));
      });
  return outcome.value();
}

std::vector<GrantedKey> Vault::keys() {
  std::vector<GrantedKey> found;
  // The vault gives as many as fit a message, in the order of their names.
  for (bool more = true; more;) {
    const std::string after = found.empty() ? "" : found.back().name;
    ask<proto::App::KeysParams, proto::App::KeysResults>(
        sessionOf(impl_), KEYS, after.size(), [&](auto params) { params.setAfter(toCapnp(after)); },
        [&](auto results, auto) {
          more = results.getMore();
          for (const auto& key : results.getKeys()) {
            GrantedKey& out = found.emplace_back();
            out.name = fromCapnp(key.getName());
            out.kind = fromCapnp(key.getKind());
            if (key.getPublicKey().size() != 0) out.publicKey = fixed<32>(key.getPublicKey());
            out.verbs = verbsOf(key.getVerbs());
            for (const auto& grant : key.getGrants()) out.grants.push_back(fromCapnp(grant));
          }
        });
    if (more && (found.empty() || found.back().name <= after)) throw Error(Code::protocolError, "keys out of order");
  }
  return found;
}

Key Vault::key(std::string_view name, std::span<const Verb> verbs, std::chrono::milliseconds lease) {
  if (lease.count() < 0) throw Error(Code::badArgument, "a lease is not negative");
  Session& session = sessionOf(impl_);
  auto impl =
      std::make_unique<Key::Impl>(impl_, std::string(name), std::vector<Verb>(verbs.begin(), verbs.end()), lease);
  session.run([&](Turn& turn) { impl->acquire(turn, lease); });
  return Key(std::move(impl));
}

std::vector<Code> Vault::verifyEach(std::span<const VerifyItem> items) {
  std::vector<Code> codes(items.size(), Code::unspecified);
  sessionOf(impl_).run([&](Turn& turn) {
    askInBatches<proto::App::VerifyParams, proto::App::VerifyResults>(
        [&](std::span<Call> calls) { turn.askAll(calls); }, Call{.interfaceId = APP, .methodId = VERIFY}, items.size(),
        [&](size_t i) { return items[i].publicKey.size() + items[i].message.size() + items[i].signature.size(); },
        [&](auto params, const std::vector<size_t>& indices) {
          auto list = params.initItems(static_cast<unsigned>(indices.size()));
          for (unsigned i = 0; i < indices.size(); ++i) {
            const VerifyItem& item = items[indices[i]];
            list[i].setPublicKey(toData(item.publicKey.bytes()));
            list[i].setMessage(toData(item.message.bytes()));
            list[i].setSignature(toData(item.signature.bytes()));
          }
        },
        [&](size_t i) { codes[i] = Code::tooLong; },
        [&](size_t i, auto outcome) { codes[i] = outcome.isGenuine() ? Code::ok : codeOf(outcome.getRefused()); });
  });
  return codes;
}

void Vault::verify(View publicKey, View message, View signature) {
  const VerifyItem item{publicKey, message, signature};
  const Code code = verifyEach({&item, 1})[0];
  if (code != Code::ok) throw Error(code);
}

void Vault::close() noexcept {
  if (impl_) impl_->session.close();
}

}  // namespace sallyport::client
