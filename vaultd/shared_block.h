// shared_block.h - the block that this host shares with one other: the only place where it is used. Process: vaultd
// alone. docs/protocol.md §14. What must never happen here: a block, or a half of one, outside the arena.
#pragma once

#include "peer/block_keys.h"
#include "vaultd/long_term_secret.h"
#include "vaultd/secret_arena.h"

namespace sallyport::vaultd {

class SharedBlock {
 public:
  // `arena` must outlive this.
  SharedBlock(SecretArena& arena, const LongTermSecret& block) : block_(arena.takePair()) {
    static_assert(SecretSlot::PAIR_BYTES == wire::PEER_BLOCK_BYTES);
    CHECK(block.size() == wire::PEER_BLOCK_BYTES);
    std::memcpy(block_.exposeMutable<wire::PEER_BLOCK_BYTES>().data(), block.exposeData(), wire::PEER_BLOCK_BYTES);
  }

  // For peer/block_keys.h. Valid as long as this.
  peer::PeerBlockView view() const { return block_.expose<wire::PEER_BLOCK_BYTES>(); }

 private:
  SecretSlot block_;
};

}  // namespace sallyport::vaultd
