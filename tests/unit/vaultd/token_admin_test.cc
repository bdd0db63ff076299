// Goal: files that a token opens are open while it is there and locked by its loss; operators give PINs, bring versions
// and see how it is. Method: as token_service_test.cc.
#include "tests/unit/vaultd/token_service_fixture.h"

namespace sallyport::vaultd::test {
namespace {

TEST_F(TokenServices, ACallerThatLeavesTakesItsResultsAlong) {
  bringUp();
  const size_t free = arena->freeBytes();
  std::vector<hsm::Request> held;
  hsmd->instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  auto pending = hellosRequest(active, 8).send();
  until([&] { return held.size() >= 8; });
  netClient.reset();
  hsmd->instead = nullptr;
  for (int i = 0; i < 20; ++i) loop.turn(0);
  for (const auto& request : held) hsmd->answer(request);
  until([&] { return token().facts().derived >= 8; });
  for (int i = 0; i < 20; ++i) loop.turn(0);
  EXPECT_EQ(arena->freeBytes(), free);
}

TEST_F(TokenServices, AFileThatTheTokenOpensIsOpenedWhenItIsUpAndLockedWhenItIsRemoved) {
  VaultKey* sealed = keys->find("sealed");
  ASSERT_TRUE(sealed->locked);
  bringUp();
  until([&] { return !sealed->locked; });
  EXPECT_EQ(sealed->openedBy, "hsm1");
  EXPECT_TRUE(box(key("sealed"), peer.publicKey.span(), "text").getOutcomes()[0].isBoxed());
  hsmd->die(hsm::Status::DeviceRemoved);
  until([&] { return sealed->locked; });
  EXPECT_EQ(box(key("sealed"), peer.publicKey.span(), "text").getOutcomes()[0].getRefused(), Refusal::HSM_UNAVAILABLE);
  bringUp();
  until([&] { return !sealed->locked; });
  EXPECT_TRUE(box(key("sealed"), peer.publicKey.span(), "text").getOutcomes()[0].isBoxed());
}

TEST_F(TokenServices, WhatAnOperatorLockedTheTokenDoesNotOpen) {
  VaultKey* sealed = keys->find("sealed");
  bringUp();
  until([&] { return !sealed->locked; });
  keys->lock(*sealed);
  EXPECT_EQ(shown("sealed")->problem, "locked by an operator");
  EXPECT_EQ(shown("sealed")->hint, "`sallyport unlock sealed`");
  EXPECT_EQ(box(key("sealed"), peer.publicKey.span(), "text").getOutcomes()[0].getRefused(), Refusal::LOCKED);
  hsmd->die();
  bringUp();
  for (int i = 0; i < 20; ++i) loop.turn(0);
  EXPECT_TRUE(sealed->locked);
}

TEST_F(TokenServices, StatusTellsOfFilesThatATokenOpens) {
  ASSERT_TRUE(shown("sealed").has_value());
  EXPECT_TRUE(shown("sealed")->sealed);
  EXPECT_EQ(shown("sealed")->problem, "locked: token hsm1 is starting: its process is starting");
  EXPECT_EQ(shown("sealed")->hint, token().hint());
  EXPECT_EQ(box(key("sealed"), peer.publicKey.span(), "text").getOutcomes()[0].getRefused(), Refusal::HSM_UNAVAILABLE);
  bringUp();
  until([&] { return !keys->find("sealed")->locked; });
  EXPECT_EQ(shown("sealed")->problem, "");
  EXPECT_EQ(shown("sealed")->hint, "");
}

TEST_F(TokenServices, AKeyThatTheTokenHasntIsToldOnceByNameAndWithWhatToDo) {
  const auto told = [&] {
    return std::ranges::count_if(recorder.events,
                                 [](const std::string& event) { return contains(event, "token_key_missing"); });
  };
  const auto again = [&] {
    hsmd->die();
    until([&] { return !token().up(); });
    bringUp();
  };
  auto held = hsmd->keys;
  std::erase_if(hsmd->keys, [&](const auto& each) { return each.info.id.text() == "new"; });
  for (uint16_t i = 0; i < hsmd->keys.size(); ++i) hsmd->keys[i].info.index = i;
  bringUp();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(told(), 1) << i;
    again();
  }
  const auto missing = tokens->keysOf(token());
  const auto found = std::ranges::find(missing, active, &Tokens::KeyState::publicKey);
  ASSERT_NE(found, missing.end());
  EXPECT_EQ(found->name, "tk");
  EXPECT_EQ(found->problem, "token hsm1: it has no such key");
  EXPECT_TRUE(contains(found->hint, "sallyport key rotate tk"));
  EXPECT_TRUE(hsmd->kills.empty()) << "no worker is ended to look for it again";
  // Back, and gone again: told again.
  std::swap(held, hsmd->keys);
  again();
  std::swap(held, hsmd->keys);
  again();
  EXPECT_EQ(told(), 2);
}

TEST_F(TokenServices, ABlobOfAnotherKeyOpensNothing) {
  hsmd->wrapped[0][0] ^= std::byte{1};
  bringUp();
  for (int i = 0; i < 20; ++i) loop.turn(0);
  EXPECT_TRUE(keys->find("sealed")->locked);
  EXPECT_TRUE(token().up());
  EXPECT_TRUE(contains(shown("sealed")->problem, "token hsm1 unwraps what opens it, but:"));
  EXPECT_TRUE(contains(shown("sealed")->hint, "sallyport unlock sealed"));
}

TEST_F(TokenServices, ATokenThatUnwrapsNothingIsToldOnce) {
  hsmd->wrapped.clear();
  for (int i = 0; i < 2; ++i) {
    bringUp();
    hsmd->die();
    until([&] { return !token().up(); });
  }
  bringUp();
  EXPECT_EQ(shown("sealed")->problem, "locked: token hsm1 doesn't unwrap what opens it");
  EXPECT_EQ(std::ranges::count_if(recorder.events, [](const auto& event) { return contains(event, "bad_box"); }), 1);
}

TEST_F(TokenServices, StatusSaysWhyAKeyOfATokenCantBeUsed) {
  const VaultKey* key = keys->find("tk");
  EXPECT_TRUE(contains(tokens->problemOf(*key, key->versions[0].facts), "hsm1 is starting"));
  bringUp();
  EXPECT_EQ(tokens->problemOf(*key, key->versions[0].facts), "");
  EXPECT_EQ(tokens->problemOf(*keys->find("k"), keys->find("k")->versions[0].facts), "");
}

TEST_F(TokenServices, AnOperatorGivesThePinAndStatusTellsHowItIs) {
  hsmd->login = hsm::Status::NotLoggedIn;
  hsmd->up();
  until([&] { return token().state() == TokenState::NoPin; });
  EXPECT_TRUE(contains(unlockToken("hsm1", "0000"), "refused the PIN"));
  EXPECT_TRUE(contains(unlockToken("hsm2", "1234"), "not started with a token"));
  EXPECT_FALSE(unlockToken("hsm1", "").empty());
  EXPECT_EQ(unlockToken("hsm1", "1234"), "");
  until([&] { return token().up(); });
  const size_t logins = hsmd->count<hsm::Login>();
  EXPECT_EQ(logins, 2u);
  for (uint16_t slot = 0; slot < hsm::SLOT_COUNT; ++slot)
    EXPECT_EQ(sodium_is_zero(uchars(ByteSpan(hsmd->page->slot(slot))), hsm::SLOT_BYTES), 1) << "no PIN stays there";

  auto answer = loop.await(admin().statusRequest().send());
  const auto status = answer.getStatus();
  ASSERT_EQ(status.getTokens().size(), 1u);
  EXPECT_STREQ(status.getTokens()[0].getState().cStr(), "up");
  EXPECT_STREQ(status.getTokens()[0].getPresence().cStr(), "always");
  EXPECT_STREQ(status.getTokens()[0].getHint().cStr(), "");
  ASSERT_EQ(status.getTokens()[0].getKeys().size(), 4u);
  EXPECT_STREQ(status.getTokens()[0].getKeys()[0].getName().cStr(), "sealed");
  EXPECT_TRUE(status.getTokens()[0].getKeys()[0].getSealed());
  hsmd->die();
  until([&] { return !token().up(); });
  auto again = loop.await(admin().statusRequest().send());
  EXPECT_STREQ(again.getStatus().getTokens()[0].getHint().cStr(), token().hint().c_str());
  for (const auto key : again.getStatus().getKeys()) {
    if (std::string_view(key.getName().cStr()) != "tk") continue;
    EXPECT_STREQ(key.getState().cStr(), "unavailable");
    EXPECT_STREQ(key.getToken().cStr(), "hsm1");
    EXPECT_TRUE(contains(key.getProblem().cStr(), "hsm1 is down"));
  }
}

TEST_F(TokenServices, AVersionThatAnOperatorBringsIsProvedToo) {
  bringUp();
  const PublicKey next = hsmd->addX25519("next");
  OpenedKey key;
  key.header = keys->find("tk")->header;
  key.header.created = "2026-11-18T11:06:40Z";
  key.header.versions.back().openOnlyFrom = NOW;
  key.header.versions.back().retiredFrom = NOW + 500;
  key.versions.push_back(inToken(3, next, "next", NOW, 0));
  key.header.versions.push_back(key.versions[0].version);
  for (size_t i : {size_t{0}, size_t{1}}) key.versions.push_back({key.header.versions[i], LongTermSecret::random()});
  std::ranges::sort(key.versions, {}, [](const OpenedVersion& each) { return each.version.number; });
  const auto fileKey = renewFileKey(key, {});
  ASSERT_TRUE(fileKey.has_value());
  const SecretText text = keyText(key, *fileKey);
  auto request = admin().unlockRequest();
  request.setKeyFile(std::string(text.expose()));
  request.setFileKey(raw(fileKey->expose()));
  auto answer = loop.await(request.send());
  ASSERT_TRUE(answer.getOutcome().isDone()) << answer.getOutcome().getRefused().getProblem().cStr();
  until([&] { return token().up() && token().problemOf(next).empty(); });
  EXPECT_EQ(hsmd->kills.size(), 1u) << "another worker has found it";
  auto boxed = box(this->key("tk"), peer.publicKey.span(), "text");
  EXPECT_EQ(boxed.getOutcomes()[0].getBoxed().getVersion(), 3u);
}

TEST_F(TokenServices, TheMetricsPageTellsOfTokens) {
  EXPECT_TRUE(contains(metricsPage(*state), "sallyport_vault_token_up{token=\"hsm1\"} 0\n"));
  bringUp();
  static_cast<void>(hellos(active));
  const std::string page = metricsPage(*state);
  EXPECT_TRUE(contains(page, "sallyport_vault_token_up{token=\"hsm1\"} 1\n"));
  EXPECT_TRUE(contains(page, "sallyport_vault_token_derived_total{token=\"hsm1\"} 2\n"));
}

TEST_F(TokenServices, APanicRefusesAHandshakeUnderWayAsLockedAndBlamesNoKey) {
  bringUp();
  std::optional<hsm::Request> held;
  hsmd->instead = [&](const hsm::Request& request) {
    if (std::holds_alternative<hsm::Derive>(request.ask)) held = request;
    return held.has_value();
  };
  auto pending = hellosRequest(active).send();
  until([&] { return held.has_value(); });
  keys->panic();
  tokens->panic();
  hsmd->reply(*held, hsm::Status::Ok);  // from a page that is wiped
  EXPECT_EQ(loop.await(kj::mv(pending)).getOutcomes()[0].getRefused(), Refusal::LOCKED);
  until([&] { return token().facts().stale == 1; });
  ASSERT_FALSE(recorder.steps.empty());
  EXPECT_EQ(recorder.steps.back(), "seal_cookie locked");
  EXPECT_EQ(token().facts().badResults, 0u);
  for (const std::string& event : recorder.events) EXPECT_FALSE(contains(event, "barred")) << event;
}

TEST_F(TokenServices, APanicForgetsThePinsToo) {
  bringUp();
  keys->panic();
  tokens->panic();
  until([&] { return hsmd->count<hsm::Logout>() == 1; });
  EXPECT_EQ(hellos(active).getOutcomes()[0].getRefused(), Refusal::LOCKED);
}

// What tokens do between the loading of the keys and attach().
class TokensThatChangeWhileWeStart : public TokenServices {
 protected:
  TokensThatChangeWhileWeStart() { attaches = false; }
  ~TokensThatChangeWhileWeStart() noexcept override {}
};

TEST_F(TokensThatChangeWhileWeStart, OneThatIsLostLocksWhatItHasOpened) {
  hsmd->up();
  until([&] { return token().up(); });
  // As Keyring::load() does with its unlocker.
  VaultKey* sealed = keys->find("sealed");
  auto opened = openSealed(*sealed->sealed, dek);
  ASSERT_TRUE(opened.has_value());
  ASSERT_TRUE(keys->unlock(*sealed, std::move(*opened), NOW).has_value());
  sealed->openedBy = "hsm1";
  hsmd->die(hsm::Status::DeviceRemoved);
  until([&] { return token().lost(); });
  tokens->attach(*state);
  EXPECT_TRUE(sealed->locked);
  EXPECT_TRUE(sealed->awaitsToken);
  bringUp();
  until([&] { return !sealed->locked; });
}

TEST_F(TokensThatChangeWhileWeStart, OneThatIsWellIsWaitedForWithAllThatItOpens) {
  tokens->attach(*state);
  hsmd->up();
  tokens->settle(30'000);
  EXPECT_TRUE(token().up());
  EXPECT_FALSE(keys->find("sealed")->locked);
}

TEST_F(TokensThatChangeWhileWeStart, WithoutItsTokenAFileIsOpenedInAnotherWayOrStaysLocked) {
  tokens->attach(*state);
  const VaultKey* sealed = keys->find("sealed");
  std::vector<Problem> warnings;
  const auto none = tokens->unlocker([](const KeyHeader&) -> Result<SlotSecret, Problem> {
    ADD_FAILURE() << "it has a slot of a token alone";
    return refuse(Problem{});
  });
  ASSERT_TRUE(keys->openWithoutToken("keys", none, NOW, warnings).has_value());
  EXPECT_TRUE(sealed->locked);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].message, "key sealed is locked: token hsm1 is starting: its process is starting");
  const auto secret = [&](const KeyHeader&) -> Result<SlotSecret, Problem> {
    return SlotSecret{SealKind::Token, SecretText::copyOf(dek.text.expose()), {}};
  };
  ASSERT_TRUE(keys->openWithoutToken("keys", secret, NOW, warnings).has_value());
  EXPECT_FALSE(sealed->locked);
  EXPECT_EQ(sealed->openedBy, "") << "a token that is lost doesn't lock it";
  bringUp();
  hsmd->die(hsm::Status::DeviceRemoved);
  until([&] { return token().lost(); });
  EXPECT_FALSE(sealed->locked);
  EXPECT_EQ(warnings.size(), 1u);
}

TEST_F(TokensThatChangeWhileWeStart, AFileThatWasChangedIsNamedAndEndsTheStart) {
  tokens->attach(*state);
  std::vector<Problem> warnings;
  const auto wrong = [&](const KeyHeader&) -> Result<SlotSecret, Problem> {
    SecretText text;
    const std::string zeros(TokenSecret::SIZE, '0');
    EXPECT_TRUE(text.append(zeros));
    return SlotSecret{SealKind::Token, std::move(text), {}};
  };
  const auto done = keys->openWithoutToken("keys", wrong, NOW, warnings);
  ASSERT_FALSE(done.has_value());
  EXPECT_TRUE(contains(done.error().message, "keys/sealed.key: "));
}

TEST_F(TokensThatChangeWhileWeStart, OneThatComesUpOpensWhatWaitsForIt) {
  const VaultKey* sealed = keys->find("sealed");
  hsmd->up();
  until([&] { return token().up(); });
  for (int i = 0; i < 20; ++i) loop.turn(0);
  ASSERT_TRUE(sealed->locked);
  tokens->attach(*state);
  until([&] { return !sealed->locked; });
}

}  // namespace
}  // namespace sallyport::vaultd::test
