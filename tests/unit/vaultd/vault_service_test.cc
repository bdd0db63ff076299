// Goal: each capability does its verbs, judges each item by itself, and refuses by the right name.
// Method: the services over real RPC, client and server on one loop.
#include "vaultd/vault_service.h"

#include <sodium.h>

#include "proto/vault_admin.capnp.h"
#include "tests/unit/vaultd/service_fixture.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using test::vector;

constexpr std::string_view CONFIG = R"([vault]
keys = "keys"
handshakes_per_second = 1000

[[listen]]
name = "db"
address = "127.0.0.1:7001"
protocol = "curve"
key = "server"
allow = ["alice"]
service = "echo"

[[listen]]
name = "closed"
address = "127.0.0.1:7002"
protocol = "curve"
key = "server"
allow = ["bob"]
service = "echo"

[[connect]]
name = "out"
address = "127.0.0.1:7001"
protocol = "curve"
key = "alice"
peer = "server"

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
bob = "ew1H2TQn+DERYHgcfHM/2J+IlwrvSQ2KoO4ZpMuKGxQ="
server = "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="
)";

class Services : public test::ServiceTest {
 protected:
  Services() : ServiceTest(65536) {}
  ~Services() noexcept override {}

  void SetUp() override {
    ASSERT_TRUE(importKey(folder(), "server", LongTermSecret(vector("Ss")), {}).has_value());
    ASSERT_TRUE(importKey(folder(), "alice", LongTermSecret(vector("Cs")), {}).has_value());
    load(CONFIG);
    facts.memory = "memfd_secret";
    facts.pid = 42;
    facts.sandbox.layers = {{"seccomp", sandbox::LayerState::Active, "38 rules", true}};
    serve();
  }

  // A Hello of the vectors' client; `change` may spoil it.
  using Spoil = std::function<void(proto::Hello::Builder)>;
  void fill(proto::Hello::Builder hello) {
    hello.setEntry("db");
    hello.setClientEphemeral(test::rawData(vector("EC")));
    hello.setBox(test::rawData(ByteSpan(vector("hello")).subspan(48)));
    hello.setServerEphemeral(test::rawData(vector("ES")));
    hello.setCookie(test::rawData(vector("K")));
  }
  auto hellos(unsigned count, const Spoil& change = {}) {
    auto request = net().sealCookiesRequest();
    auto list = request.initHellos(count);
    for (auto hello : list) {
      fill(hello);
      if (change) change(hello);
    }
    return loop.await(request.send());
  }
  Refusal helloRefusal(const Spoil& change) {
    auto answer = hellos(1, change);
    EXPECT_EQ(answer.getOutcomes().size(), 1u);
    EXPECT_TRUE(answer.getOutcomes()[0].isRefused());
    return answer.getOutcomes()[0].getRefused();
  }

  // A vouch of alice, made by the service itself.
  struct MadeVouch {
    std::vector<std::byte> client, nonce, box;
  };
  MadeVouch makeVouch() {
    auto request = net().makeVouchesRequest();
    auto one = request.initRequests(1)[0];
    one.setEntry("out");
    one.setClientEphemeral(test::rawData(vector("EC")));
    auto answer = loop.await(request.send());
    EXPECT_TRUE(answer.getOutcomes()[0].isMade());
    auto made = answer.getOutcomes()[0].getMade();
    return {test::bytesOf(made.getClient()), test::bytesOf(made.getNonce()), test::bytesOf(made.getBox())};
  }
  auto verify(const MadeVouch& vouch, const std::function<void(proto::Vouch::Builder)>& change = {}) {
    auto request = net().verifyVouchesRequest();
    auto one = request.initVouches(1)[0];
    one.setEntry("db");
    one.setClient(test::rawData(vouch.client));
    one.setNonce(test::rawData(vouch.nonce));
    one.setBox(test::rawData(vouch.box));
    one.setClientEphemeral(test::rawData(vector("EC")));
    if (change) change(one);
    return loop.await(request.send());
  }
  Refusal vouchRefusal(const std::function<void(proto::Vouch::Builder)>& change) {
    auto answer = verify(makeVouch(), change);
    EXPECT_TRUE(answer.getOutcomes()[0].isRefused());
    return answer.getOutcomes()[0].getRefused();
  }
  auto reload(const std::string& text) {
    auto request = admin().reloadRequest();
    request.setConfig(text);
    return loop.await(request.send());
  }
};

TEST_F(Services, SealsACookieThatTheClientOpens) {
  auto answer = hellos(1);
  ASSERT_TRUE(answer.getOutcomes()[0].isSealed());
  auto sealed = answer.getOutcomes()[0].getSealed();
  ASSERT_EQ(sealed.getNonce().size(), 16u);
  ASSERT_EQ(sealed.getBox().size(), 144u);
  unsigned char nonce[24];
  std::memcpy(nonce, "CurveCPK", 8);
  std::memcpy(nonce + 8, sealed.getNonce().begin(), 16);
  unsigned char text[128];
  ASSERT_EQ(crypto_box_open_easy(text, sealed.getBox().begin(), 144, nonce, PublicKey(vector("S")).data(),
                                 uchars(ByteSpan(vector("ECs")))),
            0);
  EXPECT_EQ(toHex(std::as_bytes(std::span(text))), toHex(vector("ES")) + toHex(vector("K")));
  EXPECT_EQ(state->counters.get(Count::CookiesSealed), 1u);
}

TEST_F(Services, JudgesEachItemOfABatchByItself) {
  auto request = net().sealCookiesRequest();
  auto list = request.initHellos(64);
  for (unsigned i = 0; i < 64; ++i) {
    fill(list[i]);
    if (i % 3 == 1) list[i].setEntry("nothing");
    if (i % 3 == 2) list[i].setServerEphemeral(test::rawData(ByteSpan(vector("ES")).first(31)));
  }
  auto answer = loop.await(request.send());
  ASSERT_EQ(answer.getOutcomes().size(), 64u);
  std::set<std::string> nonces;
  for (unsigned i = 0; i < 64; ++i) {
    auto outcome = answer.getOutcomes()[i];
    if (i % 3 == 0) {
      ASSERT_TRUE(outcome.isSealed()) << i;
      EXPECT_TRUE(nonces.insert(toHex(test::bytesOf(outcome.getSealed().getNonce()))).second) << "a nonce twice";
    } else {
      ASSERT_TRUE(outcome.isRefused()) << i;
      EXPECT_EQ(outcome.getRefused(), i % 3 == 1 ? Refusal::UNKNOWN_ENTRY : Refusal::BAD_SIZE);
    }
  }
}

TEST_F(Services, AnEmptyListGetsAnEmptyAnswer) { EXPECT_EQ(hellos(0).getOutcomes().size(), 0u); }

TEST_F(Services, MoreThan64ItemsAreRefusedWhole) {
  auto request = net().sealCookiesRequest();
  for (auto hello : request.initHellos(65)) hello.setEntry("db");
  auto answer = loop.await(request.send());
  ASSERT_EQ(answer.getOutcomes().size(), 1u);
  EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::TOO_MANY);
  auto vouches = net().verifyVouchesRequest();
  vouches.initVouches(65);
  EXPECT_EQ(loop.await(vouches.send()).getOutcomes()[0].getRefused(), Refusal::TOO_MANY);
  auto made = net().makeVouchesRequest();
  made.initRequests(65);
  EXPECT_EQ(loop.await(made.send()).getOutcomes()[0].getRefused(), Refusal::TOO_MANY);
  EXPECT_EQ(state->counters.refusals(Refusal::TOO_MANY), 3u);
}

TEST_F(Services, HellosAreRefusedByReason) {
  EXPECT_EQ(helloRefusal([](auto h) { h.setEntry("out"); }), Refusal::UNKNOWN_ENTRY)
      << "a connect entry answers no Hello";
  EXPECT_EQ(helloRefusal([](auto h) { h.setEntry(""); }), Refusal::UNKNOWN_ENTRY);
  EXPECT_EQ(helloRefusal([](auto h) { h.disownEntry(); }), Refusal::UNKNOWN_ENTRY);
  EXPECT_EQ(helloRefusal([](auto h) { h.initClientEphemeral(31); }), Refusal::BAD_SIZE);
  EXPECT_EQ(helloRefusal([](auto h) { h.initBox(81); }), Refusal::BAD_SIZE);
  EXPECT_EQ(helloRefusal([](auto h) { h.initServerEphemeral(0); }), Refusal::BAD_SIZE);
  EXPECT_EQ(helloRefusal([](auto h) { h.initCookie(97); }), Refusal::BAD_SIZE);
  EXPECT_EQ(helloRefusal([](auto h) { h.initBox(80); }), Refusal::BAD_BOX);
  EXPECT_EQ(helloRefusal([](auto h) { h.initClientEphemeral(32); }), Refusal::LOW_ORDER_KEY);
  EXPECT_EQ(state->counters.get(Count::CookiesRefused), 9u);
  EXPECT_EQ(state->counters.get(Count::CookiesSealed), 0u);
}

TEST_F(Services, VerifiesAVouchAndNamesThePeer) {
  auto answer = verify(makeVouch());
  ASSERT_TRUE(answer.getOutcomes()[0].isPeer());
  EXPECT_STREQ(answer.getOutcomes()[0].getPeer().cStr(), "alice");
}

TEST_F(Services, VouchesAreRefusedByReason) {
  EXPECT_EQ(vouchRefusal([](auto v) { v.setEntry("nothing"); }), Refusal::UNKNOWN_ENTRY);
  EXPECT_EQ(vouchRefusal([](auto v) { v.initClient(33); }), Refusal::BAD_SIZE);
  EXPECT_EQ(vouchRefusal([](auto v) { v.initNonce(24); }), Refusal::BAD_SIZE);
  EXPECT_EQ(vouchRefusal([](auto v) { v.initBox(0); }), Refusal::BAD_SIZE);
  EXPECT_EQ(vouchRefusal([](auto v) { v.initClientEphemeral(1); }), Refusal::BAD_SIZE);
  EXPECT_EQ(vouchRefusal([](auto v) { v.setClientEphemeral(test::rawData(vector("ES"))); }), Refusal::BAD_BOX);
  EXPECT_EQ(vouchRefusal([](auto v) { v.setClient(test::rawData(vector("EC"))); }), Refusal::BAD_BOX);
  EXPECT_EQ(vouchRefusal([](auto v) { v.initClient(32); }), Refusal::LOW_ORDER_KEY);
}

TEST_F(Services, AGenuineVouchOfAPeerThatTheEntryDoesNotAllowIsRefusedAsThat) {
  EXPECT_EQ(vouchRefusal([](auto v) { v.setEntry("closed"); }), Refusal::PEER_NOT_ALLOWED);
  EXPECT_EQ(cache.size(), 1u) << "only our own way out is remembered, not the stranger";
}

TEST_F(Services, VouchRequestsAreRefusedByReason) {
  const auto refusal = [&](const char* entry, size_t size) {
    auto request = net().makeVouchesRequest();
    auto one = request.initRequests(1)[0];
    one.setEntry(entry);
    one.initClientEphemeral(static_cast<unsigned>(size));
    return loop.await(request.send()).getOutcomes()[0].getRefused();
  };
  EXPECT_EQ(refusal("db", 32), Refusal::UNKNOWN_ENTRY) << "a listen entry makes no vouch";
  EXPECT_EQ(refusal("out", 31), Refusal::BAD_SIZE);
  EXPECT_EQ(refusal("out", 64), Refusal::BAD_SIZE);
}

TEST_F(Services, TheRateIsKeptForEachVerbAndRefillsWithTime) {
  unsigned sealed = 0;
  unsigned limited = 0;
  const auto flood = [&] {
    for (int call = 0; call < 20; ++call) {
      auto answer = hellos(64, [](auto hello) { hello.initBox(80); });
      for (auto outcome : answer.getOutcomes()) ++(outcome.getRefused() == Refusal::RATE_LIMITED ? limited : sealed);
    }
  };
  flood();
  EXPECT_EQ(sealed, 1000u) << "forged Hellos cost as much as good ones";
  EXPECT_EQ(limited, 280u);
  EXPECT_TRUE(verify(makeVouch()).getOutcomes()[0].isPeer()) << "a flood of Hellos doesn't stop our own way out";
  nowMs += 500;
  sealed = limited = 0;
  flood();
  EXPECT_EQ(sealed, 500u);
}

TEST_F(Services, WithoutANonceHandshakesAreRefusedAndVouchesStillVerified) {
  const MadeVouch vouch = makeVouch();
  // A second ring with ledgers that give nothing.
  const Config config = parse(CONFIG);
  keys.emplace(Keyring());
  std::filesystem::remove(temporary.path() / "keys" / "server.nonces");
  test::writeFile(temporary.path() / "keys" / "server.nonces", "broken");
  std::vector<Problem> warnings;
  auto ring = Keyring::load(config, *arena, cache, {}, {}, nowMs, warnings);
  ASSERT_TRUE(ring.has_value());
  *keys = std::move(*ring);
  state->policy = Policy(config, *keys);
  EXPECT_EQ(helloRefusal([](auto) {}), Refusal::NONCE_UNAVAILABLE);
  EXPECT_TRUE(verify(vouch).getOutcomes()[0].isPeer());
  auto status = loop.await(admin().statusRequest().send());
  for (auto key : status.getStatus().getKeys()) {
    if (std::string(key.getName().cStr()) != "server") continue;
    EXPECT_STREQ(key.getState().cStr(), "unusable");
    EXPECT_TRUE(contains(key.getNonce().cStr(), "server.nonces"));
  }
}

TEST_F(Services, ProgramsGetPublicKeysAndNothingElse) {
  auto request = app().publicKeyRequest();
  request.setKey("server");
  auto answer = loop.await(request.send());
  ASSERT_TRUE(answer.getOutcome().isPublicKey());
  EXPECT_EQ(toHex(test::bytesOf(answer.getOutcome().getPublicKey())), toHex(vector("S")));
  EXPECT_EQ(answer.getOutcome().getVersion(), 1u);
  ASSERT_EQ(answer.getOutcome().getOpening().size(), 1u);
  EXPECT_EQ(toHex(test::bytesOf(answer.getOutcome().getOpening()[0])), toHex(vector("S")));
  auto unknown = app().publicKeyRequest();
  unknown.setKey("../server");
  EXPECT_EQ(loop.await(unknown.send()).getOutcome().getRefused(), Refusal::UNKNOWN_KEY);
}

TEST_F(Services, AProgramCanNotCallWhatNetdMay) {
  auto request = appClient->bootstrap().castAs<proto::Net>().sealCookiesRequest();
  fill(request.initHellos(1)[0]);
  EXPECT_ANY_THROW(loop.await(request.send()));
  EXPECT_ANY_THROW(loop.await(netClient->bootstrap().castAs<proto::Admin>().statusRequest().send()));
}

TEST_F(Services, PingTestsTheBoxAtMostOnceASecond) {
  EXPECT_TRUE(loop.await(app().pingRequest().send()).getSelfTest());
  EXPECT_TRUE(loop.await(app().pingRequest().send()).getSelfTest());
  loop.await(net().pingRequest().send());
  EXPECT_EQ(state->counters.get(Count::Pings), 3u);
}

TEST_F(Services, AnotherUserIsTurnedAway) {
  RpcServer strict(loop, listenUnix(path("strict"), 0600),
                   admit("strict", {geteuid() + 1}, [this] { return kj::heap<NetService>(*state); }), LinkLimits());
  bool gone = false;
  RpcClient client(loop, connectUnix(path("strict")), LinkLimits(), [&] { gone = true; });
  EXPECT_ANY_THROW(loop.await(client.bootstrap().castAs<proto::Net>().pingRequest().send()));
  EXPECT_EQ(strict.stats().refused, 1u);
}

TEST_F(Services, StatusTellsWhatHoldsAndNoSecret) {
  hellos(3);
  nowMs += 5000;
  facts.startedMs = 1000000;
  auto answer = loop.await(admin().statusRequest().send());
  auto status = answer.getStatus();
  EXPECT_STREQ(status.getVersion().cStr(), SALLYPORT_VERSION);
  EXPECT_EQ(status.getPid(), 42u);
  EXPECT_EQ(status.getUptimeSeconds(), 5u);
  EXPECT_STREQ(status.getMemory().cStr(), "memfd_secret");
  ASSERT_EQ(status.getSandbox().size(), 1u);
  EXPECT_STREQ(status.getSandbox()[0].getState().cStr(), "active");
  ASSERT_EQ(status.getKeys().size(), 2u);
  EXPECT_STREQ(status.getKeys()[1].getName().cStr(), "server");
  EXPECT_STREQ(status.getKeys()[1].getNonce().cStr(), "ready");
  EXPECT_STREQ(status.getKeys()[1].getSealed().cStr(), "plain file");
  uint64_t sealed = 0;
  for (auto counter : status.getCounters()) {
    EXPECT_GT(counter.getName().size(), 0u);
    if (std::string(counter.getName().cStr()) == "cookies_sealed") sealed = counter.getValue();
  }
  EXPECT_EQ(sealed, 3u);
  const std::string text = kj::str(status).cStr();
  EXPECT_FALSE(contains(text, toBase64(vector("Ss")).substr(0, 20)));
}

TEST_F(Services, AReloadRevokesAPeerAtOnce) {
  const MadeVouch vouch = makeVouch();
  EXPECT_TRUE(verify(vouch).getOutcomes()[0].isPeer());
  std::string text(CONFIG);
  text.replace(text.find("allow = [\"alice\"]"), 17, "allow = [\"bob\"]");
  EXPECT_TRUE(reload(text).getOutcome().isDone());
  EXPECT_EQ(verify(vouch).getOutcomes()[0].getRefused(), Refusal::PEER_NOT_ALLOWED);
  EXPECT_FALSE(cache.find(state->keys.find("server")->versions[0].id, PublicKey(vector("C"))))
      << "its shared key is wiped";
  EXPECT_TRUE(reload(std::string(CONFIG)).getOutcome().isDone());
  EXPECT_TRUE(verify(vouch).getOutcomes()[0].isPeer());
}

TEST_F(Services, AReloadChangesTheRate) {
  std::string text(CONFIG);
  text.replace(text.find("= 1000"), 6, "= 1");
  EXPECT_TRUE(reload(text).getOutcome().isDone());
  EXPECT_TRUE(hellos(1).getOutcomes()[0].isSealed());
  EXPECT_EQ(helloRefusal([](auto) {}), Refusal::RATE_LIMITED);
}

TEST_F(Services, ABadReloadChangesNothing) {
  for (const std::string& text : {std::string("[vault"), std::string(CONFIG) + "\nnonsense = 1\n",
                                  std::string("\xff\xfe"), std::string(CONFIG).substr(0, 400)}) {
    auto answer = reload(text);
    ASSERT_TRUE(answer.getOutcome().isRefused()) << text;
    EXPECT_EQ(answer.getOutcome().getRefused().getReason(), Refusal::BAD_CONFIG);
    EXPECT_GT(answer.getOutcome().getRefused().getProblem().size(), 0u);
  }
  EXPECT_TRUE(hellos(1).getOutcomes()[0].isSealed());
  EXPECT_EQ(state->counters.get(Count::ReloadsRefused), 4u);
}

TEST_F(Services, AKeyThatAReloadNamesIsUnknownUntilARestart) {
  std::string text(CONFIG);
  text.replace(text.find("key = \"server\""), 14, "key = \"later\"");
  auto answer = reload(text);
  ASSERT_TRUE(answer.getOutcome().isDone());
  EXPECT_TRUE(contains(answer.getOutcome().getDone().cStr(), "later"));
  EXPECT_EQ(helloRefusal([](auto) {}), Refusal::UNKNOWN_KEY);
}

}  // namespace
}  // namespace sallyport::vaultd
