// Goal: a session hands out each message once, in order, and nothing at all after a fault.
// Method: the original's messages in both roles; then a message missing, repeated, changed, reflected, and the last
// one.
#include "netd/session.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/netd/test_vault.h"

namespace sallyport::netd {
namespace {

using test::vec;
using R = wire::DropReason;
using Frame = std::vector<std::byte>;

static_assert(sizeof(Session) <= 96);

Frame textFrame(ByteSpan text) {
  Frame frame(MESSAGE_TEXT_OFFSET + text.size());
  std::ranges::copy(text, frame.begin() + MESSAGE_TEXT_OFFSET);
  return frame;
}

class ASession : public testing::Test {
 protected:
  const SharedKey key = SharedKey::random();
  Session client{Role::Client, key};
  Session server{Role::Server, key};
  MessageCipher cipher;

  Frame sealed(Session& session, std::string_view text = "text") {
    Frame frame = textFrame(asBytes(text));
    EXPECT_EQ(session.seal(cipher, frame), std::nullopt);
    return frame;
  }
  // The text in a frame, or the reason why there is none.
  Result<std::string, R> opened(Session& session, Frame frame) {
    auto text = session.open(cipher, MutableByteSpan(frame).subspan(wire::FRAME_HEADER_BYTES));
    if (!text) return refuse(text.error());
    return test::text(*text);
  }
  void expectFault(Session& session, Frame frame, R reason) {
    const auto result = opened(session, std::move(frame));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error(), reason);
  }
};

TEST_F(ASession, SealsTheOriginalsMessagesInBothRoles) {
  const SharedKey shared = *agree(PublicKey(test::vector("EC")), EphemeralSecret(test::vector("ESs")));
  Session vectorClient(Role::Client, shared), vectorServer(Role::Server, shared);
  for (const auto& message : test::messageVectors()) {
    Session& sender = message.fromClient ? vectorClient : vectorServer;
    Frame frame = textFrame(message.text);
    EXPECT_EQ(sender.seal(cipher, frame), std::nullopt);
    EXPECT_EQ(frame, message.frame) << message.counter;
  }
}

TEST_F(ASession, OpensTheOriginalsMessagesInBothRoles) {
  const SharedKey shared = *agree(PublicKey(test::vector("ES")), EphemeralSecret(test::vector("ECs")));
  Session vectorClient(Role::Client, shared), vectorServer(Role::Server, shared);
  for (const auto& message : test::messageVectors()) {
    Session& receiver = message.fromClient ? vectorServer : vectorClient;
    Frame packet = message.packet;
    const auto text = receiver.open(cipher, packet);
    ASSERT_TRUE(text) << message.counter;
    EXPECT_EQ(vec(*text), message.text);
  }
}

TEST_F(ASession, OpensWhereTheMessageLies) {
  Frame frame = sealed(client, "in place");
  const auto text = server.open(cipher, MutableByteSpan(frame).subspan(wire::FRAME_HEADER_BYTES));
  ASSERT_TRUE(text);
  EXPECT_EQ(text->data(), frame.data() + MESSAGE_TEXT_OFFSET);
  EXPECT_EQ(text->size(), 8u);
}

TEST_F(ASession, CarriesMessagesOfEverySizeBothWays) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1023}, size_t{1024}, wire::MAX_MESSAGE_BYTES}) {
    const std::string text(size, 'x');
    EXPECT_EQ(*opened(server, sealed(client, text)), text);
    EXPECT_EQ(*opened(client, sealed(server, text)), text);
  }
  EXPECT_EQ(client.sealed(), 5u);
}

TEST_F(ASession, DiesOfAMissingMessage) {
  sealed(client);
  expectFault(server, sealed(client), R::BadCounter);
}

TEST_F(ASession, DiesOfARepeatedMessage) {
  const Frame frame = sealed(client);
  EXPECT_TRUE(opened(server, frame));
  expectFault(server, frame, R::BadCounter);
}

TEST_F(ASession, DiesOfItsOwnMessageReflected) {
  expectFault(client, sealed(client), R::BadBox);
  expectFault(server, sealed(server), R::BadBox);
}

TEST_F(ASession, DiesOfAMessageOfAnotherSession) {
  Session other(Role::Client, SharedKey::random());
  expectFault(server, sealed(other), R::BadBox);
}

TEST_F(ASession, DiesOfEveryChangedByteUnderTheRightName) {
  const Frame frame = sealed(client);
  for (size_t at = wire::FRAME_HEADER_BYTES; at < frame.size(); ++at) {
    Session receiver(Role::Server, key);
    Frame changed = frame;
    changed[at] ^= std::byte{1};
    expectFault(receiver, changed, at < 10 ? R::BadMagic : at < 18 ? R::BadCounter : R::BadBox);
  }
}

TEST_F(ASession, DiesOfAPacketThatIsTooShortToBeAMessage) {
  for (size_t size = 0; size < wire::MESSAGE_OVERHEAD_BYTES; ++size) {
    Session receiver(Role::Server, key);
    Frame frame = sealed(client, "");
    frame.resize(wire::FRAME_HEADER_BYTES + size);
    expectFault(receiver, frame, R::BadLength);
  }
}

TEST_F(ASession, DiesOfAPacketOfTheHandshake) {
  for (const char* name : {"hello", "cookie", "vouch"}) {
    Session receiver(Role::Server, key);
    Frame packet = test::vector(name);
    const auto result = receiver.open(cipher, packet);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error(), R::BadMagic);
  }
}

TEST_F(ASession, ThatIsDeadOpensAndSealsNothingAndRepeatsTheReason) {
  const Frame good = sealed(client);
  Frame bad = good;
  bad.back() ^= std::byte{1};
  expectFault(server, bad, R::BadBox);
  expectFault(server, good, R::BadBox);
  expectFault(server, Frame(20), R::BadBox);
  Frame text = textFrame(asBytes("a secret"));
  EXPECT_EQ(server.seal(cipher, text), R::BadBox);
  EXPECT_EQ(text, textFrame(asBytes("a secret")));  // nothing of it was made into a frame
}

TEST_F(ASession, DoesNotDecryptAMessageThatIsNotGenuine) {
  Frame frame = sealed(client, "you must not see this");
  frame[20] ^= std::byte{1};
  const Frame before = frame;
  EXPECT_FALSE(server.open(cipher, MutableByteSpan(frame).subspan(wire::FRAME_HEADER_BYTES)));
  EXPECT_EQ(frame, before);
}

TEST_F(ASession, UsesTheLastButOneCounterAndNeverTheLast) {
  client.skipToCounters(wire::LAST_COUNTER - 1, wire::LAST_COUNTER - 1);
  server.skipToCounters(wire::LAST_COUNTER - 1, wire::LAST_COUNTER - 1);
  EXPECT_TRUE(opened(server, sealed(client)));
  Frame frame = textFrame(asBytes("one too many"));
  EXPECT_EQ(client.seal(cipher, frame), R::CounterExhausted);
  EXPECT_EQ(frame, textFrame(asBytes("one too many")));
  EXPECT_EQ(client.seal(cipher, frame), R::CounterExhausted);
}

TEST_F(ASession, OpensNothingUnderTheLastCounter) {
  client.skipToCounters(wire::LAST_COUNTER - 1, 2);
  server.skipToCounters(2, wire::LAST_COUNTER);
  // A peer that uses it all the same, with the right key.
  Frame frame = textFrame(asBytes("text"));
  wire::writeMessageHeader(std::span(frame).first<18>(), wire::LAST_COUNTER, 4);
  cipher.seal(MutableByteSpan(frame).subspan(18), wire::LAST_COUNTER, clientToServerKey(key).expose());
  expectFault(server, frame, R::CounterExhausted);
}

TEST_F(ASession, DiesInBothDirectionsWhenOneIsExhausted) {
  client.skipToCounters(wire::LAST_COUNTER, 2);
  Frame frame = textFrame({});
  EXPECT_EQ(client.seal(cipher, frame), R::CounterExhausted);
  expectFault(client, sealed(server), R::CounterExhausted);
}

using ASessionDeathTest = ASession;
TEST_F(ASessionDeathTest, GoesNeverBackToACounter) {
  client.skipToCounters(5, 5);
  EXPECT_DEATH(client.skipToCounters(4, 5), "invariant broken");
  EXPECT_DEATH(client.skipToCounters(5, 4), "invariant broken");
}

TEST_F(ASessionDeathTest, SealsNoFrameOfAnImpossibleSize) {
  Frame small(MESSAGE_TEXT_OFFSET - 1), large(wire::MAX_FRAME_BYTES + 1);
  EXPECT_DEATH(static_cast<void>(client.seal(cipher, small)), "invariant broken");
  EXPECT_DEATH(static_cast<void>(client.seal(cipher, large)), "invariant broken");
}

}  // namespace
}  // namespace sallyport::netd
