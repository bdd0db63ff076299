// Goal: a token is asked only while it has proved itself, each answer reaches the call that it is of, and whatever
// hsmd or its module does wrong ends in a refusal and a state with a reason. Method: a fake hsmd on the same loop.
#include "vaultd/token.h"

#include <algorithm>

#include "tests/unit/vaultd/fake_hsmd.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/signer.h"

namespace sallyport::vaultd {
namespace {

using test::contains;
using test::FakeHsmd;

constexpr uint32_t DEADLINE_MS = 300;

struct Watching final : Token::Observer {
  unsigned ups = 0;
  unsigned lost = 0;
  std::vector<std::string> events;
  void onTokenUp(Token&) override { ++ups; }
  void onTokenLost(Token&) override { ++lost; }
  void onTokenEvent(const Token&, std::string verb, std::string outcome, std::string note) override {
    events.push_back(verb + " " + outcome + " " + note);
  }
};

class TokenUse : public testing::Test {
 protected:
  EventLoop loop;
  Watching watching;
  FakeHsmd hsmd{loop};
  std::optional<Token> token;
  PublicKey own = hsmd.addX25519("one");
  PublicKey other = hsmd.addX25519("two");
  PublicKey signer = hsmd.addEd25519("sig");

  ~TokenUse() noexcept override {}

  TokenConfig config() {
    TokenConfig config;
    config.name = "hsm1";
    config.deadlineMs = DEADLINE_MS;
    return config;
  }
  void start() { start(config()); }
  void start(const TokenConfig& config) { token.emplace(loop, config, hsmd.ends(), watching); }
  static KeyVersion version(const PublicKey& key, std::string_view id) {
    KeyVersion version;
    version.publicKey = key;
    const auto bytes = asBytes(id);
    version.tokenId.assign(bytes.begin(), bytes.end());
    return version;
  }
  void wantAll() {
    token->want(KeyKind::X25519, version(own, "one"));
    token->want(KeyKind::X25519, version(other, "two"));
    token->want(KeyKind::Ed25519, version(signer, "sig"));
  }
  // Turns until it is so; the limit is for a machine that does nothing else.
  template <typename Condition>
  void until(Condition&& condition) {
    const uint64_t limit = loop.nowMs() + 30'000;
    while (!condition() && loop.nowMs() < limit) loop.turn(5);
    EXPECT_TRUE(condition());
  }
  void settle() { for (int i = 0; i < 20; ++i) loop.turn(0); }
  void bringUp() {
    start();
    wantAll();
    hsmd.up();
    until([&] { return token->up(); });
  }

  struct Answer {
    unsigned calls = 0;
    std::optional<std::array<std::byte, 32>> result;
  };
  std::shared_ptr<Answer> derive(const PublicKey& with, const PublicKey& peer) {
    auto answer = std::make_shared<Answer>();
    token->derive(with, peer, [answer](const std::span<const std::byte, 32>* result) {
      ++answer->calls;
      if (result != nullptr) std::ranges::copy(*result, answer->result.emplace().begin());
    });
    return answer;
  }
  std::optional<std::array<std::byte, 32>> derived(const PublicKey& with, const PublicKey& peer) {
    auto answer = derive(with, peer);
    until([&] { return answer->calls > 0; });
    settle();
    EXPECT_EQ(answer->calls, 1u);
    return answer->result;
  }
  std::array<std::byte, 32> expected(size_t key, const PublicKey& peer) {
    std::array<std::byte, 32> result{};
    EXPECT_EQ(crypto_scalarmult(uchars(MutableByteSpan(result)), hsmd.keys[key].secret.data(), peer.data()), 0);
    return result;
  }
  PublicKey peer() {
    PublicKey key;
    std::array<unsigned char, 32> secret;
    crypto_box_keypair(key.data(), secret.data());
    return key;
  }
  bool works(const PublicKey& with, size_t key) {
    const auto to = peer();
    return derived(with, to) == expected(key, to);
  }
};

TEST_F(TokenUse, IsUpWhenEachKeyHasGivenItsKnownAnswer) {
  start();
  EXPECT_EQ(token->state(), TokenState::Starting);
  wantAll();
  EXPECT_FALSE(token->problemOf(own).empty());
  hsmd.up();
  until([&] { return token->up(); });
  for (const auto& key : {own, other, signer}) EXPECT_EQ(token->problemOf(key), "");
  EXPECT_EQ(hsmd.count<hsm::Derive>(), 2u);
  EXPECT_EQ(hsmd.count<hsm::Sign>(), 1u);
  EXPECT_TRUE(works(own, 0));
  EXPECT_TRUE(works(other, 1));
  EXPECT_EQ(watching.ups, 1u);
  EXPECT_EQ(token->facts().derived, 2u);
}

TEST_F(TokenUse, RefusesEverythingBeforeItIsUp) {
  start();
  wantAll();
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  EXPECT_EQ(hsmd.seen.size(), 0u);
}

TEST_F(TokenUse, ManyAtOnceGetEachTheirOwn) {
  bringUp();
  std::vector<std::pair<PublicKey, std::shared_ptr<Answer>>> asked;
  for (int i = 0; i < 200; ++i) {
    const auto to = peer();
    asked.emplace_back(to, derive(i % 2 == 0 ? own : other, to));
  }
  until([&] { return std::ranges::all_of(asked, [](const auto& each) { return each.second->calls == 1; }); });
  for (size_t i = 0; i < asked.size(); ++i) EXPECT_EQ(asked[i].second->result, expected(i % 2, asked[i].first)) << i;
  for (uint16_t slot = 0; slot < hsm::SLOT_COUNT; ++slot)
    EXPECT_EQ(sodium_is_zero(uchars(ByteSpan(hsmd.page->slot(slot))), hsm::SLOT_BYTES), 1) << slot;
}

TEST_F(TokenUse, AnswersInAnyOrderFindTheirCalls) {
  bringUp();
  std::vector<hsm::Request> held;
  hsmd.instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  const auto first = peer(), second = peer();
  const auto one = derive(own, first), two = derive(own, second);
  until([&] { return held.size() == 2; });
  hsmd.instead = nullptr;
  hsmd.answer(held[1]);
  until([&] { return two->calls == 1; });
  EXPECT_EQ(one->calls, 0u);
  hsmd.answer(held[0]);
  until([&] { return one->calls == 1; });
  EXPECT_EQ(one->result, expected(0, first));
  EXPECT_EQ(two->result, expected(0, second));
}

TEST_F(TokenUse, AWrongKnownAnswerBarsTheKeyByNameAndNoOther) {
  start();
  wantAll();
  hsmd.instead = [&](const hsm::Request& request) {
    const auto* derive = std::get_if<hsm::Derive>(&request.ask);
    if (derive == nullptr || derive->key != 0) return false;
    hsmd.page->slot(derive->slot)[0] = std::byte{1};
    hsmd.reply(request, hsm::Status::Ok);
    return true;
  };
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_TRUE(contains(token->problemOf(own), "known answer was wrong"));
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  EXPECT_TRUE(works(other, 1));
  EXPECT_EQ(token->facts().badResults, 1u);
  EXPECT_TRUE(std::ranges::any_of(watching.events, [&](const std::string& event) {
    return contains(event, "token_key_barred") && contains(event, toBase64(own.span()));
  }));
  // Another worker may do better.
  hsmd.instead = nullptr;
  hsmd.die();
  hsmd.up();
  until([&] { return token->up() && token->problemOf(own).empty(); });
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, AWrongSignatureBarsASigningKey) {
  start();
  wantAll();
  hsmd.instead = [&](const hsm::Request& request) {
    if (!std::holds_alternative<hsm::Sign>(request.ask)) return false;
    hsmd.reply(request, hsm::Status::Ok, hsm::SignReply{});
    return true;
  };
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_TRUE(contains(token->problemOf(signer), "known answer was wrong"));
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, AKeyThatIsNotThereIsNamed) {
  start();
  KeyVersion missing = version(peer(), "nine");
  token->want(KeyKind::X25519, missing);
  token->want(KeyKind::X25519, version(own, "two"));  // the id of another object
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_TRUE(contains(token->problemOf(missing.publicKey), "no such key"));
  EXPECT_TRUE(contains(token->problemOf(own), "no such key"));
  EXPECT_EQ(hsmd.count<hsm::Derive>(), 0u);
}

TEST_F(TokenUse, AKeyMadeLaterIsFoundByAnotherWorker) {
  bringUp();
  const PublicKey late = hsmd.addX25519("late");
  token->want(KeyKind::X25519, version(late, "late"));
  until([&] { return token->up() && token->problemOf(late).empty(); });
  EXPECT_EQ(hsmd.kills.size(), 1u);
  EXPECT_TRUE(works(late, 3));
  // One that isn't there at all doesn't restart it for ever.
  const auto missing = version(peer(), "none");
  for (int i = 0; i < 3; ++i) {
    token->want(KeyKind::X25519, missing);
    until([&] { return token->up(); });
    settle();
  }
  EXPECT_EQ(hsmd.kills.size(), 2u);
  EXPECT_TRUE(contains(token->problemOf(missing.publicKey), "no such key"));
}

TEST_F(TokenUse, AnAllZeroResultIsNotGivenOut) {
  bringUp();
  hsmd.instead = [&](const hsm::Request& request) {
    if (!std::holds_alternative<hsm::Derive>(request.ask)) return false;
    hsmd.reply(request, hsm::Status::Ok);  // the slot stays as it was: zeros
    return true;
  };
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  EXPECT_TRUE(contains(token->problemOf(own), "all-zero"));
  EXPECT_EQ(token->problemOf(other), "");
}

TEST_F(TokenUse, AHungWorkerIsKilledAndItsLateAnswerDropped) {
  bringUp();
  std::vector<hsm::Request> held;
  hsmd.instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  hsmd.reviveWhenKilled = false;
  const auto answer = derive(own, peer());
  const auto behind = derive(other, peer());
  until([&] { return answer->calls == 1 && behind->calls == 1; });
  EXPECT_EQ(answer->result, std::nullopt);
  EXPECT_EQ(behind->result, std::nullopt);
  until([&] { return !hsmd.kills.empty() && token->state() == TokenState::Down; });
  EXPECT_EQ(hsmd.kills[0].epoch, 1u);
  EXPECT_EQ(hsmd.kills[0].reason, hsm::KillReason::Deadline);
  EXPECT_EQ(hsmd.kills.size(), 1u);
  EXPECT_EQ(derived(own, peer()), std::nullopt);

  hsmd.instead = nullptr;
  hsmd.up();
  until([&] { return token->up(); });
  // What the old one wrote comes now; its calls are answered already.
  for (auto request : held) hsmd.reply(hsm::Reply{1, request.id, hsm::Status::Ok, 0, hsm::Done{}});
  EXPECT_TRUE(works(own, 0));
  EXPECT_EQ(answer->calls, 1u);
  EXPECT_EQ(token->facts().stale, held.size());
  EXPECT_EQ(token->facts().late, 2u);
  EXPECT_EQ(token->facts().restarts, 1u);
}

TEST_F(TokenUse, ASlotOfALateCallIsNobodysUntilItsWorkerIsDead) {
  bringUp();
  std::vector<hsm::Request> held;
  hsmd.instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  hsmd.reviveWhenKilled = false;
  const auto answer = derive(own, peer());
  until([&] { return answer->calls == 1; });
  const uint16_t slot = std::get<hsm::Derive>(held.at(0).ask).slot;
  until([&] { return token->state() == TokenState::Down; });
  // Its last word, written after the deadline, before it died.
  hsmd.page->slot(slot)[3] = std::byte{7};
  hsmd.instead = nullptr;
  hsmd.up();
  until([&] { return token->up(); });
  for (int i = 0; i < 70; ++i) EXPECT_TRUE(works(own, 0)) << i;
}

TEST_F(TokenUse, AnswersOfAnotherEpochOrToNobodyAreDropped) {
  bringUp();
  std::optional<hsm::Request> held;
  hsmd.instead = [&](const hsm::Request& request) {
    held = request;
    return true;
  };
  const auto to = peer();
  const auto answer = derive(own, to);
  until([&] { return held.has_value(); });
  hsmd.instead = nullptr;
  hsmd.reply(hsm::Reply{2, held->id, hsm::Status::Ok, 0, hsm::Done{}});
  hsmd.reply(hsm::Reply{0, held->id, hsm::Status::Ok, 0, hsm::Done{}});
  hsmd.reply(hsm::Reply{1, held->id + 1, hsm::Status::Ok, 0, hsm::Done{}});
  hsmd.reply(hsm::Reply{1, 0, hsm::Status::Ok, 0, hsm::Done{}});
  settle();
  EXPECT_EQ(answer->calls, 0u);
  EXPECT_EQ(token->facts().stale, 4u);
  hsmd.answer(*held);
  hsmd.answer(*held);  // twice
  until([&] { return answer->calls > 0; });
  settle();
  EXPECT_EQ(answer->calls, 1u);
  EXPECT_EQ(answer->result, expected(0, to));
  EXPECT_EQ(token->facts().stale, 5u);
  EXPECT_TRUE(hsmd.kills.empty());
}

TEST_F(TokenUse, AFrameThatCantBeReadEndsTheWorker) {
  bringUp();
  const hsm::ReplyFrame good = hsm::writeReply({});
  std::vector<std::vector<std::byte>> frames = {
      {std::byte{1}}, std::vector<std::byte>(hsm::REPLY_BYTES), std::vector<std::byte>(hsm::REPLY_BYTES + 1),
      std::vector<std::byte>(good.begin(), good.end() - 1), std::vector<std::byte>(60'000, std::byte{0xff})};
  frames.emplace_back(good.begin(), good.end()).push_back(std::byte{0});
  uint64_t garbage = 0;
  for (const auto& frame : frames) {
    hsmd.rawReply(frame);
    ++garbage;
    until([&] { return hsmd.kills.size() == garbage && token->up(); });
    EXPECT_EQ(token->facts().garbage, garbage);
  }
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, AnAnswerOfTheWrongKindEndsTheWorker) {
  bringUp();
  hsmd.instead = [&](const hsm::Request& request) {
    hsmd.reply(request, hsm::Status::Ok, hsm::PingReply{});
    hsmd.instead = nullptr;
    return true;
  };
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  until([&] { return hsmd.kills.size() == 1 && token->up(); });
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, GarbageOnTheControlSocketIsCountedAndChangesNothing) {
  bringUp();
  hsmd.rawControl(std::vector<std::byte>(10));
  hsmd.rawControl(std::vector<std::byte>(hsm::CONTROL_BYTES));
  hsmd.rawControl(std::vector<std::byte>(hsm::CONTROL_BYTES * 2));
  until([&] { return token->facts().garbage == 3; });
  EXPECT_TRUE(token->up());
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, AFullQueueRefuses) {
  bringUp();
  hsmd.instead = [](const hsm::Request&) { return true; };
  std::vector<std::shared_ptr<Answer>> asked;
  for (size_t i = 0; i < Token::MAX_WAITING + 200; ++i) asked.push_back(derive(own, peer()));
  const auto refused = std::ranges::count_if(asked, [](const auto& each) { return each->calls == 1; });
  EXPECT_GE(refused, 100);
  EXPECT_LE(refused, 200);
  hsmd.vanish();
  until([&] { return std::ranges::all_of(asked, [](const auto& each) { return each->calls == 1; }); });
}

TEST_F(TokenUse, ADeadWorkerRefusesWhatWasUnderWayAndWaiting) {
  bringUp();
  hsmd.instead = [](const hsm::Request&) { return true; };
  std::vector<std::shared_ptr<Answer>> asked;
  for (int i = 0; i < 100; ++i) asked.push_back(derive(own, peer()));
  settle();
  hsmd.instead = nullptr;
  hsmd.die();
  until([&] { return token->state() == TokenState::Down; });
  for (const auto& each : asked) EXPECT_EQ(each->calls, 1u);
  EXPECT_TRUE(contains(token->why(), "started again in 10 ms"));
  EXPECT_TRUE(contains(token->problemOf(own), "hsm1 is down"));
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_TRUE(works(own, 0));
  EXPECT_EQ(watching.lost, 0u) << "it was back in time";
}

TEST_F(TokenUse, AGoneKeeperIsTheEnd) {
  bringUp();
  const auto answer = derive(own, peer());
  hsmd.vanish();
  until([&] { return token->state() == TokenState::Ended; });
  until([&] { return answer->calls == 1; });
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  EXPECT_EQ(watching.lost, 1u);
  EXPECT_TRUE(contains(token->problemOf(own), "restart of vaultd"));
}

TEST_F(TokenUse, WithoutAKeeperItSaysWhy) {
  token.emplace(loop, config(), refuse(std::string("hsmd isn't installed")), watching);
  EXPECT_EQ(token->state(), TokenState::Ended);
  token->want(KeyKind::X25519, version(own, "one"));
  EXPECT_TRUE(contains(token->problemOf(own), "hsmd isn't installed"));
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  token->panic();
}

TEST_F(TokenUse, ARemovedTokenIsLostAtOnceAndComesBack) {
  bringUp();
  hsmd.die(hsm::Status::DeviceRemoved);
  until([&] { return watching.lost == 1; });
  hsmd.die(hsm::Status::NoToken);
  settle();
  EXPECT_EQ(watching.lost, 1u) << "once until it is up again";
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_TRUE(works(own, 0));
  hsmd.die(hsm::Status::DeviceRemoved);
  until([&] { return watching.lost == 2; });
}

TEST_F(TokenUse, PointsThatAModuleDislikesDontRestIt) {
  bringUp();
  const PublicKey disliked = peer();
  hsmd.instead = [&](const hsm::Request& request) {
    const auto* derive = std::get_if<hsm::Derive>(&request.ask);
    if (derive == nullptr || PublicKey(derive->peer) != disliked) return false;
    hsmd.reply(request, hsm::Status::ModuleFailed);
    return true;
  };
  const size_t before = hsmd.count<hsm::Derive>();
  for (unsigned i = 0; i < 3 * Token::FAILURES_BEFORE_PROOF; ++i) EXPECT_EQ(derived(own, disliked), std::nullopt);
  until([&] { return hsmd.count<hsm::Derive>() > before + 3 * Token::FAILURES_BEFORE_PROOF; });
  EXPECT_TRUE(token->up()) << "its keys were proved in between";
  EXPECT_TRUE(works(own, 0));
  EXPECT_TRUE(hsmd.kills.empty());
}

TEST_F(TokenUse, RestsWhenNoKeyCanBeProvedAndTriesAgain) {
  bringUp();
  hsmd.instead = [&](const hsm::Request& request) {
    const bool use = std::holds_alternative<hsm::Derive>(request.ask) || std::holds_alternative<hsm::Sign>(request.ask);
    if (use) hsmd.reply(request, hsm::Status::SessionLimit);
    return use;
  };
  for (unsigned i = 0; i < Token::FAILURES_BEFORE_PROOF; ++i) EXPECT_EQ(derived(own, peer()), std::nullopt);
  until([&] { return token->state() == TokenState::Resting; });
  EXPECT_TRUE(contains(token->why(), "session"));
  const size_t before = hsmd.seen.size();
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  EXPECT_EQ(hsmd.seen.size(), before) << "nothing is asked of a token that rests";
  hsmd.instead = nullptr;
  until([&] { return token->up(); });
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, WithoutAPinItWaitsForOneAndKeepsNone) {
  hsmd.login = hsm::Status::NotLoggedIn;
  start();
  wantAll();
  hsmd.up();
  until([&] { return token->state() == TokenState::NoPin; });
  std::vector<hsm::Status> got;
  const auto note = [&](hsm::Status status) { got.push_back(status); };
  token->login(asBytes("0000"), false, note);
  until([&] { return got.size() == 1; });
  EXPECT_EQ(got[0], hsm::Status::PinWrong);
  EXPECT_EQ(token->state(), TokenState::NoPin);
  EXPECT_TRUE(contains(token->why(), "PIN"));
  settle();
  EXPECT_EQ(hsmd.count<hsm::Login>(), 1u) << "it is never tried again by itself";
  token->login(asBytes("1234"), false, note);
  until([&] { return token->up(); });
  EXPECT_TRUE(works(own, 0));
  token->login({}, false, note);
  EXPECT_EQ(got.back(), hsm::Status::BadRequest);
  const std::string tooLong(hsm::MAX_PIN_BYTES + 1, '1');
  token->login(asBytes(tooLong), false, note);
  EXPECT_EQ(got.back(), hsm::Status::BadRequest);
}

TEST_F(TokenUse, APanicForgetsThePinAndWipesThePage) {
  bringUp();
  hsmd.page->slot(40)[5] = std::byte{9};
  token->panic();
  EXPECT_EQ(token->state(), TokenState::NoPin);
  EXPECT_EQ(hsmd.page->slot(40)[5], std::byte{0});
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  until([&] { return hsmd.count<hsm::Logout>() == 1; });
}

TEST_F(TokenUse, SignsOneAfterTheOther) {
  bringUp();
  std::vector<std::optional<Token::Signature>> made(5);
  unsigned done = 0;
  for (size_t i = 0; i < made.size(); ++i) {
    token->sign(signer, asBytes("text " + std::to_string(i)), [&, i](const Token::Signature* signature) {
      ++done;
      if (signature != nullptr) made[i] = *signature;
    });
  }
  until([&] { return done == made.size(); });
  for (size_t i = 0; i < made.size(); ++i) {
    ASSERT_TRUE(made[i].has_value());
    EXPECT_TRUE(verifySignature(signer, asBytes("text " + std::to_string(i)), *made[i]).has_value()) << i;
  }
  EXPECT_EQ(sodium_is_zero(uchars(ByteSpan(hsmd.page->message())), 64), 1) << "the message is wiped";
}

TEST_F(TokenUse, ATextThatDoesNotFitThePageIsRefused) {
  bringUp();
  unsigned refused = 0;
  const std::vector<std::byte> text(hsm::MESSAGE_BYTES + 1);
  token->sign(signer, text, [&](const Token::Signature* signature) { refused += signature == nullptr ? 1 : 0; });
  EXPECT_EQ(refused, 1u);
}

TEST_F(TokenUse, PointsAreAskedInTheirOneForm) {
  bringUp();
  PublicKey high = peer();
  PublicKey plain = high;
  high.mutableSpan()[31] |= std::byte{0x80};
  plain.mutableSpan()[31] &= std::byte{0x7f};
  EXPECT_EQ(derived(own, high), expected(0, plain));
  PublicKey beyond;  // 2^255 - 19 + 9: the point 9
  std::ranges::fill(beyond.mutableSpan(), std::byte{0xff});
  beyond.mutableSpan()[0] = std::byte{0xf6};
  beyond.mutableSpan()[31] = std::byte{0x7f};
  PublicKey nine;
  nine.mutableSpan()[0] = std::byte{9};
  EXPECT_EQ(derived(own, beyond), expected(0, nine));
  for (const auto& request : hsmd.seen) {
    if (const auto* derive = std::get_if<hsm::Derive>(&request.ask)) {
      EXPECT_EQ(derive->peer[31] & std::byte{0x80}, std::byte{0});
    }
  }
}

TEST_F(TokenUse, UnwrapsOnlyByItsOwnKey) {
  hsmd.addAes("kek");
  hsmd.wrapped.push_back({std::byte{5}});
  bringUp();
  const auto unwrap = [&](std::string_view id, TokenCipher cipher) {
    TokenWrap wrap{cipher, {}, {}};
    const auto bytes = asBytes(id);
    wrap.keyId.assign(bytes.begin(), bytes.end());
    wrap.blob = {std::byte{'0'}};
    std::optional<bool> good;
    token->unwrap(wrap, {}, [&](const std::span<const std::byte, 32>* secret) {
      good = secret != nullptr && (*secret)[0] == std::byte{5};
    });
    until([&] { return good.has_value(); });
    return *good;
  };
  EXPECT_TRUE(unwrap("kek", TokenCipher::AesGcm));
  EXPECT_FALSE(unwrap("kek", TokenCipher::OaepSha256)) << "not a key for that";
  EXPECT_FALSE(unwrap("other", TokenCipher::AesGcm));
}

TEST_F(TokenUse, TellsOfItsSandbox) {
  bringUp();
  hsmd.tell(hsm::WorkerLayer{1, hsm::Bounded<16>::cut("seccomp"), 0, hsm::Bounded<160>::cut("60 rules\x1b[31m")});
  hsmd.tell(hsm::Denials{1, 7, hsm::Bounded<32>::cut("openat")});
  until([&] { return token->facts().denials == 7; });
  ASSERT_EQ(token->facts().layers.size(), 1u);
  EXPECT_TRUE(contains(token->facts().layers[0], "seccomp active: 60 rules"));
  EXPECT_FALSE(contains(token->facts().layers[0], "\x1b"));
  EXPECT_EQ(token->facts().lastDenied, "openat");
}

TEST_F(TokenUse, CanBeDestroyedWithCallsUnderWay) {
  bringUp();
  hsmd.instead = [](const hsm::Request&) { return true; };
  const auto answer = derive(own, peer());
  settle();
  hsmd.vanish();
  token.reset();
  settle();
  EXPECT_LE(answer->calls, 1u);
}

}  // namespace
}  // namespace sallyport::vaultd
