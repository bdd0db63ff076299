// Goal: programs may do with keys what is granted and nothing else; each item is judged by itself; leases, locks,
// states and revocation hold on live capabilities; what NaCl makes elsewhere opens here and the other way round.
// Method: App and Key over real RPC, client and server on one loop; a key with four versions, and an Ed25519 key; the
// clocks are ours.
#include "vaultd/app_service.h"

#include <sodium.h>

#include "common/rpc.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/metrics.h"

namespace sallyport::vaultd {
namespace {

using test::vector;

constexpr std::string_view CONFIG = R"([vault]
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

constexpr int64_t NOW = 1'800'000'000;

capnp::Data::Reader raw(ByteSpan bytes) { return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()}; }
capnp::Data::Reader raw(std::string_view text) { return raw(asBytes(text)); }
std::string string(capnp::Data::Reader data) { return {reinterpret_cast<const char*>(data.begin()), data.size()}; }

struct Pair {
  std::array<unsigned char, 32> secret;
  PublicKey publicKey;
  Pair() { crypto_box_keypair(publicKey.data(), secret.data()); }
};

OpenedVersion version(uint32_t number, int64_t activeFrom, int64_t openOnlyFrom, int64_t retiredFrom, KeyKind kind) {
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
  bool record(const UseRecord& use) override {
    seen.push_back(std::string(use.key) + " " + std::string(name(use.verb)) + " " + std::to_string(use.version) + " " +
                   std::string(use.peerName) + " " + std::to_string(use.bytes) + (use.refused ? " refused" : ""));
    return works;
  }
  bool works = true;
  std::vector<std::string> seen;
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
        [this](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
          return capnp::Capability::Client(kj::heap<AppService>(*state, caller, 7));
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

TEST_F(Apps, ABoxOpensWithNaClAtThePeer) {
  auto answer = box(key(), peer.publicKey.span(), "hello");
  ASSERT_TRUE(answer.getOutcomes()[0].isBoxed());
  auto boxed = answer.getOutcomes()[0].getBoxed();
  EXPECT_EQ(boxed.getVersion(), 3u) << "the active one";
  ASSERT_EQ(boxed.getNonce().size(), 24u);
  EXPECT_EQ(string(boxed.getNonce()).substr(0, 8), "SallyBox");
  std::array<unsigned char, 5> text;
  ASSERT_EQ(crypto_box_open_easy(text.data(), boxed.getBox().begin(), boxed.getBox().size(), boxed.getNonce().begin(),
                                 publicKeys[2].data(), peer.secret.data()),
            0);
  EXPECT_EQ(std::string(text.begin(), text.end()), "hello");
  EXPECT_EQ(cache.size(), 0u) << "a stranger's shared key isn't kept";
}

TEST_F(Apps, OnlyPeersOfTheConfigurationAreCached) {
  auto request = key().boxRequest();
  request.initItems(1)[0].getPeer().setName("alice");
  auto answer = loop.await(request.send());
  ASSERT_TRUE(answer.getOutcomes()[0].isBoxed());
  EXPECT_EQ(cache.size(), 1u);
  box(key(), PublicKey(vector("C")).span(), "the same peer, by its key");
  EXPECT_EQ(state->counters.get(Count::SharedKeyHits), 1u);
}

TEST_F(Apps, NoTwoBoxesShareANonce) {
  std::set<std::string> nonces;
  for (int i = 0; i < 10; ++i) {
    auto answer = box(key(), peer.publicKey.span(), "x", 64);
    for (auto outcome : answer.getOutcomes()) nonces.insert(string(outcome.getBoxed().getNonce()));
  }
  EXPECT_EQ(nonces.size(), 640u);
}

TEST_F(Apps, OpensWithTheActiveVersionAndThenThoseThatStillMay) {
  auto with = key();
  for (unsigned index : {1u, 2u}) {
    auto answer = open(with, naclBox("to version " + std::to_string(index + 1), publicKeys[index]));
    ASSERT_TRUE(answer.getOutcomes()[0].isOpened());
    auto opened = answer.getOutcomes()[0].getOpened();
    EXPECT_EQ(opened.getVersion(), index + 1);
    EXPECT_EQ(string(opened.getText()), "to version " + std::to_string(index + 1));
  }
  EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[0])), Refusal::BAD_BOX) << "retired";
  EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[3])), Refusal::BAD_BOX) << "pending";
  // The clock alone carries out the rotation, with the capability that is there.
  nowUnix = NOW + 100;
  EXPECT_EQ(box(with, peer.publicKey.span(), "x").getOutcomes()[0].getBoxed().getVersion(), 4u);
  EXPECT_TRUE(open(with, naclBox("x", publicKeys[2])).getOutcomes()[0].isOpened()) << "now open-only";
  EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[1])), Refusal::BAD_BOX) << "its grace is over";
}

TEST_F(Apps, WithoutAnActiveVersionNothingIsMade) {
  nowUnix = NOW - 1000;
  EXPECT_EQ(box(key(), peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::WRONG_VERSION);
  EXPECT_EQ(openRefusal(key(), naclBox("x", publicKeys[2])), Refusal::WRONG_VERSION);
  auto request = app().publicKeyRequest();
  request.setKey("k");
  EXPECT_EQ(loop.await(request.send()).getOutcome().getRefused(), Refusal::WRONG_VERSION);
}

TEST_F(Apps, ForeignNoncesAreRefusedBeforeAnyWork) {
  auto with = key();
  for (const char* prefix : {"CurveCPK", "CurveCPV", "CurveCP-", "sallybox", "SallyBoy"}) {
    EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[2], prefix)), Refusal::BAD_NONCE) << prefix;
    nowMs += 100'000;  // the breaker is another test
  }
  auto shorter = naclBox("x", publicKeys[2]);
  shorter.nonce.resize(16);
  EXPECT_EQ(openRefusal(with, shorter), Refusal::BAD_NONCE);
  EXPECT_EQ(state->counters.get(Count::SharedKeyMisses), 0u);
}

TEST_F(Apps, BadBoxesAndKeysAreRefusedByTheirName) {
  auto with = key();
  auto changed = naclBox("x", publicKeys[2]);
  changed.box.back() ^= std::byte{1};
  EXPECT_EQ(openRefusal(with, changed), Refusal::BAD_BOX);
  changed.box.resize(15);
  EXPECT_EQ(openRefusal(with, changed), Refusal::BAD_SIZE);
  EXPECT_EQ(box(with, std::array<std::byte, 32>{}, "x").getOutcomes()[0].getRefused(), Refusal::LOW_ORDER_KEY);
  EXPECT_EQ(box(with, std::array<std::byte, 31>{}, "x").getOutcomes()[0].getRefused(), Refusal::BAD_SIZE);
  auto request = with.boxRequest();
  request.initItems(1)[0].getPeer().setName("carol");
  EXPECT_EQ(loop.await(request.send()).getOutcomes()[0].getRefused(), Refusal::PEER_NOT_ALLOWED);
}

TEST_F(Apps, SealedBoxesOpenWithEachVersionThatMay) {
  auto with = key();
  auto request = with.openSealedRequest();
  auto boxes = request.initBoxes(4);
  for (unsigned i = 0; i < 4; ++i) {
    crypto_box_seal(boxes.init(i, 5 + 48).begin(), reinterpret_cast<const unsigned char*>("quiet"), 5,
                    publicKeys[i].data());
  }
  auto answer = loop.await(request.send());
  EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::BAD_BOX);
  for (unsigned i : {1u, 2u}) {
    EXPECT_EQ(string(answer.getOutcomes()[i].getOpened().getText()), "quiet");
    EXPECT_EQ(answer.getOutcomes()[i].getOpened().getVersion(), i + 1);
  }
  EXPECT_EQ(answer.getOutcomes()[3].getRefused(), Refusal::BAD_BOX);
  auto bad = with.openSealedRequest();
  bad.initBoxes(2).init(0, 47);
  auto refused = loop.await(bad.send());
  EXPECT_EQ(refused.getOutcomes()[0].getRefused(), Refusal::BAD_SIZE);
  auto low = with.openSealedRequest();
  low.initBoxes(1).init(0, 64);  // an ephemeral key of zeros
  EXPECT_EQ(loop.await(low.send()).getOutcomes()[0].getRefused(), Refusal::LOW_ORDER_KEY);
}

TEST_F(Apps, ASealedBoxNeedsAGrantForAnyPeer) {
  caller.uid = 1002;
  caller.gids = {};
  connect();
  auto request = key().openSealedRequest();
  crypto_box_seal(request.initBoxes(1).init(0, 53).begin(), reinterpret_cast<const unsigned char*>("quiet"), 5,
                  publicKeys[2].data());
  EXPECT_EQ(loop.await(request.send()).getOutcomes()[0].getRefused(), Refusal::PEER_NOT_ALLOWED);
  EXPECT_EQ(box(key(), peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::PEER_NOT_ALLOWED);
}

TEST_F(Apps, SignaturesVerifyEverywhere) {
  auto answer = sign(key("sig"), {"message", ""});
  ASSERT_EQ(answer.getOutcomes().size(), 2u);
  auto made = answer.getOutcomes()[0].getSigned();
  EXPECT_EQ(crypto_sign_verify_detached(made.getSignature().begin(), reinterpret_cast<const unsigned char*>("message"),
                                        7, signer.data()),
            0);
  EXPECT_EQ(made.getVersion(), 1u);
  auto request = app().verifyRequest();
  auto items = request.initItems(4);
  for (auto item : items) {
    item.setPublicKey(raw(signer.span()));
    item.setMessage(raw("message"));
    item.setSignature(made.getSignature());
  }
  items[1].setMessage(raw("massage"));
  items[2].setPublicKey(raw(ByteSpan(std::array<std::byte, 32>{})));
  items[3].setSignature(raw("short"));
  auto verified = loop.await(request.send());
  EXPECT_TRUE(verified.getOutcomes()[0].isGenuine());
  EXPECT_EQ(verified.getOutcomes()[1].getRefused(), Refusal::BAD_SIGNATURE);
  EXPECT_EQ(verified.getOutcomes()[2].getRefused(), Refusal::LOW_ORDER_KEY);
  EXPECT_EQ(verified.getOutcomes()[3].getRefused(), Refusal::BAD_SIZE);
}

TEST_F(Apps, VerifyingIsLimitedForAllTogether) {
  unsigned limited = 0;
  for (int call = 0; call < 40; ++call) {
    auto request = app().verifyRequest();
    for (auto item : request.initItems(64)) {
      item.setPublicKey(raw(ByteSpan(std::array<std::byte, 32>{})));
      item.setSignature(raw(ByteSpan(std::array<std::byte, 64>{})));
    }
    auto answer = loop.await(request.send());
    for (auto outcome : answer.getOutcomes()) limited += outcome.getRefused() == Refusal::RATE_LIMITED ? 1 : 0;
  }
  EXPECT_EQ(limited, 40 * 64 - VERIFIES_PER_SECOND);
}

TEST_F(Apps, AKeyOfTheWrongKindSaysSo) {
  auto request = key("sig", {proto::Verb::SIGN}).boxRequest();
  request.initItems(2);
  auto answer = loop.await(request.send());
  EXPECT_EQ(answer.getOutcomes()[1].getRefused(), Refusal::NOT_PERMITTED) << "it wasn't granted to begin with";
  configure(
      "[[grant]]\nname = \"all\"\nusers = [1001]\nkeys = [\"k\", \"sig\"]\nverbs = [\"box\", \"sign\"]\npeers = "
      "[\"*\"]\n");
  EXPECT_EQ(box(key("sig"), peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::WRONG_KIND);
  EXPECT_EQ(sign(key("k"), {"x"}).getOutcomes()[0].getRefused(), Refusal::WRONG_KIND);
}

TEST_F(Apps, FreshNoncesAreFreshInTheirDomain) {
  const auto draw = [&](const char* domain, uint32_t count) {
    auto request = key().freshNoncesRequest();
    request.setDomain(domain);
    request.setCount(count);
    return loop.await(request.send());
  };
  std::set<std::string> seen;
  for (int i = 0; i < 10; ++i) {
    auto answer = draw("minute-k", 64);
    ASSERT_TRUE(answer.getOutcome().isNonces());
    for (auto nonce : answer.getOutcome().getNonces()) seen.insert(string(nonce));
  }
  EXPECT_EQ(seen.size(), 640u);
  EXPECT_EQ(seen.begin()->size(), 16u);
  EXPECT_EQ(draw("minute-k", 0).getOutcome().getNonces().size(), 0u);
  EXPECT_EQ(draw("minute-k", 65).getOutcome().getRefused(), Refusal::TOO_MANY);
  for (const char* domain : {"other", "CurveCPK", "SallyBox", "", "minute-k1"}) {
    EXPECT_EQ(draw(domain, 1).getOutcome().getRefused(), Refusal::BAD_DOMAIN) << domain;
  }
}

TEST_F(Apps, WhatIsNotGrantedIsNotThere) {
  EXPECT_EQ(ask("k", {proto::Verb::SIGN}).getOutcome().getRefused(), Refusal::NOT_PERMITTED);
  EXPECT_EQ(ask("nothing").getOutcome().getRefused(), Refusal::NOT_PERMITTED);
  EXPECT_EQ(ask("../k").getOutcome().getRefused(), Refusal::NOT_PERMITTED);
  auto some = ask("k", {proto::Verb::BOX, proto::Verb::SIGN});
  ASSERT_EQ(some.getOutcome().getGranted().getVerbs().size(), 1u) << "those of the verbs that are granted";
  caller.uid = 1003;
  caller.gids = {};
  connect();
  EXPECT_EQ(ask("k").getOutcome().getRefused(), Refusal::NOT_PERMITTED);
  EXPECT_EQ(loop.await(app().keysRequest().send()).getKeys().size(), 0u);
}

TEST_F(Apps, KeysTellsWhatTheCallerMayDo) {
  auto answer = loop.await(app().keysRequest().send());
  ASSERT_EQ(answer.getKeys().size(), 3u);
  auto k = answer.getKeys()[1];
  EXPECT_STREQ(k.getName().cStr(), "k");
  EXPECT_STREQ(k.getKind().cStr(), "x25519");
  EXPECT_EQ(string(k.getPublicKey()), string(raw(publicKeys[2].span())));
  EXPECT_EQ(k.getVerbs().size(), 3u);
  EXPECT_STREQ(k.getGrants()[0].cStr(), "boxes");
  EXPECT_STREQ(answer.getKeys()[2].getKind().cStr(), "ed25519");
}

TEST_F(Apps, ACapabilityHasItsOwnVerbsOnly) {
  auto opener = key("k", {proto::Verb::OPEN});
  EXPECT_EQ(box(opener, peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::NOT_PERMITTED);
  EXPECT_TRUE(open(opener, naclBox("x", publicKeys[2])).getOutcomes()[0].isOpened());
}

TEST_F(Apps, TheRateOfAGrantIsKept) {
  auto with = key("sig");
  EXPECT_TRUE(sign(with, std::vector<std::string>(60, "x")).getOutcomes()[59].isSigned());
  auto answer = sign(with, std::vector<std::string>(60, "x"));
  EXPECT_TRUE(answer.getOutcomes()[39].isSigned());
  EXPECT_EQ(answer.getOutcomes()[40].getRefused(), Refusal::RATE_LIMITED);
  nowMs += 500;
  EXPECT_TRUE(sign(with, {"x"}).getOutcomes()[0].isSigned());
}

TEST_F(Apps, TextsAreBoundedByPolicyAndByTheMessage) {
  auto with = key();
  EXPECT_TRUE(box(with, peer.publicKey.span(), std::string(50'000, 'x')).getOutcomes()[0].isBoxed());
  EXPECT_EQ(box(with, peer.publicKey.span(), std::string(50'001, 'x')).getOutcomes()[0].getRefused(),
            Refusal::TOO_LONG);
  // 64 texts that just fit the request make an answer that doesn't fit: its last items are refused, and it arrives.
  auto answer = box(with, peer.publicKey.span(), std::string(950, 'x'), 64);
  ASSERT_EQ(answer.getOutcomes().size(), 64u);
  EXPECT_TRUE(answer.getOutcomes()[0].isBoxed());
  EXPECT_EQ(answer.getOutcomes()[63].getRefused(), Refusal::TOO_LONG);
  auto many = box(with, peer.publicKey.span(), "x", 65);
  ASSERT_EQ(many.getOutcomes().size(), 1u);
  EXPECT_EQ(many.getOutcomes()[0].getRefused(), Refusal::TOO_MANY);
  EXPECT_EQ(box(with, peer.publicKey.span(), "x", 0).getOutcomes().size(), 0u);
}

TEST_F(Apps, CallsArePipelined) {
  auto request = app().keyRequest();
  request.setName("k");
  auto promised = request.send();
  auto boxing = promised.getOutcome().getGranted().getKey().boxRequest();
  boxing.initItems(1)[0].getPeer().setName("alice");
  EXPECT_TRUE(loop.await(boxing.send()).getOutcomes()[0].isBoxed());
}

TEST_F(Apps, ALeaseEndsAndCanBeRenewedWhileItLasts) {
  auto answer = ask("sig", {}, 0);
  EXPECT_EQ(answer.getOutcome().getGranted().getLeaseMs(), 60'000u) << "the longest that policy allows";
  EXPECT_EQ(ask("sig", {}, 100'000).getOutcome().getGranted().getLeaseMs(), 60'000u);
  EXPECT_EQ(ask("k", {}, 0).getOutcome().getGranted().getLeaseMs(), 0u);
  auto with = key("sig", {}, 10'000);
  nowMs += 9'999;
  EXPECT_TRUE(sign(with, {"x"}).getOutcomes()[0].isSigned());
  auto renewing = with.renewRequest();
  renewing.setLeaseMs(5'000);
  EXPECT_EQ(loop.await(renewing.send()).getOutcome().getLeaseMs(), 5'000u);
  nowMs += 4'999;
  EXPECT_TRUE(sign(with, {"x"}).getOutcomes()[0].isSigned());
  nowMs += 1;
  EXPECT_EQ(sign(with, {"x"}).getOutcomes()[0].getRefused(), Refusal::EXPIRED);
  EXPECT_EQ(loop.await(with.renewRequest().send()).getOutcome().getRefused(), Refusal::EXPIRED);
}

TEST_F(Apps, CloseGivesTheCapabilityBack) {
  auto with = key();
  loop.await(with.closeRequest().send());
  EXPECT_EQ(box(with, peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::EXPIRED);
  loop.await(with.closeRequest().send());
}

TEST_F(Apps, AConnectionHoldsABoundedNumberOfCapabilities) {
  std::vector<proto::Key::Client> held;
  for (size_t i = 0; i < AppSession::MAX_LIVE_KEYS; ++i) held.push_back(key());
  EXPECT_EQ(ask("k").getOutcome().getRefused(), Refusal::TOO_MANY_OBJECTS);
  loop.await(held[0].closeRequest().send());
  held.push_back(key());  // one that was closed makes room
  // Those that are closed and never released are bounded too.
  size_t objects = held.size();
  for (;;) {
    loop.await(held.back().closeRequest().send());
    auto answer = ask("k");
    if (answer.getOutcome().isRefused()) break;
    held.push_back(answer.getOutcome().getGranted().getKey());
    ASSERT_LE(++objects, AppSession::MAX_OBJECTS);
  }
  EXPECT_EQ(objects, AppSession::MAX_OBJECTS);
  held.clear();
  loop.await(app().pingRequest().send());
  key();
}

TEST_F(Apps, AGrantThatIsTakenAwayIsTakenFromLiveCapabilities) {
  auto with = key();
  auto signing = key("sig");
  without("boxes");
  EXPECT_EQ(box(with, peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::EXPIRED);
  EXPECT_EQ(loop.await(with.renewRequest().send()).getOutcome().getRefused(), Refusal::EXPIRED);
  EXPECT_TRUE(sign(signing, {"x"}).getOutcomes()[0].isSigned()) << "another grant";
  configure(std::string(CONFIG));
  EXPECT_TRUE(box(with, peer.publicKey.span(), "x").getOutcomes()[0].isBoxed());
}

TEST_F(Apps, ALockedKeyIsRefusedAndItsSecretsAreGone) {
  auto with = key();
  auto cached = with.boxRequest();
  cached.initItems(1)[0].getPeer().setName("alice");
  loop.await(cached.send());
  ASSERT_EQ(cache.size(), 1u);
  const size_t before = arena->freeBytes();
  keys->lock(*keys->find("k"));
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_EQ(arena->freeBytes(), before + 3 * VersionSecret::arenaBytes(KeyKind::X25519)) << "all but the retired one";
  EXPECT_EQ(box(with, peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::LOCKED);
  EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[2])), Refusal::LOCKED);
  EXPECT_TRUE(sign(key("sig"), {"x"}).getOutcomes()[0].isSigned()) << "another key";

  OpenedKey opened;
  opened.header = keys->find("k")->header;
  opened.versions = boxVersions();
  opened.header.versions.clear();
  for (const auto& each : opened.versions) opened.header.versions.push_back(each.version);
  const PublicKey fresh = opened.versions[2].version.publicKey;
  ASSERT_TRUE(keys->unlock(*keys->find("k"), std::move(opened), nowUnix).has_value());
  EXPECT_TRUE(open(with, naclBox("x", fresh)).getOutcomes()[0].isOpened()) << "a live capability has the new versions";
  EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[2])), Refusal::BAD_BOX);
}

TEST_F(Apps, OnlyTheSameKeyUnlocks) {
  OpenedKey other;
  other.header = keys->find("k")->header;
  other.header.kind = KeyKind::Ed25519;
  EXPECT_FALSE(keys->unlock(*keys->find("k"), std::move(other), nowUnix).has_value());
  OpenedKey restored;
  restored.header = keys->find("k")->header;
  restored.header.ledgerId = LedgerId(vector("S"));
  EXPECT_FALSE(keys->unlock(*keys->find("k"), std::move(restored), nowUnix).has_value());
  EXPECT_TRUE(box(key(), peer.publicKey.span(), "x").getOutcomes()[0].isBoxed()) << "nothing changed";
}

TEST_F(Apps, AfterAPanicTheArenaIsZero) {
  auto with = key();
  auto cached = with.boxRequest();
  cached.initItems(1)[0].getPeer().setName("alice");
  loop.await(cached.send());
  const auto* secret = keys->find("k")->versions[1].secret->box().secretForNonceKeys().data();
  ASSERT_FALSE(std::all_of(secret, secret + 32, [](std::byte each) { return each == std::byte{0}; }));
  keys->panic();
  EXPECT_TRUE(std::all_of(secret, secret + 32, [](std::byte each) { return each == std::byte{0}; }));
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_EQ(box(with, peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::LOCKED);
  EXPECT_EQ(sign(key("sig"), {"x"}).getOutcomes()[0].getRefused(), Refusal::LOCKED);
}

TEST_F(Apps, ManyFailedOpensOpenTheCallersBreaker) {
  auto with = key();
  auto changed = naclBox("x", publicKeys[2]);
  changed.box.back() ^= std::byte{1};
  for (int i = 0; i < 5; ++i) EXPECT_EQ(openRefusal(with, changed), Refusal::BAD_BOX);
  EXPECT_EQ(openRefusal(with, naclBox("x", publicKeys[2])), Refusal::BREAKER_OPEN) << "a good one too";
  EXPECT_TRUE(box(with, peer.publicKey.span(), "x").getOutcomes()[0].isBoxed()) << "it may still box";
  connect();
  EXPECT_EQ(openRefusal(key(), naclBox("x", publicKeys[2])), Refusal::BREAKER_OPEN) << "the same caller";
  caller.uid = 1002;
  connect();
  EXPECT_EQ(openRefusal(key(), naclBox("x", publicKeys[2])), Refusal::PEER_NOT_ALLOWED) << "another caller";
  caller.uid = 1001;
  connect();
  nowMs += 20'000;
  EXPECT_TRUE(open(key(), naclBox("x", publicKeys[2])).getOutcomes()[0].isOpened());
  EXPECT_EQ(state->counters.get(Count::BreakersTripped), 1u);
}

TEST_F(Apps, AHoneyKeyRaisesAnAlarmAndWorks) {
  auto with = key("honey");
  EXPECT_EQ(state->counters.get(Count::HoneyUses), 1u) << "to ask for it is enough";
  EXPECT_TRUE(sign(with, {"x", "y"}).getOutcomes()[1].isSigned());
  EXPECT_EQ(state->counters.get(Count::HoneyUses), 3u);
}

TEST_F(Apps, EachUseIsRecordedBeforeItsAnswer) {
  box(key(), peer.publicKey.span(), "12345");
  auto named = key().boxRequest();
  named.initItems(1)[0].getPeer().setName("alice");
  loop.await(named.send());
  openRefusal(key(), naclBox("x", publicKeys[0]));
  sign(key("sig"), {"abc"});
  const std::vector<std::string> expected = {"k box 3  5", "k box 3 alice 0", "k open 0  1 refused", "sig sign 1  3"};
  EXPECT_EQ(recorder.seen, expected);
}

TEST_F(Apps, WhatCanNotBeRecordedIsNotGivenOut) {
  recorder.works = false;
  auto opened = open(key(), naclBox("a text to be found", publicKeys[2]));
  EXPECT_EQ(opened.getOutcomes()[0].getRefused(), Refusal::NOT_RECORDED);
  EXPECT_EQ(sign(key("sig"), {"x"}).getOutcomes()[0].getRefused(), Refusal::NOT_RECORDED);
  EXPECT_EQ(box(key(), peer.publicKey.span(), "x").getOutcomes()[0].getRefused(), Refusal::NOT_RECORDED);
  EXPECT_EQ(state->uses[Verb::Open].refused[static_cast<size_t>(Refusal::NOT_RECORDED)], 1u);
}

TEST_F(Apps, ThePageOfNumbersHoldsOutcomesAndTimes) {
  uint64_t clockNs = 5'000'000;
  state->turnNs = [] { return uint64_t{5'000'000}; };
  state->preciseNs = [&] { return clockNs += 3'000; };
  box(key(), peer.publicKey.span(), "x", 3);
  openRefusal(key(), naclBox("x", publicKeys[0]));
  const std::string page = metricsPage(*state);
  for (const char* line : {"sallyport_vault_uses_total{verb=\"box\",outcome=\"done\"} 3\n",
                           "sallyport_vault_uses_total{verb=\"open\",outcome=\"bad_box\"} 1\n",
                           "sallyport_vault_queue_seconds_bucket{verb=\"box\",le=\"0.000002000\"} 0\n",
                           "sallyport_vault_queue_seconds_bucket{verb=\"box\",le=\"0.000004000\"} 1\n",
                           "sallyport_vault_execution_seconds_count{verb=\"box\"} 1\n",
                           "sallyport_vault_execution_seconds_sum{verb=\"box\"} 0.000003000\n",
                           "sallyport_vault_execution_seconds_bucket{verb=\"sign\",le=\"+Inf\"} 0\n",
                           "sallyport_vault_key_locked{key=\"k\"} 0\n"}) {
    EXPECT_NE(page.find(line), std::string::npos) << line << page;
  }
}

}  // namespace
}  // namespace sallyport::vaultd
