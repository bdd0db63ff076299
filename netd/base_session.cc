// base_session.cc - see base_session.h.
#include "netd/base_session.h"

#include <cstring>

#include "common/capnp_bytes.h"
#include "common/log.h"
#include "netd/vault_refusal.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {

uint32_t be32(ByteSpan bytes) {
  uint32_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return __builtin_bswap32(value);
}

DropReason reasonOf(const kj::Exception& failure) {
  return failure.getType() == kj::Exception::Type::DISCONNECTED ? DropReason::VaultUnavailable
                                                                : DropReason::VaultRefused;
}

void logFailure(kj::Exception&&) { logError("an answer of the vault could not be handled"); }

}  // namespace

BaseSession::BaseSession(std::shared_ptr<CallGate> gate, proto::PeerSession::Client session)
    : gate_(std::move(gate)), session_(kj::mv(session)), alive_(std::make_shared<bool>(true)) {}

// That we let go of its object is what ends it there. A call to say so would be one more, outside the gate.
BaseSession::~BaseSession() { *alive_ = false; }

void BaseSession::seal(ByteSpan frames, OnSealed onSealed) {
  const capnp::MessageSize size{16 + frames.size() / sizeof(capnp::word), 0};
  auto request = std::make_shared<decltype(session_.sealRequest())>(session_.sealRequest(size));
  request->setFrames(toData(frames));
  gate_->enter(alive_, [request, weakGate = std::weak_ptr(gate_), weak = std::weak_ptr(alive_), onSealed] {
    const auto gate = weakGate.lock();
    const auto alive = weak.lock();
    request->send()
        .then(
            [gate, alive, onSealed](auto&& answer) {
              gate->leave();
              if (!*alive) return;
              const auto outcome = answer.getOutcome();
              if (outcome.isRefused()) return onSealed(refuse(dropReasonOf(outcome.getRefused())));
              onSealed(toBytes(outcome.getFrames()));
            },
            [gate, alive, onSealed](kj::Exception&& failure) {
              gate->leave();
              if (*alive) onSealed(refuse(reasonOf(failure)));
            })
        .detach(logFailure);
  });
}

void BaseSession::open(ByteSpan bytes, OnOpened onOpened) {
  const capnp::MessageSize size{16 + bytes.size() / sizeof(capnp::word), 0};
  auto request = std::make_shared<decltype(session_.openRequest())>(session_.openRequest(size));
  request->setFrames(toData(bytes));
  const size_t given = bytes.size();
  gate_->enter(alive_, [request, weakGate = std::weak_ptr(gate_), weak = std::weak_ptr(alive_), onOpened, given] {
    const auto gate = weakGate.lock();
    const auto alive = weak.lock();
    request->send()
        .then(
            [gate, alive, onOpened, given](auto&& answer) {
              gate->leave();
              if (!*alive) return;
              onOpened(read(answer.getOutcome(), given));
            },
            [gate, alive, onOpened](kj::Exception&& failure) {
              gate->leave();
              if (*alive) onOpened(refuse(reasonOf(failure)));
            })
        .detach(logFailure);
  });
}

// Not through the gate, where it would take a place for as long as the session lives: the vault has few of these.
void BaseSession::whenEnded(OnEnded onEnded) {
  ended_ = session_.endedRequest()
               .send()
               .then([onEnded](auto&&) { onEnded(DropReason::VaultRefused); },
                     [onEnded](kj::Exception&& failure) {
                       // A vault that doesn't tell: the next frame will.
                       if (failure.getType() != kj::Exception::Type::UNIMPLEMENTED)
                         onEnded(DropReason::VaultUnavailable);
                     })
               .eagerlyEvaluate(logFailure);
}

Result<BaseSession::Opened, DropReason> BaseSession::read(proto::OpenedOutcome::Reader outcome, size_t given) {
  if (outcome.isRefused()) return refuse(dropReasonOf(outcome.getRefused()));
  const auto opened = outcome.getOpened();
  const auto frames = toBytes(opened.getFrames());
  Opened result{.frames = frames, .sanctified = opened.getSanctified(), .fault = {}, .given = given};
  if (result.sanctified > frames.size()) return refuse(DropReason::VaultRefused);
  if (opened.hasFault() && opened.getFault().size() > 0)
    result.fault = wire::dropReasonNamed(opened.getFault().cStr()).value_or(DropReason::VaultRefused);
  return result;
}

void BaseFrames::add(const BaseSession::Opened& opened) {
  if (opened.sanctified > 0) genuine_ = bytes_.size() + opened.sanctified;
  heldBack_ = heldBack_ + opened.given - opened.frames.size();
  bytes_.append(opened.frames);
  budget_->take(opened.frames.size());
  if (!fault_) fault_ = opened.fault;
}

std::optional<BaseFrames::Frame> BaseFrames::front() const {
  if (genuine_ < wire::PEER_OVERHEAD_BYTES) return std::nullopt;
  const ByteSpan bytes = bytes_.bytes();
  const size_t length = be32(bytes);
  if (genuine_ < wire::peerFrameBytes(length)) return std::nullopt;
  return Frame{bytes.subspan(wire::PEER_HEADER_BYTES, length), be32(bytes.subspan(4))};
}

void BaseFrames::pop() {
  const size_t frame = wire::peerFrameBytes(be32(bytes_.bytes()));
  genuine_ -= frame;
  bytes_.consume(frame);
  budget_->give(frame);
}

std::optional<wire::PeerHeader> BaseFrames::underWay() const {
  const ByteSpan bytes = bytes_.bytes();
  if (genuine_ > 0 || bytes.size() < wire::PEER_HEADER_BYTES) return std::nullopt;
  return wire::PeerHeader{.length = be32(bytes), .code = be32(bytes.subspan(4)), .sequence = be32(bytes.subspan(8))};
}

}  // namespace sallyport::netd
