// box_blocks.h - the blocks of a boxed file, sealed and opened one by one. Part of: proto/file (pure; any process).
// docs/protocol.md §11. libsodium's secretstream: every block is bound to its place, and the last one is marked inside,
// so that a block left out, moved, repeated, taken from elsewhere, and an end cut off are found at that very block.
// With several recipients each block has a tag for each of them, which the others can't make though they know the key.
// What must never happen here: a byte of text handed out before its block was found to be genuine and in its place.
#pragma once

#include <sodium.h>

#include "proto/file/box_file.h"

namespace sallyport::file {

inline constexpr size_t BLOCK_TEXT_BYTES = 64 * 1024;  // of every block but the last
inline constexpr size_t BLOCK_TAG_BYTES = 16;          // for one recipient
// What a block is longer than its text.
constexpr size_t blockOverhead(size_t recipients) {
  return crypto_secretstream_xchacha20poly1305_ABYTES + (recipients > 1 ? recipients * BLOCK_TAG_BYTES : 0);
}
constexpr size_t blockBytes(size_t recipients) { return BLOCK_TEXT_BYTES + blockOverhead(recipients); }

// The running state of secretstream is as secret as its key.
class StreamState {
 public:
  StreamState() = default;
  StreamState(const StreamState&) = delete;
  ~StreamState() { sodium_memzero(&state_, sizeof state_); }
  crypto_secretstream_xchacha20poly1305_state* expose() { return &state_; }

 private:
  crypto_secretstream_xchacha20poly1305_state state_{};
};

class BoxSealer {
 public:
  // `tagKeys`: one for each recipient, in the head's order.
  BoxSealer(const ContentKey& content, const HeadMac& mac, std::vector<TagKey> tagKeys);

  const StreamHeader& header() const { return header_; }
  // Seals the next block: BLOCK_TEXT_BYTES of text, or at most that if it is the last. `block` has exactly the text's
  // size and blockOverhead more.
  void seal(ByteSpan text, bool last, MutableByteSpan block);

 private:
  StreamState state_;
  StreamHeader header_;
  std::vector<TagKey> tagKeys_;
  uint64_t number_ = 0;
};

class BoxOpener {
 public:
  // For the recipient at `index` of the head, with the keys of their box.
  BoxOpener(const BoxHead& head, size_t index, FileKeys keys);

  // Opens the next block into `text` (BLOCK_TEXT_BYTES) and gives the text's size. `last`: the file ends with it; else
  // it must have exactly blockBytes. After a fault nothing more can be opened, and `text` is wiped.
  Result<size_t, BoxFault> open(ByteSpan block, bool last, MutableByteSpan text);

 private:
  Result<size_t, BoxFault> tryOpen(ByteSpan block, bool last, MutableByteSpan text);

  StreamState state_;
  StreamHeader header_;
  size_t recipients_;
  size_t index_;
  TagKey tagKey_;
  uint64_t number_ = 0;
  bool ended_ = false;
};

}  // namespace sallyport::file
