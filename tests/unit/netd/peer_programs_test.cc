// Goal: PeerChannel of proto/net.capnp keeps every sentence of docs/protocol.md §13.4, asked by plain Cap'n Proto
// calls, in both modes. What only one of them promises: peer_program_modes_test.cc. (C++:
// tests/unit/peer/endpoint_test.cc. C and Python over libsallyport: tests/system/peer_channel_test.py.) Method: a whole
// worker in the test's loop; the test is the peer at the wire, and the program on [net] socket.
#include "tests/unit/netd/peer_program_fixture.h"

namespace sallyport::netd::test {
namespace {

class APeerProgram : public PeerProgramTest {
 protected:
  void SetUp() override {
    serve();
    connectBoth();
  }
};
INSTANTIATE_TEST_SUITE_P(InEachMode, APeerProgram, testing::Values(PeerMode::Hard, PeerMode::Base), modeName);

// --- send ------------------------------------------------------------------------------------------------------------

// protocol §13.4: its frames are of at most 64 KiB.
TEST_P(APeerProgram, SendsAnySizeBehindOneCallDividedIntoFrames) {
  const std::string data = many(1'500'000, 'a');
  auto sending = sendRequest(data, 9).send();
  EXPECT_TRUE(hearAll(data.size(), 9) == data);
  EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
  EXPECT_LE(longestHeard, 64u * 1024);
  EXPECT_LE(framesHeard, data.size() / (64 * 1024 - wire::PEER_OVERHEAD_BYTES) + 1);
}

TEST_P(APeerProgram, SendsNothingAtAllAsOneEmptyFrame) {
  EXPECT_TRUE(answer(sendRequest("", 5).send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), "5:");
}

TEST_P(APeerProgram, HasCodesOfItsOwn) {
  for (const uint32_t code : {0u, 1u, 0x80000000u, 0xFFFFFFFDu}) {
    EXPECT_TRUE(answer(sendRequest("x", code).send())->getOutcome().isSent());
    EXPECT_EQ(hear(party), std::to_string(code) + ":x");
    say(party, "y", code);
    const Got got = receive(1);
    EXPECT_EQ(got.data, "y");
    EXPECT_EQ(got.code, code);
  }
}

TEST_P(APeerProgram, CompletesOneFrameBeforeTheNextBegins) {
  const std::string data = many(1'000'000, 'b');
  auto first = sendRequest(data, 1).send();
  auto second = sendRequest("short", 2).send();
  EXPECT_TRUE(hearAll(data.size(), 1) == data);
  EXPECT_EQ(hear(party), "2:short");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(second))->getOutcome().isSent());
}

// Neither reads before its own send is over: 1 MB each way is more than the sockets hold.
TEST_P(APeerProgram, AndItsPeerMaySendLargeFramesAtOnce) {
  const std::string data = many(1'000'000, 'c');
  auto sending = sendRequest(data).send();
  turns();
  say(party, data, 3);  // would never come back if the worker didn't read while its own send waits
  const Got got = receive(data.size());
  EXPECT_EQ(got.status, Status::COMPLETE);
  EXPECT_EQ(got.code, 3u);
  EXPECT_TRUE(got.data == data);
  EXPECT_TRUE(hearAll(data.size()) == data);
  EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
}

// --- receive ---------------------------------------------------------------------------------------------------------

TEST_P(APeerProgram, FillsALargeBufferFromSeveralFrames) {
  std::string expected;  // more than one answer holds, and less than is read ahead
  for (char c = 'a'; c < 'k'; ++c) {
    say(party, many(80'000, c), 4);
    expected += many(80'000, c);
  }
  const Got got = receive(expected.size());
  EXPECT_EQ(got.status, Status::COMPLETE);
  EXPECT_EQ(got.code, 4u);
  EXPECT_TRUE(got.data == expected);
}

TEST_P(APeerProgram, GathersFramesOfOneCodeOnly) {
  say(party, "one", 1);
  say(party, "uno", 1);
  say(party, "two", 2);
  turns();
  Got got = receive(100);
  EXPECT_EQ(got.data, "oneuno");
  EXPECT_EQ(got.code, 1u);
  EXPECT_EQ(got.status, Status::COMPLETE);
  got = receive(3);
  EXPECT_EQ(got.data, "two");
  EXPECT_EQ(got.code, 2u);
}

TEST_P(APeerProgram, GetsWholeFramesWhenItsRequestEndsInsideOneAndTheRestIsKept) {
  say(party, std::string(100, 'a'));
  say(party, std::string(100, 'b'));
  turns();
  Got got = receive(150);
  EXPECT_EQ(got.data, std::string(100, 'a'));
  EXPECT_EQ(got.status, Status::COMPLETE);
  got = receive(100);
  EXPECT_EQ(got.data, std::string(100, 'b'));
  EXPECT_EQ(got.status, Status::COMPLETE);
}

TEST_P(APeerProgram, KnowsFromTheHeaderAloneThatTheNextFrameDoesntFit) {
  say(party, std::string(100, 'a'));
  writeTo(party, ByteSpan(frame(party, std::string(100, 'b'))).first(wire::PEER_HEADER_BYTES));
  turns();
  const Got got = receive(150, 0);  // without a time: it must not wait for the rest
  EXPECT_EQ(got.data, std::string(100, 'a'));
  EXPECT_EQ(got.status, Status::COMPLETE);
}

TEST_P(APeerProgram, IsToldTheSizeOfAFirstFrameThatIsTooBigAndNothingIsLost) {
  say(party, std::string(1000, 'x'), 6);
  turns();
  Got got = receive(999);
  EXPECT_EQ(got.data, "");
  EXPECT_EQ(got.status, Status::TOO_BIG);
  EXPECT_EQ(got.needed, 1000u);
  EXPECT_EQ(got.code, 6u);
  got = receive(1000);
  EXPECT_EQ(got.data, std::string(1000, 'x'));
  EXPECT_EQ(got.status, Status::COMPLETE);
}

TEST_P(APeerProgram, IsToldTheSizeOfAFirstFrameByItsHeaderAlone) {
  const auto whole = frame(party, std::string(1000, 'x'), 6);
  writeTo(party, ByteSpan(whole).first(wire::PEER_HEADER_BYTES));
  Got got = receive(999);
  EXPECT_EQ(got.status, Status::TOO_BIG);
  EXPECT_EQ(got.needed, 1000u);
  EXPECT_EQ(got.code, 6u);
  writeTo(party, ByteSpan(whole).subspan(wire::PEER_HEADER_BYTES));
  got = receive(1000);
  EXPECT_EQ(got.data, std::string(1000, 'x'));
}

TEST_P(APeerProgram, IsToldOfASlowPeerWithTheGoodBytesAndHalfAFrameIsKept) {
  const auto first = frame(party, "first"), second = frame(party, "second");
  writeTo(party, first);
  writeTo(party, ByteSpan(second).first(20));
  turns();
  Got got = receive(11, 50);
  EXPECT_EQ(got.data, "first");
  EXPECT_EQ(got.status, Status::SLOW_PEER);
  writeTo(party, ByteSpan(second).subspan(20));
  got = receive(6);
  EXPECT_EQ(got.data, "second");
  EXPECT_EQ(got.status, Status::COMPLETE);
}

TEST_P(APeerProgram, IsToldOfASlowPeerThatSaysNothing) {
  const Got got = receive(11, 50);
  EXPECT_EQ(got.data, "");
  EXPECT_EQ(got.status, Status::SLOW_PEER);
}

TEST_P(APeerProgram, GetsTheGoodBytesAndTheFaultAndTheFaultAgainFromEveryFurtherCall) {
  auto good = frame(party, "good"), bad = frame(party, "evil");
  bad[wire::PEER_HEADER_BYTES + 1] ^= std::byte{1};
  good.insert(good.end(), bad.begin(), bad.end());
  writeTo(party, good);
  Got got = receive(8);
  EXPECT_EQ(got.data, "good");
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "bad_tag");
  for (int i = 0; i < 3; ++i) {
    got = receive(8);
    EXPECT_EQ(got.data, "");
    EXPECT_EQ(got.status, Status::BROKEN);
    EXPECT_EQ(got.reason, "bad_tag");
  }
  EXPECT_EQ(answer(sendRequest("too late").send())->getOutcome().getBroken(), "bad_tag");
}

// Where in the frame it is doesn't matter: here the header, of which nothing is told either.
TEST_P(APeerProgram, GetsTheGoodBytesAndTheFaultOfAHeader) {
  auto bytes = frame(party, "good");
  auto bad = frame(party, "evil");
  bad[4] ^= std::byte{1};
  bytes.insert(bytes.end(), bad.begin(), bad.end());
  writeTo(party, bytes);
  const Got got = receive(8);
  EXPECT_EQ(got.data, "good");
  EXPECT_EQ(got.code, 0u);
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "bad_checksum");
  EXPECT_EQ(receive(8).reason, "bad_checksum");
}

TEST_P(APeerProgram, NeverGetsAByteOfAFrameBeforeItsTag) {
  const auto whole = frame(party, many(700'000, 'd'));
  writeTo(party, ByteSpan(whole).first(whole.size() - 1));
  turns();
  Got got = receive(700'000, 100);
  EXPECT_EQ(got.data.size(), 0u);
  EXPECT_EQ(got.status, Status::SLOW_PEER);
  writeTo(party, ByteSpan(whole).last(1));
  got = receive(700'000);
  EXPECT_TRUE(got.data == many(700'000, 'd'));
}

TEST_P(APeerProgram, IsToldOfAWireThatEndsWithoutTheEnd) {
  say(party, "half");
  party.socket = nullptr;
  const Got got = receive(100);
  EXPECT_EQ(got.data, "half");
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "truncated");
}

TEST_P(APeerProgram, GetsAnEmptyFrameAloneAndAtOnce) {
  say(party, "before", 1);
  say(party, "", 1);
  say(party, "behind", 1);
  turns();
  EXPECT_EQ(receive(6).data, "before");
  const Got empty = receive(100, 0);
  EXPECT_EQ(empty.data, "");
  EXPECT_EQ(empty.code, 1u);
  EXPECT_EQ(empty.status, Status::COMPLETE);
  EXPECT_EQ(receive(6).data, "behind");
}

// --- the largest frames ----------------------------------------------------------------------------------------------

TEST_P(APeerProgram, TakesFramesUpToTheLimitOfTheEntry) {
  const std::string data = many(MAX_PEER_FRAME_BYTES, 'e');
  const auto whole = frame(party, data);
  auto receiving = receiveRequest(data.size()).send();
  writeTo(party, whole);
  const Got got = receiveTheRest(gotFrom(answer(kj::mv(receiving))->getReceived()), data.size());
  EXPECT_EQ(got.status, Status::COMPLETE);
  EXPECT_TRUE(got.data == data);
}

class APeerProgramOfASmallEntry : public PeerProgramTest {
 protected:
  void SetUp() override {
    serve({.maxFrameBytes = 1000});
    connectBoth();
  }
};
INSTANTIATE_TEST_SUITE_P(InEachMode, APeerProgramOfASmallEntry, testing::Values(PeerMode::Hard, PeerMode::Base),
                         modeName);

TEST_P(APeerProgramOfASmallEntry, SendsNoFrameThatTheOtherHostWouldRefuse) {
  const std::string data = many(5001, 'h');
  auto sending = sendRequest(data, 2).send();
  EXPECT_TRUE(hearAll(data.size(), 2) == data);
  EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
  EXPECT_EQ(longestHeard, 1000u);
  EXPECT_EQ(framesHeard, 6u);
}

// The claim is genuine (it comes from who has the block), and costs nothing but its header.
TEST_P(APeerProgram, IsToldOfAClaimOfFourGibibytesBeforeAnyMemoryIsTaken) {
  std::array<std::byte, wire::PEER_HEADER_BYTES> header;
  peer::FrameRun run;
  const auto made = party.sealer->begin(frameCipher, run, UINT32_MAX, 0);
  ASSERT_TRUE(made);
  header = *made;
  writeTo(party, header);
  const Got got = receive(100);
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "frame_too_large");
  EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
}

// --- the end of our direction ----------------------------------------------------------------------------------------

// protocol §13.2: a frame after the end is a fault, so none may go out, whatever the calls waited for.
TEST_P(APeerProgram, IsRefusedASendBehindAFinishThatWaits) {
  const std::string data = many(1'500'000, 'f');  // more than a socket takes
  auto first = sendRequest(data).send();
  auto finished = channel->finishRequest().send();
  auto late = sendRequest("late").send();
  EXPECT_EQ(answer(kj::mv(late))->getOutcome().getRefused(), NetRefusal::CLOSED);
  EXPECT_TRUE(hearAll(data.size()) == data);
  EXPECT_EQ(hear(party), endHeard());
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(finished))->getOutcome().isSent());
  EXPECT_EQ(answer(sendRequest("later").send())->getOutcome().getRefused(), NetRefusal::CLOSED);
  say(party, "mine is open");
  EXPECT_EQ(receive(12).data, "mine is open");
}

TEST_P(APeerProgram, EndsItsDirectionOnce) {
  EXPECT_TRUE(answer(channel->finishRequest().send())->getOutcome().isSent());
  EXPECT_TRUE(answer(channel->finishRequest().send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), endHeard());
  answer(channel->closeRequest().send());
  EXPECT_EQ(hear(party), "!");
}

TEST_P(APeerProgram, ThatGivesUpAFinishThatWaitsMaySendAgain) {
  const std::string data = many(1'500'000, 'g');
  auto first = sendRequest(data).send();
  turns();
  callAndGiveUp(channel->finishRequest());
  auto last = sendRequest("last", 8).send();
  EXPECT_TRUE(hearAll(data.size()) == data);
  EXPECT_EQ(hear(party), "8:last");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(last))->getOutcome().isSent());
}

TEST_P(APeerProgram, ThatClosesEndsItsDirectionAndOneThatGoesDoesNot) {
  answer(channel->closeRequest().send());
  EXPECT_EQ(hear(party), endHeard());
  EXPECT_EQ(answer(sendRequest("x").send())->getOutcome().getRefused(), NetRefusal::CLOSED);
  EXPECT_EQ(receive(1).reason, "closed");
  Party second = provenParty();
  auto other = answer(listener->acceptPeerRequest().send())->getOutcome().getAccepted().getChannel();
  { auto gone = kj::mv(other); }
  EXPECT_EQ(hear(second), "!");
}

TEST_P(APeerProgram, HasOneReceiveAtATime) {
  auto waiting = receiveRequest(10).send();
  turns();
  std::string failure;
  auto second = receiveRequest(10)
                    .send()
                    .then([](auto&&) {}, [&](kj::Exception&& e) { failure = e.getDescription().cStr(); })
                    .eagerlyEvaluate(nullptr);
  EXPECT_TRUE(until([&] { return !failure.empty(); }));
  EXPECT_TRUE(failure.ends_with("too many calls wait")) << failure;
  EXPECT_EQ(failure.find("receive"), std::string::npos) << "no word of our code: " << failure;
  say(party, "0123456789");
  EXPECT_EQ(gotFrom(answer(kj::mv(waiting))->getReceived()).data, "0123456789");
}

TEST_P(APeerProgram, ThatGivesUpReceivingLosesNothing) {
  for (int i = 0; i < 5; ++i) callAndGiveUp(receiveRequest(100));
  say(party, "kept");
  turns();
  EXPECT_EQ(receive(4).data, "kept");
}

// --- the plain Channel -----------------------------------------------------------------------------------------------

class APlainProgram : public PeerProgramTest {
 protected:
  std::pair<std::vector<std::string>, std::string> receiveTexts(proto::Channel::Client& plain) {
    std::vector<std::string> texts;
    const auto response = answer(plain.receiveRequest().send());
    for (const auto message : response->getReceived().getMessages()) texts.push_back(text(toBytes(message.getData())));
    return {texts, response->getReceived().getReason()};
  }
};
INSTANTIATE_TEST_SUITE_P(InEachMode, APlainProgram, testing::Values(PeerMode::Hard, PeerMode::Base), modeName);

// A frame is one message of one answer; PeerChannel gives out longer ones in parts.
TEST_P(APlainProgram, GetsFramesAsLongAsAnAnswerAndIsToldOfALongerOneByItsName) {
  constexpr size_t LONGEST = (2 << 20) - 4096;
  serve({.maxFrameBytes = 4 << 20});
  party = provenParty();
  auto plain = answer(listener->acceptRequest().send())->getOutcome().getAccepted().getChannel();
  const std::string longest(LONGEST, 'a');
  writeTo(party, frame(party, longest));
  auto [texts, reason] = receiveTexts(plain);
  if (base()) {
    EXPECT_EQ(texts, std::vector<std::string>{std::string(FIRST)});
    std::tie(texts, reason) = receiveTexts(plain);
  }
  ASSERT_EQ(texts.size(), 1u);
  EXPECT_TRUE(texts[0] == longest);
  EXPECT_EQ(reason, "");
  say(party, "before");
  std::tie(texts, reason) = receiveTexts(plain);
  EXPECT_EQ(texts, std::vector<std::string>{"before"});
  writeTo(party, frame(party, std::string(LONGEST + 1, 'b')));
  std::tie(texts, reason) = receiveTexts(plain);
  EXPECT_TRUE(texts.empty());
  EXPECT_EQ(reason, "frame_too_large");
  EXPECT_TRUE(dropped(R::FrameTooLarge));
  EXPECT_EQ(receiveTexts(plain).second, "frame_too_large");
  EXPECT_TRUE(closed(party.socket));
}

// So it knows a slow peer from one that has stopped, and both from one that says nothing.
TEST_P(APlainProgram, IsToldHowMuchOfAMessageIsUnderWay) {
  serve();
  party = provenParty();
  auto plain = answer(listener->acceptRequest().send())->getOutcome().getAccepted().getChannel();
  if (base()) { EXPECT_EQ(receiveTexts(plain).first, std::vector<std::string>{std::string(FIRST)}); }
  EXPECT_EQ(underWay(plain), 0u);
  const std::string longText(200'000, 'x');
  const auto bytes = frame(party, longText);
  size_t arrived = 0;
  for (const size_t upTo : {size_t{1}, size_t{15}, size_t{16}, size_t{17}, size_t{1000}, size_t{150'000},
                            size_t{200'016}, size_t{200'017}, bytes.size() - 1}) {
    writeTo(party, ByteSpan(bytes).subspan(arrived, upTo - arrived));
    arrived = upTo;
    EXPECT_TRUE(until([&] { return underWay(plain) == arrived; })) << arrived;
  }
  // With an answer that holds messages it's what is behind them.
  auto rest = std::vector<std::byte>(bytes.end() - 1, bytes.end());
  const auto next = frame(party, "next");
  rest.insert(rest.end(), next.begin(), next.begin() + 20);
  writeTo(party, rest);
  const auto response = answer(plain.receiveRequest().send());
  EXPECT_EQ(response->getReceived().getMessages().size(), 1u);
  EXPECT_EQ(response->getReceived().getUnderWay(), 20u);
  writeTo(party, ByteSpan(next).subspan(20));
  EXPECT_EQ(receiveTexts(plain).first, std::vector<std::string>{"next"});
  EXPECT_EQ(underWay(plain), 0u);
}

}  // namespace
}  // namespace sallyport::netd::test
