// app_fixture.h - App and Key over real RPC, client and server on one loop: a key with four versions, an Ed25519 key
// and a honey key; the clocks, the caller and the recorder are the test's.
#pragma once

#include <sodium.h>

#include "common/rpc.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/app_service.h"

namespace sallyport::vaultd::test {

inline constexpr std::string_view CONFIG = R"([vault]
breaker_failures = 5
breaker_window_s = 10
breaker_pause_s = 20

[[grant]]
name = "boxes"
users = [1001]
keys = ["k"]
verbs = ["box", "open", "fresh_nonce"]
peers = ["*"]
domains = ["minute-k"]
max_bytes = 50000

[[grant]]
name = "signs"
users = [1001]
keys = ["sig"]
verbs = ["sign"]
per_second = 100
lease_s = 60

[[grant]]
name = "alice-only"
users = [1002]
keys = ["k"]
verbs = ["box", "open"]
peers = ["alice"]

[[grant]]
name = "trap"
users = [1001]
keys = ["honey"]
verbs = ["sign"]

[key.honey]
honey = true

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
)";

inline constexpr int64_t NOW = 1'800'000'000;

inline capnp::Data::Reader raw(ByteSpan bytes) {
  return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()};
}
inline capnp::Data::Reader raw(std::string_view text) { return raw(asBytes(text)); }
inline std::string string(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

struct Pair {
  std::array<unsigned char, 32> secret;
  PublicKey publicKey;
  Pair() { crypto_box_keypair(publicKey.data(), secret.data()); }
};

inline OpenedVersion version(uint32_t number, int64_t activeFrom, int64_t openOnlyFrom, int64_t retiredFrom,
                             KeyKind kind) {
  OpenedVersion made{{}, LongTermSecret::random()};
  made.version.number = number;
  made.version.activeFrom = activeFrom;
  made.version.openOnlyFrom = openOnlyFrom;
  made.version.retiredFrom = retiredFrom;
  unsigned char secretKey[64];
  if (kind == KeyKind::X25519) {
    made.version.publicKey = publicKeyOf(made.secret);
  } else {
    crypto_sign_seed_keypair(made.version.publicKey.data(), secretKey, made.secret.exposeData());
  }
  return made;
}

class Refusing final : public UseRecorder {
 public:
  bool admits() const override { return true; }
  void step(const StepRecord& step) override {
    steps.push_back(std::string(step.verb) + " " +
                    (step.refused ? std::string(Counters::nameOf(static_cast<size_t>(*step.refused))) : "ok"));
  }
  void event(AuditRecord event) override { events.push_back(event.verb + " " + event.outcome + " " + event.note); }
  kj::Maybe<kj::Promise<bool>> settled() override { return nullptr; }
  bool record(const UseRecord& use) override {
    seen.push_back(std::string(use.key) + " " + std::string(name(use.verb)) + " " + std::to_string(use.version) + " " +
                   std::string(use.peerName) + " " + std::to_string(use.bytes) + (use.refused ? " refused" : ""));
    return works;
  }
  bool works = true;
  std::vector<std::string> seen, steps, events;
};

class Apps : public testing::Test {
 protected:
  test::TemporaryFolder temporary;
  EventLoop loop;
  std::unique_ptr<SecretArena> arena = std::move(*SecretArena::create(65536));
  SharedKeyCache cache{*arena, 64};
  uint64_t nowMs = 1'000'000;
  int64_t nowUnix = NOW;
  std::optional<Keyring> keys;
  std::optional<VaultState> state;
  std::optional<RpcServer> server;
  std::optional<RpcClient> client;
  Caller caller{"main", 1001, {1001}};
  std::shared_ptr<LinkCharge> charge;  // of the last connection
  Refusing recorder;
  Pair peer;
  // Public keys of k: 1 retired, 2 open-only, 3 active, 4 from NOW + 100 on.
  std::vector<PublicKey> publicKeys;
  PublicKey signer;

  ~Apps() noexcept override {}

  void addKey(const std::string& name, KeyKind kind, std::vector<OpenedVersion> versions) {
    OpenedKey opened;
    opened.header.name = name;
    opened.header.kind = kind;
    for (const OpenedVersion& each : versions) opened.header.versions.push_back(each.version);
    opened.versions = std::move(versions);
    auto ledger = openNonceFile(temporary.path() / (name + ".nonces"), opened.header.ledgerId, {});
    ASSERT_TRUE(ledger.has_value());
    ASSERT_TRUE(keys->add(std::move(opened), std::move(*ledger), 1000, nowMs, nowUnix).has_value());
  }

  std::vector<OpenedVersion> boxVersions() {
    std::vector<OpenedVersion> versions;
    versions.push_back(version(1, NOW - 400, NOW - 300, NOW - 200, KeyKind::X25519));
    versions.push_back(version(2, NOW - 300, NOW - 100, NOW + 50, KeyKind::X25519));
    versions.push_back(version(3, NOW - 100, NOW + 100, NOW + 500, KeyKind::X25519));
    versions.push_back(version(4, NOW + 100, 0, 0, KeyKind::X25519));
    return versions;
  }

  void SetUp() override {
    keys.emplace(*arena, cache);
    auto versions = boxVersions();
    for (const auto& each : versions) publicKeys.push_back(each.version.publicKey);
    addKey("k", KeyKind::X25519, std::move(versions));
    std::vector<OpenedVersion> signing;
    signing.push_back(version(1, NOW - 100, 0, 0, KeyKind::Ed25519));
    signer = signing[0].version.publicKey;
    addKey("sig", KeyKind::Ed25519, std::move(signing));
    std::vector<OpenedVersion> honey;
    honey.push_back(version(1, NOW - 100, 0, 0, KeyKind::Ed25519));
    addKey("honey", KeyKind::Ed25519, std::move(honey));
    state.emplace(VaultState{cache, *keys, {}, {}, [this] { return nowMs; }});
    state->nowUnix = [this] { return nowUnix; };
    state->recorder = &recorder;
    configure(std::string(CONFIG));
    server.emplace(
        loop, listenUnix(temporary.path() / "app.sock", 0600),
        [this](const PeerCredentials& program) -> kj::Maybe<capnp::Capability::Client> {
          charge = program.charge;
          return capnp::Capability::Client(kj::heap<AppService>(*state, caller, 7, program.charge));
        },
        LinkLimits());
    connect();
  }
  void connect() {
    client.emplace(loop, connectUnix(temporary.path() / "app.sock"), LinkLimits(), [] {});
  }

  void configure(const std::string& text) {
    auto config = parseConfig(text, temporary.path() / "sallyport.toml");
    ASSERT_TRUE(config.has_value()) << config.error().message;
    auto grants = Grants::resolve(*config, {});
    ASSERT_TRUE(grants.has_value());
    state->apply(*config, std::move(*grants));
  }
  void without(const std::string& grant) {
    std::string text(CONFIG);
    const size_t begin = text.find("[[grant]]\nname = \"" + grant + "\"");
    text.erase(begin, text.find("\n\n", begin) - begin);
    configure(text);
  }

  proto::App::Client app() { return client->bootstrap().castAs<proto::App>(); }
  capnp::Response<proto::App::KeyResults> ask(const char* name, std::vector<proto::Verb> verbs = {},
                                              uint64_t leaseMs = 0) {
    auto request = app().keyRequest();
    request.setName(name);
    request.setLeaseMs(leaseMs);
    auto list = request.initVerbs(static_cast<unsigned>(verbs.size()));
    for (unsigned i = 0; i < verbs.size(); ++i) list.set(i, verbs[i]);
    return loop.await(request.send());
  }
  proto::Key::Client key(const char* name = "k", std::vector<proto::Verb> verbs = {}, uint64_t leaseMs = 0) {
    auto answer = ask(name, std::move(verbs), leaseMs);
    EXPECT_TRUE(answer.getOutcome().isGranted()) << name;
    return answer.getOutcome().getGranted().getKey();
  }

  auto box(proto::Key::Client from, ByteSpan to, std::string_view text, unsigned count = 1) {
    auto request = from.boxRequest();
    for (auto item : request.initItems(count)) {
      item.getPeer().setKey(raw(to));
      item.setText(raw(text));
    }
    return loop.await(request.send());
  }
  struct Foreign {
    std::vector<std::byte> nonce, box;
  };
  // What NaCl makes elsewhere, for version `to` of k.
  Foreign naclBox(std::string_view text, const PublicKey& to, std::string_view prefix = "SallyBox") {
    Foreign made{std::vector<std::byte>(24), std::vector<std::byte>(text.size() + 16)};
    fillRandom(made.nonce);
    std::memcpy(made.nonce.data(), prefix.data(), prefix.size());
    EXPECT_EQ(crypto_box_easy(uchars(MutableByteSpan(made.box)), uchars(asBytes(text)), text.size(),
                              uchars(ByteSpan(made.nonce)), to.data(), peer.secret.data()),
              0);
    return made;
  }
  capnp::Response<proto::Key::OpenResults> open(proto::Key::Client with, const Foreign& foreign) {
    auto request = with.openRequest();
    auto item = request.initItems(1)[0];
    item.getPeer().setKey(raw(peer.publicKey.span()));
    item.setNonce(raw(foreign.nonce));
    item.setBox(raw(foreign.box));
    return loop.await(request.send());
  }
  Refusal openRefusal(proto::Key::Client with, const Foreign& foreign) {
    auto answer = open(with, foreign);
    EXPECT_TRUE(answer.getOutcomes()[0].isRefused());
    return answer.getOutcomes()[0].getRefused();
  }
  auto sign(proto::Key::Client with, std::vector<std::string> messages) {
    auto request = with.signRequest();
    auto list = request.initMessages(static_cast<unsigned>(messages.size()));
    for (unsigned i = 0; i < messages.size(); ++i) list.set(i, raw(messages[i]));
    return loop.await(request.send());
  }
};

}  // namespace sallyport::vaultd::test
