// frame.h - Cap'n Proto's stream framing: a header judged before anything is allocated, and messages that are wiped.
// Part of: common (any process). No descriptor and no loop: clients/cpp puts a blocking socket around it;
// common/link.h does the same for a loop, in place.
//
// The layout: le32 segments-1, then a le32 word count for each segment, padded to 8 bytes, then the segments. Debian's
// libcapnp 0.9.2 writes out of bounds on a message that begins FF FF FF FF, so it never sees a header here.
#pragma once

#include <cstddef>
#include <vector>

#include <capnp/message.h>

#include "common/bytes.h"

namespace sallyport {

struct FrameHeader {
  enum class State { NeedMore, Bad, TooBig, Complete };  // Complete: the header is, the message may not be

  size_t headerBytes = 0;
  size_t messageBytes = 0;  // header included
  unsigned segments = 0;
  State state = State::NeedMore;
};

// Judges the beginning of `bytes`.
FrameHeader parseFrameHeader(ByteSpan bytes, size_t maxMessageBytes, unsigned maxSegments);

// Owns a copy of one message, aligned, and wipes it: plaintext and vouches pass through here. `bytes` begins with
// the message, whole, and `header` is parseFrameHeader's of it.
class OwnedMessage final : public capnp::MessageReader {
 public:
  OwnedMessage(ByteSpan bytes, const FrameHeader& header, capnp::ReaderOptions limits);
  ~OwnedMessage() noexcept(false);

  kj::ArrayPtr<const capnp::word> getSegment(uint id) override;

 private:
  struct Segment {
    const capnp::word* data = nullptr;
    size_t size = 0;
  };
  std::vector<uint64_t> words_;
  std::vector<Segment> segments_;
};

// Appends one message to `out`. When the buffer has to grow, the old one is wiped.
void appendFrame(std::vector<std::byte>& out, kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments);

}  // namespace sallyport
