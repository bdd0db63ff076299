// Goal: the four packets are read and written byte for byte as curve_tun has them, and nothing else is taken for one.
// Method: the original's packets; then every length beside the right one, every bit of magic and counter flipped.
#include "proto/wire/packet.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "tests/unit/wire/vectors.h"

namespace sallyport::wire {
namespace {

using test::vec;
using R = DropReason;
using Packet = std::vector<std::byte>;

// One way to read packets: the reason of a refusal, or nothing.
struct Kind {
  const char* vector;
  size_t bytes;
  size_t counterAt;  // 0: the packet has none
  std::function<std::optional<R>(ByteSpan)> fault;
};

template <typename Parser>
auto faultOf(Parser parser) {
  return [parser](ByteSpan packet) -> std::optional<R> {
    auto result = parser(packet);
    if (result) return std::nullopt;
    return result.error();
  };
}

const Kind KINDS[] = {{"hello", HELLO_BYTES, MAGIC_BYTES + KEY_BYTES, faultOf(parseHello)},
                      {"cookie", COOKIE_PACKET_BYTES, 0, faultOf(parseCookiePacket)},
                      {"vouch", INITIATE_BYTES, MAGIC_BYTES + COOKIE_BYTES, faultOf(parseInitiate)}};

template <size_t N>
Block<N> counted(unsigned first) {
  Block<N> block;
  for (size_t i = 0; i < N; ++i) block[i] = static_cast<std::byte>(first + i);
  return block;
}

TEST(Packet, TheOriginalsPacketsAreTaken) {
  for (const Kind& kind : KINDS) {
    const Packet packet = test::vector(kind.vector);
    ASSERT_EQ(packet.size(), kind.bytes);
    EXPECT_EQ(kind.fault(packet), std::nullopt) << kind.vector;
  }
}

TEST(Packet, TheOriginalsPacketsAreWrittenAgainByteForByte) {
  const auto check = [](const auto& frame, const char* name) {
    const Packet packet = test::vector(name);
    EXPECT_EQ(readFrameLength(std::span(frame).template first<FRAME_HEADER_BYTES>()), packet.size());
    EXPECT_EQ(vec(ByteSpan(frame).subspan(FRAME_HEADER_BYTES)), packet) << name;
  };
  check(writeHello(*parseHello(test::vector("hello"))), "hello");
  check(writeCookiePacket(*parseCookiePacket(test::vector("cookie"))), "cookie");
  check(writeInitiate(*parseInitiate(test::vector("vouch"))), "vouch");
}

TEST(Packet, FieldsLieWhereTheOriginalPutsThem) {
  EXPECT_EQ(vec(parseHello(test::vector("hello"))->clientEphemeral.span()), test::vector("EC"));
  EXPECT_EQ(vec(parseCookiePacket(test::vector("cookie"))->nonce.span()), test::vector("server_safe_nonce"));
  EXPECT_EQ(vec(parseInitiate(test::vector("vouch"))->cookie), test::vector("K"));
}

TEST(Packet, WhatIsWrittenIsReadAgain) {
  const Hello hello{PublicKey(counted<32>(1)), counted<HELLO_BOX_BYTES>(40)};
  const auto helloFrame = writeHello(hello);
  const auto readHello = parseHello(ByteSpan(helloFrame).subspan(2));
  ASSERT_TRUE(readHello);
  EXPECT_EQ(readHello->clientEphemeral, hello.clientEphemeral);
  EXPECT_EQ(readHello->box, hello.box);

  const CookiePacket cookie{LongNonceBytes(counted<16>(5)), counted<COOKIE_PACKET_BOX_BYTES>(9)};
  const auto cookieFrame = writeCookiePacket(cookie);
  const auto readCookie = parseCookiePacket(ByteSpan(cookieFrame).subspan(2));
  ASSERT_TRUE(readCookie);
  EXPECT_EQ(readCookie->nonce, cookie.nonce);
  EXPECT_EQ(readCookie->box, cookie.box);

  const Initiate initiate{counted<COOKIE_BYTES>(3), counted<INITIATE_BOX_BYTES>(70)};
  const auto initiateFrame = writeInitiate(initiate);
  const auto readInitiate = parseInitiate(ByteSpan(initiateFrame).subspan(2));
  ASSERT_TRUE(readInitiate);
  EXPECT_EQ(readInitiate->cookie, initiate.cookie);
  EXPECT_EQ(readInitiate->box, initiate.box);

  const auto content = counted<KEY_BYTES + LONG_NONCE_BYTES + VOUCH_BYTES>(100);
  const InitiateContent inside = parseInitiateContent(content);
  EXPECT_EQ(vec(inside.client.span()), vec(ByteSpan(content).first(32)));
  EXPECT_EQ(vec(inside.vouchNonce.span()), vec(ByteSpan(content).subspan(32, 16)));
  EXPECT_EQ(vec(inside.vouch), vec(ByteSpan(content).last(48)));
}

TEST(Packet, EveryOtherLengthIsABadLengthWhateverTheContent) {
  for (const Kind& kind : KINDS) {
    Packet packet = test::vector(kind.vector);
    packet.resize(600);
    for (size_t length = 0; length <= packet.size(); ++length) {
      if (length == kind.bytes) continue;
      EXPECT_EQ(kind.fault(ByteSpan(packet).first(length)), R::BadLength) << kind.vector << " " << length;
    }
  }
}

TEST(Packet, EveryFlippedBitOfTheMagicIsABadMagic) {
  for (const Kind& kind : KINDS) {
    for (size_t bit = 0; bit < 8 * MAGIC_BYTES; ++bit) {
      Packet packet = test::vector(kind.vector);
      packet[bit / 8] ^= std::byte(1 << bit % 8);
      EXPECT_EQ(kind.fault(packet), R::BadMagic) << kind.vector << " bit " << bit;
    }
  }
}

TEST(Packet, EveryFlippedBitOfTheCounterIsABadCounter) {
  for (const Kind& kind : KINDS) {
    if (kind.counterAt == 0) continue;
    for (size_t bit = 0; bit < 8 * COUNTER_BYTES; ++bit) {
      Packet packet = test::vector(kind.vector);
      packet[kind.counterAt + bit / 8] ^= std::byte(1 << bit % 8);
      EXPECT_EQ(kind.fault(packet), R::BadCounter) << kind.vector << " bit " << bit;
    }
  }
}

TEST(Packet, LengthIsJudgedBeforeMagicAndMagicBeforeCounter) {
  for (const Kind& kind : KINDS) {
    Packet packet(kind.bytes, std::byte{0xff});
    EXPECT_EQ(kind.fault(packet), R::BadMagic) << kind.vector;
    packet.push_back({});
    EXPECT_EQ(kind.fault(packet), R::BadLength) << kind.vector;
  }
}

TEST(Packet, APacketOfOneKindIsNoneOfTheOthers) {
  for (const Kind& reader : KINDS) {
    for (const Kind& sent : KINDS) {
      if (&reader == &sent) continue;
      Packet packet = test::vector(sent.vector);
      EXPECT_EQ(reader.fault(packet), R::BadLength);
      packet.resize(reader.bytes);  // and not when its length is made to fit
      EXPECT_EQ(reader.fault(packet), R::BadMagic) << reader.vector << " of " << sent.vector;
    }
  }
}

TEST(MessagePacket, TheOriginalsMessagesHaveTheirCounters) {
  for (const auto& message : test::messageVectors()) {
    EXPECT_EQ(checkMessage(message.packet, message.counter), std::nullopt);
    EXPECT_EQ(readFrameLength(std::span(message.frame).first<2>()), message.packet.size());
    Block<FRAME_HEADER_BYTES + MESSAGE_BOX_OFFSET> header;
    writeMessageHeader(header, message.counter, message.text.size());
    EXPECT_EQ(vec(header), vec(ByteSpan(message.frame).first(header.size())));
  }
}

TEST(MessagePacket, OneShorterThanItsOverheadIsABadLength) {
  const Packet packet = test::messageVectors()[0].packet;
  for (size_t length = 0; length < MESSAGE_OVERHEAD_BYTES; ++length) {
    EXPECT_EQ(checkMessage(ByteSpan(packet).first(length), 2), R::BadLength) << length;
  }
  EXPECT_EQ(checkMessage(ByteSpan(packet).first(MESSAGE_OVERHEAD_BYTES), 2), std::nullopt);
}

TEST(MessagePacket, EveryFlippedBitOfItsHeadIsRefused) {
  const Packet good = test::messageVectors()[0].packet;
  for (size_t bit = 0; bit < 8 * MESSAGE_BOX_OFFSET; ++bit) {
    Packet packet = good;
    packet[bit / 8] ^= std::byte(1 << bit % 8);
    EXPECT_EQ(checkMessage(packet, 2), bit < 8 * MAGIC_BYTES ? R::BadMagic : R::BadCounter) << bit;
  }
}

TEST(MessagePacket, NoCounterButTheExpectedOneIsTaken) {
  Packet packet = test::messageVectors()[0].packet;
  for (const uint64_t sent : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{3}, uint64_t{258}, uint64_t{1} << 32,
                              LAST_COUNTER - 1, LAST_COUNTER}) {
    writeBe64(std::span(packet).subspan<MAGIC_BYTES, COUNTER_BYTES>(), sent);
    EXPECT_EQ(checkMessage(packet, sent), std::nullopt);
    for (const uint64_t expected : {sent - 1, sent + 1, sent ^ (uint64_t{1} << 63), uint64_t{512}, ~sent}) {
      EXPECT_EQ(checkMessage(packet, expected), R::BadCounter) << sent << " " << expected;
    }
  }
}

TEST(MessagePacketDeathTest, NoHeaderIsWrittenForAMessageThatDoesNotFit) {
  Block<FRAME_HEADER_BYTES + MESSAGE_BOX_OFFSET> header;
  writeMessageHeader(header, 2, MAX_MESSAGE_BYTES);
  EXPECT_EQ(readFrameLength(std::span(header).first<2>()), MAX_PACKET_BYTES);
  EXPECT_DEATH(writeMessageHeader(header, 2, MAX_MESSAGE_BYTES + 1), "invariant broken");
}

TEST(Framing, EveryLengthIsBigEndianAndComesBack) {
  Block<2> header;
  for (size_t length = 0; length <= MAX_PACKET_BYTES; ++length) {
    writeFrameLength(header, length);
    ASSERT_EQ(readFrameLength(header), length);
  }
  writeFrameLength(header, 0x1234);
  EXPECT_EQ(vec(header), test::hex("1234"));
}

TEST(Framing, NumbersAreBigEndian) {
  Block<8> bytes;
  writeBe64(bytes, 0x0102030405060708);
  EXPECT_EQ(vec(bytes), test::hex("0102030405060708"));
  EXPECT_EQ(readBe64(bytes), 0x0102030405060708u);
}

TEST(DropReasons, EachHasANameAndASentenceOfItsOwn) {
  std::set<std::string_view> names, sentences;
  for (size_t i = 0; i < DROP_REASON_COUNT; ++i) {
    const auto reason = static_cast<DropReason>(i);
    names.insert(name(reason));
    sentences.insert(describe(reason));
    EXPECT_EQ(name(reason).find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string_view::npos);
  }
  EXPECT_EQ(names.size(), DROP_REASON_COUNT);
  EXPECT_EQ(sentences.size(), DROP_REASON_COUNT);
  EXPECT_FALSE(names.contains("unknown"));
}

TEST(DropReasons, EachIsFoundByItsNameAndNoneByAnother) {
  for (size_t i = 0; i < DROP_REASON_COUNT; ++i) {
    const auto reason = static_cast<DropReason>(i);
    EXPECT_EQ(dropReasonNamed(name(reason)), reason);
  }
  EXPECT_EQ(dropReasonNamed("unknown"), std::nullopt);
  EXPECT_EQ(dropReasonNamed(""), std::nullopt);
}

TEST(DropReasons, ANumberThatIsNoneHasNoName) {
  EXPECT_EQ(name(static_cast<DropReason>(DROP_REASON_COUNT)), "unknown");
  EXPECT_EQ(describe(static_cast<DropReason>(255)), "unknown reason");
}

}  // namespace
}  // namespace sallyport::wire
