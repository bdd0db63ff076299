// Goal: what netd and programs get with a key in a token is what they get with a key in a file: the same boxes, the
// same refusals for what they do wrong; and hsmUnavailable, recorded, for what the token doesn't do. Method: the
// services over real RPC, with a fake hsmd on the same loop.
#include "tests/unit/vaultd/token_service_fixture.h"

namespace sallyport::vaultd::test {
namespace {

TEST_F(TokenServices, CookiesAreSealedToGenuineHellosOfEachVersionThatOpens) {
  bringUp();
  for (const auto& key : {active, older}) {
    auto answer = hellos(key, 3);
    for (auto outcome : answer.getOutcomes()) EXPECT_TRUE(outcome.isSealed());
  }
  // One to somebody else is no more genuine than with a key in a file.
  auto foreign = hellos(Pair().publicKey);
  EXPECT_EQ(foreign.getOutcomes()[0].getRefused(), Refusal::BAD_BOX);
}

TEST_F(TokenServices, LowOrderPointsAreRefusedByTheVaultItselfAndNeverAsked) {
  bringUp();
  const size_t before = hsmd->count<hsm::Derive>();
  for (const unsigned char first : {0, 1, 0xec, 0xed, 0xee}) {
    auto request = hellosRequest(active);
    PublicKey low;
    if (first > 1) {
      std::ranges::fill(low.mutableSpan(), std::byte{0xff});
      low.mutableSpan()[31] = std::byte{0x7f};
    }
    low.mutableSpan()[0] = std::byte{first};
    request.getHellos()[0].setClientEphemeral(raw(low.span()));
    auto answer = loop.await(request.send());
    EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::LOW_ORDER_KEY) << unsigned{first};
  }
  EXPECT_EQ(hsmd->count<hsm::Derive>(), before);
}

TEST_F(TokenServices, TheLowOrderPointsAreThoseOfLibsodium) {
  // Against the library: what it refuses, whatever the highest bit.
  const LongTermSecret secret = LongTermSecret::random();
  for (unsigned i = 0; i < 2000; ++i) {
    PublicKey point;
    fillRandom(point.mutableSpan());
    unsigned char shared[32];
    EXPECT_EQ(isLowOrder(point), crypto_scalarmult(shared, secret.exposeData(), point.data()) != 0);
  }
  const char* known[] = {"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                         "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
                         "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
                         "0000000000000000000000000000000000000000000000000000000000000080",
                         "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"};
  for (const char* each : known) {
    const PublicKey point(hex(each));
    unsigned char shared[32];
    EXPECT_NE(crypto_scalarmult(shared, secret.exposeData(), point.data()), 0) << each;
    EXPECT_TRUE(isLowOrder(point)) << each;
  }
}

TEST_F(TokenServices, WithoutTheTokenHandshakesAreRefusedByNameAndGoOnByThemselves) {
  auto before = hellos(active);
  EXPECT_EQ(before.getOutcomes()[0].getRefused(), Refusal::HSM_UNAVAILABLE);
  bringUp();
  EXPECT_TRUE(hellos(active).getOutcomes()[0].isSealed());
  hsmd->die();
  until([&] { return !token().up(); });
  EXPECT_EQ(hellos(active).getOutcomes()[0].getRefused(), Refusal::HSM_UNAVAILABLE);
  bringUp();
  EXPECT_TRUE(hellos(active).getOutcomes()[0].isSealed());
  EXPECT_EQ(state->counters.refusals(Refusal::HSM_UNAVAILABLE), 2u);
}

TEST_F(TokenServices, AHungTokenRefusesInTimeWhileOtherKeysAreServed) {
  bringUp();
  hsmd->instead = [](const hsm::Request&) { return true; };
  hsmd->reviveWhenKilled = false;
  auto hanging = hellosRequest(active).send();
  loop.turn(0);
  // A program's box with a key in a file, meanwhile.
  auto boxed = box(key("k"), peer.publicKey.span(), "meanwhile");
  EXPECT_TRUE(boxed.getOutcomes()[0].isBoxed());
  auto answer = loop.await(kj::mv(hanging));
  EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::HSM_UNAVAILABLE);
}

TEST_F(TokenServices, TheRateIsPaidOnceAndBeforeTheTokenIsAsked) {
  bringUp();
  const size_t before = hsmd->count<hsm::Derive>();
  auto answer = hellos(active, 40);
  unsigned refused = 0;
  for (auto outcome : answer.getOutcomes())
    refused += outcome.isRefused() && outcome.getRefused() == Refusal::RATE_LIMITED ? 1 : 0;
  EXPECT_EQ(refused, 10u) << "30 a second";
  EXPECT_EQ(hsmd->count<hsm::Derive>() - before, 2u * 30u) << "two versions may open";
}

TEST_F(TokenServices, VouchesAreMadeAndVerified) {
  bringUp();
  // alice's secret is unknown here: what the token makes for her is opened by the shared secret of the fake.
  auto request = net().makeVouchesRequest();
  auto one = request.initRequests(1)[0];
  one.setEntry("out");
  one.setClientEphemeral(raw(peer.publicKey.span()));
  auto answer = loop.await(request.send());
  ASSERT_TRUE(answer.getOutcomes()[0].isMade());
  auto made = answer.getOutcomes()[0].getMade();
  EXPECT_EQ(string(made.getClient()), string(raw(active.span())));
  const auto alice = *fromBase64("D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA=");
  unsigned char nonce[24];
  std::memcpy(nonce, "CurveCPV", 8);
  std::memcpy(nonce + 8, made.getNonce().begin(), 16);
  unsigned char text[32];
  EXPECT_EQ(crypto_box_open_easy(text, made.getBox().begin(), made.getBox().size(), nonce, uchars(ByteSpan(alice)),
                                 hsmd->keys[1].secret.data()),
            0);
  EXPECT_EQ(std::memcmp(text, peer.publicKey.data(), 32), 0);
  // The shared key is not kept.
  EXPECT_EQ(state->cache.size(), 0u);

  auto verify = net().verifyVouchesRequest();
  auto vouch = verify.initVouches(1)[0];
  vouch.setEntry("db");
  vouch.setClient(raw(peer.publicKey.span()));
  vouch.setNonce(raw(std::string_view("0123456789abcdef")));
  unsigned char vouchNonce[24];
  std::memcpy(vouchNonce, "CurveCPV0123456789abcdef", 24);
  std::array<unsigned char, 48> boxed;
  EXPECT_EQ(crypto_box_easy(boxed.data(), peer.publicKey.data(), 32, vouchNonce, active.data(), peer.secret.data()), 0);
  vouch.setBox({boxed.data(), boxed.size()});
  vouch.setClientEphemeral(raw(peer.publicKey.span()));
  auto verified = loop.await(verify.send());
  EXPECT_EQ(verified.getOutcomes()[0].getRefused(), Refusal::PEER_NOT_ALLOWED) << "genuine, but not alice";
}

TEST_F(TokenServices, AProgramsBoxesGoBothWays) {
  bringUp();
  auto with = key("tk");
  auto boxed = box(with, peer.publicKey.span(), "hello", 3);
  for (auto outcome : boxed.getOutcomes()) {
    ASSERT_TRUE(outcome.isBoxed());
    const auto made = outcome.getBoxed();
    EXPECT_EQ(made.getVersion(), 2u);
    unsigned char text[5];
    EXPECT_EQ(crypto_box_open_easy(text, made.getBox().begin(), made.getBox().size(), made.getNonce().begin(),
                                   active.data(), peer.secret.data()),
              0);
    EXPECT_EQ(std::string(reinterpret_cast<char*>(text), 5), "hello");
  }
  for (const auto& [to, number] : {std::pair(active, 2u), std::pair(older, 1u)}) {
    auto opened = open(with, naclBox("text", to));
    ASSERT_TRUE(opened.getOutcomes()[0].isOpened());
    EXPECT_EQ(string(opened.getOutcomes()[0].getOpened().getText()), "text");
    EXPECT_EQ(opened.getOutcomes()[0].getOpened().getVersion(), number);
  }
  EXPECT_EQ(openRefusal(with, naclBox("text", Pair().publicKey)), Refusal::BAD_BOX);
  EXPECT_EQ(openRefusal(with, naclBox("text", active, "CurveCPV")), Refusal::BAD_NONCE);
  EXPECT_EQ(state->cache.size(), 0u);
}

TEST_F(TokenServices, SealedBoxesOpen) {
  bringUp();
  std::array<unsigned char, 4 + crypto_box_SEALBYTES> sealed;
  ASSERT_EQ(crypto_box_seal(sealed.data(), reinterpret_cast<const unsigned char*>("text"), 4, active.data()), 0);
  auto request = key("tk").openSealedRequest();
  auto boxes = request.initBoxes(2);
  boxes.set(0, {sealed.data(), sealed.size()});
  boxes.set(1, raw(std::string_view("short")));
  auto answer = loop.await(request.send());
  ASSERT_TRUE(answer.getOutcomes()[0].isOpened());
  EXPECT_EQ(string(answer.getOutcomes()[0].getOpened().getText()), "text");
  EXPECT_EQ(answer.getOutcomes()[1].getRefused(), Refusal::BAD_SIZE);
}

TEST_F(TokenServices, SignsAndGivesOutNoWrongSignature) {
  bringUp();
  auto with = key("tsig");
  auto answer = sign(with, {"one", "two", "one"});
  for (unsigned i = 0; i < 3; ++i) {
    ASSERT_TRUE(answer.getOutcomes()[i].isSigned()) << i;
    const auto signature = answer.getOutcomes()[i].getSigned().getSignature();
    const std::string text = i == 1 ? "two" : "one";
    EXPECT_EQ(crypto_sign_verify_detached(signature.begin(), reinterpret_cast<const unsigned char*>(text.data()),
                                          text.size(), signer.data()),
              0);
  }
  hsmd->instead = [&](const hsm::Request& request) {
    if (!std::holds_alternative<hsm::Sign>(request.ask)) return false;
    hsmd->reply(request, hsm::Status::Ok, hsm::SignReply{});
    return true;
  };
  EXPECT_EQ(sign(with, {"three"}).getOutcomes()[0].getRefused(), Refusal::HSM_UNAVAILABLE);
}

TEST_F(TokenServices, PolicyIsAskedBeforeTheTokenAndAgainAfterIt) {
  bringUp();
  auto with = key("tk");
  const size_t before = hsmd->count<hsm::Derive>();
  std::vector<hsm::Request> held;
  hsmd->instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  auto request = with.boxRequest();
  auto item = request.initItems(1)[0];
  item.getPeer().setKey(raw(peer.publicKey.span()));
  item.setText(raw(std::string_view("text")));
  auto pending = request.send();
  until([&] { return held.size() == 1; });
  // The grant is taken away while the token works.
  configure(std::string(CONFIG));
  hsmd->instead = nullptr;
  hsmd->answer(held[0]);
  auto answer = loop.await(kj::mv(pending));
  EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::EXPIRED);
  // And without it nothing is asked at all.
  EXPECT_EQ(box(with, peer.publicKey.span(), "text").getOutcomes()[0].getRefused(), Refusal::EXPIRED);
  EXPECT_EQ(hsmd->count<hsm::Derive>(), before + 1);
}

TEST_F(TokenServices, AKeyThatIsLockedWhileTheTokenWorksStaysUnused) {
  bringUp();
  std::vector<hsm::Request> held;
  hsmd->instead = [&](const hsm::Request& request) {
    held.push_back(request);
    return true;
  };
  auto pending = hellosRequest(active).send();
  until([&] { return held.size() == 2; });
  keys->lock(*keys->find("tk"));
  hsmd->instead = nullptr;
  for (const auto& request : held) hsmd->answer(request);
  auto answer = loop.await(kj::mv(pending));
  EXPECT_EQ(answer.getOutcomes()[0].getRefused(), Refusal::LOCKED);
}

TEST_F(TokenServices, FreshNoncesNeedNoToken) {
  auto request = key("tk").freshNoncesRequest();
  request.setDomain("minute-k");
  request.setCount(3);
  auto answer = loop.await(request.send());
  EXPECT_EQ(answer.getOutcome().getNonces().size(), 3u);
}

TEST_F(TokenServices, UsesAreRecordedWithTheirRefusal) {
  auto with = key("tk");
  static_cast<void>(box(with, peer.publicKey.span(), "text"));
  ASSERT_FALSE(recorder.seen.empty());
  EXPECT_EQ(recorder.seen.back(), "tk box 0  4 refused");
  bringUp();
  static_cast<void>(box(with, peer.publicKey.span(), "text"));
  EXPECT_EQ(recorder.seen.back(), "tk box 2  4");
}

}  // namespace
}  // namespace sallyport::vaultd::test
