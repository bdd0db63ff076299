// Goal: whatever a client writes to an RPC socket, the link ends under the right name and Cap'n Proto never sees it.
// Method: raw bytes into a socketpair: heads that lie, messages cut anywhere, kinds no client may send, no reading.
#include "common/link.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <kj/io.h>

namespace sallyport {
namespace {

using Bytes = std::vector<std::byte>;
using Maybe = kj::Maybe<capnp::MessageReaderAndFds>;

Bytes words32(std::initializer_list<uint32_t> values) {
  Bytes result(values.size() * 4);
  size_t at = 0;
  for (uint32_t value : values) {
    value = htole32(value);
    std::memcpy(result.data() + at, &value, 4);
    at += 4;
  }
  return result;
}

Bytes operator+(Bytes left, ByteSpan right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

template <typename Fill>
Bytes message(Fill&& fill) {
  capnp::MallocMessageBuilder builder;
  fill(builder.initRoot<capnp::rpc::Message>());
  const auto words = capnp::messageToFlatArray(builder);
  const auto bytes = words.asBytes();
  const auto* first = reinterpret_cast<const std::byte*>(bytes.begin());
  return {first, first + bytes.size()};
}

Bytes bootstrap(uint32_t id) {
  return message([id](auto root) { root.initBootstrap().setQuestionId(id); });
}
Bytes call(uint32_t id) {
  return message([id](auto root) {
    auto made = root.initCall();
    made.setQuestionId(id);
    made.initTarget().setImportedCap(0);
    made.initParams();
  });
}
Bytes finish(uint32_t id) {
  return message([id](auto root) { root.initFinish().setQuestionId(id); });
}

class ALink : public testing::Test {
 protected:
  ~ALink() noexcept override {}  // gtest's is, KJ's members are not
  Link& open(LinkSide side = LinkSide::Server, LinkLimits limits = {}) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    peer = kj::AutoCloseFd(ends[1]);
    link.emplace(loop, ends[0], side, limits);
    return *link;
  }
  void write(ByteSpan bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) {
        loop.turn(1);
        if (link->cutOff() != CutOff::None) return;
        continue;
      }
      bytes = bytes.subspan(static_cast<size_t>(sent));
    }
  }
  void end() { shutdown(peer, SHUT_WR); }
  // The next message, or nothing at the link's end.
  Maybe next() { return loop.await(link->tryReadMessage(nullptr, {}, nullptr)); }
  bool hasNext() { return next() != nullptr; }
  // What the peer could read now.
  Bytes peerReads() {
    Bytes all(1 << 20);
    const ssize_t got = recv(peer, all.data(), all.size(), 0);
    all.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return all;
  }
  void send1(uint64_t value, size_t words = 1) {
    const std::vector<uint64_t> content(words, value);
    const kj::ArrayPtr<const capnp::word> segment(reinterpret_cast<const capnp::word*>(content.data()), words);
    loop.await(link->writeMessage(nullptr, kj::arrayPtr(&segment, 1)));
  }
  // A server that gets `bytes` and then the end is cut off for this reason, and delivers nothing.
  CutOff fate(ByteSpan bytes, LinkLimits limits = {}) {
    open(LinkSide::Server, limits);
    write(bytes);
    end();
    EXPECT_FALSE(hasNext());
    return link->cutOff();
  }

  EventLoop loop;
  kj::AutoCloseFd peer;
  std::optional<Link> link;
};

TEST_F(ALink, DeliversWhatAClientMaySay) {
  open();
  write(bootstrap(1) + call(2) + finish(1) + message([](auto root) { root.initRelease(); }) +
        message([](auto root) { root.initAbort(); }) + message([](auto root) { root.initUnimplemented(); }));
  end();
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(hasNext()) << i;
  EXPECT_FALSE(hasNext());
  EXPECT_EQ(link->cutOff(), CutOff::None);
}

// Another link of the same user, that takes all turns.
struct Hog final : LinkBudget::Holder {
  explicit Hog(LinkBudget& shared) : budget(shared) { budget.add(*this, 1); }
  ~Hog() { budget.remove(*this); }
  void overBudget() override {}
  void yourTurn() override {}
  uint64_t heardMs() const override { return 0; }
  void takeAll() {
    while (budget.takeTurn(*this)) continue;
  }
  LinkBudget& budget;
};

TEST_F(ALink, ThatWaitsForItsTurnLosesNothing) {
  for (const bool peerLeaves : {false, true}) {
    LinkBudget budget(loop, 1 << 20);
    Hog hog(budget);
    open();
    link->countFor(budget, 1);
    auto first = link->tryReadMessage(nullptr, {}, nullptr);
    write(call(7) + finish(7));
    if (peerLeaves) peer = nullptr;
    hog.takeAll();
    EXPECT_TRUE(loop.await(kj::mv(first)) != nullptr) << peerLeaves;
    EXPECT_TRUE(hasNext()) << peerLeaves;
    if (!peerLeaves) {
      hog.takeAll();
      write(call(8));
      EXPECT_TRUE(hasNext());
      end();
    }
    EXPECT_FALSE(hasNext());
    EXPECT_EQ(link->cutOff(), CutOff::None);
    link.reset();
  }
}

TEST_F(ALink, GivesItsMemoryBackWhenAllLinksHoldTooMuch) {
  LinkBudget budget(loop, LinkBudget::LINK_BYTES + 16 * 1024);
  open();
  link->countFor(budget, 1);
  EXPECT_EQ(budget.held(), LinkBudget::LINK_BYTES);
  write(words32({0, 4096}) + Bytes(20 * 1024));  // and not the rest
  EXPECT_FALSE(hasNext());
  EXPECT_EQ(link->cutOff(), CutOff::OverBudget);
  EXPECT_LE(budget.held(), LinkBudget::LINK_BYTES);
  link.reset();
}

TEST_F(ALink, CountsAMessageFromItsHeadOn) {
  LinkBudget budget(loop, 1 << 20);
  open();
  link->countFor(budget, 1);
  const auto reading = link->tryReadMessage(nullptr, {}, nullptr);
  write(words32({0, 4096}) + Bytes(8));  // and nothing more for now
  loop.turn(0);
  EXPECT_GE(budget.held(), LinkBudget::LINK_BYTES + 4096 * sizeof(capnp::word));
  link.reset();
}

TEST_F(ALink, CountsWhatAServiceKeepsForItsClient) {
  LinkBudget budget(loop, LinkBudget::LINK_BYTES + 16 * 1024);
  const auto charge = std::make_shared<LinkCharge>();
  open();
  link->countFor(budget, 1, charge);
  charge->bytes = 8 * 1024;
  write(finish(7));
  EXPECT_TRUE(hasNext());
  EXPECT_EQ(budget.held(), LinkBudget::LINK_BYTES + 8 * 1024);
  charge->bytes = 20 * 1024;
  write(finish(8));
  hasNext();
  loop.turn(0);
  EXPECT_EQ(link->cutOff(), CutOff::OverBudget);
  link.reset();
}

TEST_F(ALink, DeliversTheMessageThatWasSentHoweverTheStreamWasCut) {
  const Bytes stream = call(7) + finish(7);
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    open();
    write(ByteSpan(stream).first(cut));
    loop.turn(0);
    write(ByteSpan(stream).subspan(cut));
    KJ_IF_MAYBE (first, next()) {
      EXPECT_EQ(first->reader->getRoot<capnp::rpc::Message>().getCall().getQuestionId(), 7u);
    } else {
      ADD_FAILURE() << cut;
    }
    EXPECT_TRUE(hasNext()) << cut;
  }
}

TEST_F(ALink, DeliversALargeMessageWholeAndWhatFollowsIt) {
  open(LinkSide::Client, {.maxMessageBytes = 1 << 20});
  Bytes stream = words32({1, 50'000, 50'000, 0}) + Bytes(100'000 * 8);
  std::mt19937 random(7);  // NOLINT: the same content every time
  for (size_t i = 16; i < stream.size(); ++i) stream[i] = static_cast<std::byte>(random());
  Maybe large;
  auto reading = link->tryReadMessage(nullptr, {}, nullptr)
                     .then([&](Maybe&& message) { large = kj::mv(message); })
                     .eagerlyEvaluate(nullptr);
  write(stream + words32({0, 1, 7, 0}));
  for (int i = 0; i < 100 && large == nullptr; ++i) loop.turn(1);
  KJ_IF_MAYBE (message, large) {
    for (uint segment = 0; segment < 2; ++segment) {
      const auto bytes = message->reader->getSegment(segment).asBytes();
      ASSERT_EQ(bytes.size(), 400'000u);
      EXPECT_EQ(std::memcmp(bytes.begin(), stream.data() + 16 + segment * 400'000, bytes.size()), 0) << segment;
    }
    EXPECT_EQ(message->reader->getSegment(2), nullptr);
  } else {
    ADD_FAILURE() << "not delivered";
  }
  KJ_IF_MAYBE (message, next()) {
    EXPECT_EQ(*reinterpret_cast<const uint64_t*>(message->reader->getSegment(0).begin()), 7u);
  } else {
    ADD_FAILURE() << "what follows is lost";
  }
}

TEST_F(ALink, IsCutOffByAHeadOfFourTimesFF) { EXPECT_EQ(fate(words32({0xffffffff})), CutOff::BadHeader); }

TEST_F(ALink, IsCutOffByMoreSegmentsThanItTakes) {
  for (const uint32_t last : {8u, 9u, 255u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu}) {
    EXPECT_EQ(fate(words32({last}) + Bytes(64)), CutOff::BadHeader) << last;
  }
}

TEST_F(ALink, TakesAsManySegmentsAsItSays) {
  open(LinkSide::Client);
  write(words32({7, 1, 0, 0, 0, 0, 0, 0, 0, 0}) + Bytes(8));
  EXPECT_TRUE(hasNext());
}

TEST_F(ALink, IsCutOffByASizeOverTheCapBeforeTheContentArrives) {
  const uint32_t cap = 64 * 1024 / 8;
  EXPECT_EQ(fate(words32({0, cap + 1})), CutOff::TooBig);
  EXPECT_EQ(fate(words32({0, 0xffffffff})), CutOff::TooBig);
  EXPECT_EQ(fate(words32({0, 0x20000001})), CutOff::TooBig);  // 8 times this is 8 in 32 bits
  EXPECT_EQ(fate(words32({1, cap, 1, 0})), CutOff::TooBig);
  EXPECT_EQ(fate(words32({3, cap / 2, cap / 2, 0, 1, 0})), CutOff::TooBig);
  EXPECT_EQ(fate(words32({7, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0})), CutOff::TooBig);
}

TEST_F(ALink, TakesAMessageOfExactlyTheCap) {
  open(LinkSide::Client);
  write(words32({0, 64 * 1024 / 8}) + Bytes(64 * 1024));
  EXPECT_TRUE(hasNext());
}

TEST_F(ALink, EndsQuietlyWhenAMessageIsCutShort) {
  const Bytes whole = call(1);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(fate(ByteSpan(whole).first(length)), CutOff::None) << length;
  }
}

TEST_F(ALink, IsCutOffByOneQuestionTooMany) {
  open();
  for (uint32_t id = 0; id < 256; ++id) {
    write(id % 2 == 0 ? call(id) : bootstrap(id));
    ASSERT_TRUE(hasNext()) << id;
  }
  write(call(0));  // the same question again is not another one
  ASSERT_TRUE(hasNext());
  write(call(256));
  EXPECT_FALSE(hasNext());
  EXPECT_EQ(link->cutOff(), CutOff::TooManyCalls);
}

TEST_F(ALink, LetsAFinishedQuestionGo) {
  open(LinkSide::Server, {.maxOpenQuestions = 1});
  for (uint32_t id = 0; id < 1000; ++id) {
    write(call(id) + finish(id));
    ASSERT_TRUE(hasNext() && hasNext()) << id;
  }
  EXPECT_EQ(link->cutOff(), CutOff::None);
}

TEST_F(ALink, IsCutOffByACapabilityInParameters) {
  EXPECT_EQ(fate(message([](auto root) {
              auto made = root.initCall();
              made.initTarget().setImportedCap(0);
              made.initParams().initCapTable(1)[0].setSenderHosted(1);
            })),
            CutOff::CapabilityInParams);
}

TEST_F(ALink, IsCutOffByEveryKindThatNoClientSends) {
  const std::vector<Bytes> foreign = {
      message([](auto root) { root.initReturn(); }),
      message([](auto root) { root.initResolve(); }),
      message([](auto root) { root.initDisembargo(); }),
      message([](auto root) { root.initObsoleteSave(); }),
      message([](auto root) { root.initObsoleteDelete(); }),
      message([](auto root) { root.initProvide(); }),
      message([](auto root) { root.initAccept(); }),
      message([](auto root) { root.initJoin(); }),
      message([](auto root) { root.initCall().getSendResultsTo().setYourself(); }),
      message([](auto root) { root.initCall().getSendResultsTo().initThirdParty(); }),
  };
  for (size_t i = 0; i < foreign.size(); ++i) EXPECT_EQ(fate(foreign[i]), CutOff::BadMessage) << i;
}

TEST_F(ALink, IsCutOffByAMessageWithoutARoot) {
  EXPECT_EQ(fate(words32({0, 0})), CutOff::BadMessage);
  EXPECT_EQ(fate(words32({0, 1, 0xfffffffc, 0x7fffffff})), CutOff::BadMessage);  // points out of its segment
  EXPECT_EQ(fate(words32({0, 1, 2, 99})), CutOff::BadMessage);                   // a far pointer to no segment
}

TEST_F(ALink, IsNotImpressedByNoise) {
  std::mt19937 random(7);  // NOLINT: the same noise every time
  for (int round = 0; round < 300; ++round) {
    Bytes noise = call(1);
    for (int i = 0; i < 4; ++i) noise[8 + random() % (noise.size() - 8)] = static_cast<std::byte>(random());
    open();
    write(noise);
    end();
    while (hasNext()) {}
  }
}

TEST_F(ALink, OnceCutOffDeliversNothingMoreAndClosesTheSocket) {
  open();
  write(words32({0xffffffff}) + call(1) + call(2));
  EXPECT_FALSE(hasNext());
  EXPECT_FALSE(hasNext());
  send1(5);
  loop.turn(0);
  std::byte byte;
  EXPECT_EQ(recv(peer, &byte, 1, 0), 0);
}

TEST_F(ALink, WritesAllMessagesOfATurnAtOnce) {
  open();
  const uint64_t content = 0x0102030405060708;
  const kj::ArrayPtr<const capnp::word> segment(reinterpret_cast<const capnp::word*>(&content), 1);
  loop.defer([&] {
    for (int i = 0; i < 3; ++i) static_cast<void>(link->writeMessage(nullptr, kj::arrayPtr(&segment, 1)));
    EXPECT_TRUE(peerReads().empty());
  });
  loop.turn(0);
  const Bytes one = words32({0, 1, 0x05060708, 0x01020304});
  EXPECT_EQ(peerReads(), one + one + one);
}

TEST_F(ALink, WritesSegmentsInTheFormOfAStream) {
  open();
  const uint64_t content[3] = {1, 2, 3};
  const auto* words = reinterpret_cast<const capnp::word*>(content);
  const kj::ArrayPtr<const capnp::word> segments[] = {{words, 1}, {words + 1, 2}};
  loop.await(link->writeMessage(nullptr, segments));
  loop.turn(0);
  EXPECT_EQ(peerReads(), words32({1, 1, 2, 0, 1, 0, 2, 0, 3, 0}));
}

TEST_F(ALink, SendsALargeMessageInItsPlaceHoweverMuchTheSocketTakes) {
  open(LinkSide::Client);
  std::vector<uint64_t> content(100'000);
  for (size_t i = 0; i < content.size(); ++i) content[i] = i;
  const auto* words = reinterpret_cast<const capnp::word*>(content.data());
  const kj::ArrayPtr<const capnp::word> segments[] = {{words, 3}, {words + 3, 80'000}, {words + 80'003, 19'997}};
  send1(8);
  loop.await(link->writeMessage(nullptr, segments));
  send1(9);
  Bytes got;
  for (int i = 0; i < 1000 && got.size() < 800'000 + 48; ++i) {
    got = got + peerReads();
    loop.turn(1);
  }
  const ByteSpan text = std::as_bytes(std::span(content));
  EXPECT_EQ(got, words32({0, 1, 8, 0, 2, 3, 80'000, 19'997}) + text + words32({0, 1, 9, 0}));
}

TEST_F(ALink, DoesNotHearAPeerThatDoesNotRead) {
  open(LinkSide::Server, {.maxQueuedBytes = 64 * 1024});
  for (int i = 0; i < 100; ++i) send1(0, 1000);
  loop.turn(0);
  write(call(1));
  bool delivered = false;
  auto reading =
      link->tryReadMessage(nullptr, {}, nullptr).then([&](Maybe&&) { delivered = true; }).eagerlyEvaluate(nullptr);
  for (int i = 0; i < 5; ++i) loop.turn(1);
  EXPECT_FALSE(delivered);
  for (int i = 0; i < 100 && !delivered; ++i) {
    static_cast<void>(peerReads());
    loop.turn(1);
  }
  EXPECT_TRUE(delivered);
  EXPECT_EQ(link->cutOff(), CutOff::None);
}

TEST_F(ALink, CutsOffAPeerThatNeverReads) {
  open(LinkSide::Server, {.stallTimeoutMs = 40});
  for (int i = 0; i < 100; ++i) send1(0, 1000);
  EXPECT_FALSE(hasNext());
  EXPECT_EQ(link->cutOff(), CutOff::SlowReader);
}

TEST_F(ALink, KeepsAPeerThatReadsSlowly) {
  open(LinkSide::Server, {.stallTimeoutMs = 200});
  for (int i = 0; i < 100; ++i) send1(0, 1000);
  size_t got = 0;
  Bytes some(16 * 1024);
  for (int i = 0; i < 500 && got < 100 * 8008; ++i) {
    loop.turn(2);
    for (ssize_t n; (n = recv(peer, some.data(), some.size(), 0)) > 0;) got += static_cast<size_t>(n);
  }
  EXPECT_EQ(got, 100u * 8008);
  loop.await(loop.timer().afterDelay(250 * kj::MILLISECONDS));
  EXPECT_EQ(link->cutOff(), CutOff::None);
}

TEST_F(ALink, TellsAReaderThatThePeerIsGoneAndSwallowsWhatIsWrittenThen) {
  open();
  peer = nullptr;
  EXPECT_FALSE(hasNext());
  send1(1);
  loop.turn(0);
  EXPECT_EQ(link->cutOff(), CutOff::None);
}

TEST_F(ALink, SendsWhatWaitsBeforeItEnds) {
  open();
  send1(9);
  loop.await(link->end());
  EXPECT_EQ(peerReads(), words32({0, 1, 9, 0}));
  std::byte byte;
  EXPECT_EQ(recv(peer, &byte, 1, 0), 0);
}

TEST_F(ALink, OnTheClientsSideJudgesSizesAlone) {
  open(LinkSide::Client);
  write(message([](auto root) { root.initReturn(); }));
  EXPECT_TRUE(hasNext());
  write(words32({0xffffffff}));
  EXPECT_FALSE(hasNext());
  EXPECT_EQ(link->cutOff(), CutOff::BadHeader);
}

TEST(CutOffReasons, EachHasANameOfItsOwn) {
  std::unordered_set<std::string_view> names;
  for (size_t i = 0; i < CUT_OFF_COUNT; ++i) names.insert(name(static_cast<CutOff>(i)));
  EXPECT_EQ(names.size(), CUT_OFF_COUNT);
  EXPECT_EQ(name(static_cast<CutOff>(CUT_OFF_COUNT)), "unknown");
}

}  // namespace
}  // namespace sallyport
