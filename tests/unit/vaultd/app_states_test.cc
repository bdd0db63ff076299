// Goal: leases, locks, revocation, the breaker, alarms and records hold on live capabilities, and nothing is given out
// that couldn't be recorded. Method: app_fixture.h; time, grants and the recorder are changed under a client's feet.
#include "tests/unit/vaultd/app_fixture.h"
#include "vaultd/metrics.h"

namespace sallyport::vaultd {
namespace {

using namespace test;

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
  EXPECT_EQ(charge->bytes, objects * AppSession::OBJECT_BYTES) << "and count as memory of the connection";
  held.clear();
  loop.await(app().pingRequest().send());
  EXPECT_EQ(charge->bytes, 0u);
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
