// invariants.h - what must hold in every simulated world, and how a breach ends it. Part of: tests/sim.
#pragma once

#include <stdexcept>
#include <string>

namespace sallyport::sim {

// Each has a name, so that a canary can say which one it must break.
enum class Invariant {
  Delivery,    // what arrives was sent, in order, once, on this session
  OneFault,    // a fault ends exactly its connection, with a reason that can come from what was done to it
  Completion,  // an honest pair on a clean path completes
  Replay,      // recorded bytes never reach Established; an Established server has its one genuine client
  Nonce,       // no nonce or counter is used twice
  HalfOpen,    // between Cookie and Initiate a hash and nothing else; a bounded number
  Memory,      // nothing is held when all is over
};

inline const char* nameOf(Invariant invariant) {
  switch (invariant) {
    case Invariant::Delivery: return "delivery";
    case Invariant::OneFault: return "one-fault";
    case Invariant::Completion: return "completion";
    case Invariant::Replay: return "replay";
    case Invariant::Nonce: return "nonce";
    case Invariant::HalfOpen: return "half-open";
    case Invariant::Memory: return "memory";
  }
  return "?";
}

class Broken : public std::runtime_error {
 public:
  Broken(Invariant invariant, const std::string& what)
      : std::runtime_error(std::string(nameOf(invariant)) + ": " + what), invariant_(invariant) {}
  Invariant invariant() const { return invariant_; }

 private:
  Invariant invariant_;
};

inline void require(bool holds, Invariant invariant, const std::string& what) {
  if (!holds) throw Broken(invariant, what);
}

// Mistakes put in on purpose: the simulator must notice each.
enum class Canary {
  None,
  AnyCounter,     // a session that takes any later counter
  UnboundCookie,  // a server that takes any cookie of its own: curve_tun 1.0 as it was
  StaleNonces,    // a vault whose reservation was never durable, and without clock
  WrongVictim,    // a fault that ends a neighbour too
  KeptSecret,     // a server that remembers the ephemeral secret while it waits for the Initiate
  LostEnd,        // a receiver that takes a cut wire for the end of the stream
};

}  // namespace sallyport::sim
