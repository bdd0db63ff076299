#include "vaultd/shared_key_cache.h"

#include "common/secret_bytes.h"

namespace sallyport::vaultd {

SharedKeyCache::SharedKeyCache(SecretArena& arena, size_t capacity)
    : memory_(arena.takeBlock(capacity * 32)), entries_(capacity) {
  CHECK(capacity > 0);
  for (size_t i = capacity; i > 0; --i) free_.push_back(static_cast<uint32_t>(i - 1));
  index_.reserve(capacity);
}

SharedKeyCache::~SharedKeyCache() { wipe(memory_); }

std::optional<SharedKeyView> SharedKeyCache::find(KeyId own, const PublicKey& peer) {
  const auto found = index_.find(Id{own, peer});
  if (found == index_.end()) return std::nullopt;
  if (newest_ != found->second) {
    unlink(found->second);
    linkAsNewest(found->second);
  }
  return SharedKeyView(memoryOf(found->second));
}

void SharedKeyCache::insert(KeyId own, const PublicKey& peer, SharedKeyView key) {
  if (find(own, peer)) return;  // the same key: it follows from both
  if (free_.empty()) drop(oldest_);
  const uint32_t entry = free_.back();
  free_.pop_back();
  entries_[entry].id = Id{own, peer};
  std::memcpy(memoryOf(entry).data(), key.data(), key.size());
  index_.emplace(entries_[entry].id, entry);
  linkAsNewest(entry);
}

void SharedKeyCache::retain(const std::function<bool(KeyId own, const PublicKey& peer)>& keep) {
  for (uint32_t entry = newest_; entry != NONE;) {
    const uint32_t older = entries_[entry].older;
    if (!keep(entries_[entry].id.own, entries_[entry].id.peer)) drop(entry);
    entry = older;
  }
}

void SharedKeyCache::unlink(uint32_t entry) {
  const Entry& it = entries_[entry];
  (it.newer == NONE ? newest_ : entries_[it.newer].older) = it.older;
  (it.older == NONE ? oldest_ : entries_[it.older].newer) = it.newer;
}

void SharedKeyCache::linkAsNewest(uint32_t entry) {
  entries_[entry].newer = NONE;
  entries_[entry].older = newest_;
  (newest_ == NONE ? oldest_ : entries_[newest_].newer) = entry;
  newest_ = entry;
}

void SharedKeyCache::drop(uint32_t entry) {
  unlink(entry);
  index_.erase(entries_[entry].id);
  wipe(memoryOf(entry));
  free_.push_back(entry);
}

}  // namespace sallyport::vaultd
