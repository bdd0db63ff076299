// base_frames.h - the frames of one connection in base mode, as two streams of bytes that are cut anywhere. Process:
// vaultd alone. docs/protocol.md §14 (and §13 for the frames). Sans-IO; holds at most 15 bytes of a stream back: those
// of a header or a tag that isn't whole yet. Holds keys and the chain of hashes: lives in the arena. What must never
// happen here: a byte that is given out after a fault of its direction.
#pragma once

#include <optional>

#include "peer/block_keys.h"

namespace sallyport::vaultd {

// Plain frames in, frames of the wire out.
class BaseSealing {
 public:
  BaseSealing(peer::FrameSealer sealer, uint32_t maxFrameBytes)
      : sealer_(std::move(sealer)), maxFrameBytes_(maxFrameBytes) {}

  // Appends to `out`, which has room for in.size() + MAX_HELD; how many bytes. FrameTooLarge, CounterExhausted: dead.
  Result<size_t, wire::DropReason> seal(peer::FrameCipher& cipher, ByteSpan in, MutableByteSpan out);

 private:
  enum class Part : uint8_t { Header, Payload, Tag };
  peer::FrameSealer sealer_;
  uint32_t maxFrameBytes_;
  std::optional<wire::DropReason> dead_;
  Part part_ = Part::Header;
  std::array<std::byte, wire::PEER_HEADER_BYTES> held_{};
  size_t heldBytes_ = 0;
  uint32_t left_ = 0;  // of the payload
  std::optional<peer::FrameRun> run_;
};

// Frames of the wire in, plain frames out.
class BaseOpening {
 public:
  explicit BaseOpening(peer::FrameOpener opener) : opener_(std::move(opener)) {}

  struct Opened {
    size_t bytes = 0;       // written to `out`
    size_t sanctified = 0;  // of them, behind a good tag
    std::optional<wire::DropReason> fault;
  };
  // As above. `onHeader`, when it isn't empty, is called once, with the first header that is genuine and before any
  // byte is decrypted beyond it; false: nothing is given out, and the direction is dead.
  template <typename OnHeader>
  Opened open(peer::FrameCipher& cipher, ByteSpan in, MutableByteSpan out, OnHeader&& onFirstHeader);

 private:
  enum class Part : uint8_t { Header, Payload, Tag };
  // Takes what it can of the current part; false if more bytes are needed.
  bool takeHeader(peer::FrameCipher& cipher, MutableByteSpan out, Opened& result);
  void takePayload(peer::FrameCipher& cipher, ByteSpan& in, MutableByteSpan out, Opened& result);
  bool takeTag(peer::FrameCipher& cipher, MutableByteSpan out, Opened& result);
  bool hold(ByteSpan& in, size_t wanted);

  peer::FrameOpener opener_;
  Part part_ = Part::Header;
  bool sawHeader_ = false;
  std::array<std::byte, wire::PEER_HEADER_BYTES> held_{};
  size_t heldBytes_ = 0;
  uint32_t left_ = 0;
  std::optional<peer::FrameRun> run_;
};

inline constexpr size_t MAX_HELD = wire::PEER_HEADER_BYTES - 1;

template <typename OnHeader>
BaseOpening::Opened BaseOpening::open(peer::FrameCipher& cipher, ByteSpan in, MutableByteSpan out,
                                      OnHeader&& onFirstHeader) {
  Opened result;
  result.fault = opener_.dead();
  while (!result.fault) {
    if (part_ == Part::Header) {
      if (!hold(in, wire::PEER_HEADER_BYTES) || !takeHeader(cipher, out, result)) break;
      if (!sawHeader_ && !onFirstHeader()) {
        result = {0, 0, opener_.die(wire::DropReason::VaultRefused)};
        break;
      }
      sawHeader_ = true;
    } else if (part_ == Part::Payload) {
      if (left_ != 0 && in.empty()) break;
      takePayload(cipher, in, out, result);
    } else {
      if (!hold(in, wire::PEER_TAG_BYTES) || !takeTag(cipher, out, result)) break;
    }
  }
  if (result.fault) wipe(out.subspan(result.bytes));
  return result;
}

}  // namespace sallyport::vaultd
