// Goal: what one side of the frames writes, the other reads; and nothing else is read.
// Method: one filled value of each body there and back; then each byte of the frames changed, cut, grown and padded.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "proto/hsm/frames.h"

namespace sallyport::hsm {
namespace {

template <size_t N>
std::array<std::byte, N> counting(unsigned first) {
  std::array<std::byte, N> result;
  for (size_t i = 0; i < N; ++i) result[i] = static_cast<std::byte>(first + i);
  return result;
}

KeyId id() { return *KeyId::of(counting<MAX_ID_BYTES>(1)); }
KeyLabel label() { return KeyLabel::cut("server"); }

std::vector<Ask> everyAsk() {
  return {Hello{},
          List{.index = 7},
          Derive{.key = 3, .slot = 63, .peer = counting<32>(1)},
          Sign{.key = 1, .messageBytes = MESSAGE_BYTES},
          Wrap{.key = 2, .slot = 5, .algorithm = WrapAlgorithm::OaepSha1, .bound = counting<32>(9)},
          Unwrap{.key = 2,
                 .slot = 5,
                 .algorithm = WrapAlgorithm::OaepSha256,
                 .bound = counting<32>(9),
                 .blob = *Blob::of(counting<MAX_BLOB_BYTES>(0))},
          Generate{.kind = KeyKind::Rsa, .id = id(), .label = label()},
          Import{.kind = KeyKind::Ed25519, .slot = 1, .id = id(), .label = label()},
          Random{.slot = 2, .bytes = 64},
          Ping{},
          Login{.slot = 9, .pinBytes = 6, .force = true},
          Logout{},
          Probe{.index = 12}};
}

KeyInfo keyInfo() {
  return {.index = 1,
          .count = 2,
          .kind = KeyKind::X25519,
          .spelling = Spelling::EdwardsName,
          .form = PointForm::Octets,
          .proof = Status::BadResult,
          .sensitive = true,
          .extractable = true,
          .gcm = true,
          .oaepSha256 = true,
          .oaepSha1 = true,
          .bits = 3072,
          .publicKey = counting<32>(100),
          .id = id(),
          .label = label()};
}

std::vector<Answer> everyAnswer() {
  return {Done{},
          HelloReply{.login = Status::PinLowRefused,
                     .tokenFlags = 0x40d,
                     .keyCount = 2,
                     .sessions = 4,
                     .module = Bounded<64>::cut("SoftHSM 2.6"),
                     .label = Bounded<32>::cut("sallyport"),
                     .manufacturer = Bounded<32>::cut("SoftHSM project"),
                     .model = Bounded<32>::cut("SoftHSM v2"),
                     .serial = Bounded<32>::cut("00ff")},
          keyInfo(),
          SignReply{.signature = counting<64>(3)},
          WrapReply{.blob = *Blob::of(counting<60>(4))},
          PingReply{.rssKiB = uint64_t{1} << 40, .calls = 9, .threads = 2, .recoveries = 1},
          ProbeReply{.index = 1,
                     .count = 30,
                     .what = Bounded<48>::cut("derive: ec, raw"),
                     .trial = Trial::TimedOut,
                     .ckr = 0x80000001,
                     .microseconds = 61,
                     .call = Bounded<24>::cut("C_DeriveKey")}};
}

std::vector<Control> everyControl() {
  return {WorkerUp{.epoch = 1, .pid = 4242, .login = Status::Ok},
          WorkerUp{.epoch = 1, .pid = 4242, .login = Status::NotLoggedIn, .detail = Detail::cut(std::string(200, 'x'))},
          WorkerDied{.epoch = 1,
                     .pid = 4242,
                     .status = Status::DeviceRemoved,
                     .waitStatus = -1,
                     .restartInMs = 30000,
                     .detail = Detail::cut(std::string(200, 'y'))},
          TrialHung{.epoch = 2, .afterMs = 15'000, .what = Detail::cut("x25519 generate: montgomery, raw")},
          WorkerLayer{.epoch = 1,
                      .layer = Bounded<16>::cut("landlock"),
                      .state = 2,
                      .detail = Bounded<160>::cut("abi 7: its own paths")},
          Denials{.epoch = 1, .total = uint64_t{1} << 33, .lastCall = Bounded<32>::cut("openat")},
          KillWorker{.epoch = 3, .reason = KillReason::Memory},
          KillWorker{.epoch = 3, .reason = KillReason::NewKey},
          Stop{}};
}

TEST(HsmFrames, CarryEachRequest) {
  for (const Ask& ask : everyAsk()) {
    const RequestFrame frame = writeRequest({.epoch = 5, .id = 0x0102030405060708, .ask = ask});
    const auto parsed = parseRequest(frame);
    ASSERT_TRUE(parsed) << nameOf(ask);
    EXPECT_EQ(parsed->epoch, 5U);
    EXPECT_EQ(parsed->id, 0x0102030405060708U);
    EXPECT_EQ(parsed->ask.index(), ask.index());
    EXPECT_EQ(writeRequest(*parsed), frame) << nameOf(ask);
  }
}

TEST(HsmFrames, CarryEachReply) {
  for (const Answer& answer : everyAnswer()) {
    const ReplyFrame frame = writeReply({.epoch = 5, .id = 77, .answer = answer});
    const auto parsed = parseReply(frame);
    ASSERT_TRUE(parsed) << answer.index();
    EXPECT_EQ(parsed->answer.index(), answer.index());
    EXPECT_EQ(writeReply(*parsed), frame) << answer.index();
  }
}

TEST(HsmFrames, CarryEachControlFrame) {
  for (const Control& control : everyControl()) {
    const ControlFrame frame = writeControl(control);
    const auto parsed = parseControl(frame);
    ASSERT_TRUE(parsed) << control.index();
    EXPECT_EQ(parsed->index(), control.index());
    EXPECT_EQ(writeControl(*parsed), frame) << control.index();
  }
}

TEST(HsmNames, OfAnAnswerAreTheStandardsOrItsNumber) {
  EXPECT_EQ(ckrName(0x31), "CKR_DEVICE_MEMORY");
  EXPECT_EQ(ckrName(0x70), "CKR_MECHANISM_INVALID");
  EXPECT_EQ(ckrName(0xce534351), "CKR 0xce534351");
}

TEST(HsmFrames, KeepTheFieldsOfAKey) {
  const auto parsed = parseReply(writeReply({.epoch = 1, .id = 2, .answer = keyInfo()}));
  ASSERT_TRUE(parsed);
  const auto& key = std::get<KeyInfo>(parsed->answer);
  EXPECT_EQ(key.spelling, Spelling::EdwardsName);
  EXPECT_EQ(key.form, PointForm::Octets);
  EXPECT_EQ(key.proof, Status::BadResult);
  EXPECT_TRUE(key.sensitive && key.extractable && key.gcm && key.oaepSha256 && key.oaepSha1);
  EXPECT_EQ(key.bits, 3072);
  EXPECT_EQ(key.publicKey, counting<32>(100));
  EXPECT_EQ(key.id, id());
  EXPECT_EQ(key.label.text(), "server");
}

TEST(HsmFrames, CarryEachStatusByItself) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < STATUS_COUNT; ++i) {
    const auto status = static_cast<Status>(i);
    const auto parsed = parseReply(writeReply({.epoch = 1, .id = 1, .status = status, .ckr = 0x82}));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->status, status);
    EXPECT_EQ(parsed->ckr, 0x82U);
    EXPECT_TRUE(names.insert(name(status)).second) << name(status);
    EXPECT_FALSE(describe(status).empty());
  }
}

TEST(HsmFrames, RefuseAnotherLength) {
  const RequestFrame request = writeRequest({.epoch = 1, .id = 1, .ask = Ping{}});
  for (size_t length = 0; length < request.size(); ++length)
    EXPECT_EQ(parseRequest(ByteSpan(request).first(length)).error(), FrameProblem::Length);
  std::vector<std::byte> longer(request.begin(), request.end());
  longer.push_back(std::byte{0});
  EXPECT_EQ(parseRequest(longer).error(), FrameProblem::Length);
  EXPECT_EQ(parseReply({}).error(), FrameProblem::Length);
  EXPECT_EQ(parseControl(request).error(), FrameProblem::Length);
}

TEST(HsmFrames, RefuseAFrameOfTheOtherDirection) {
  const RequestFrame request = writeRequest({.epoch = 1, .id = 1, .ask = Ping{}});
  const ReplyFrame reply = writeReply({.epoch = 1, .id = 1, .answer = Done{}});
  EXPECT_EQ(parseReply(request).error(), FrameProblem::Magic);
  EXPECT_EQ(parseRequest(reply).error(), FrameProblem::Magic);
}

TEST(HsmFrames, RefuseAnUnknownVerb) {
  RequestFrame request = writeRequest({.epoch = 1, .id = 1, .ask = Ping{}});
  request[16] = std::byte{std::variant_size_v<Ask>};
  EXPECT_EQ(parseRequest(request).error(), FrameProblem::Kind);
  ReplyFrame reply = writeReply({.epoch = 1, .id = 1, .answer = Done{}});
  reply[21] = std::byte{std::variant_size_v<Answer>};
  EXPECT_EQ(parseReply(reply).error(), FrameProblem::Kind);
  ControlFrame control = writeControl(Stop{});
  control[4] = std::byte{255};
  EXPECT_EQ(parseControl(control).error(), FrameProblem::Kind);
}

TEST(HsmFrames, RefuseWhatIsOutOfRange) {
  // The length of the blob, the algorithm, a boolean and a status beyond their ranges.
  RequestFrame unwrap = writeRequest({.epoch = 1, .id = 1, .ask = Unwrap{}});
  RequestFrame longBlob = unwrap;
  longBlob[17 + 5 + 32] = std::byte{4};
  longBlob[17 + 5 + 33] = std::byte{1};  // 1025
  EXPECT_EQ(parseRequest(longBlob).error(), FrameProblem::Field);
  for (const unsigned algorithm : {0U, 4U, 255U}) {
    unwrap[17 + 4] = static_cast<std::byte>(algorithm);
    EXPECT_EQ(parseRequest(unwrap).error(), FrameProblem::Field) << algorithm;
  }
  RequestFrame login = writeRequest({.epoch = 1, .id = 1, .ask = Login{}});
  login[17 + 4] = std::byte{2};
  EXPECT_EQ(parseRequest(login).error(), FrameProblem::Field);
  ReplyFrame reply = writeReply({.epoch = 1, .id = 1, .answer = Done{}});
  reply[16] = std::byte{STATUS_COUNT};
  EXPECT_EQ(parseReply(reply).error(), FrameProblem::Field);
}

TEST(HsmFrames, RefuseABlobWithSomethingBehindItsEnd) {
  RequestFrame unwrap = writeRequest({.epoch = 1, .id = 1, .ask = Unwrap{.blob = Blob::cut("blob")}});
  unwrap[17 + 5 + 32 + 2 + 4] = std::byte{1};
  EXPECT_EQ(parseRequest(unwrap).error(), FrameProblem::Field);
}

TEST(HsmFrames, RefusePaddingThatIsNotZero) {
  for (size_t at = 17; at < REQUEST_BYTES; ++at) {
    RequestFrame request = writeRequest({.epoch = 1, .id = 1, .ask = Ping{}});
    request[at] = std::byte{1};
    ASSERT_EQ(parseRequest(request).error(), FrameProblem::Padding) << at;
  }
}

TEST(HsmFrames, RefuseARefusalThatCarriesAResult) {
  ReplyFrame reply = writeReply({.epoch = 1, .id = 1, .answer = SignReply{.signature = counting<64>(1)}});
  reply[16] = static_cast<std::byte>(Status::BadResult);
  EXPECT_EQ(parseReply(reply).error(), FrameProblem::Field);
}

// Whatever a byte is changed to: refused, or the one frame of the value that was read.
TEST(HsmFrames, HaveOneSpellingForEachValue) {
  for (const Ask& ask : everyAsk()) {
    const RequestFrame good = writeRequest({.epoch = 1, .id = 1, .ask = ask});
    for (size_t at = 0; at < 256; ++at) {
      RequestFrame changed = good;
      changed[at] ^= std::byte{0x81};
      const auto parsed = parseRequest(changed);
      ASSERT_TRUE(!parsed || writeRequest(*parsed) == changed) << nameOf(ask) << at;
    }
  }
}

TEST(HsmNames, AreFoundByTheirWord) {
  for (size_t i = 0; i < SPELLING_COUNT; ++i) {
    const auto spelling = static_cast<Spelling>(i);
    EXPECT_EQ(spellingOf(name(spelling)), spelling);
  }
  for (size_t i = 0; i < KEY_KIND_COUNT; ++i)
    EXPECT_EQ(keyKindOf(name(static_cast<KeyKind>(i))), static_cast<KeyKind>(i));
  for (const auto algorithm : {WrapAlgorithm::Gcm, WrapAlgorithm::OaepSha256, WrapAlgorithm::OaepSha1})
    EXPECT_EQ(wrapAlgorithmOf(name(algorithm)), algorithm);
  EXPECT_EQ(spellingOf("Montgomery"), std::nullopt);
  EXPECT_EQ(wrapAlgorithmOf(""), std::nullopt);
  EXPECT_EQ(name(static_cast<Status>(200)), "unknown");
  EXPECT_EQ(name(static_cast<WrapAlgorithm>(0)), "unknown");
}

TEST(HsmBounded, RefusesOrCutsWhatIsTooLong) {
  const auto bytes = counting<MAX_ID_BYTES + 1>(0);
  EXPECT_FALSE(KeyId::of(bytes));
  EXPECT_EQ(KeyId::cut(ByteSpan(bytes)).length, MAX_ID_BYTES);
}

}  // namespace
}  // namespace sallyport::hsm
