// direction.h - one direction of a connection: its keys, its counters, its chain. Part of: peer (netd-worker, vaultd).
// docs/protocol.md §13. What FrameSealer and FrameOpener have in common; about 250 bytes, and no buffer. Never here: a
// number used twice under one key, or a key of an epoch kept when the epoch is over.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "peer/frame_cipher.h"
#include "peer/hash.h"
#include "proto/wire/drop_reason.h"
#include "proto/wire/peer_frame.h"

namespace sallyport::peer {

struct EpochKeys {
  StreamKey stream;  // in base mode its id alone
  HmacKey tag;       // hard mode alone
  HmacKey header;    // hard mode alone
};

// Where a direction's keys come from: hard_keys.h, block_keys.h.
class KeySchedule {
 public:
  virtual ~KeySchedule() = default;
  // The keys of the next epoch, at first of epoch 0. False if there are no more.
  virtual bool next(EpochKeys& keys) = 0;
  // Base mode: the epoch's stream key, for one frame. The block is the vault's long-term secret and stays where that
  // is.
  virtual void fetch(StreamKey& /*key*/) const {}
};

class Direction {
 public:
  // `rotateFrames` is how many frames an epoch has; 0: there is one epoch.
  Direction(wire::PeerMode mode, std::unique_ptr<KeySchedule> schedule, uint32_t rotateFrames);

  wire::PeerMode mode() const { return mode_; }
  // Of the next frame, from 1. On the wire go its low 32 bits.
  uint64_t number() const { return number_; }
  const std::optional<wire::DropReason>& dead() const { return dead_; }
  // The first reason stays.
  wire::DropReason die(wire::DropReason reason);
  // Why no further frame may be made or read: dead, or all numbers are used up.
  std::optional<wire::DropReason> refusal();

  wire::PeerChecksumMask checksumMask(std::span<const std::byte, wire::PEER_HEADER_FIELDS_BYTES> fields) const;
  // The key stream of this frame, from its byte `offset` on.
  uint64_t beginCipher(FrameCipher& cipher, uint64_t offset) const;
  void startHash(Hash& hash) const { hash.startFrom(chain_.expose()); }
  // The frame's hash is complete: its tag, and from then on the chain's value.
  wire::PeerTag finishHash(Hash& hash);
  // The frame is over: the next number, fresh counter values, and at the end of an epoch the next keys.
  void nextFrame(uint32_t length);

  // For tests of wrap-around alone: counters and keys stay what they are.
  void skipToNumber(uint64_t number);

 private:
  bool nextKeys();

  wire::PeerMode mode_;
  std::optional<wire::DropReason> dead_;
  uint32_t rotateFrames_;
  uint64_t number_ = 1;
  uint64_t blocks_ = 0;  // counter values used up in this epoch
  Digest chain_ = initialDigest();
  EpochKeys keys_;
  std::unique_ptr<KeySchedule> schedule_;
};

// A frame that is sealed or opened in pieces, between two of them.
struct FrameRun {
  Hash hash;
  uint64_t offset = 0;  // how many bytes of the frame are done
  uint64_t end = 0;     // where the payload ends
  uint64_t use = 0;     // FrameCipher::begin's answer
};

// One pass over memory that stays in the first-level cache: hash and cipher take turns on pieces of this size.
inline constexpr size_t PASS_BYTES = 8192;

}  // namespace sallyport::peer
