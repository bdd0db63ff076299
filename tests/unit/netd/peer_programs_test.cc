// Goal: PeerChannel of proto/net.capnp keeps every sentence of docs/protocol.md §13.4, asked by plain Cap'n Proto
// calls. (C++: tests/unit/peer/endpoint_test.cc. C and Python over libsallyport: tests/system/peer_channel_test.py.)
// Method: a whole worker in the test's loop; the test is the peer at the wire, and the program on [net] socket.
#include "tests/unit/netd/peer_fixture.h"
#include "tests/unit/netd/program_fixture.h"

namespace sallyport::netd::test {
namespace {

using proto::NetRefusal;
using Status = proto::PeerReceived::Status::Which;

class APeerProgram : public WithProgram<PeerWorkerTest> {
 protected:
  // What one receive() came to.
  struct Got {
    std::string data;
    uint32_t code = 0;
    Status status{};
    std::string reason;
    uint32_t needed = 0;
  };

  void SetUp() override {
    serveProgram("peer-chat");
    party = connectedParty(PEER_CHANNEL_ENTRY);
    channel.emplace(answer(listener->acceptPeerRequest().send())->getOutcome().getAccepted().getChannel());
  }
  ~APeerProgram() noexcept override { channel.reset(); }

  auto sendRequest(std::string_view data, uint32_t code = 0) {
    auto request = channel->sendRequest();
    request.setData(toData(asBytes(data)));
    request.setCode(code);
    return request;
  }
  auto receiveRequest(uint64_t maxBytes, uint32_t timeoutMs = 20000, bool continued = false) {
    auto request = channel->receiveRequest();
    request.setMaxBytes(maxBytes);
    request.setTimeoutMs(timeoutMs);
    request.setContinued(continued);
    return request;
  }
  Got gotFrom(proto::PeerReceived::Reader received) {
    Got got;
    got.data = text(toBytes(received.getData()));
    got.code = received.getCode();
    got.status = received.getStatus().which();
    if (got.status == Status::BROKEN) got.reason = received.getStatus().getBroken();
    if (got.status == Status::TOO_BIG) got.needed = received.getStatus().getTooBig();
    return got;
  }
  Got receiveOnce(uint64_t maxBytes, uint32_t timeoutMs = 20000, bool continued = false) {
    return gotFrom(answer(receiveRequest(maxBytes, timeoutMs, continued).send())->getReceived());
  }
  // As the schema tells clients to: asks again, `continued`, until it isn't `more`.
  Got receive(uint64_t maxBytes, uint32_t timeoutMs = 20000) {
    Got all = receiveOnce(maxBytes, timeoutMs);
    while (all.status == Status::MORE) {
      const Got more = receiveOnce(maxBytes - all.data.size(), timeoutMs, true);
      all.data += more.data;
      all.status = more.status;
      all.reason = more.reason;
    }
    return all;
  }
  static std::string many(size_t size, char first) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(first + static_cast<char>(i % 23));
    return bytes;
  }

  Party party;
  std::optional<proto::PeerChannel::Client> channel;
};

// --- send ------------------------------------------------------------------------------------------------------------

TEST_F(APeerProgram, SendsAnySizeBehindOneCallDividedIntoFrames) {
  const std::string data = many(1'500'000, 'a');
  auto sending = sendRequest(data, 9).send();
  std::string heard;
  size_t frames = 0;
  for (; heard.size() < data.size(); ++frames) {
    const std::string frame = hear(party);
    ASSERT_TRUE(frame.starts_with("9:")) << frame.substr(0, 20);
    heard += frame.substr(2);
  }
  EXPECT_EQ(heard, data);
  EXPECT_GT(frames, 1u);
  EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
}

TEST_F(APeerProgram, SendsNothingAtAllAsOneEmptyFrame) {
  EXPECT_TRUE(answer(sendRequest("", 5).send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), "5:");
}

TEST_F(APeerProgram, HasCodesOfItsOwnButForTheReservedOnes) {
  for (const uint32_t code : {0u, 1u, 0x80000000u, 0xFFFFFFFDu}) {
    EXPECT_TRUE(answer(sendRequest("x", code).send())->getOutcome().isSent());
    EXPECT_EQ(hear(party), std::to_string(code) + ":x");
  }
  for (const uint32_t code : {PEER_CODE_OPEN, PEER_CODE_END}) {
    EXPECT_EQ(answer(sendRequest("x", code).send())->getOutcome().getRefused(), NetRefusal::RESERVED_CODE);
    EXPECT_EQ(answer(sendRequest("", code).send())->getOutcome().getRefused(), NetRefusal::RESERVED_CODE);
  }
  EXPECT_TRUE(answer(sendRequest("still here").send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), "0:still here");
}

TEST_F(APeerProgram, CompletesOneFrameBeforeTheNextBegins) {
  const std::string data = many(1'000'000, 'b');
  auto first = sendRequest(data, 1).send();
  auto second = sendRequest("short", 2).send();
  std::string heard;
  while (heard.size() < data.size()) {
    const std::string frame = hear(party);
    ASSERT_TRUE(frame.starts_with("1:")) << frame.substr(0, 20);
    heard += frame.substr(2);
  }
  EXPECT_EQ(hear(party), "2:short");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(second))->getOutcome().isSent());
}

// Neither reads before its own send is over: 1 MB each way is more than the sockets hold.
TEST_F(APeerProgram, AndItsPeerMaySendLargeFramesAtOnce) {
  const std::string data = many(1'000'000, 'c');
  auto sending = sendRequest(data).send();
  turns();
  say(party, data, 3);  // would never come back if the worker didn't read while its own send waits
  const Got got = receive(data.size());
  EXPECT_EQ(got.status, Status::COMPLETE);
  EXPECT_TRUE(got.data == data);
  std::string heard;
  while (heard.size() < data.size()) heard += hear(party).substr(2);
  EXPECT_TRUE(heard == data);
  EXPECT_TRUE(answer(kj::mv(sending))->getOutcome().isSent());
}

// --- receive ---------------------------------------------------------------------------------------------------------

TEST_F(APeerProgram, FillsALargeBufferFromSeveralFrames) {
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

TEST_F(APeerProgram, GathersFramesOfOneCodeOnly) {
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

TEST_F(APeerProgram, GetsWholeFramesWhenItsRequestEndsInsideOneAndTheRestIsKept) {
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

TEST_F(APeerProgram, KnowsFromTheHeaderAloneThatTheNextFrameDoesntFit) {
  say(party, std::string(100, 'a'));
  writeTo(party, ByteSpan(frame(party, std::string(100, 'b'))).first(wire::PEER_HEADER_BYTES));
  turns();
  const Got got = receive(150, 0);  // without a time: it must not wait for the rest
  EXPECT_EQ(got.data, std::string(100, 'a'));
  EXPECT_EQ(got.status, Status::COMPLETE);
}

TEST_F(APeerProgram, IsToldTheSizeOfAFirstFrameThatIsTooBigAndNothingIsLost) {
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

TEST_F(APeerProgram, IsToldOfASlowPeerWithTheGoodBytesAndHalfAFrameIsKept) {
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

TEST_F(APeerProgram, IsToldOfASlowPeerThatSaysNothing) {
  const Got got = receive(11, 50);
  EXPECT_EQ(got.data, "");
  EXPECT_EQ(got.status, Status::SLOW_PEER);
}

TEST_F(APeerProgram, GetsTheGoodBytesAndTheFaultAndTheFaultAgainFromEveryFurtherCall) {
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

TEST_F(APeerProgram, NeverGetsAByteOfAFrameBeforeItsTag) {
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

TEST_F(APeerProgram, GetsTheGoodBytesAndTheEndAndMayStillSend) {
  say(party, "last words");
  say(party, "", PEER_CODE_END);
  turns();
  Got got = receive(100);
  EXPECT_EQ(got.data, "last words");
  EXPECT_EQ(got.status, Status::ENDED);
  EXPECT_EQ(receive(100).status, Status::ENDED);
  EXPECT_TRUE(answer(sendRequest("and mine").send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), "0:and mine");
}

TEST_F(APeerProgram, IsToldOfAWireThatEndsWithoutTheEnd) {
  say(party, "half");
  party.socket = nullptr;
  const Got got = receive(100);
  EXPECT_EQ(got.data, "half");
  EXPECT_EQ(got.status, Status::BROKEN);
  EXPECT_EQ(got.reason, "truncated");
}

TEST_F(APeerProgram, GetsAnEmptyFrameAloneAndAtOnce) {
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

TEST_F(APeerProgram, TakesFramesUpToTheLimitOfTheEntry) {
  const std::string data = many(MAX_PEER_FRAME_BYTES, 'e');
  const auto whole = frame(party, data);
  auto receiving = receiveRequest(data.size()).send();
  writeTo(party, whole);
  Got got = gotFrom(answer(kj::mv(receiving))->getReceived());
  while (got.status == Status::MORE) {
    const Got more = receiveOnce(data.size() - got.data.size(), 20000, true);
    got.data += more.data;
    got.status = more.status;
  }
  EXPECT_EQ(got.status, Status::COMPLETE);
  EXPECT_TRUE(got.data == data);
}

// The claim is genuine (it comes from who has the block), and costs nothing but its header.
TEST_F(APeerProgram, IsToldOfAClaimOfFourGibibytesBeforeAnyMemoryIsTaken) {
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
TEST_F(APeerProgram, IsRefusedASendBehindAFinishThatWaits) {
  const std::string data = many(1'500'000, 'f');  // more than a socket takes
  auto first = sendRequest(data).send();
  auto finished = channel->finishRequest().send();
  auto late = sendRequest("late").send();
  EXPECT_EQ(answer(kj::mv(late))->getOutcome().getRefused(), NetRefusal::CLOSED);
  std::string heard;
  while (heard.size() < data.size()) heard += hear(party).substr(2);
  EXPECT_TRUE(heard == data);
  EXPECT_EQ(hear(party), END);
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(finished))->getOutcome().isSent());
  EXPECT_EQ(answer(sendRequest("later").send())->getOutcome().getRefused(), NetRefusal::CLOSED);
  say(party, "mine is open");
  EXPECT_EQ(receive(12).data, "mine is open");
}

TEST_F(APeerProgram, EndsItsDirectionOnce) {
  EXPECT_TRUE(answer(channel->finishRequest().send())->getOutcome().isSent());
  EXPECT_TRUE(answer(channel->finishRequest().send())->getOutcome().isSent());
  EXPECT_EQ(hear(party), END);
  answer(channel->closeRequest().send());
  EXPECT_EQ(hear(party), "!");
}

TEST_F(APeerProgram, ThatGivesUpAFinishThatWaitsMaySendAgain) {
  const std::string data = many(1'500'000, 'g');
  auto first = sendRequest(data).send();
  turns();
  callAndGiveUp(channel->finishRequest());
  auto last = sendRequest("last", 8).send();
  std::string heard;
  while (heard.size() < data.size()) heard += hear(party).substr(2);
  EXPECT_EQ(hear(party), "8:last");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(last))->getOutcome().isSent());
}

TEST_F(APeerProgram, ThatClosesEndsItsDirectionAndOneThatGoesDoesNot) {
  answer(channel->closeRequest().send());
  EXPECT_EQ(hear(party), END);
  EXPECT_EQ(answer(sendRequest("x").send())->getOutcome().getRefused(), NetRefusal::CLOSED);
  EXPECT_EQ(receive(1).reason, "closed");
  Party second = connectedParty(PEER_CHANNEL_ENTRY);
  auto other = answer(listener->acceptPeerRequest().send())->getOutcome().getAccepted().getChannel();
  { auto gone = kj::mv(other); }
  EXPECT_EQ(hear(second), "!");
}

TEST_F(APeerProgram, HasOneReceiveAtATime) {
  auto waiting = receiveRequest(10).send();
  turns();
  bool failed = false;
  auto second =
      receiveRequest(10).send().then([](auto&&) {}, [&](kj::Exception&&) { failed = true; }).eagerlyEvaluate(nullptr);
  EXPECT_TRUE(until([&] { return failed; }));
  say(party, "0123456789");
  EXPECT_EQ(gotFrom(answer(kj::mv(waiting))->getReceived()).data, "0123456789");
}

TEST_F(APeerProgram, ThatGivesUpReceivingLosesNothing) {
  for (int i = 0; i < 5; ++i) callAndGiveUp(receiveRequest(100));
  say(party, "kept");
  turns();
  EXPECT_EQ(receive(4).data, "kept");
}

// --- the plain Channel -----------------------------------------------------------------------------------------------

class APlainProgram : public WithProgram<PeerWorkerTest> {
 protected:
  ~APlainProgram() noexcept override {}
  std::pair<std::vector<std::string>, std::string> receive(proto::Channel::Client& plain) {
    std::vector<std::string> texts;
    const auto response = answer(plain.receiveRequest().send());
    for (const auto message : response->getReceived().getMessages()) texts.push_back(text(toBytes(message.getData())));
    return {texts, response->getReceived().getReason()};
  }
};

// A frame is one message of one answer; PeerChannel gives out longer ones in parts.
TEST_F(APlainProgram, GetsFramesAsLongAsAnAnswerAndIsToldOfALongerOneByItsName) {
  constexpr size_t LONGEST = (2 << 20) - 4096;
  serveProgram("peer-chat", {.maxFrameBytes = 4 << 20});
  Party party = connectedParty(PEER_CHANNEL_ENTRY);
  auto plain = answer(listener->acceptRequest().send())->getOutcome().getAccepted().getChannel();
  const std::string longest(LONGEST, 'a');
  writeTo(party, frame(party, longest));
  auto [texts, reason] = receive(plain);
  ASSERT_EQ(texts.size(), 1u);
  EXPECT_TRUE(texts[0] == longest);
  EXPECT_EQ(reason, "");
  say(party, "before");
  std::tie(texts, reason) = receive(plain);
  EXPECT_EQ(texts, std::vector<std::string>{"before"});
  writeTo(party, frame(party, std::string(LONGEST + 1, 'b')));
  std::tie(texts, reason) = receive(plain);
  EXPECT_TRUE(texts.empty());
  EXPECT_EQ(reason, "frame_too_large");
  EXPECT_TRUE(dropped(R::FrameTooLarge));
  EXPECT_EQ(receive(plain).second, "frame_too_large");
  EXPECT_TRUE(closed(party.socket));
}

}  // namespace
}  // namespace sallyport::netd::test
