// session.cc - see session.h.
#include "netd/session.h"

namespace sallyport::netd {

using wire::DropReason;

Session::Session(Role role, const SharedKey& key)
    : role_(role), clientToServer_(clientToServerKey(key)), serverToClient_(serverToClientKey(key)) {}

std::optional<DropReason> Session::seal(MessageCipher& cipher, MutableByteSpan frame) {
  CHECK(frame.size() >= MESSAGE_TEXT_OFFSET && frame.size() <= wire::MAX_FRAME_BYTES);
  if (dead_) return dead_;
  // protocol §2: the last counter is never used, so none is ever used twice.
  if (sendCounter_ == wire::LAST_COUNTER) return dead_ = DropReason::CounterExhausted;
  wire::writeMessageHeader(frame.first<wire::FRAME_HEADER_BYTES + wire::MESSAGE_BOX_OFFSET>(), sendCounter_,
                           frame.size() - MESSAGE_TEXT_OFFSET);
  cipher.seal(frame.subspan(wire::FRAME_HEADER_BYTES + wire::MESSAGE_BOX_OFFSET), sendCounter_,
              role_ == Role::Client ? clientToServer_.expose() : serverToClient_.expose());
  ++sendCounter_;
  return std::nullopt;
}

Result<MutableByteSpan, DropReason> Session::open(MessageCipher& cipher, MutableByteSpan packet) {
  if (dead_) return refuse(*dead_);
  if (auto fault = wire::checkMessage(packet, receiveCounter_)) return refuse(*(dead_ = fault));
  if (receiveCounter_ == wire::LAST_COUNTER) return refuse(*(dead_ = DropReason::CounterExhausted));
  MutableByteSpan box = packet.subspan(wire::MESSAGE_BOX_OFFSET);
  if (!cipher.open(box, receiveCounter_, role_ == Role::Client ? serverToClient_.expose() : clientToServer_.expose())) {
    return refuse(*(dead_ = DropReason::BadBox));
  }
  ++receiveCounter_;
  return box.subspan(wire::BOX_TAG_BYTES);
}

void Session::skipToCounters(uint64_t send, uint64_t receive) {
  CHECK(send >= sendCounter_ && receive >= receiveCounter_);
  sendCounter_ = send;
  receiveCounter_ = receive;
}

}  // namespace sallyport::netd
