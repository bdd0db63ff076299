// frames.cc - see frames.h. Each body is described once, by fields(); Writer and Reader walk the same description, so
// that the two directions can't drift apart. Numbers are big-endian. Part of: proto/hsm (pure; any process).
#include "proto/hsm/frames.h"

#include <cstring>
#include <type_traits>

namespace sallyport::hsm {

namespace {

constexpr uint32_t REQUEST_MAGIC = 0x53504851;  // "SPHQ"
constexpr uint32_t REPLY_MAGIC = 0x53504841;    // "SPHA"
constexpr uint32_t CONTROL_MAGIC = 0x53504843;  // "SPHC"

// Frames are zero from the start, so what isn't written is padding.
class Writer {
 public:
  explicit Writer(MutableByteSpan frame) : frame_(frame) {}

  template <typename T>
  void number(const T& value) {
    using Unsigned = std::make_unsigned_t<T>;
    for (size_t i = sizeof(T); i-- > 0;) put(static_cast<std::byte>(static_cast<Unsigned>(value) >> (8 * i)));
  }
  void flag(const bool& value) { put(std::byte{value}); }
  template <typename E>
  void choice(const E& value, size_t) {
    put(static_cast<std::byte>(value));
  }
  void choice(const WrapAlgorithm& value) { put(static_cast<std::byte>(value)); }
  template <size_t N>
  void block(const std::array<std::byte, N>& value) {
    for (const std::byte byte : value) put(byte);
  }
  template <size_t N>
  void bounded(const Bounded<N>& value) {
    CHECK(value.length <= N);
    number(value.length);
    for (size_t i = 0; i < N; ++i) put(i < value.length ? value.bytes[i] : std::byte{0});
  }

 private:
  void put(std::byte byte) {
    CHECK(at_ < frame_.size());
    frame_[at_++] = byte;
  }
  MutableByteSpan frame_;
  size_t at_ = 0;
};

class Reader {
 public:
  explicit Reader(ByteSpan frame) : frame_(frame) {}

  template <typename T>
  void number(T& value) {
    using Unsigned = std::make_unsigned_t<T>;
    Unsigned result = 0;
    for (size_t i = 0; i < sizeof(T); ++i)
      result = static_cast<Unsigned>(static_cast<uint64_t>(result) << 8 | std::to_integer<uint64_t>(take()));
    value = static_cast<T>(result);
  }
  void flag(bool& value) {
    const auto byte = std::to_integer<unsigned>(take());
    if (byte > 1) good_ = false;
    value = byte == 1;
  }
  template <typename E>
  void choice(E& value, size_t count) {
    const auto byte = std::to_integer<unsigned>(take());
    if (byte >= count) good_ = false;
    value = byte < count ? static_cast<E>(byte) : E{};
  }
  void choice(WrapAlgorithm& value) {
    const auto byte = std::to_integer<unsigned>(take());
    const bool known = byte >= 1 && byte <= 3;
    if (!known) good_ = false;
    value = known ? static_cast<WrapAlgorithm>(byte) : WrapAlgorithm::Gcm;
  }
  template <size_t N>
  void block(std::array<std::byte, N>& value) {
    for (std::byte& byte : value) byte = take();
  }
  template <size_t N>
  void bounded(Bounded<N>& value) {
    number(value.length);
    if (value.length > N) {
      good_ = false;
      value.length = 0;
    }
    for (size_t i = 0; i < N; ++i) {
      value.bytes[i] = take();
      if (i >= value.length && value.bytes[i] != std::byte{0}) good_ = false;
    }
  }

  bool good() const { return good_; }
  bool restIsZero() const {
    for (const std::byte byte : frame_.subspan(at_)) {
      if (byte != std::byte{0}) return false;
    }
    return true;
  }

 private:
  std::byte take() {
    CHECK(at_ < frame_.size());  // the frame's size was checked, and the largest body fits: see the test
    return frame_[at_++];
  }
  ByteSpan frame_;
  size_t at_ = 0;
  bool good_ = true;
};

// --- the bodies ------------------------------------------------------------------------------------------------------
// B is the body, const when it is written.

template <typename B, typename T>
concept Is = std::is_same_v<std::remove_const_t<B>, T>;

template <typename A, typename B>
void keyFields(A& archive, B& body) {
  archive.number(body.index);
  archive.number(body.count);
  archive.choice(body.kind, KEY_KIND_COUNT);
  archive.choice(body.spelling, SPELLING_COUNT);
  archive.choice(body.form, 2);
  archive.choice(body.proof, STATUS_COUNT);
  archive.flag(body.sensitive);
  archive.flag(body.extractable);
  archive.flag(body.gcm);
  archive.flag(body.oaepSha256);
  archive.flag(body.oaepSha1);
  archive.number(body.bits);
  archive.block(body.publicKey);
  archive.bounded(body.id);
  archive.bounded(body.label);
}

template <typename A, typename B>
void helloFields(A& archive, B& body) {
  archive.number(body.version);
  archive.choice(body.login, STATUS_COUNT);
  archive.number(body.tokenFlags);
  archive.number(body.keyCount);
  archive.number(body.sessions);
  archive.bounded(body.module);
  archive.bounded(body.label);
  archive.bounded(body.manufacturer);
  archive.bounded(body.model);
  archive.bounded(body.serial);
}

template <typename A, typename B>
void askFields(A& archive, B& body) {
  if constexpr (Is<B, List> || Is<B, Probe>) {
    archive.number(body.index);
  } else if constexpr (Is<B, Derive>) {
    archive.number(body.key);
    archive.number(body.slot);
    archive.block(body.peer);
  } else if constexpr (Is<B, Sign>) {
    archive.number(body.key);
    archive.number(body.messageBytes);
  } else if constexpr (Is<B, Wrap> || Is<B, Unwrap>) {
    archive.number(body.key);
    archive.number(body.slot);
    archive.choice(body.algorithm);
    archive.block(body.bound);
    if constexpr (Is<B, Unwrap>) archive.bounded(body.blob);
  } else if constexpr (Is<B, Generate> || Is<B, Import>) {
    archive.choice(body.kind, KEY_KIND_COUNT);
    if constexpr (Is<B, Import>) archive.number(body.slot);
    archive.bounded(body.id);
    archive.bounded(body.label);
  } else if constexpr (Is<B, Random>) {
    archive.number(body.slot);
    archive.number(body.bytes);
  } else if constexpr (Is<B, Login>) {
    archive.number(body.slot);
    archive.number(body.pinBytes);
    archive.flag(body.force);
  } else {
    static_assert(Is<B, Hello> || Is<B, Ping> || Is<B, Logout>);
  }
}

template <typename A, typename B>
void answerFields(A& archive, B& body) {
  if constexpr (Is<B, HelloReply>) {
    helloFields(archive, body);
  } else if constexpr (Is<B, KeyInfo>) {
    keyFields(archive, body);
  } else if constexpr (Is<B, SignReply>) {
    archive.block(body.signature);
  } else if constexpr (Is<B, WrapReply>) {
    archive.bounded(body.blob);
  } else if constexpr (Is<B, PingReply>) {
    archive.number(body.rssKiB);
    archive.number(body.calls);
    archive.number(body.threads);
    archive.number(body.recoveries);
  } else if constexpr (Is<B, ProbeReply>) {
    archive.number(body.index);
    archive.number(body.count);
    archive.bounded(body.what);
    archive.choice(body.trial, TRIAL_COUNT);
    archive.number(body.ckr);
    archive.number(body.microseconds);
    archive.bounded(body.call);
  } else {
    static_assert(Is<B, Done>);
  }
}

template <typename A, typename B>
void controlFields(A& archive, B& body) {
  if constexpr (Is<B, WorkerUp>) {
    archive.number(body.epoch);
    archive.number(body.pid);
    archive.choice(body.login, STATUS_COUNT);
    archive.bounded(body.detail);
  } else if constexpr (Is<B, WorkerDied>) {
    archive.number(body.epoch);
    archive.number(body.pid);
    archive.choice(body.status, STATUS_COUNT);
    archive.number(body.waitStatus);
    archive.number(body.restartInMs);
    archive.bounded(body.detail);
  } else if constexpr (Is<B, WorkerLayer>) {
    archive.number(body.epoch);
    archive.bounded(body.layer);
    archive.number(body.state);
    archive.bounded(body.detail);
  } else if constexpr (Is<B, Denials>) {
    archive.number(body.epoch);
    archive.number(body.total);
    archive.bounded(body.lastCall);
  } else if constexpr (Is<B, KillWorker>) {
    archive.number(body.epoch);
    archive.choice(body.reason, KILL_REASON_COUNT);
  } else if constexpr (Is<B, TrialHung>) {
    archive.number(body.epoch);
    archive.number(body.afterMs);
    archive.bounded(body.what);
  } else {
    static_assert(Is<B, Stop>);
  }
}

// --- variants --------------------------------------------------------------------------------------------------------

// The verb is the alternative's place in the variant: appending keeps the others.
template <typename V, size_t I = 0>
bool emplaceAt(V& variant, size_t index) {
  if constexpr (I < std::variant_size_v<V>) {
    if (index != I) return emplaceAt<V, I + 1>(variant, index);
    variant.template emplace<I>();
    return true;
  } else {
    return false;
  }
}

template <typename V>
bool readKind(Reader& reader, V& variant) {
  uint8_t kind = 0;
  reader.number(kind);
  return emplaceAt(variant, kind);
}

template <typename V>
void writeKind(Writer& writer, const V& variant) {
  writer.number(static_cast<uint8_t>(variant.index()));
}

// The part that all three parsers begin with.
std::optional<FrameProblem> open(ByteSpan datagram, size_t bytes, uint32_t magic, Reader& reader) {
  if (datagram.size() != bytes) return FrameProblem::Length;
  uint32_t found = 0;
  reader.number(found);
  if (found != magic) return FrameProblem::Magic;
  return std::nullopt;
}

std::optional<FrameProblem> close(const Reader& reader) {
  if (!reader.good()) return FrameProblem::Field;
  if (!reader.restIsZero()) return FrameProblem::Padding;
  return std::nullopt;
}

}  // namespace

RequestFrame writeRequest(const Request& request) {
  RequestFrame frame{};
  Writer writer(frame);
  writer.number(REQUEST_MAGIC);
  writer.number(request.epoch);
  writer.number(request.id);
  writeKind(writer, request.ask);
  std::visit([&](const auto& body) { askFields(writer, body); }, request.ask);
  return frame;
}

Result<Request, FrameProblem> parseRequest(ByteSpan datagram) {
  Reader reader(datagram);
  if (const auto problem = open(datagram, REQUEST_BYTES, REQUEST_MAGIC, reader)) return refuse(*problem);
  Request request;
  reader.number(request.epoch);
  reader.number(request.id);
  if (!readKind(reader, request.ask)) return refuse(FrameProblem::Kind);
  std::visit([&](auto& body) { askFields(reader, body); }, request.ask);
  if (const auto problem = close(reader)) return refuse(*problem);
  return request;
}

ReplyFrame writeReply(const Reply& reply) {
  ReplyFrame frame{};
  Writer writer(frame);
  writer.number(REPLY_MAGIC);
  writer.number(reply.epoch);
  writer.number(reply.id);
  writer.choice(reply.status, STATUS_COUNT);
  writer.number(reply.ckr);
  writeKind(writer, reply.answer);
  std::visit([&](const auto& body) { answerFields(writer, body); }, reply.answer);
  return frame;
}

Result<Reply, FrameProblem> parseReply(ByteSpan datagram) {
  Reader reader(datagram);
  if (const auto problem = open(datagram, REPLY_BYTES, REPLY_MAGIC, reader)) return refuse(*problem);
  Reply reply;
  reader.number(reply.epoch);
  reader.number(reply.id);
  reader.choice(reply.status, STATUS_COUNT);
  reader.number(reply.ckr);
  if (!readKind(reader, reply.answer)) return refuse(FrameProblem::Kind);
  std::visit([&](auto& body) { answerFields(reader, body); }, reply.answer);
  if (const auto problem = close(reader)) return refuse(*problem);
  // A refusal carries nothing else.
  if (reply.status != Status::Ok && !std::holds_alternative<Done>(reply.answer)) return refuse(FrameProblem::Field);
  return reply;
}

ControlFrame writeControl(const Control& control) {
  ControlFrame frame{};
  Writer writer(frame);
  writer.number(CONTROL_MAGIC);
  writeKind(writer, control);
  std::visit([&](const auto& body) { controlFields(writer, body); }, control);
  return frame;
}

Result<Control, FrameProblem> parseControl(ByteSpan datagram) {
  Reader reader(datagram);
  if (const auto problem = open(datagram, CONTROL_BYTES, CONTROL_MAGIC, reader)) return refuse(*problem);
  Control control;
  if (!readKind(reader, control)) return refuse(FrameProblem::Kind);
  std::visit([&](auto& body) { controlFields(reader, body); }, control);
  if (const auto problem = close(reader)) return refuse(*problem);
  return control;
}

}  // namespace sallyport::hsm
