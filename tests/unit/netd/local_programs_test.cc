// Goal: a local program that gives up, asks too much or doesn't read hurts nobody, and loses nobody's messages.
// Method: a whole worker in the test's loop; the test is its peers and, over [net] socket, its programs.
#include "netd/channel.h"
#include "tests/unit/netd/program_fixture.h"

namespace sallyport::netd {
namespace {

class AProgram : public test::WithProgram<test::WorkerTest> {
 protected:
  static constexpr uint32_t CHANNEL = test::CHANNEL_ENTRY;

  void serve(const test::Options& options = {}) { serveProgram("chat", options); }
  proto::Channel::Client accept() {
    return answer(listener->acceptRequest().send())->getOutcome().getAccepted().getChannel();
  }
  auto sendRequest(proto::Channel::Client& channel, const std::vector<std::string>& texts) {
    auto request = channel.sendRequest();
    auto list = request.initMessages(static_cast<uint>(texts.size()));
    for (uint i = 0; i < texts.size(); ++i) list[i].setData(toData(asBytes(texts[i])));
    return request;
  }
  std::vector<std::string> receive(proto::Channel::Client& channel) {
    std::vector<std::string> texts;
    const auto response = answer(channel.receiveRequest().send());
    for (const auto message : response->getReceived().getMessages())
      texts.push_back(test::text(toBytes(message.getData())));
    return texts;
  }
  std::vector<std::byte> stream(Peer& peer, size_t messages) {
    const std::string text(60000, 'x');
    std::vector<std::byte> all;
    for (size_t i = 0; i < messages; ++i) {
      const auto frame = sealed(peer, text);
      all.insert(all.end(), frame.begin(), frame.end());
    }
    return all;
  }
  // As much as the worker takes for now.
  void pour(Peer& peer, ByteSpan rest) {
    for (int idle = 0; !rest.empty() && idle < 20; loop.turn(1)) {
      const ssize_t sent = ::send(peer.socket, rest.data(), rest.size(), MSG_NOSIGNAL);
      idle = sent > 0 ? 0 : idle + 1;
      if (sent > 0) rest = rest.subspan(static_cast<size_t>(sent));
    }
  }
};

TEST_F(AProgram, IsToldHowMuchOfAMessageIsUnderWay) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  EXPECT_EQ(underWay(channel), 0u);
  const auto frame = sealed(peer, std::string(60'000, 'x'));
  size_t arrived = 0;
  for (const size_t upTo : {size_t{1}, size_t{2}, size_t{3}, size_t{100}, size_t{50'000}, frame.size() - 1}) {
    write(peer, ByteSpan(frame).subspan(arrived, upTo - arrived));
    arrived = upTo;
    EXPECT_TRUE(until([&] { return underWay(channel) == arrived; })) << arrived;
  }
  write(peer, ByteSpan(frame).subspan(arrived));
  EXPECT_EQ(receive(channel), std::vector<std::string>{std::string(60'000, 'x')});
  EXPECT_EQ(underWay(channel), 0u);
}

// --- calls that are given up -----------------------------------------------------------------------------------------

TEST_F(AProgram, ThatGivesUpReceivingTakesNoMessageWithIt) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  for (int i = 0; i < 20; ++i) callAndGiveUp(channel.receiveRequest());
  say(peer, "one");
  turns();
  say(peer, "two");
  std::vector<std::string> texts;
  while (texts.size() < 2) {
    for (auto& text : receive(channel)) texts.push_back(text);
  }
  EXPECT_EQ(texts, (std::vector<std::string>{"one", "two"}));
}

TEST_F(AProgram, ThatGivesUpAcceptingTakesNoChannelWithIt) {
  serve();
  for (int i = 0; i < 20; ++i) callAndGiveUp(listener->acceptRequest());
  Peer peer = connected(CHANNEL);
  turns();
  auto channel = accept();
  say(peer, "hello");
  EXPECT_EQ(receive(channel), std::vector<std::string>{"hello"});
}

TEST_F(AProgram, ThatAcceptsAtAnEntryIsToldWhenItIsGone) {
  serve();
  auto waiting = listener->acceptRequest().send();  // for ever
  turns();
  configure({.channels = false});
  EXPECT_EQ(answer(kj::mv(waiting))->getOutcome().getRefused(), proto::NetRefusal::UNKNOWN_NAME);
  EXPECT_EQ(answer(listener->acceptRequest().send())->getOutcome().getRefused(), proto::NetRefusal::UNKNOWN_NAME);
  configure({});
  turns();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  say(peer, "hello");
  EXPECT_EQ(receive(channel), std::vector<std::string>{"hello"});
}

TEST_F(AProgram, ThatGivesUpSendingLosesWhatHadNotBegunAndNothingElse) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  const std::vector<std::string> large(25, std::string(60000, 'x'));  // more than a socket takes
  auto first = sendRequest(channel, large).send();
  turns();
  callAndGiveUp(sendRequest(channel, {"given up"}));
  auto last = sendRequest(channel, {"last"}).send();
  for (const std::string& text : large) ASSERT_EQ(hear(peer), text);
  EXPECT_EQ(hear(peer), "last");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(last))->getOutcome().isSent());
}

TEST_F(AProgram, ThatGivesUpASendUnderWayDoesNotCutAMessage) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  const std::vector<std::string> large(25, std::string(60000, 'x'));
  callAndGiveUp(sendRequest(channel, large));
  auto last = sendRequest(channel, {"last"}).send();
  for (const std::string& text : large) ASSERT_EQ(hear(peer), text);
  EXPECT_EQ(hear(peer), "last");
  EXPECT_TRUE(answer(kj::mv(last))->getOutcome().isSent());
}

TEST_F(AProgram, ThatLeavesWithCallsOpenLeavesNothingBehind) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  {
    auto receiving = channel.receiveRequest().send();
    auto accepting = listener->acceptRequest().send();
    turns();
    program.reset();
  }
  EXPECT_TRUE(until([&] { return stats.get(Counter::RpcClients) == 0; }));
  say(peer, "anybody?");
  turns();
  Peer next = connected(CHANNEL);
  turns();
}

// --- the end of a direction ------------------------------------------------------------------------------------------

// protocol §5: nothing follows the end of a direction, also when both waited for what was sent before.
TEST_F(AProgram, ThatSendsBehindAFinishThatWaitsIsRefused) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  const std::vector<std::string> large(25, std::string(60000, 'x'));  // more than a socket takes
  auto first = sendRequest(channel, large).send();
  auto finished = channel.finishRequest().send();
  auto late = sendRequest(channel, {"late"}).send();
  EXPECT_EQ(answer(kj::mv(late))->getOutcome().getRefused(), proto::NetRefusal::CLOSED);
  for (const std::string& text : large) ASSERT_EQ(hear(peer), text);
  EXPECT_EQ(hear(peer), "");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(finished))->getOutcome().isSent());
  EXPECT_EQ(answer(sendRequest(channel, {"later"}).send())->getOutcome().getRefused(), proto::NetRefusal::CLOSED);
  say(peer, "your half is open");
  EXPECT_EQ(receive(channel), std::vector<std::string>{"your half is open"});
}

TEST_F(AProgram, ThatFinishesTwiceSendsOneEnd) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  EXPECT_TRUE(answer(channel.finishRequest().send())->getOutcome().isSent());
  EXPECT_TRUE(answer(channel.finishRequest().send())->getOutcome().isSent());
  EXPECT_EQ(hear(peer), "");
  answer(channel.closeRequest().send());
  EXPECT_EQ(hear(peer), "!");
}

TEST_F(AProgram, ThatGivesUpAFinishThatWaitsMaySendAgain) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  const std::vector<std::string> large(25, std::string(60000, 'x'));
  auto first = sendRequest(channel, large).send();
  turns();
  callAndGiveUp(channel.finishRequest());
  auto last = sendRequest(channel, {"last"}).send();
  for (const std::string& text : large) ASSERT_EQ(hear(peer), text);
  EXPECT_EQ(hear(peer), "last");
  EXPECT_TRUE(answer(kj::mv(first))->getOutcome().isSent());
  EXPECT_TRUE(answer(kj::mv(last))->getOutcome().isSent());
}

// --- floods ----------------------------------------------------------------------------------------------------------

TEST_F(AProgram, CostsTheMonitorOneQuestionHoweverOftenItAsks) {
  serve();
  std::vector<kj::Promise<void>> calls;
  size_t answered = 0;
  size_t refused = 0;  // a program has so many questions under way, and no more
  for (int i = 0; i < 500; ++i) {
    calls.push_back(
        network->reloadRequest()
            .send()
            .then([&](auto&& response) { answered += response.getOutcome().getDone() == "nothing changed"; },
                  [&](kj::Exception&& e) { refused += e.getType() == kj::Exception::Type::OVERLOADED; })
            .eagerlyEvaluate(nullptr));
  }
  constexpr size_t UNDER_WAY = 16;
  ASSERT_TRUE(until([&] { return refused == calls.size() - UNDER_WAY; })) << refused;
  EXPECT_EQ(recordsOf(ControlKind::ReloadRequest), 1u);
  const auto asked = std::ranges::find(records, ControlKind::ReloadRequest, &ControlRecord::kind);
  monitor->send({.kind = ControlKind::ReloadDone, .request = asked->request, .value = 1}, asBytes("nothing changed"));
  EXPECT_TRUE(until([&] { return answered == UNDER_WAY; })) << answered;
  calls.push_back(network->reloadRequest().send().ignoreResult());
  EXPECT_TRUE(until([&] { return recordsOf(ControlKind::ReloadRequest) == 2; }));  // a new question
}

TEST_F(AProgram, ThatWaitsForAWorkerThatEndsIsLeftAlone) {
  serve();
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  auto receiving = channel.receiveRequest().send();
  auto accepting = listener->acceptRequest().send();
  auto asking = network->statusRequest().send();
  auto sending = sendRequest(channel, std::vector<std::string>(25, std::string(60000, 'x'))).send();
  auto sendingMore = sendRequest(channel, {"more"}).send();
  turns();
  worker.reset();
  turns();
}

// --- memory ----------------------------------------------------------------------------------------------------------

TEST_F(AProgram, ThatDoesNotAcceptHoldsLittleOfEachChannelAndAllOfItIsCounted) {
  serve();
  std::vector<Peer> peers;
  for (int i = 0; i < 4; ++i) peers.push_back(connected(CHANNEL));
  for (Peer& peer : peers) pour(peer, stream(peer, 12));
  const uint64_t opened = stats.get(Counter::BytesOpened);
  EXPECT_GT(opened, 0u);
  EXPECT_LE(opened, peers.size() * SCRATCH_BYTES);
  EXPECT_TRUE(stats.get(Counter::BufferBytes) >= opened || stats.get(wire::DropReason::NoAcceptor) > 0);
}

TEST_F(AProgram, WhoseChannelHasToGoForItsMemoryHoldsNoneOfIt) {
  serve({.bufferBytes = 40'000});
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  say(peer, std::string(60'000, 'x'));  // and is not received
  EXPECT_TRUE(until([&] { return stats.get(wire::DropReason::MemoryLimit) == 1; }));
  EXPECT_TRUE(until([&] { return stats.get(Counter::BufferBytes) == 0; }));
  const auto received = answer(channel.receiveRequest().send());
  EXPECT_EQ(received->getReceived().getMessages().size(), 0u);
  EXPECT_EQ(std::string(received->getReceived().getReason().cStr()), "memory_limit");
}

TEST_F(AProgram, ThatDoesNotReceiveHoldsNoMoreThanTheBudget) {
  static constexpr uint64_t BUDGET = 1 << 20;
  serve({.bufferBytes = BUDGET});
  Peer peer = connected(CHANNEL);
  auto channel = accept();
  pour(peer, stream(peer, 60));  // 3.6 MB: less than an inbox may hold where memory isn't short
  EXPECT_GT(stats.get(Counter::BytesOpened), 0u);
  EXPECT_LE(stats.get(Counter::BytesOpened), BUDGET + SCRATCH_BYTES);
  EXPECT_LE(stats.get(Counter::BufferBytes), BUDGET + 2 * SCRATCH_BYTES);
}

}  // namespace
}  // namespace sallyport::netd
