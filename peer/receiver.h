// receiver.h - what receive(n) gives: whole frames, proved genuine, gathered into a buffer of the caller's choice.
// Part of: peer (sans-IO). docs/protocol.md §13.4. Bytes of the wire wait here as they came and are decrypted when a
// call takes them; never here: a plain byte that leaves before its frame's tag was right.
#pragma once

#include "common/byte_queue.h"
#include "peer/frame_opener.h"

namespace sallyport::peer {

enum class Status : uint8_t {
  Ok,
  SlowPeer,  // the time is over; what half a frame there is stays for the next call
  TooBig,    // the first frame is larger than the buffer: `needed` says how large
  Ended,     // the peer ended this direction, authenticated (hard mode)
  Closed,    // the wire ended between two frames, which in base mode may mean anything
  Broken,    // `fault` says what happened; nothing more will come
};

struct Received {
  size_t bytes = 0;     // at the buffer's beginning, all proved genuine, whatever the status is
  uint32_t code = 0;    // of all of them; of the frame that is too big
  uint32_t frames = 0;  // how many, empty ones too
  Status status = Status::Ok;
  uint32_t needed = 0;                    // TooBig
  std::optional<wire::DropReason> fault;  // Broken
};

class Receiver {
 public:
  // How much is read at once.
  static constexpr size_t READ_BYTES = 64 * 1024;

  // `keepBytes` of memory stay while nothing is held: 0 for who has many of these and reads into memory of his own.
  explicit Receiver(FrameOpener opener, size_t keepBytes = READ_BYTES) : opener_(std::move(opener)), wire_(keepBytes) {}

  // Where bytes of the wire go; empty while as much is held as the largest frame needs: then don't read. Tell with
  // arrived() how many came.
  MutableByteSpan room();
  void arrived(size_t bytes) { wire_.added(bytes); }
  // The same for bytes that lie elsewhere: at most roomBytes() of them.
  size_t roomBytes() const;
  void arrived(ByteSpan bytes);
  // The wire ended, or failed: what is held can still be taken, then the verdict follows.
  void wireEnded() { wireEnded_ = true; }
  void wireFailed() { wireEnded_ = wireFailed_ = true; }

  // Goes on with one call of receive: `soFar` is its result up to now, `buffer` the whole buffer. True if the call is
  // over; false if it needs more from the wire (and will be SlowPeer if nothing comes).
  [[nodiscard]] bool gather(FrameCipher& cipher, MutableByteSpan buffer, Received& soFar);

  // RECV or WAIT of the document: in the middle of a frame, or between two.
  bool insideFrame() const { return opener_.header().has_value() || !wire_.empty(); }
  size_t heldBytes() const { return wire_.size(); }
  uint64_t opened() const { return opener_.opened(); }

 private:
  enum class Step : uint8_t { Starved, Done, Dead };
  Step needHeader(FrameCipher& cipher);
  Step control(FrameCipher& cipher);
  bool isControl(const wire::PeerHeader& header) const {
    return opener_.mode() == wire::PeerMode::Hard && header.code == wire::PEER_CODE_CONTROL;
  }
  bool starved(Received& soFar) const;
  bool broken(Received& soFar);

  FrameOpener opener_;
  ByteQueue wire_;
  bool wireEnded_ = false;
  bool wireFailed_ = false;
  bool ended_ = false;
};

}  // namespace sallyport::peer
