// Goal: whatever hsmd or its module does wrong ends in a refusal and a state with a reason: late, stale and garbled
// answers, zeros, a full queue, workers and keepers that die. Method: a fake hsmd on the same loop.
#include "tests/unit/vaultd/token_fixture.h"

namespace sallyport::vaultd::test {
namespace {

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
  std::vector<std::vector<std::byte>> frames = {{std::byte{1}},
                                                std::vector<std::byte>(hsm::REPLY_BYTES),
                                                std::vector<std::byte>(hsm::REPLY_BYTES + 1),
                                                std::vector<std::byte>(good.begin(), good.end() - 1),
                                                std::vector<std::byte>(60'000, std::byte{0xff})};
  frames.emplace_back(good.begin(), good.end()).push_back(std::byte{0});
  uint64_t garbage = 0;
  for (const auto& frame : frames) {
    hsmd.rawReply(frame);
    ++garbage;
    until([&] { return hsmd.kills.size() == garbage && token->up(); });
    EXPECT_EQ(token->facts().garbage, garbage);
    EXPECT_EQ(hsmd.kills.back().reason, hsm::KillReason::Garbage);
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

TEST_F(TokenUse, WhatAWorkerHasLeftInThePageIsWipedWhenItIsDead) {
  bringUp();
  std::optional<hsm::Request> held;
  hsmd.instead = [&](const hsm::Request& request) {
    held = request;
    return true;
  };
  const auto answer = derive(own, peer());
  until([&] { return held.has_value(); });
  const auto dirty = [&] {
    for (const uint16_t slot : {std::get<hsm::Derive>(held->ask).slot, uint16_t{50}})
      hsmd.page->slot(slot)[63] = std::byte{7};
    hsmd.page->message().back() = std::byte{7};
  };
  dirty();
  hsmd.answer(*held);
  until([&] { return answer->calls == 1; });
  dirty();  // a worker that has been answered for, and goes on writing
  hsmd.die();
  until([&] { return token->state() == TokenState::Down; });
  for (uint16_t slot = 0; slot < hsm::SLOT_COUNT; ++slot)
    EXPECT_EQ(sodium_is_zero(uchars(ByteSpan(hsmd.page->slot(slot))), hsm::SLOT_BYTES), 1) << slot;
  EXPECT_EQ(sodium_is_zero(uchars(ByteSpan(hsmd.page->message())), hsm::MESSAGE_BYTES), 1);
}

TEST_F(TokenUse, ARefusedTextIsNotLeftInThePage) {
  auto ends = hsmd.ends();
  const kj::AutoCloseFd socket(::dup(ends.calls));
  token.emplace(loop, config(), std::move(ends), watching);
  wantAll();
  hsmd.up();
  until([&] { return token->up(); });
  const int least = 0;  // the kernel makes it room for a few datagrams
  ASSERT_EQ(setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &least, sizeof least), 0);
  // No turn of the loop: nobody reads the socket, and it is full before the calls of its two sessions are under way.
  for (int i = 0; i < 7; ++i) derive(own, peer());
  unsigned refused = 0;
  token->sign(signer, asBytes("for nobody's eyes"),
              [&](const Token::Signature* signature) { refused += signature == nullptr ? 1 : 0; });
  ASSERT_EQ(refused, 1u);
  EXPECT_EQ(sodium_is_zero(uchars(ByteSpan(hsmd.page->message())), hsm::MESSAGE_BYTES), 1);
}

TEST_F(TokenUse, AWorkerThatIsToDieIsNotUpHoweverLongItTakes) {
  start(config(), {.lostAfterMs = 50, .healthMs = 10'000});
  wantAll();
  hsmd.up();
  until([&] { return token->up(); });
  hsmd.diesWhenKilled = false;  // all of hsmd is stopped, say
  hsmd.instead = [](const hsm::Request&) { return true; };
  const auto answer = derive(own, peer());
  until([&] { return answer->calls == 1; });
  EXPECT_EQ(token->state(), TokenState::Down);
  EXPECT_TRUE(contains(token->why(), "is being ended: a call took too long"));
  until([&] { return watching.lost == 1; });
  hsmd.instead = nullptr;
  hsmd.die();
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, NoSlotIsLostWithAWorkerThatAnswersGarbage) {
  bringUp();
  for (size_t i = 0; i <= hsm::SLOT_COUNT; ++i) {
    hsmd.instead = [&](const hsm::Request& request) {
      hsmd.reply(request, hsm::Status::Ok, hsm::PingReply{});
      hsmd.instead = nullptr;
      return true;
    };
    EXPECT_EQ(derived(own, peer()), std::nullopt);
    until([&] { return hsmd.kills.size() == i + 1 && token->up(); });
  }
  EXPECT_TRUE(works(own, 0));
}

TEST_F(TokenUse, IsLostWhenItIsAwayForLong) {
  start(config(), {.lostAfterMs = 50, .healthMs = 10'000});
  wantAll();
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_FALSE(token->lost());
  hsmd.die();
  until([&] { return watching.lost == 1; });
  EXPECT_TRUE(token->lost());
  hsmd.up();
  until([&] { return token->up(); });
  EXPECT_FALSE(token->lost());
}

TEST_F(TokenUse, AWorkerThatHasGrownIsReplaced) {
  TokenConfig small = config();
  small.memoryMiB = 64;
  start(small, {.lostAfterMs = 10'000, .healthMs = 20});
  wantAll();
  hsmd.rssKiB = 64 * 1024 + 1;
  hsmd.up();
  until([&] { return !hsmd.kills.empty(); });
  EXPECT_EQ(hsmd.kills[0].reason, hsm::KillReason::Memory);
  hsmd.rssKiB = 64 * 1024;
  until([&] { return token->up() && token->facts().rssKiB == 64 * 1024; });
}

TEST_F(TokenUse, PresenceIsProvedByTheSlotsThatThereAreNow) {
  hsmd.addAes("kek");
  hsmd.wrapped.push_back({std::byte{5}});
  TokenConfig always = config();
  always.presenceAlways = true;
  always.recheckMinutes = 0;  // each time
  start(always, {.lostAfterMs = 10'000, .healthMs = 20});
  wantAll();
  const auto slot = [](std::string_view blob) {
    TokenWrap wrap{TokenCipher::AesGcm, {}, {}};
    const auto id = asBytes("kek"), bytes = asBytes(blob);
    wrap.keyId.assign(id.begin(), id.end());
    wrap.blob.assign(bytes.begin(), bytes.end());
    return wrap;
  };
  const hsm::Block32 one{std::byte{1}}, two{std::byte{2}};
  // The second slot of `one` and all of `two` are of a key that the token has no more.
  token->wantSeals(one, {slot("0"), slot("7")});
  token->wantSeals(two, {slot("8")});
  hsmd.up();
  until([&] { return watching.lost == 1 && token->state() == TokenState::Resting; });
  EXPECT_TRUE(contains(token->why(), "doesn't unwrap"));
  // They are removed from the files.
  token->wantSeals(one, {slot("0")});
  token->wantSeals(two, {});
  until([&] { return token->up(); });
  const size_t before = hsmd.count<hsm::Unwrap>();
  until([&] { return hsmd.count<hsm::Unwrap>() >= before + 10; });
  settle();
  EXPECT_TRUE(token->up());
  EXPECT_EQ(watching.lost, 1u);
}

TEST_F(TokenUse, AGoneKeeperIsTheEnd) {
  bringUp();
  const auto answer = derive(own, peer());
  hsmd.vanish();
  until([&] { return token->state() == TokenState::Ended; });
  until([&] { return answer->calls == 1; });
  EXPECT_EQ(derived(own, peer()), std::nullopt);
  EXPECT_EQ(watching.lost, 1u);
  EXPECT_TRUE(contains(token->problemOf(own), "restart vaultd"));
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
}  // namespace sallyport::vaultd::test
