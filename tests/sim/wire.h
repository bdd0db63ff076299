// wire.h - a connection through a hostile network: two directions of frames that become bytes. Part of: tests/sim.
// The honest ends write whole frames; what the network does to them is decided frame by frame, then the bytes are cut
// into pieces and delivered late, through a real socket, so that the product's reading code is what takes them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace sallyport::sim {

class End;
class World;
class Wire;

using Frame = std::vector<std::byte>;

// What the network does, once, to one frame of one direction.
enum class Deed : uint8_t {
  None,
  Flip,       // one bit
  Shorten,    // takes some bytes out of it
  Drop,       // takes it out
  Double,     // sends it twice
  Swap,       // sends it after the next one
  Garbage,    // random bytes before it
  Recorded,   // another connection's frame before it
  Reflect,    // the receiver's own frame before it
  Cut,        // the connection ends inside it
  CutBefore,  // the connection ends at its boundary
  Splice,     // from here on the bytes go to another connection, and that one's come here
  Stall,      // nothing more arrives, for long
};
inline constexpr uint8_t DEED_COUNT = 13;

struct Plan {
  Deed deed = Deed::None;
  bool toServer = true;
  size_t frame = 0;
};

// Why an end of this connection may fail.
enum Excuse : uint32_t {
  TAMPERED = 1,
  VAULT = 2,
  REVOKED = 4,
  ROTATED = 8,
  CROWDED = 16,
  ATTACKED = 32,  // one of its ends is no honest program
};

class Direction {
 public:
  void begin(World& world, Wire& wire, bool toServer);
  ~Direction();
  Direction() = default;
  Direction(const Direction&) = delete;
  Direction& operator=(const Direction&) = delete;

  // The receiver and the socket that it reads from; null discards.
  void connect(End* receiver, int fd);
  void send(Frame frame);
  // Behind what was sent, or (`now`) instead of it.
  void close(bool now);
  const std::vector<Frame>& frames() const { return frames_; }

 private:
  friend class Wire;
  void tamper(Frame frame);
  void append(const Frame& bytes);
  void pumpLater();
  void pump();

  World* world_ = nullptr;
  Wire* wire_ = nullptr;
  bool toServer_ = true;
  End* receiver_ = nullptr;
  int fd_ = -1;
  std::vector<Frame> frames_;  // as the honest sender wrote them
  std::optional<Frame> held_;
  std::vector<std::byte> pending_;
  size_t start_ = 0;
  uint64_t style_ = 0;  // how it cuts bytes into pieces
  bool closing_ = false;
  bool closed_ = false;
  bool stalled_ = false;
  bool scheduled_ = false;
};

class Wire {
 public:
  Wire(World& world, size_t id, Plan plan);

  void excuse(uint32_t why) { excuses_ |= why; }
  uint32_t excuses() const { return excuses_; }
  // Ends it both ways, whatever is under way.
  void cut();
  std::string describe() const;

  const size_t id;
  const Plan plan;
  size_t flippedBit = 0;  // Deed::Flip: which one, in the frame
  bool done = false;      // the deed was done
  bool spliced = false;   // bytes of another connection came in
  bool replayed = false;  // its client is a recording
  Direction toServer;
  Direction toClient;

 private:
  World& world_;
  uint32_t excuses_ = 0;
};

}  // namespace sallyport::sim
