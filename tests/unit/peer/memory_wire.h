// memory_wire.h - a wire of two queues with as much room as a test wants, cut into pieces as small as it wants, and a
// clock that goes on only when somebody waits. For the tests of peer/endpoint.
#pragma once

#include <deque>
#include <functional>

#include "peer/endpoint.h"
#include "tests/unit/peer/peer_pair.h"

namespace sallyport::peer::test {

// One direction.
struct Pipe {
  Block bytes;
  size_t capacity = SIZE_MAX;
  size_t piece = SIZE_MAX;  // no read or write moves more
  bool ended = false;       // behind the bytes
  bool failed = false;
};

class MemoryWire : public Transport {
 public:
  MemoryWire(Pipe& in, Pipe& out, uint64_t& clock) : in_(in), out_(out), clock_(clock) {}

  Io read(MutableByteSpan bytes) override {
    CHECK(!bytes.empty());
    largestRead = std::max(largestRead, bytes.size());
    if (in_.bytes.empty()) return {in_.failed ? Io::State::Failed : in_.ended ? Io::State::Ended : Io::State::Blocked};
    const size_t count = std::min({bytes.size(), in_.bytes.size(), in_.piece});
    std::copy_n(in_.bytes.begin(), count, bytes.begin());
    in_.bytes.erase(in_.bytes.begin(), in_.bytes.begin() + static_cast<ptrdiff_t>(count));
    return {Io::State::Done, count};
  }
  Io write(ByteSpan bytes) override {
    CHECK(!bytes.empty());
    if (out_.failed) return {Io::State::Failed};
    const size_t count =
        std::min({bytes.size(), out_.capacity - std::min(out_.capacity, out_.bytes.size()), out_.piece});
    if (count == 0) return {Io::State::Blocked};
    out_.bytes.insert(out_.bytes.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    return {Io::State::Done, count};
  }
  void wait(bool toRead, bool toWrite, uint64_t untilMs) override {
    CHECK(untilMs > clock_);
    waits.push_back({toRead, toWrite});
    clock_ += std::min<uint64_t>(untilMs - clock_, 10);
    if (whileWaiting) whileWaiting();
  }
  uint64_t nowMs() override { return clock_; }

  struct Wait {
    bool toRead, toWrite;
  };
  std::vector<Wait> waits;
  std::function<void()> whileWaiting;
  size_t largestRead = 0;

 private:
  Pipe& in_;
  Pipe& out_;
  uint64_t& clock_;
};

// Both parties, joined.
struct Conversation {
  explicit Conversation(PeerMode mode, uint32_t frameBytes = DEFAULT_FRAME_BYTES,
                        uint32_t maxFrameBytes = wire::PEER_DEFAULT_MAX_FRAME_BYTES)
      : keys{.maxFrameBytes = maxFrameBytes},
        a(keys.sealer(mode, PeerParty::A, 0), keys.opener(mode, PeerParty::B, 0), cipher, wireA, frameBytes),
        b(keys.sealer(mode, PeerParty::B, 0), keys.opener(mode, PeerParty::A, 0), cipher, wireB, frameBytes) {}

  Keys keys;
  FrameCipher cipher;
  uint64_t clock = 1000;
  Pipe aToB, bToA;
  MemoryWire wireA{bToA, aToB, clock};
  MemoryWire wireB{aToB, bToA, clock};
  Endpoint a, b;
};

}  // namespace sallyport::peer::test
