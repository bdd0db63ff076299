// endpoint.h - the peer protocol as its document offers it to a program: send, receive, and which of SEND, RECV and
// WAIT one is in. Part of: peer. docs/protocol.md §13.4.
//
// The wire and the clock are the caller's (Transport), so the same class runs over a socket, a pipe to ssh or a test's
// two queues. An Endpoint belongs to the thread that made it: any other is told so by an abort, and so is a Transport
// that calls back into it.
#pragma once

#include <thread>

#include "peer/receiver.h"
#include "peer/sender.h"

namespace sallyport::peer {

class Transport {
 public:
  struct Io {
    enum class State : uint8_t { Done, Blocked, Ended, Failed };
    State state;
    size_t bytes = 0;  // Done: at least 1
  };
  virtual ~Transport() = default;
  // Neither waits. `bytes` is never empty.
  virtual Io read(MutableByteSpan bytes) = 0;
  virtual Io write(ByteSpan bytes) = 0;
  // Until a read (or, with `toWrite`, a write) would not be blocked, or until the time. Too early does no harm.
  virtual void wait(bool toRead, bool toWrite, uint64_t untilMs) = 0;
  virtual uint64_t nowMs() = 0;
};

struct Sent {
  size_t bytes = 0;                       // taken: they have left, or will with what waits in their frame
  Status status = Status::Ok;             // or SlowPeer, Broken
  std::optional<wire::DropReason> fault;  // Broken
};

// A frame's payload, if nothing else is asked for: small enough that it stays in the second-level cache between hash,
// cipher and copies, large enough that what is done once a frame is lost in it.
inline constexpr uint32_t DEFAULT_FRAME_BYTES = 64 * 1024;

class Endpoint {
 public:
  // Both directions of one connection, whose preambles (if there are any) are exchanged. `cipher` and `transport`
  // outlive this.
  Endpoint(FrameSealer sealer, FrameOpener opener, FrameCipher& cipher, Transport& transport,
           uint32_t frameBytes = DEFAULT_FRAME_BYTES)
      : sender_(std::move(sealer), frameBytes), receiver_(std::move(opener)), cipher_(cipher), transport_(transport) {}

  // Any size, in frames of one code; nothing is one empty frame. The reserved code is refused in hard mode, as is
  // anything after sendEnd(); that changes nothing. What comes meanwhile is read, so that two sides which send at the
  // same time don't wait for each other. SlowPeer when the time is over and the peer takes nothing.
  Sent send(ByteSpan data, uint32_t code, uint32_t timeoutMs);
  // The authenticated end of what we send (hard mode); nothing can be sent after it.
  Sent sendEnd(uint32_t timeoutMs) { return control(wire::PeerControl::End, timeoutMs); }
  // What the dialling side says first if it has nothing else to say (hard mode).
  Sent sendOpen(uint32_t timeoutMs) { return control(wire::PeerControl::Open, timeoutMs); }
  // What an earlier call left behind.
  Sent flush(uint32_t timeoutMs);

  Received receive(MutableByteSpan buffer, uint32_t timeoutMs);

  // SEND: a frame of ours is not wholly written. RECV: one of the peer's is not wholly read. WAIT: neither.
  bool sending() const { return sender_.insideFrame(); }
  bool receiving() const { return receiver_.insideFrame(); }

 private:
  class Call;
  Sent control(wire::PeerControl what, uint32_t timeoutMs);
  Sent put(ByteSpan data, uint32_t code, uint64_t untilMs);
  bool write(Sent& sent, uint64_t untilMs);
  bool writeSome();
  bool readSome();

  Sender sender_;
  Receiver receiver_;
  FrameCipher& cipher_;
  Transport& transport_;
  bool wireOpen_ = true;  // nothing has told that no more will come
  bool writeFailed_ = false;
  bool endSent_ = false;
  bool inCall_ = false;
  std::thread::id owner_ = std::this_thread::get_id();
};

}  // namespace sallyport::peer
