// receiver.cc - see receiver.h.
#include "peer/receiver.h"

#include <algorithm>
#include <cstring>

namespace sallyport::peer {

using wire::DropReason;
using wire::PEER_HEADER_BYTES;
using wire::PEER_TAG_BYTES;

size_t Receiver::roomBytes() const {
  // The largest frame, and the beginning of the next: room never runs out in the middle of one.
  const uint64_t limit = wire::peerFrameBytes(opener_.maxFrameBytes()) + READ_BYTES;
  return opener_.dead() || ended_ || wire_.size() >= limit ? 0 : limit - wire_.size();
}

MutableByteSpan Receiver::room() {
  const size_t most = roomBytes();
  if (most == 0) return {};
  // The queue grows with what comes, not with what a header promises: to twice of what is held, at most.
  const MutableByteSpan all = wire_.room(std::min(READ_BYTES, most));
  return all.first(std::min(all.size(), most));
}

void Receiver::arrived(ByteSpan bytes) {
  CHECK(bytes.size() <= roomBytes());
  wire_.append(bytes);
}

bool Receiver::broken(Received& soFar) {
  wire_.clear();
  soFar.status = Status::Broken;
  soFar.fault = opener_.dead();
  return true;
}

// Nothing more can be done with what is held.
bool Receiver::starved(Received& soFar) const {
  soFar.status = Status::SlowPeer;
  if (!wireEnded_) return false;
  soFar.status = Status::Broken;
  if (wireFailed_)
    soFar.fault = DropReason::TransportError;
  else if (insideFrame() || opener_.mode() == wire::PeerMode::Hard)
    soFar.fault = DropReason::Truncated;
  else
    soFar.status = Status::Closed;
  return true;
}

Receiver::Step Receiver::needHeader(FrameCipher& cipher) {
  if (opener_.header()) return Step::Done;
  if (wire_.size() < PEER_HEADER_BYTES) return Step::Starved;
  const auto header = opener_.openHeader(cipher, wire_.bytes().first<PEER_HEADER_BYTES>());
  if (!header) return Step::Dead;
  wire_.consume(PEER_HEADER_BYTES);
  // protocol §13.2: the reserved code carries two things, and nothing else is waited for.
  if (isControl(*header) && !wire::isPeerControlLength(header->length)) {
    opener_.die(DropReason::ReservedCode);
    return Step::Dead;
  }
  return Step::Done;
}

// An end or an open.
Receiver::Step Receiver::control(FrameCipher& cipher) {
  const size_t length = opener_.header()->length;
  if (wire_.size() < length + PEER_TAG_BYTES) return Step::Starved;
  const MutableByteSpan body = wire_.mutableBytes().first(length + PEER_TAG_BYTES);
  if (opener_.openBody(cipher, body)) return Step::Dead;
  const auto what = wire::peerControl(body.first(length));
  wire_.consume(body.size());
  if (!what) {
    opener_.die(DropReason::ReservedCode);
    return Step::Dead;
  }
  ended_ = *what == wire::PeerControl::End;
  return Step::Done;
}

bool Receiver::gather(FrameCipher& cipher, MutableByteSpan buffer, Received& soFar) {
  for (;;) {
    if (ended_ && !wire_.empty()) opener_.die(DropReason::AfterEnd);
    if (opener_.dead()) return broken(soFar);
    if (ended_) {
      soFar.status = Status::Ended;
      return true;
    }
    const Step step = needHeader(cipher);
    if (step == Step::Starved) return starved(soFar);
    if (step == Step::Dead) continue;
    const wire::PeerHeader header = *opener_.header();
    if (isControl(header)) {
      if (control(cipher) == Step::Starved) return starved(soFar);
      continue;
    }
    // One call, one code; and a frame is taken whole or not at all. Its header stays where it is.
    soFar.status = Status::Ok;
    if (soFar.frames > 0 && header.code != soFar.code) return true;
    if (header.length > buffer.size() - soFar.bytes) {
      if (soFar.frames > 0) return true;
      soFar.code = header.code;
      soFar.needed = header.length;
      soFar.status = Status::TooBig;
      return true;
    }
    const size_t bodyBytes = header.length + PEER_TAG_BYTES;
    if (wire_.size() < bodyBytes) return starved(soFar);
    const MutableByteSpan body = wire_.mutableBytes().first(bodyBytes);
    if (opener_.openBody(cipher, body)) continue;
    std::ranges::copy(body.first(header.length), buffer.begin() + static_cast<ptrdiff_t>(soFar.bytes));
    wire_.consume(bodyBytes);
    soFar.bytes += header.length;
    soFar.code = header.code;
    soFar.frames += 1;
    if (soFar.bytes == buffer.size()) return true;
  }
}

}  // namespace sallyport::peer
