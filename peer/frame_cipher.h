// frame_cipher.h - AES-256-CTR for frames, in place. Part of: peer (netd-worker, vaultd). docs/protocol.md §13.
// One for a process, made before lock-down (OpenSSL fetches its AES then). It is keyed anew when another direction uses
// it: that costs 50 ns more than to go on, and saves each idle connection a context of its own. Between calls it still
// holds the schedule of the key that was used last, until forget().
#pragma once

#include <cstdint>
#include <memory>

#include "common/bytes.h"
#include "common/secret_bytes.h"
#include "proto/wire/peer_frame.h"

namespace sallyport::peer {

struct CipherKeyTag;
using CipherKey = SecretBytes<CipherKeyTag, 32>;
struct FirstBlockTag;
using FirstBlock = SecretBytes<FirstBlockTag, wire::PEER_CIPHER_BLOCK_BYTES>;

// Where a key stream comes from. `id` names the key in this process: 0 is nobody's.
struct StreamKey {
  CipherKey key;
  FirstBlock first;
  uint64_t id = 0;
  // For a key that was just set.
  void renew();
};

class FrameCipher {
 public:
  FrameCipher();
  ~FrameCipher();
  FrameCipher(const FrameCipher&) = delete;
  FrameCipher& operator=(const FrameCipher&) = delete;

  // Key stream from the byte `offset` behind the counter block `first` + `blocks` on. The result names this use: as
  // long as current() is the same, crypt() can go on where it stopped.
  uint64_t begin(const StreamKey& key, uint64_t blocks, uint64_t offset = 0);
  uint64_t current() const { return current_; }
  void crypt(MutableByteSpan bytes);
  // Overwrites the key schedule: when a connection ends, at the latest.
  void forget();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
  uint64_t current_ = 0;
  uint64_t keyed_ = 0;  // the id of the key that the context holds
};

}  // namespace sallyport::peer
