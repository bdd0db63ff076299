// Goal: netd gets keys of a connection once and of nothing else, a block in base mode serves one connection, and each
// misuse is refused by its name.
// Method: the services over real RPC, two hosts' keys in one vault (parties A and B of one block).
// lint: size: one fixture serves both modes, and most of it is the fixture
#include <sodium.h>

#include "tests/unit/peer/peer_pair.h"
#include "tests/unit/vaultd/claims_disk.h"
#include "tests/unit/vaultd/fake_hsmd.h"
#include "tests/unit/vaultd/service_fixture.h"
#include "vaultd/key_life.h"
#include "vaultd/peer_service.h"
#include "vaultd/state_file.h"
#include "vaultd/tokens.h"

namespace sallyport::vaultd {
namespace {

using peer::test::peerVectors;
using test::contains;
using wire::PeerParty;

constexpr std::string_view CONFIG = R"([vault]
keys = "keys"
handshakes_per_second = 1000

[[listen]]
name = "b"
address = "127.0.0.1:7001"
protocol = "peer"
key = "hard-b"
service = "echo"
[[connect]]
name = "a"
address = "127.0.0.1:7001"
protocol = "peer"
key = "hard-a"
[[listen]]
name = "base"
address = "127.0.0.1:7002"
protocol = "peer"
mode = "base"
key = "base-b"
max_frame_bytes = 1000
service = "echo"
[[connect]]
name = "base"
address = "127.0.0.1:7002"
protocol = "peer"
mode = "base"
key = "base-a"
[[listen]]
name = "curve"
address = "127.0.0.1:7003"
key = "curve"
allow = ["bob"]
service = "echo"
[[listen]]
name = "wrong"
address = "127.0.0.1:7004"
protocol = "peer"
key = "boxes"
service = "echo"
[[listen]]
name = "unloaded"
address = "127.0.0.1:7005"
protocol = "peer"
key = "nobody"
service = "echo"
[peers]
bob = "ew1H2TQn+DERYHgcfHM/2J+IlwrvSQ2KoO4ZpMuKGxQ="
)";

struct Events final : UseRecorder {
  bool admits() const override { return open; }
  bool record(const UseRecord&) override { return true; }
  void step(const StepRecord& step) override {
    steps.push_back(std::string(step.verb) + " " + std::string(step.entry) + (step.refused ? " refused" : ""));
  }
  void event(AuditRecord record) override {
    events.push_back(record.verb + " " + record.key + " " + std::to_string(record.version) + " " + record.outcome);
  }
  kj::Maybe<kj::Promise<bool>> settled() override { return nullptr; }
  bool open = true;
  std::vector<std::string> steps, events;
};

class Peers : public test::ServiceTest {
 protected:
  test::ClaimsImage image{16};
  std::unique_ptr<BlockClaims> claims;
  std::optional<BaseSessions> base;
  Events events;

  Peers() : ServiceTest(131072) {}
  ~Peers() noexcept override { stop(); }

  void SetUp() override {
    const auto block = LongTermSecret(peerVectors().block);
    const auto add = [&](const char* name, PeerParty party, bool unused) {
      ASSERT_TRUE(importKey(folder(), name, block, {}, {.kind = KeyKind::PeerBlock, .party = party, .unused = unused})
                      .has_value());
    };
    add("hard-a", PeerParty::A, false);
    add("hard-b", PeerParty::B, false);
    add("base-b", PeerParty::B, true);
    add("base-a", PeerParty::A, false);
    for (const char* name : {"curve", "boxes"}) ASSERT_TRUE(generateKey(folder(), name, {}).has_value());
    ASSERT_TRUE(generateKey(folder(), "nobody", {}, {.kind = KeyKind::PeerBlock, .party = PeerParty::B}).has_value());
    start();
  }
  void start() {
    load(CONFIG);
    claims = std::move(*BlockClaims::open(std::make_unique<test::ClaimsDisk>(image), {}, image.bytes.size()));
    base.emplace(*arena, *claims);
    state->base = &*base;
    state->recorder = &events;
    serve();
  }

  // --- hard mode ---
  struct Drawn {
    std::optional<Refusal> refused;
    proto::PeerParty party{};
    std::vector<std::byte> salt;
  };
  Drawn draw(const char* entry, bool isListen) {
    auto request = net().peerSaltsRequest();
    auto one = request.initEntries(1)[0];
    one.setName(entry);
    one.setListen(isListen);
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcomes()[0];
    if (outcome.isRefused()) return {outcome.getRefused(), {}, {}};
    return {{}, outcome.getDrawn().getParty(), test::bytesOf(outcome.getDrawn().getSalt())};
  }
  struct Derived {
    std::optional<Refusal> refused;
    std::vector<std::byte> send, receive;
  };
  Derived derive(const char* entry, bool isListen, ByteSpan own, ByteSpan other) {
    auto request = net().peerKeysRequest();
    auto one = request.initRequests(1)[0];
    one.getEntry().setName(entry);
    one.getEntry().setListen(isListen);
    one.setOwnSalt(test::rawData(own));
    one.setPeerSalt(test::rawData(other));
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcomes()[0];
    if (outcome.isRefused()) return {outcome.getRefused(), {}, {}};
    return {{},
            test::bytesOf(outcome.getDerived().getSendSecret()),
            test::bytesOf(outcome.getDerived().getReceiveSecret())};
  }

  struct Accepted {
    std::optional<Refusal> refused;
    proto::PeerParty party{};
    std::vector<std::byte> salt, send, receive;
    uint32_t version = 0;
    std::vector<uint32_t> others{};
    std::vector<std::vector<std::byte>> otherSends{};
  };
  Accepted accept(const char* entry, bool isListen, ByteSpan other) {
    auto request = net().peerAcceptRequest();
    auto one = request.initRequests(1)[0];
    one.getEntry().setName(entry);
    one.getEntry().setListen(isListen);
    one.setPeerSalt(test::rawData(other));
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcomes()[0];
    if (outcome.isRefused()) return {outcome.getRefused(), {}, {}, {}, {}, 0};
    const auto accepted = outcome.getAccepted();
    Accepted result{{},
                    accepted.getParty(),
                    test::bytesOf(accepted.getOwnSalt()),
                    test::bytesOf(accepted.getSendSecret()),
                    test::bytesOf(accepted.getReceiveSecret()),
                    accepted.getVersion()};
    for (const auto each : accepted.getOthers()) {
      result.others.push_back(each.getVersion());
      result.otherSends.push_back(test::bytesOf(each.getSendSecret()));
    }
    return result;
  }

  // Changes the file of `hard-b`, and starts the vault anew.
  void changeBy(const std::function<Result<void, Problem>(OpenedKey&)>& edit) {
    const auto changed = changeKey(
        temporary.path() / "keys", "hard-b", {},
        [&](EditedKey& key) -> Result<Rewrite, Problem> {
          if (auto edited = edit(key.opened); !edited) return refuse(edited.error());
          return Rewrite::All;
        },
        state->nowUnix());
    ASSERT_TRUE(changed.has_value()) << changed.error().message;
    stop();
    state.reset();
    base.reset();
    keys.reset();
    start();
  }

  // --- base mode ---
  struct Begun {
    std::optional<Refusal> refused;
    proto::PeerSession::Client session = nullptr;
  };
  Begun begin(const char* entry = "base", bool isListen = true) {
    auto request = net().peerSessionRequest();
    request.getEntry().setName(entry);
    request.getEntry().setListen(isListen);
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcome();
    if (outcome.isRefused()) return {outcome.getRefused(), nullptr};
    return {{}, outcome.getBegun().getSession()};
  }
  struct Sealed {
    std::optional<Refusal> refused;
    std::vector<std::byte> frames;
  };
  Sealed seal(proto::PeerSession::Client& session, ByteSpan frames) {
    auto request = session.sealRequest();
    request.setFrames(test::rawData(frames));
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcome();
    if (outcome.isRefused()) return {outcome.getRefused(), {}};
    return {{}, test::bytesOf(outcome.getFrames())};
  }
  struct Opened {
    std::optional<Refusal> refused;
    std::vector<std::byte> frames;
    uint32_t sanctified = 0;
    std::string fault;
  };
  Opened open(proto::PeerSession::Client& session, ByteSpan frames) {
    auto request = session.openRequest();
    request.setFrames(test::rawData(frames));
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcome();
    if (outcome.isRefused()) return {outcome.getRefused(), {}, 0, {}};
    const auto opened = outcome.getOpened();
    return {{}, test::bytesOf(opened.getFrames()), opened.getSanctified(), opened.getFault().cStr()};
  }
  const PublicKey* publicOf(const char* name) { return &keys->find(name)->activeFacts(state->nowUnix())->publicKey; }
  static std::vector<std::byte> plainFrame(std::string_view payload) {
    std::vector<std::byte> frame(wire::PEER_OVERHEAD_BYTES + payload.size());
    frame[3] = static_cast<std::byte>(payload.size());
    frame[2] = static_cast<std::byte>(payload.size() >> 8);
    std::ranges::copy(asBytes(payload), frame.begin() + wire::PEER_HEADER_BYTES);
    return frame;
  }
  // What the other party, A, sends.
  peer::FrameCipher cipher;
  peer::test::Keys blocks;
  std::vector<std::byte> frameOfA(std::string_view text) {
    auto sealer = blocks.sealer(wire::PeerMode::Base, PeerParty::A, 0);
    return peer::test::sealFrame(sealer, cipher, asBytes(text), 1);
  }
};

TEST_F(Peers, TheSecretsOfAConnectionAreThoseOfTheDocument) {
  const Drawn a = draw("a", false), b = draw("b", true);
  ASSERT_FALSE(a.refused || b.refused);
  EXPECT_EQ(a.party, proto::PeerParty::A);
  EXPECT_EQ(b.party, proto::PeerParty::B);
  const Derived atA = derive("a", false, a.salt, b.salt), atB = derive("b", true, b.salt, a.salt);
  ASSERT_FALSE(atA.refused || atB.refused);
  EXPECT_EQ(atA.send, atB.receive);
  EXPECT_EQ(atA.receive, atB.send);
  EXPECT_NE(atA.send, atA.receive);
  // S = HMAC-SHA256(key saltA || saltB, half), written out.
  std::vector<std::byte> salts = a.salt;
  salts.insert(salts.end(), b.salt.begin(), b.salt.end());
  for (const size_t half : {0u, 64u}) {
    crypto_auth_hmacsha256_state hmac;
    std::vector<std::byte> expected(32);
    crypto_auth_hmacsha256_init(&hmac, uchars(ByteSpan(salts)), salts.size());
    crypto_auth_hmacsha256_update(&hmac, uchars(ByteSpan(peerVectors().block)) + half, 64);
    crypto_auth_hmacsha256_final(&hmac, uchars(MutableByteSpan(expected)));
    EXPECT_EQ(half == 0 ? atA.send : atB.send, expected);
  }
  EXPECT_EQ(state->counters.get(Count::PeerKeysDerived), 2u);
  EXPECT_EQ(events.steps, (std::vector<std::string>{"peer_salt a", "peer_salt b", "peer_keys a", "peer_keys b"}));
}

TEST_F(Peers, AcceptingIsASaltAndItsKeysInOne) {
  const Drawn a = draw("a", false);
  const Accepted b = accept("b", true, a.salt);
  ASSERT_FALSE(b.refused);
  EXPECT_EQ(b.party, proto::PeerParty::B);
  EXPECT_EQ(b.version, 1u);
  const Derived atA = derive("a", false, a.salt, b.salt);
  ASSERT_FALSE(atA.refused);
  EXPECT_EQ(atA.send, b.receive);
  EXPECT_EQ(atA.receive, b.send);
  EXPECT_EQ(state->counters.get(Count::PeersAccepted), 1u);
  EXPECT_EQ(events.steps, (std::vector<std::string>{"peer_salt a", "peer_accept b", "peer_keys a"}));
}

TEST_F(Peers, EachAcceptanceIsOfAFreshSaltThatNobodyCanAskForAgain) {
  const auto other = std::vector<std::byte>(32, std::byte{1});
  const Accepted first = accept("b", true, other), second = accept("b", true, other);
  ASSERT_FALSE(first.refused || second.refused);
  EXPECT_NE(first.salt, second.salt);
  EXPECT_NE(first.send, second.send);
  EXPECT_NE(first.receive, second.receive);
  EXPECT_EQ(derive("b", true, first.salt, other).refused, Refusal::EXPIRED);
  EXPECT_EQ(state->salts.pending(), 0u);
}

TEST_F(Peers, AnAcceptanceIsRefusedByItsName) {
  const std::vector<std::byte> other(32);
  EXPECT_EQ(accept("none", true, other).refused, Refusal::UNKNOWN_ENTRY);
  EXPECT_EQ(accept("base", true, other).refused, Refusal::WRONG_PROTOCOL);
  EXPECT_EQ(accept("curve", true, other).refused, Refusal::WRONG_PROTOCOL);
  EXPECT_EQ(accept("wrong", true, other).refused, Refusal::WRONG_KIND);
  for (const size_t size : {0u, 31u, 33u}) {
    EXPECT_EQ(accept("b", true, std::vector<std::byte>(size)).refused, Refusal::BAD_SIZE) << size;
  }
  events.open = false;
  EXPECT_EQ(accept("b", true, other).refused, Refusal::NOT_RECORDED);
  EXPECT_EQ(state->counters.get(Count::PeersAccepted), 0u);
  EXPECT_EQ(state->counters.get(Count::PeersNotAccepted), 8u);
}

// protocol §14: while one host has switched and the other hasn't, either block lets a connection come about.
TEST_F(Peers, AnAcceptanceIsOfTheVersionBeforeAndOfOneThatWaitsToo) {
  const std::vector<std::byte> other(32, std::byte{5});
  EXPECT_TRUE(accept("b", true, other).others.empty());
  const auto change = [&](bool awaits) {
    changeBy([&](OpenedKey& key) {
      return addBlock(key, LongTermSecret::random(KeyKind::PeerBlock), 3600, awaits, state->nowUnix());
    });
  };
  change(true);
  Accepted waiting = accept("b", true, other);
  EXPECT_EQ(waiting.version, 1u);
  EXPECT_EQ(waiting.others, std::vector<uint32_t>{2});
  EXPECT_NE(waiting.otherSends[0], waiting.send);
  change(false);
  const Accepted rotated = accept("b", true, other);
  EXPECT_EQ(rotated.version, 3u);
  EXPECT_EQ(rotated.others, (std::vector<uint32_t>{2, 1})) << "the other host may use the one that waited";
  change(true);
  change(true);
  EXPECT_EQ(accept("b", true, other).others, (std::vector<uint32_t>{5, 4, 2, 1})) << "the newest four";
  changeBy([&](OpenedKey& key) { return retire(key, 5, state->nowUnix()); });
  changeBy([&](OpenedKey& key) { return retire(key, 2, state->nowUnix()); });
  EXPECT_EQ(accept("b", true, other).others, (std::vector<uint32_t>{4, 1})) << "one that was taken back lets nobody in";
}

// protocol §14: two clocks never tell a time at one moment.
TEST_F(Peers, AnAcceptanceIsOfAVersionWhoseTimeIsToComeToo) {
  const std::vector<std::byte> other(32, std::byte{5});
  changeBy([&](OpenedKey& key) {
    return rotate(key, LongTermSecret::random(KeyKind::PeerBlock), {.activateIn = 60, .grace = 3600}, state->nowUnix());
  });
  const Accepted before = accept("b", true, other);
  EXPECT_EQ(before.version, 1u);
  EXPECT_EQ(before.others, std::vector<uint32_t>{2});
  EXPECT_NE(before.otherSends.at(0), before.send);
  for (int waiting = 0; waiting < 2; ++waiting) {
    changeBy([&](OpenedKey& key) {
      return addBlock(key, LongTermSecret::random(KeyKind::PeerBlock), 3600, true, state->nowUnix());
    });
  }
  EXPECT_EQ(accept("b", true, other).others, (std::vector<uint32_t>{4, 3, 2}));
  state->nowUnix = [] { return static_cast<int64_t>(::time(nullptr)) + 61; };
  const Accepted after = accept("b", true, other);
  EXPECT_EQ(after.version, 2u);
  EXPECT_EQ(after.others, (std::vector<uint32_t>{4, 3, 1}));
}

TEST_F(Peers, AVersionThatWasTakenBackBeforeItsTimeLetsNobodyIn) {
  const std::vector<std::byte> other(32, std::byte{5});
  changeBy([&](OpenedKey& key) {
    return rotate(key, LongTermSecret::random(KeyKind::PeerBlock), {.activateIn = 60, .grace = 3600}, state->nowUnix());
  });
  changeBy([&](OpenedKey& key) { return retire(key, 2, state->nowUnix()); });
  EXPECT_TRUE(accept("b", true, other).others.empty());
}

TEST_F(Peers, AcceptancesPayTheRateOfTheKey) {
  const std::vector<std::byte> other(32);
  unsigned good = 0;
  while (good < 5000 && !accept("b", true, other).refused) ++good;
  EXPECT_LT(good, 5000u);
  EXPECT_EQ(accept("b", true, other).refused, Refusal::RATE_LIMITED);
  EXPECT_EQ(draw("b", true).refused, Refusal::RATE_LIMITED);
}

TEST_F(Peers, KeysOfARecordedConnectionCantBeMadeAgain) {
  const Drawn b = draw("b", true);
  const auto other = std::vector<std::byte>(32, std::byte{1});
  ASSERT_FALSE(derive("b", true, b.salt, other).refused);
  EXPECT_EQ(derive("b", true, b.salt, other).refused, Refusal::EXPIRED);
  EXPECT_EQ(derive("b", true, std::vector<std::byte>(32), other).refused, Refusal::EXPIRED)
      << "a salt of netd's choice";
  EXPECT_EQ(derive("b", true, b.salt, b.salt).refused, Refusal::EXPIRED);
}

TEST_F(Peers, ASaltThatIsTooOldDoesntWork) {
  const Drawn b = draw("b", true);
  nowMs += PeerSalts::DEFAULT_LIFE_MS;
  EXPECT_EQ(derive("b", true, b.salt, b.salt).refused, Refusal::EXPIRED);
}

TEST_F(Peers, ASaltWorksForItsOwnEntryAlone) {
  const Drawn b = draw("b", true);
  EXPECT_EQ(derive("a", false, b.salt, b.salt).refused, Refusal::EXPIRED);
  EXPECT_EQ(derive("b", true, b.salt, b.salt).refused, Refusal::EXPIRED) << "and the try has used it up";
}

TEST_F(Peers, SizesAreCheckedBeforeTheSaltIsTaken) {
  const Drawn b = draw("b", true);
  for (const size_t size : {0u, 31u, 33u, 64u}) {
    EXPECT_EQ(derive("b", true, std::vector<std::byte>(size), b.salt).refused, Refusal::BAD_SIZE) << size;
    EXPECT_EQ(derive("b", true, b.salt, std::vector<std::byte>(size)).refused, Refusal::BAD_SIZE) << size;
  }
  EXPECT_FALSE(derive("b", true, b.salt, b.salt).refused);
}

TEST_F(Peers, EachWrongEntryIsRefusedByItsName) {
  const std::tuple<const char*, bool, Refusal> wrong[] = {
      {"none", true, Refusal::UNKNOWN_ENTRY},   {"", false, Refusal::UNKNOWN_ENTRY},
      {"curve", true, Refusal::WRONG_PROTOCOL}, {"a", true, Refusal::WRONG_PROTOCOL},
      {"base", true, Refusal::WRONG_PROTOCOL},  {"wrong", true, Refusal::WRONG_KIND}};
  for (const auto& [entry, isListen, refusal] : wrong) {
    EXPECT_EQ(draw(entry, isListen).refused, refusal) << entry;
    const auto salt = std::vector<std::byte>(32);
    EXPECT_EQ(derive(entry, isListen, salt, salt).refused, refusal) << entry;
  }
  EXPECT_EQ(begin("b", true).refused, Refusal::WRONG_PROTOCOL);
  EXPECT_EQ(begin("curve", true).refused, Refusal::WRONG_PROTOCOL);
  EXPECT_EQ(begin("none", true).refused, Refusal::UNKNOWN_ENTRY);
}

TEST_F(Peers, CurvesStepsDontServeThePeersEntries) {
  auto request = net().sealCookiesRequest();
  request.initHellos(1)[0].setEntry("b");
  EXPECT_EQ(loop.await(request.send()).getOutcomes()[0].getRefused(), Refusal::WRONG_PROTOCOL);
  auto vouch = net().makeVouchesRequest();
  vouch.initRequests(1)[0].setEntry("a");
  EXPECT_EQ(loop.await(vouch.send()).getOutcomes()[0].getRefused(), Refusal::WRONG_PROTOCOL);
}

TEST_F(Peers, MoreThanSixtyFourAreRefusedWhole) {
  auto request = net().peerSaltsRequest();
  request.initEntries(65);
  auto answer = loop.await(request.send());
  ASSERT_EQ(answer.getOutcomes().size(), 1u);
  EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::TOO_MANY);
}

TEST_F(Peers, ALockedKeyAndARateStopBothModes) {
  const Drawn b = draw("b", true);
  state->keys.setRate(1);
  nowMs += 1;
  while (!draw("b", true).refused) {}
  EXPECT_EQ(draw("b", true).refused, Refusal::RATE_LIMITED);
  state->keys.setRate(1000);
  nowMs += 1000;
  state->lock(*keys->find("hard-b"));
  EXPECT_EQ(draw("b", true).refused, Refusal::LOCKED);
  EXPECT_EQ(derive("b", true, b.salt, b.salt).refused, Refusal::LOCKED);
  state->lock(*keys->find("base-b"));
  EXPECT_EQ(begin().refused, Refusal::LOCKED);
}

// --- base mode ---

TEST_F(Peers, BaseModeSealsAndOpensAsTheDocumentSays) {
  Begun one = begin();
  ASSERT_FALSE(one.refused);
  const Opened opened = open(one.session, frameOfA("hello"));
  ASSERT_FALSE(opened.refused);
  EXPECT_EQ(opened.fault, "");
  EXPECT_EQ(opened.sanctified, opened.frames.size());
  EXPECT_EQ(std::vector<std::byte>(opened.frames.begin() + 16, opened.frames.end() - 8),
            peer::test::textBlock("hello"));
  const Sealed sealed = seal(one.session, plainFrame("world"));
  ASSERT_FALSE(sealed.refused);
  auto opener = blocks.opener(wire::PeerMode::Base, PeerParty::B, 0);
  EXPECT_EQ(peer::test::openFrame(opener, cipher, sealed.frames).payload, peer::test::textBlock("world"));
  EXPECT_EQ(events.events, (std::vector<std::string>{"claim_block base-b 1 ok"}));
}

TEST_F(Peers, ABlockServesOneConnection) {
  Begun one = begin(), two = begin();
  ASSERT_FALSE(one.refused || two.refused) << "nothing is used up yet";
  ASSERT_FALSE(seal(one.session, plainFrame("x")).refused);
  EXPECT_EQ(seal(two.session, plainFrame("x")).refused, Refusal::BLOCK_USED);
  EXPECT_EQ(open(two.session, frameOfA("x")).refused, Refusal::EXPIRED) << "that ended it";
  EXPECT_EQ(begin().refused, Refusal::BLOCK_USED);
  EXPECT_FALSE(seal(one.session, plainFrame("y")).refused) << "the first goes on";
  loop.await(one.session.closeRequest().send());
  EXPECT_EQ(seal(one.session, plainFrame("z")).refused, Refusal::EXPIRED);
  EXPECT_EQ(begin().refused, Refusal::BLOCK_USED) << "for ever";
}

TEST_F(Peers, OpeningAFrameUsesTheBlockUpToo) {
  Begun one = begin(), two = begin();
  ASSERT_FALSE(open(one.session, frameOfA("x")).refused);
  EXPECT_EQ(open(two.session, frameOfA("x")).refused, Refusal::BLOCK_USED) << "a recorded frame is not opened twice";
  EXPECT_EQ(begin().refused, Refusal::BLOCK_USED);
}

TEST_F(Peers, AStrangerUsesNothingUp) {
  Begun stranger = begin();
  const Opened opened = open(stranger.session, std::vector<std::byte>(100, std::byte{9}));
  EXPECT_EQ(opened.fault, "bad_checksum");
  EXPECT_TRUE(opened.frames.empty() && opened.sanctified == 0);
  EXPECT_TRUE(events.events.empty());
  Begun genuine = begin();
  ASSERT_FALSE(genuine.refused);
  EXPECT_FALSE(open(genuine.session, frameOfA("x")).refused);
}

TEST_F(Peers, AClaimSurvivesTheVault) {
  Begun one = begin();
  ASSERT_FALSE(seal(one.session, plainFrame("x")).refused);
  claims = std::move(*BlockClaims::open(std::make_unique<test::ClaimsDisk>(image), {}, image.bytes.size()));
  EXPECT_TRUE(claims->isClaimed(*publicOf("base-b")));
}

TEST_F(Peers, AFullDiskRefusesTheFirstByte) {
  image.failWriteWith = ENOSPC;
  Begun one = begin();
  ASSERT_FALSE(one.refused);
  const Sealed sealed = seal(one.session, plainFrame("x"));
  EXPECT_EQ(sealed.refused, Refusal::NONCE_UNAVAILABLE);
  EXPECT_TRUE(sealed.frames.empty());
  EXPECT_EQ(events.events, (std::vector<std::string>{"claim_block base-b 1 nonce_unavailable"}));
  image.failWriteWith = 0;
  EXPECT_EQ(begin().refused, Refusal::BLOCK_USED);
}

TEST_F(Peers, ABlockOfUnknownPastIsNotForBaseMode) {
  EXPECT_EQ(begin("base", false).refused, Refusal::BLOCK_USED) << "base-a was imported without --unused";
}

TEST_F(Peers, WithoutARecordThereIsNoUse) {
  Begun one = begin();
  events.open = false;
  EXPECT_EQ(draw("b", true).refused, Refusal::NOT_RECORDED);
  EXPECT_EQ(begin().refused, Refusal::NOT_RECORDED);
  EXPECT_EQ(seal(one.session, plainFrame("x")).refused, Refusal::NOT_RECORDED);
  EXPECT_FALSE(claims->isClaimed(*publicOf("base-b")));
}

TEST_F(Peers, FaultsEndTheirDirectionByName) {
  Begun one = begin();
  auto changed = frameOfA("hello");
  changed[18] ^= std::byte{1};
  const Opened bad = open(one.session, changed);
  EXPECT_EQ(bad.fault, "bad_tag");
  EXPECT_TRUE(bad.frames.empty()) << "not a byte of it";
  EXPECT_EQ(open(one.session, frameOfA("hello")).fault, "bad_tag");
  EXPECT_FALSE(seal(one.session, plainFrame("x")).refused) << "the other direction is its own";
  EXPECT_EQ(seal(one.session, plainFrame(std::string(1001, 'x'))).refused, Refusal::TOO_LONG);
  EXPECT_EQ(seal(one.session, std::vector<std::byte>(MAX_TEXT_BYTES + 1)).refused, Refusal::BAD_SIZE);
  EXPECT_EQ(state->counters.get(Count::PeerFaults), 2u);
}

TEST_F(Peers, CloseLockPanicAndReloadEndBaseConnectionsAndWhoWaitsIsTold) {
  const auto used = [&](auto&& end) {
    Begun one = begin();
    ASSERT_FALSE(one.refused);
    EXPECT_EQ(base->live(), 1u);
    bool told = false;
    const auto waiting = one.session.endedRequest().send().then([&](auto&&) { told = true; }).eagerlyEvaluate(nullptr);
    const auto reload = [&](std::string_view text) {
      auto request = admin().reloadRequest();
      request.setConfig(std::string(text));
      ASSERT_TRUE(loop.await(request.send()).getOutcome().isDone());
    };
    reload(CONFIG);
    EXPECT_FALSE(told);
    end(one.session, reload);
    EXPECT_EQ(base->live(), 0u);
    for (int i = 0; i < 1000 && !told; ++i) loop.turn(5);
    EXPECT_TRUE(told);
    loop.await(one.session.endedRequest().send());  // at once
    EXPECT_EQ(seal(one.session, plainFrame("x")).refused, Refusal::EXPIRED);
    reload(CONFIG);
  };
  used([&](auto& session, auto&) { loop.await(session.closeRequest().send()); });
  used([&](auto&, auto& reload) {
    std::string text(CONFIG);
    text.replace(text.find("mode = \"base\""), 13, "mode = \"hard\"");
    reload(text);
  });
  used([&](auto&, auto&) {
    auto request = admin().lockRequest();
    request.setKey("base-b");
    loop.await(request.send());
  });
  EXPECT_EQ(begin().refused, Refusal::LOCKED);
}

TEST_F(Peers, WhoLetsGoOfASessionWhoseEndHeWaitsForEndsIt) {
  {
    Begun one = begin();
    const auto waiting = one.session.endedRequest().send();
    loop.await(net().pingRequest().send());
    EXPECT_EQ(base->live(), 1u);
  }
  for (int i = 0; i < 1000 && base->live() > 0; ++i) loop.turn(5);
  EXPECT_EQ(base->live(), 0u);
}

TEST_F(Peers, PanicWipesLiveConnections) {
  Begun one = begin();
  ASSERT_FALSE(seal(one.session, plainFrame("x")).refused);
  auto ended = one.session.endedRequest().send();
  loop.await(admin().panicRequest().send());
  loop.await(kj::mv(ended));
  EXPECT_EQ(base->live(), 0u);
  EXPECT_EQ(seal(one.session, plainFrame("x")).refused, Refusal::EXPIRED);
}

TEST_F(Peers, TheOldestThatUsedNothingMakesRoom) {
  std::vector<Begun> all;
  for (size_t i = 0; i < BaseSessions::MAX_LIVE; ++i) all.push_back(begin());
  ASSERT_FALSE(all.back().refused);
  auto ended = all[0].session.endedRequest().send();
  Begun further = begin();
  EXPECT_FALSE(further.refused);
  loop.await(kj::mv(ended));
  EXPECT_EQ(base->live(), BaseSessions::MAX_LIVE);
  EXPECT_EQ(open(all[0].session, frameOfA("x")).refused, Refusal::EXPIRED);
  EXPECT_FALSE(open(further.session, frameOfA("x")).refused);
}

TEST_F(Peers, AReleasedSessionIsOver) {
  { const Begun one = begin(); }
  loop.await(net().pingRequest().send());
  loop.await(net().pingRequest().send());
  EXPECT_EQ(base->live(), 0u);
}

TEST_F(Peers, StatusTellsPartyAndPast) {
  const auto told = [&](const char* name) -> std::string {
    auto answer = loop.await(admin().statusRequest().send());
    for (const auto key : answer.getStatus().getKeys()) {
      if (key.getName() == name)
        return std::string(key.getKind().cStr()) + " " + key.getParty().cStr() + " " + key.getBaseMode().cStr();
    }
    return "";
  };
  EXPECT_EQ(told("base-b"), "peer-block B unused");
  EXPECT_EQ(told("base-a"), "peer-block A used");
  EXPECT_EQ(told("boxes"), "x25519  ");
  Begun one = begin();
  ASSERT_FALSE(seal(one.session, plainFrame("x")).refused);
  EXPECT_EQ(told("base-b"), "peer-block B used");
}

// The session reads the block where it lies: after the lock that place may be another block's.
TEST_F(Peers, ALostTokenThatOpenedTheBlockEndsItsSession) {
  test::FakeHsmd hsmd(loop);
  const Config config = parse(std::string(CONFIG) + R"([token.hsm1]
module = "/usr/lib/none.so"
uri = "pkcs11:token=fake"
pin = "ask"
presence = "always"
)");
  Keepers keepers;
  keepers.emplace("hsm1", hsmd.ends());
  Tokens tokens(loop, config, std::move(keepers));
  tokens.attach(*state);
  keys->find("base-b")->openedBy = "hsm1";
  auto begun = begin();
  ASSERT_EQ(begun.refused, std::nullopt);
  EXPECT_EQ(base->live(), 1u);
  hsmd.vanish();
  for (int i = 0; i < 1000 && !keys->find("base-b")->locked; ++i) loop.turn(5);
  ASSERT_TRUE(keys->find("base-b")->locked);
  EXPECT_EQ(base->live(), 0u);
  EXPECT_EQ(seal(begun.session, plainFrame("text")).refused, Refusal::EXPIRED);
}

// A netd that was taken over never releases what it gets.
TEST_F(Peers, SessionsThatAreNotReleasedAreBounded) {
  std::vector<Begun> held;
  while (held.size() < 2 * PeerSessionService::MAX_OBJECTS) {
    Begun begun = begin();
    if (begun.refused) break;
    held.push_back(kj::mv(begun));
  }
  EXPECT_EQ(held.size(), PeerSessionService::MAX_OBJECTS);
  EXPECT_EQ(begin().refused, Refusal::TOO_MANY_OBJECTS);
  held.clear();
  begin();  // behind the releases
  EXPECT_FALSE(begin().refused);
  EXPECT_LE(state->peerSessionObjects, 2u);
}

}  // namespace
}  // namespace sallyport::vaultd
