// Goal: a token is asked only while it has proved itself, and each answer reaches the call that it is of.
// Method: a fake hsmd on the same loop. (What goes wrong: token_faults_test.cc.)
#include "tests/unit/vaultd/token_fixture.h"
#include "vaultd/signer.h"

namespace sallyport::vaultd::test {
namespace {

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
  ASSERT_EQ(hsmd.kills.size(), 1u);
  EXPECT_EQ(hsmd.kills[0].reason, hsm::KillReason::NewKey);
  EXPECT_EQ(count("token_restart ok to find a key that is new"), 1u);
  EXPECT_EQ(count("token_down"), 0u) << "nothing is wrong with it";
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

TEST_F(TokenUse, AWorkerThatEndsToBeginAnewWithItsPinIsNoFault) {
  hsmd.login = hsm::Status::NotLoggedIn;
  start();
  wantAll();
  hsmd.up();
  until([&] { return token->state() == TokenState::NoPin; });
  EXPECT_EQ(token->describe(), "token hsm1 has no PIN: the token waits for its PIN");
  EXPECT_EQ(count("token_down"), 1u);
  std::vector<hsm::Status> got;
  token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  until([&] { return got.size() == 1; });
  hsmd.die(hsm::Status::Ok);
  until([&] { return token->state() == TokenState::Starting; });
  EXPECT_EQ(token->why(), "its process is started again with its PIN");
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_EQ(count("token_down"), 1u) << "only that of before";
  hsmd.die(hsm::Status::Ok);  // nobody has asked this one to
  until([&] { return token->state() == TokenState::Down; });
  EXPECT_EQ(count("token_down"), 2u);
}

TEST_F(TokenUse, APinForATokenThatIsDownDoesntWaitForTheNextTry) {
  bringUp();
  hsmd.die(hsm::Status::DeviceRemoved);
  until([&] { return token->state() == TokenState::Down; });
  std::vector<hsm::Status> got;
  token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  until([&] { return hsmd.kills.size() == 1; });
  EXPECT_EQ(hsmd.kills[0].epoch, hsmd.epoch) << "the keeper is told not to wait";
  EXPECT_EQ(hsmd.kills[0].reason, hsm::KillReason::Operator);
  EXPECT_TRUE(got.empty());
  hsmd.login = hsm::Status::NotLoggedIn;
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_EQ(got, std::vector{hsm::Status::Ok});
  EXPECT_EQ(hsmd.count<hsm::Login>(), 1u);
}

TEST_F(TokenUse, APinForATokenThatStaysAwayIsAnsweredWithTheReason) {
  bringUp();
  hsmd.die(hsm::Status::DeviceRemoved);
  until([&] { return token->state() == TokenState::Down; });
  std::vector<hsm::Status> got;
  token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  hsmd.fail(hsm::Status::NoToken);
  until([&] { return got.size() == 1; });
  EXPECT_EQ(got[0], hsm::Status::NoToken);
  EXPECT_EQ(token->state(), TokenState::Down);
  EXPECT_TRUE(contains(token->why(), "no token matches"));
  hsmd.login = hsm::Status::NotLoggedIn;
  hsmd.up();
  until([&] { return token->state() == TokenState::NoPin; });
  settle();
  EXPECT_EQ(hsmd.count<hsm::Login>(), 0u) << "a PIN was kept";
}

TEST_F(TokenUse, EachStateButUpHasAHint) {
  using S = TokenState;
  for (const auto state : {S::Starting, S::Proving, S::NoPin, S::Resting, S::Down, S::Ended}) {
    for (size_t cause = 0; cause < hsm::STATUS_COUNT; ++cause)
      EXPECT_FALSE(hintFor(state, static_cast<hsm::Status>(cause), "hsm1").empty());
  }
  EXPECT_TRUE(hintFor(S::Up, hsm::Status::Ok, "hsm1").empty());
  EXPECT_TRUE(contains(hintFor(S::NoPin, hsm::Status::NotLoggedIn, "hsm1"), "sallyport hsm unlock hsm1"));
  EXPECT_TRUE(contains(hintFor(S::NoPin, hsm::Status::PinFinalTryRefused, "hsm1"), "--force"));
  EXPECT_TRUE(contains(hintFor(S::Down, hsm::Status::NoModule, "hsm1"), "`module` of [token.hsm1]"));
  start();
  EXPECT_EQ(token->hint(), hintFor(S::Starting, hsm::Status::Ok, "hsm1"));
  hsmd.fail(hsm::Status::NoToken);
  until([&] { return token->state() == S::Down; });
  EXPECT_EQ(token->hint(), hintFor(S::Down, hsm::Status::NoToken, "hsm1"));
}

TEST_F(TokenUse, OneThatReadsItsPinFromADescriptorSaysSoUntilItHasStartedSomething) {
  TokenConfig fromFd = config();
  fromFd.pin = PinDescriptor{9};
  start(fromFd);
  EXPECT_TRUE(contains(token->hint(), "from descriptor 9"));
  hsmd.fail(hsm::Status::NoToken);
  until([&] { return token->state() == TokenState::Down; });
  EXPECT_FALSE(contains(token->hint(), "descriptor"));
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

TEST_F(TokenUse, APanicRefusesWhatIsUnderWayAndBarsNoKey) {
  bringUp();
  std::vector<hsm::Request> held;
  hsmd.instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  const auto answer = derive(own, peer());
  until([&] { return held.size() == 1; });
  token->panic();
  EXPECT_EQ(answer->calls, 1u) << "refused at once";
  EXPECT_EQ(answer->result, std::nullopt);
  // The worker had its result in the page before it was wiped.
  hsmd.reply(held[0], hsm::Status::Ok);
  until([&] { return token->facts().stale == 1; });
  settle();
  EXPECT_EQ(answer->calls, 1u);
  EXPECT_EQ(token->facts().badResults, 0u);
  for (const std::string& event : watching.events) EXPECT_FALSE(contains(event, "barred")) << event;
}

TEST_F(TokenUse, AfterAPanicNoWorkerKeepsThePinWhateverTheFirstOneDiesOf) {
  bringUp();
  hsmd.instead = [](const hsm::Request& request) { return std::holds_alternative<hsm::Logout>(request.ask); };
  token->panic();
  until([&] { return hsmd.count<hsm::Logout>() == 1; });
  hsmd.die();
  std::vector<hsm::Status> got;
  until([&] { return token->state() == TokenState::Down; });
  token->login(asBytes("not the PIN"), false, [&](hsm::Status status) { got.push_back(status); });
  hsmd.instead = nullptr;
  hsmd.up();  // which still has the old one
  until([&] { return hsmd.count<hsm::Logout>() == 2; });
  settle();
  EXPECT_EQ(token->state(), TokenState::NoPin);
  EXPECT_TRUE(got.empty()) << "the old PIN has let a wrong one pass";
  hsmd.die(hsm::Status::Ok);
  hsmd.up();
  until([&] { return got.size() == 1; });
  EXPECT_EQ(got[0], hsm::Status::PinWrong);
  token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  until([&] { return token->up(); });
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, APanicWhileTheWorkerIsAwayReachesTheNextOne) {
  bringUp();
  hsmd.die();
  until([&] { return token->state() == TokenState::Down; });
  token->panic();
  hsmd.up();
  until([&] { return hsmd.count<hsm::Logout>() == 1; });
  settle();
  EXPECT_EQ(token->state(), TokenState::NoPin);
  EXPECT_EQ(watching.ups, 1u);
}

TEST_F(TokenUse, APanicEndsThePauseBeforeTheNextTry) {
  start();
  wantAll();
  hsmd.instead = [&](const hsm::Request& request) {
    if (!std::holds_alternative<hsm::Hello>(request.ask)) return false;
    hsmd.reply(request, hsm::Status::ModuleFailed);
    return true;
  };
  hsmd.up();
  until([&] { return token->state() == TokenState::Resting; });
  hsmd.instead = nullptr;
  token->panic();
  until([&] { return hsmd.count<hsm::Logout>() == 1; });
  const uint64_t panicked = loop.nowMs();
  until([&] { return loop.nowMs() > panicked + Token::REST_MS + 200; });
  EXPECT_EQ(hsmd.count<hsm::Hello>(), 1u) << "it was asked again";
  EXPECT_EQ(token->state(), TokenState::NoPin);
  EXPECT_EQ(token->why(), "its PIN was forgotten in a panic");
}

// Whoever is told of the panic first may bring a PIN at once: the worker gets it before it is told to forget all.
TEST_F(TokenUse, NothingIsTriedWithAPinThatAPanicWillForget) {
  bringUp();
  hsmd.instead = [](const hsm::Request& request) {
    return std::holds_alternative<hsm::Derive>(request.ask) || std::holds_alternative<hsm::Logout>(request.ask);
  };
  const size_t hellos = hsmd.count<hsm::Hello>();
  std::vector<hsm::Status> got;
  token->derive(own, peer(), [&](const std::span<const std::byte, 32>*) {
    token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  });
  settle();
  token->panic();
  until([&] { return got.size() == 1; });
  settle();
  EXPECT_EQ(hsmd.count<hsm::Hello>(), hellos);
  EXPECT_EQ(token->state(), TokenState::NoPin);
  EXPECT_EQ(watching.ups, 1u);
}

TEST_F(TokenUse, APinThatComesWhileTheWorkerForgetsTheOldOneReachesTheNext) {
  bringUp();
  token->panic();
  std::vector<hsm::Status> got;
  token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  until([&] { return hsmd.count<hsm::Logout>() == 1; });
  settle();
  EXPECT_EQ(hsmd.count<hsm::Login>(), 0u);
  hsmd.die(hsm::Status::Ok);
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_EQ(got, std::vector{hsm::Status::Ok});
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, APinThatTheNextWorkerDoesNotNeedIsAnsweredToo) {
  bringUp();
  token->panic();
  std::vector<hsm::Status> got;
  token->login(asBytes("1234"), false, [&](hsm::Status status) { got.push_back(status); });
  until([&] { return hsmd.count<hsm::Logout>() == 1; });
  settle();
  hsmd.die(hsm::Status::Ok);
  hsmd.login = hsm::Status::Ok;  // a token that takes no PIN
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_EQ(got, std::vector{hsm::Status::Ok});
  EXPECT_EQ(hsmd.count<hsm::Login>(), 0u);
  EXPECT_TRUE(works(own, 0));
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

}  // namespace
}  // namespace sallyport::vaultd::test
