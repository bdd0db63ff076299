// link.h - what a wire protocol looks like to those who carry something over it. Part of: netd-worker.
// docs/protocol.md §2, §5. A Link is the encrypted side of an established connection without its socket: it turns text
// into frames and frames into text, both in place. There is one class for each protocol (curve_link.h, peer_link.h);
// tunnel, echo and channel are templates over it, so no frame costs a virtual call. What a Link has:
//
//   HEAD_BYTES, AROUND_BYTES what a frame has in front of its text, and around it in all
//   MAX_TEXT_BYTES           the longest text of a frame that we send in a stream
//   FRAMES_PER_TURN          how many such frames fit the worker's scratch memory
//   seal, sealEnd            the text that lies between head and tail becomes a frame
//   read, openEach           from the socket into scratch memory, and from there to the texts
//   partial, partialBytes    whether and how much is here of a frame that isn't whole
//   done                     the texts of that read are dealt with
//   DIALLER_SPEAKS_FIRST     whether the first frame says who it is: then owesFirstWord, sealOpen, OPEN_BYTES
//   CHANNELS_END             whether a message channel has an authenticated end too
//
// Never here: a text handed out before its tag was judged.
#pragma once

#include <cstdint>

#include "common/bytes.h"
#include "netd/wire_io.h"

namespace sallyport::netd {

enum class ReadState : uint8_t {
  Drained,    // nothing more for now
  More,       // there may be more: come again
  Eof,        // the wire ended at a frame's boundary
  EofInside,  // the wire ended inside a frame
  Failed,     // the wire failed
};

// What one read of the socket brought: to be given to openEach() before the scratch memory is used again.
struct WireRead {
  ReadState state = ReadState::Drained;
  MutableByteSpan bytes;  // in the scratch memory; may be empty
};

// A frame that was opened. Valid until the scratch memory is used again.
struct OpenedFrame {
  MutableByteSpan text;
  MutableByteSpan frame;  // with head and tail: may be sealed again in place
  uint32_t code = 0;      // of the peer protocol
  bool end = false;       // it ends its direction (of a stream: see protocol §5)
};

}  // namespace sallyport::netd
