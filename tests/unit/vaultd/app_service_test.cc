// Goal: programs may do with keys what is granted and nothing else; each item is judged by itself; what NaCl makes
// elsewhere opens here and the other way round.
// Method: app_fixture.h; libsodium is the other side.
#include "tests/unit/vaultd/app_fixture.h"

namespace sallyport::vaultd {
namespace {

using namespace test;

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

TEST_F(Apps, VerifyingIsLimitedByUser) {
  const auto limitedOf = [this](int calls) {
    unsigned limited = 0;
    for (int call = 0; call < calls; ++call) {
      auto request = app().verifyRequest();
      for (auto item : request.initItems(64)) {
        item.setPublicKey(raw(ByteSpan(std::array<std::byte, 32>{})));
        item.setSignature(raw(ByteSpan(std::array<std::byte, 64>{})));
      }
      auto answer = loop.await(request.send());
      for (auto outcome : answer.getOutcomes()) limited += outcome.getRefused() == Refusal::RATE_LIMITED ? 1 : 0;
    }
    return limited;
  };
  EXPECT_EQ(limitedOf(40), 40 * 64 - VERIFIES_PER_SECOND);
  connect();
  EXPECT_EQ(limitedOf(1), 64u) << "another connection of the same user";
  caller.uid = 1002;
  connect();
  EXPECT_EQ(limitedOf(1), 0u) << "another user";
  for (uid_t uid = 0; uid < 2 * MAX_VERIFYING_USERS; ++uid) state->mayVerify(uid);
  EXPECT_LE(state->verifyRates.size(), MAX_VERIFYING_USERS);
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

TEST_F(Apps, KeysThatFillMoreThanAMessageComeInParts) {
  // 40 keys with the names of 40 grants each: some 120 KiB. The client's end of the connection takes 64 KiB and no
  // more.
  constexpr int KEYS = 40, GRANTS = 40;
  std::string names;
  for (int i = 100; i < 100 + KEYS; ++i) {
    const auto name = "many-" + std::to_string(i);
    std::vector<OpenedVersion> versions;
    versions.push_back(version(1, NOW - 100, 0, 0, KeyKind::Ed25519));
    addKey(name, KeyKind::Ed25519, std::move(versions));
    names += (names.empty() ? "\"" : ", \"") + name + "\"";
  }
  std::string text(CONFIG);
  for (int i = 0; i < GRANTS; ++i) {
    text += "\n[[grant]]\nname = \"grant-" + std::to_string(i) + std::string(55, 'x') + "\"\nusers = [1001]\nkeys = [" +
            names + "]\nverbs = [\"sign\"]\n";
  }
  configure(text);
  std::string last;
  std::set<std::string> seen;
  int parts = 0;
  for (bool more = true; more; ++parts) {
    auto request = app().keysRequest();
    request.setAfter(last.c_str());
    auto answer = loop.await(request.send());
    more = answer.getMore();
    ASSERT_GT(answer.getKeys().size(), 0u);
    for (auto each : answer.getKeys()) {
      EXPECT_GT(std::string(each.getName().cStr()), last);
      last = each.getName().cStr();
      EXPECT_TRUE(seen.insert(last).second);
      EXPECT_EQ(each.getGrants().size(), last.starts_with("many") ? size_t{GRANTS} : 1U);
    }
  }
  EXPECT_EQ(seen.size(), size_t{KEYS} + 3);
  EXPECT_GE(parts, 2);
  auto behind = app().keysRequest();
  behind.setAfter("zzz");
  auto none = loop.await(behind.send());
  EXPECT_EQ(none.getKeys().size(), 0u);
  EXPECT_FALSE(none.getMore());
}

TEST_F(Apps, AKeyWithMoreGrantsThanAMessageHoldsIsListedWithTheFirst) {
  std::string text(CONFIG);
  for (int i = 1000; i < 2000; ++i) {
    text += "\n[[grant]]\nname = \"grant-" + std::to_string(i) + std::string(50, 'x') +
            "\"\nusers = [1001]\nkeys = [\"k\"]\nverbs = [\"box\"]\npeers = [\"*\"]\n";
  }
  configure(text);
  auto first = loop.await(app().keysRequest().send());
  ASSERT_EQ(first.getKeys().size(), 1u) << "honey; k doesn't fit behind it";
  EXPECT_TRUE(first.getMore());
  auto request = app().keysRequest();
  request.setAfter("honey");
  auto second = loop.await(request.send());
  ASSERT_EQ(second.getKeys().size(), 1u);
  EXPECT_STREQ(second.getKeys()[0].getName().cStr(), "k");
  EXPECT_GT(second.getKeys()[0].getGrants().size(), 500u);
  EXPECT_LT(second.getKeys()[0].getGrants().size(), 1001u);
  request = app().keysRequest();
  request.setAfter("k");
  auto third = loop.await(request.send());
  EXPECT_EQ(third.getKeys().size(), 1u);
  EXPECT_FALSE(third.getMore());
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
  auto request = with.boxRequest();
  for (auto item : request.initItems(64)) {
    item.getPeer().setName("alice");
    item.setText(raw(std::string(950, 'x')));
  }
  auto answer = loop.await(request.send());
  ASSERT_EQ(answer.getOutcomes().size(), 64u);
  EXPECT_TRUE(answer.getOutcomes()[0].isBoxed());
  EXPECT_EQ(answer.getOutcomes()[63].getRefused(), Refusal::TOO_LONG);
  auto many = box(with, peer.publicKey.span(), "x", 65);
  ASSERT_EQ(many.getOutcomes().size(), 1u);
  EXPECT_EQ(many.getOutcomes()[0].getRefused(), Refusal::TOO_MANY);
  EXPECT_EQ(box(with, peer.publicKey.span(), "x", 0).getOutcomes().size(), 0u);
}

}  // namespace
}  // namespace sallyport::vaultd
