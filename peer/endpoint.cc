// endpoint.cc - see endpoint.h.
#include "peer/endpoint.h"

namespace sallyport::peer {

using wire::DropReason;
using State = Transport::Io::State;

// One call at a time, from one thread.
class Endpoint::Call {
 public:
  explicit Call(Endpoint& endpoint) : endpoint_(endpoint) {
    CHECK(endpoint.owner_ == std::this_thread::get_id() && !endpoint.inCall_);
    endpoint.inCall_ = true;
  }
  ~Call() { endpoint_.inCall_ = false; }

 private:
  Endpoint& endpoint_;
};

// False if nothing could be read now.
bool Endpoint::readSome() {
  if (!wireOpen_) return false;
  const MutableByteSpan room = receiver_.room();
  if (room.empty()) return false;
  const auto io = transport_.read(room);
  switch (io.state) {
    case State::Blocked: return false;
    case State::Done: receiver_.arrived(io.bytes); return true;
    case State::Ended: receiver_.wireEnded(); break;
    case State::Failed: receiver_.wireFailed(); break;
  }
  wireOpen_ = false;
  return true;
}

// False if nothing could be written now.
bool Endpoint::writeSome() {
  if (writeFailed_ || !sender_.insideFrame()) return false;
  const auto io = transport_.write(sender_.pending());
  if (io.state == State::Blocked) return false;
  if (io.state == State::Done)
    sender_.wrote(io.bytes);
  else
    writeFailed_ = true;
  return true;
}

// Until the frame that waits is written: true. Reads what comes meanwhile.
bool Endpoint::write(Sent& sent, uint64_t untilMs) {
  while (sender_.insideFrame()) {
    if (writeFailed_) {
      sent.status = Status::Broken;
      sent.fault = DropReason::TransportError;
      return false;
    }
    if (writeSome() || readSome()) continue;
    if (transport_.nowMs() >= untilMs) {
      sent.status = Status::SlowPeer;
      return false;
    }
    transport_.wait(wireOpen_ && !receiver_.room().empty(), true, untilMs);
  }
  return true;
}

Sent Endpoint::put(ByteSpan data, uint32_t code, uint64_t untilMs) {
  Sent sent;
  do {
    // What an earlier call left, or the frame before.
    if (!write(sent, untilMs)) return sent;
    const auto taken = sender_.put(cipher_, data.subspan(sent.bytes), code);
    if (!taken) {
      sent.status = Status::Broken;
      sent.fault = taken.error();
      return sent;
    }
    sent.bytes += *taken;
  } while (sent.bytes < data.size());
  write(sent, untilMs);
  return sent;
}

Sent Endpoint::send(ByteSpan data, uint32_t code, uint32_t timeoutMs) {
  const Call call(*this);
  if (endSent_) return {0, Status::Broken, DropReason::AfterEnd};
  if (sender_.mode() == wire::PeerMode::Hard && code == wire::PEER_CODE_CONTROL)
    return {0, Status::Broken, DropReason::ReservedCode};
  return put(data, code, transport_.nowMs() + timeoutMs);
}

Sent Endpoint::control(wire::PeerControl what, uint32_t timeoutMs) {
  const Call call(*this);
  CHECK(sender_.mode() == wire::PeerMode::Hard);
  if (endSent_) return {0, Status::Broken, DropReason::AfterEnd};
  Sent sent;
  const uint64_t untilMs = transport_.nowMs() + timeoutMs;
  if (!write(sent, untilMs)) return sent;  // not begun: to be called again
  endSent_ = what == wire::PeerControl::End;
  return put(endSent_ ? ByteSpan() : asBytes(wire::PEER_OPEN_TEXT), wire::PEER_CODE_CONTROL, untilMs);
}

Sent Endpoint::flush(uint32_t timeoutMs) {
  const Call call(*this);
  Sent sent;
  write(sent, transport_.nowMs() + timeoutMs);
  return sent;
}

Received Endpoint::receive(MutableByteSpan buffer, uint32_t timeoutMs) {
  const Call call(*this);
  const uint64_t untilMs = transport_.nowMs() + timeoutMs;
  Received received;
  // When the time is over, what is there is still taken; but a peer that sends empty frames without end can't hold the
  // call for ever.
  size_t lateReads = buffer.size() / Receiver::READ_BYTES + 2;
  while (!receiver_.gather(cipher_, buffer, received)) {
    const bool wrote = writeSome();
    const bool moved = readSome() || wrote;
    if (transport_.nowMs() >= untilMs && (!moved || lateReads-- == 0)) break;
    if (!moved) transport_.wait(wireOpen_, sender_.insideFrame() && !writeFailed_, untilMs);
  }
  return received;
}

}  // namespace sallyport::peer
