// Goal: what PeerChannel of proto/net.capnp promises in one mode alone (docs/protocol.md §13.2, §13.3). What it does in
// both: peer_programs_test.cc. Method: a whole worker in the test's loop; the test is the peer at the wire, and the
// program on [net] socket.
#include "tests/unit/netd/peer_program_fixture.h"

namespace sallyport::netd::test {
namespace {

class AProgramInItsMode : public PeerProgramTest {
 protected:
  void SetUp() override {
    serve();
    connectBoth();
  }
};
class AProgramInHardMode : public AProgramInItsMode {};
INSTANTIATE_TEST_SUITE_P(OfItsOwn, AProgramInHardMode, testing::Values(PeerMode::Hard), modeName);
class AProgramInBaseMode : public AProgramInItsMode {};
INSTANTIATE_TEST_SUITE_P(OfItsOwn, AProgramInBaseMode, testing::Values(PeerMode::Base), modeName);

TEST_P(AProgramInHardMode, HasAllCodesButTheReservedOne) {
  for (const std::string text : {"x", "", "open"})
    EXPECT_EQ(answer(sendRequest(text, PEER_CODE_CONTROL).send())->getOutcome().getRefused(),
              NetRefusal::RESERVED_CODE);
  for (const std::string text : {"still here", ""}) {
    EXPECT_TRUE(answer(sendRequest(text, PEER_CODE_CONTROL - 1).send())->getOutcome().isSent());
    EXPECT_EQ(hear(party), "4294967294:" + text);
    say(party, text, PEER_CODE_CONTROL - 1);
    const Got got = receive(std::max<size_t>(text.size(), 1));
    EXPECT_EQ(got.code, PEER_CODE_CONTROL - 1);
    EXPECT_EQ(got.data, text);
  }
}

TEST_P(AProgramInHardMode, GetsTheGoodBytesAndTheEndAndMayStillSend) {
  say(party, "last words");
  say(party, "", PEER_CODE_CONTROL);
  turns();
  Got got = receive(100);
  EXPECT_EQ(got.data, "last words");
  EXPECT_EQ(got.status, Status::ENDED);
  EXPECT_EQ(receive(100).status, Status::ENDED);
  EXPECT_TRUE(answer(sendRequest("and mine").send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), "0:and mine");
}

TEST_P(AProgramInHardMode, IsToldOfTheEndAgainThoughASendHasFailedMeanwhile) {
  for (const bool toldBefore : {true, false}) {
    if (!toldBefore) connectBoth();
    say(party, "last words");
    say(party, "", PEER_CODE_CONTROL);
    turns();
    if (toldBefore) {
      EXPECT_EQ(receive(4).status, Status::TOO_BIG);
      EXPECT_EQ(receive(100).status, Status::ENDED);
    }
    party.socket = nullptr;
    EXPECT_EQ(std::string(answer(sendRequest("late").send())->getOutcome().getBroken().cStr()), "transport_error");
    const Got got = receive(100);
    EXPECT_EQ(got.data, toldBefore ? "" : "last words");
    EXPECT_EQ(got.status, Status::ENDED);
    EXPECT_EQ(got.reason, "");
    EXPECT_EQ(std::string(answer(sendRequest("later").send())->getOutcome().getBroken().cStr()), "transport_error");
  }
}

// protocol §13.2: an open means nothing, so no program sees the half of one either; nor that of an end.
TEST_P(AProgramInHardMode, SeesNothingOfHalfAnOpenOrEnd) {
  const auto sayHalf = [this](std::string_view said) {
    auto bytes = frame(party, said, PEER_CODE_CONTROL);
    writeTo(party, ByteSpan(bytes).first(wire::PEER_HEADER_BYTES));
    bytes.erase(bytes.begin(), bytes.begin() + wire::PEER_HEADER_BYTES);
    turns();
    return bytes;
  };
  const auto open = sayHalf(PEER_OPEN_TEXT);
  EXPECT_EQ(receiveOnce(1, 50).status, Status::SLOW_PEER) << "not one that is too big";
  writeTo(party, open);
  say(party, "ab");
  const auto another = sayHalf(PEER_OPEN_TEXT);
  EXPECT_EQ(receiveOnce(4).status, Status::MORE) << "what follows may have the same code";
  writeTo(party, another);
  say(party, "cd");
  EXPECT_EQ(receiveOnce(2, 20000, true).data, "cd");
  say(party, "ef");
  const auto end = sayHalf("");
  EXPECT_EQ(receiveOnce(4).data, "ef");
  writeTo(party, end);
  EXPECT_EQ(receiveOnce(2, 20000, true).status, Status::ENDED);
}

TEST_P(AProgramInHardMode, IsToldOfAPeerThatSendsBehindItsEnd) {
  say(party, "", PEER_CODE_CONTROL);
  ASSERT_EQ(receive(100).status, Status::ENDED);
  say(party, PEER_OPEN_TEXT, PEER_CODE_CONTROL);
  EXPECT_TRUE(dropped(R::AfterEnd));
  EXPECT_EQ(std::string(answer(sendRequest("late").send())->getOutcome().getBroken().cStr()), "after_end");
}

// protocol §13.3: no code is reserved, so CODE is the caller's altogether, in both directions, empty or not.
TEST_P(AProgramInBaseMode, HasAllCodes) {
  for (const uint32_t code : {PEER_CODE_CONTROL - 1, PEER_CODE_CONTROL}) {
    for (const std::string payload : {"x", ""}) {
      const auto sent = answer(sendRequest(payload, code).send());
      ASSERT_TRUE(sent->getOutcome().isSent());
      EXPECT_EQ(hear(party), std::to_string(code) + ":" + payload);
      say(party, payload, code);
      const Got got = receive(1);
      EXPECT_EQ(got.data, payload);
      EXPECT_EQ(got.code, code);
      EXPECT_EQ(got.status, Status::COMPLETE);
    }
  }
}

// protocol §13.3: there is no authenticated end, so the wire's end is told as truncation, wherever it comes.
TEST_P(AProgramInBaseMode, IsNeverToldOfAnEndOtherThanATruncation) {
  say(party, "last words");
  ASSERT_EQ(shutdown(party.socket, SHUT_WR), 0);
  const Got got = receive(100);
  EXPECT_EQ(got.data, "last words");
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "truncated");
  EXPECT_EQ(receive(100).reason, "truncated");
  EXPECT_EQ(answer(sendRequest("too late").send())->getOutcome().getBroken(), "truncated");
}

TEST_P(AProgramInBaseMode, GetsTheFirstFrameAndTheFaultThatCameWithIt) {
  Party liar = baseParty(entry());
  auto bytes = frame(liar, "good");
  auto bad = frame(liar, "bad");
  bad.back() ^= std::byte{1};
  bytes.insert(bytes.end(), bad.begin(), bad.end());
  writeTo(liar, bytes);
  channel.emplace(answer(listener->acceptPeerRequest().send())->getOutcome().getAccepted().getChannel());
  const Got got = receive(100);
  EXPECT_EQ(got.data, "good");
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "bad_tag");
  EXPECT_TRUE(dropped(R::BadTag));
  EXPECT_TRUE(closed(liar.socket));
}

// protocol §13.3: who listens speaks only after the first good frame of who dialled.
TEST_P(AProgramInBaseMode, IsNotOfferedAChannelWhosePeerHasProvedNothing) {
  auto accepting = listener->acceptPeerRequest().send();
  bool accepted = false;
  auto waiting = accepting.then([&](auto&&) { accepted = true; }).eagerlyEvaluate(nullptr);
  Party silent = baseParty(entry());
  const auto first = frame(silent, "proof");
  writeTo(silent, ByteSpan(first).first(first.size() - 1));
  turns();
  EXPECT_FALSE(accepted);
  writeTo(silent, ByteSpan(first).last(1));
  EXPECT_TRUE(until([&] { return accepted; }));
}

}  // namespace
}  // namespace sallyport::netd::test
