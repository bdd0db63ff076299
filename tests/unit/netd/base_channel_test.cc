// Goal: a connection in base mode costs the vault nothing before it says something, holds no more memory than is
// counted, ends with the vault, and ends without taking from the peer what was sent last.
// Method: a whole worker in the test's loop (peer_fixture.h) and a vault's half of such connections (base_vault.h).
#include <atomic>
#include <thread>

#include "tests/unit/netd/peer_fixture.h"
#include "tests/unit/netd/program_fixture.h"

namespace sallyport::netd::test {
namespace {

class BaseChannels : public WithProgram<PeerWorkerTest> {
 protected:
  // A program's channel, and the party at its other end, which has said "first".
  Party acceptedParty(const Options& options = {}) {
    serveProgram("base-chat", options);
    Party party = baseParty(BASE_CHANNEL_ENTRY);
    say(party, "first");
    channel.emplace(answer(listener->acceptPeerRequest().send())->getOutcome().getAccepted().getChannel());
    return party;
  }
  ~BaseChannels() noexcept override { channel.reset(); }

  std::optional<proto::PeerChannel::Client> channel;
};

TEST_F(BaseChannels, EchoFramesWithTheirCodes) {
  start();
  Party party = baseParty(BASE_ECHO_ENTRY);
  say(party, "hello", 7);
  say(party, "", 0xFFFFFFFF);  // no code is reserved
  EXPECT_EQ(hear(party), "7:hello");
  EXPECT_EQ(hear(party), "4294967295:");
}

TEST_F(BaseChannels, AskTheVaultWhenAWholeHeaderIsThereAndOnce) {
  start();
  Party party = baseParty(BASE_ECHO_ENTRY);
  const auto bytes = frame(party, "hello", 7);
  for (size_t at = 0; at < wire::PEER_HEADER_BYTES - 1; ++at) {
    writeTo(party, ByteSpan(bytes).subspan(at, 1));
    loop.turn(1);
  }
  turns();
  EXPECT_EQ(vault.sessions, 0u);
  EXPECT_EQ(stats.get(Counter::VaultCalls), 0u);
  writeTo(party, ByteSpan(bytes).subspan(wire::PEER_HEADER_BYTES - 1, 1));
  EXPECT_TRUE(until([&] { return vault.sessions == 1; }));
  writeTo(party, ByteSpan(bytes).subspan(wire::PEER_HEADER_BYTES));
  EXPECT_EQ(hear(party), "7:hello");
}

TEST_F(BaseChannels, WhoClosesBehindHalfAHeaderIsGone) {
  start();
  Party party = baseParty(BASE_ECHO_ENTRY);
  writeTo(party, asBytes("half"));
  turns();
  party.socket = nullptr;
  EXPECT_TRUE(dropped(R::ClosedInHandshake));
  Party shut = baseParty(BASE_ECHO_ENTRY);
  writeTo(shut, asBytes("half"));
  shutdown(shut.socket, SHUT_WR);
  EXPECT_TRUE(dropped(R::ClosedInHandshake, 2));
  EXPECT_EQ(vault.sessions, 0u);
}

// Each question takes from the key's rate: one source must not have all of it.
TEST_F(BaseChannels, StrangersOfOneSourceHaveABoundedNumberOfQuestions) {
  start();
  const uint64_t began = loop.nowMs();
  for (uint32_t i = 0; i < 3 * Sources::TRIES_PER_SECOND; ++i) {
    Party stranger = dialParty(BASE_ECHO_ENTRY);
    writeTo(stranger, asBytes("not of this block, not at all"));
    EXPECT_TRUE(closed(stranger.socket));
  }
  const uint64_t seconds = (loop.nowMs() - began) / 1000 + 1;
  EXPECT_LE(vault.sessions, seconds * Sources::TRIES_PER_SECOND);
  EXPECT_GE(vault.sessions, Sources::TRIES_PER_SECOND);
  EXPECT_EQ(stats.get(R::BadChecksum), vault.sessions);
  EXPECT_EQ(stats.get(R::SourceLimit), 3 * Sources::TRIES_PER_SECOND - vault.sessions);
  // When the second is over the source has others.
  const uint64_t limited = loop.nowMs();
  ASSERT_TRUE(until([&] { return loop.nowMs() > limited + 1100; }));
  Party party = baseParty(BASE_ECHO_ENTRY);
  say(party, "here");
  EXPECT_EQ(hear(party), "0:here");
}

TEST_F(BaseChannels, ThoseThatProveTheyHoldTheBlockAreNotLimited) {
  start();
  for (uint32_t i = 0; i < 2 * Sources::TRIES_PER_SECOND; ++i) {
    Party party = baseParty(BASE_ECHO_ENTRY);
    say(party, "here");
    ASSERT_EQ(hear(party), "0:here") << i;
  }
  EXPECT_EQ(stats.get(R::SourceLimit), 0u);
}

// --- memory ----------------------------------------------------------------------------------------------------------

TEST_F(BaseChannels, CountWhatWaitsForTheVault) {
  start();
  vault.holdsSeals = true;
  Party party = baseParty(BASE_ECHO_ENTRY);
  const std::string text(500'000, 'x');
  say(party, text);
  ASSERT_TRUE(until([&] { return vault.heldSeals.size() == 1; }));
  turns();
  EXPECT_GE(stats.get(Counter::BufferBytes), text.size() - BASE_PIECE_BYTES);
  EXPECT_LE(stats.get(Counter::BufferBytes), text.size() + BASE_PIECE_BYTES);
  vault.holdsSeals = false;
  vault.heldSeals[0]();
  EXPECT_EQ(hear(party), "0:" + text);
  EXPECT_TRUE(until([&] { return stats.get(Counter::BufferBytes) == 0; }));
}

TEST_F(BaseChannels, GoWhenWhatWaitsForTheVaultIsTooMuch) {
  Party party = acceptedParty({.bufferBytes = 500'000});
  vault.holdsSeals = true;
  const std::string text(1'500'000, 'x');
  auto request = channel->sendRequest();
  request.setData(toData(asBytes(text)));
  EXPECT_EQ(std::string(answer(request.send())->getOutcome().getBroken().cStr()), "memory_limit");
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::MemoryLimit));
  channel.reset();  // what the program hasn't received is still there for it
  EXPECT_TRUE(until([&] { return stats.get(Counter::BufferBytes) == 0; }));
}

TEST_F(BaseChannels, ThatHaveSentAllAreNotTheOnesToGo) {
  Party party = acceptedParty({.bufferBytes = 500'000, .maxFrameBytes = 2 << 20});
  auto receive = channel->receiveRequest();
  receive.setMaxBytes(5);  // nothing of what the party said waits
  answer(receive.send());
  turns();
  const std::string text(100'000, 'y');
  auto request = channel->sendRequest();
  request.setData(toData(asBytes(text)));
  ASSERT_TRUE(answer(request.send())->getOutcome().isSent());
  turns();  // the party's socket holds all of it; what it read would be an event, and a look at who waits
  const uint64_t sent = loop.nowMs();
  ASSERT_TRUE(until([&] { return loop.nowMs() > sent + 1100; }));  // long enough to be who waits the longest
  Party greedy = baseParty(BASE_ECHO_ENTRY);
  say(greedy, "hello");
  ASSERT_EQ(hear(greedy), "0:hello");
  vault.holdsSeals = true;
  say(greedy, std::string(1'200'000, 'x'));
  EXPECT_TRUE(dropped(R::MemoryLimit));
  EXPECT_TRUE(closed(greedy.socket));
  turns();
  EXPECT_EQ(stats.get(R::MemoryLimit), 1u) << "the other one still lives";
}

TEST_F(BaseChannels, LeaveNothingCountedWhenAWriteFails) {
  Party party = acceptedParty();
  auto request = channel->sendRequest();
  const std::string text(1'500'000, 'x');
  request.setData(toData(asBytes(text)));
  auto sending = request.send();
  ASSERT_TRUE(until([&] { return stats.get(Counter::BufferBytes) > text.size() / 2; }));
  turns();
  party.socket = nullptr;  // with bytes unread: a reset
  EXPECT_EQ(std::string(answer(kj::mv(sending))->getOutcome().getBroken().cStr()), "transport_error");
  channel.reset();
  EXPECT_TRUE(until([&] { return stats.get(Counter::BufferBytes) == 0; })) << stats.get(Counter::BufferBytes);
}

// --- the vault's word ------------------------------------------------------------------------------------------------

TEST_F(BaseChannels, EndWhenTheVaultHasEndedTheirSessionThoughNothingIsSent) {
  Party party = acceptedParty();
  Party other = baseParty(BASE_ECHO_ENTRY);
  say(other, "here");
  ASSERT_EQ(hear(other), "0:here");
  say(party, " and more");
  ASSERT_TRUE(until([&] { return stats.get(Counter::MessagesOpened) == 3; }));
  ASSERT_EQ(vault.sessionEnds.size(), 2u);
  vault.sessionEnds[0].tell();
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::VaultRefused));
  auto receive = channel->receiveRequest();
  receive.setMaxBytes(100);
  const auto received = answer(receive.send());
  EXPECT_EQ(text(toBytes(received->getReceived().getData())), "first and more");
  ASSERT_TRUE(received->getReceived().getStatus().isBroken());
  EXPECT_EQ(std::string(received->getReceived().getStatus().getBroken().cStr()), "vault_refused");
  say(other, "still here");
  EXPECT_EQ(hear(other), "0:still here");
}

TEST_F(BaseChannels, EndWithTheVaultAndThoseInHardModeDont) {
  Party party = acceptedParty();
  Party echo = baseParty(BASE_ECHO_ENTRY);
  say(echo, "here");
  ASSERT_EQ(hear(echo), "0:here");
  Party hard = connectedParty(PEER_ECHO_ENTRY);
  const auto receive = [this] {
    auto request = channel->receiveRequest();
    request.setMaxBytes(5);
    return request.send();
  };
  EXPECT_EQ(text(toBytes(answer(receive())->getReceived().getData())), "first");
  auto receiving = receive();  // and this one waits
  turns();
  vaultServer.reset();
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(closed(echo.socket));
  EXPECT_TRUE(dropped(R::VaultUnavailable, 2));
  const auto received = answer(kj::mv(receiving));
  ASSERT_TRUE(received->getReceived().getStatus().isBroken());
  EXPECT_EQ(std::string(received->getReceived().getStatus().getBroken().cStr()), "vault_unavailable");
  say(hard, "hello", 7);
  EXPECT_EQ(hear(hard), "7:hello");
}

TEST_F(BaseChannels, WhatIsWithTheVaultAtTheEndIsStillAnswered) {
  Party party = acceptedParty();
  vault.holdsSeals = true;
  auto request = channel->sendRequest();
  request.setData(toData(asBytes("goodbye")));
  auto sending = request.send();
  ASSERT_TRUE(until([&] { return vault.heldSeals.size() == 1; }));
  vault.sessionEnds.at(0).tell();
  turns();
  EXPECT_EQ(stats.get(Counter::Channels), 1u);
  vault.heldSeals[0]();
  EXPECT_EQ(hear(party), "0:goodbye");
  EXPECT_TRUE(closed(party.socket));
  EXPECT_TRUE(dropped(R::VaultRefused));
}

TEST_F(BaseChannels, ThatAreClosedAskTheVaultNothingMore) {
  Party party = acceptedParty();
  ASSERT_EQ(vault.sessionEnds.size(), 1u);
  EXPECT_TRUE(vault.sessionEnds[0].isAwaited());
  answer(channel->closeRequest().send());
  party.socket = nullptr;
  EXPECT_TRUE(until([&] { return !vault.sessionEnds[0].isAwaited(); })) << "the question is withdrawn";
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) EXPECT_EQ(stats.get(static_cast<R>(i)), 0u) << i;
}

// --- the close -------------------------------------------------------------------------------------------------------

// A close with bytes unread would be a reset, which takes what was sent last from the peer's hands.
TEST_F(BaseChannels, ACloseIsNoResetThoughThePeerSendsOn) {
  Party party = acceptedParty();
  auto request = channel->sendRequest();
  request.setData(toData(asBytes("goodbye")));
  ASSERT_TRUE(answer(request.send())->getOutcome().isSent());
  const auto more = frame(party, std::string(100'000, 'y'));
  writeTo(party, more);
  answer(channel->closeRequest().send());
  writeTo(party, frame(party, std::string(600'000, 'z')));  // more than a socket holds: it is read and thrown away
  EXPECT_EQ(hear(party), "0:goodbye");
  std::byte byte;
  ssize_t got = -1;
  EXPECT_TRUE(until([&] { return (got = recv(party.socket, &byte, 1, MSG_DONTWAIT)) >= 0 || errno != EAGAIN; }));
  EXPECT_EQ(got, 0) << "an end, not a reset";
  party.socket = nullptr;
  EXPECT_TRUE(until([&] { return stats.get(Counter::Channels) == 0; }));
  EXPECT_EQ(stats.get(Counter::BufferBytes), 0u);
}

TEST_F(BaseChannels, APeerThatStaysAfterTheCloseIsWaitedForAMoment) {
  Party party = acceptedParty();
  answer(channel->closeRequest().send());
  const uint64_t closedAt = loop.nowMs();
  EXPECT_EQ(stats.get(Counter::Channels), 1u);
  EXPECT_TRUE(until([&] { return stats.get(Counter::Channels) == 0; }));
  EXPECT_GE(loop.nowMs() + 50, closedAt + 2000);
}

TEST_F(BaseChannels, APeerThatFloodsAClosedChannelDoesntHaveTheWorkerForItself) {
  Party party = acceptedParty();
  Party other = baseParty(BASE_ECHO_ENTRY);
  say(other, "before");
  EXPECT_EQ(hear(other), "0:before");
  std::atomic<bool> stop = false;
  const int socket = dup(party.socket);
  std::thread flood([&] {
    const std::vector<std::byte> garbage(60'000);
    while (!stop) ::send(socket, garbage.data(), garbage.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  });
  channel->closeRequest().send().detach([](kj::Exception&&) {});
  turns();
  for (int i = 0; i < 20; ++i) {
    say(other, "during");
    EXPECT_EQ(hear(other), "0:during");
  }
  stop = true;
  flood.join();
  ::close(socket);
}

}  // namespace
}  // namespace sallyport::netd::test
