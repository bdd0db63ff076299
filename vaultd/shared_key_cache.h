// shared_key_cache.h - the shared keys of known peers, so that they cost no X25519. Process: vaultd alone.
// A shared key dh(S, C) lets its thief be C towards S, so it stays in the secret arena, is never exported, and is wiped
// when it is evicted or its peer is revoked. Bounded: the least recently used goes. Only what a genuine box of an
// allowed peer, or our own configuration, made us compute gets in: strangers can't push known peers out.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "vaultd/secret_arena.h"

namespace sallyport::vaultd {

using SharedKeyView = std::span<const std::byte, 32>;

class SharedKeyCache {
 public:
  static constexpr size_t DEFAULT_CAPACITY = 1024;
  using KeyId = uint32_t;  // which of our own keys; given by the key ring

  // `arena` must outlive this; it must have room for capacity * 32 bytes.
  explicit SharedKeyCache(SecretArena& arena, size_t capacity = DEFAULT_CAPACITY);
  ~SharedKeyCache();
  SharedKeyCache(const SharedKeyCache&) = delete;
  SharedKeyCache& operator=(const SharedKeyCache&) = delete;

  // Valid until the next call of a method that is not const.
  std::optional<SharedKeyView> find(KeyId own, const PublicKey& peer);
  void insert(KeyId own, const PublicKey& peer, SharedKeyView key);
  // Wipes every key that `keep` doesn't want; after a reload.
  void retain(const std::function<bool(KeyId own, const PublicKey& peer)>& keep);

  size_t size() const { return index_.size(); }
  size_t capacity() const { return entries_.size(); }

 private:
  struct Id {
    KeyId own;
    PublicKey peer;
    bool operator==(const Id&) const = default;
  };
  struct IdHash {
    size_t operator()(const Id& id) const { return PublicKeyHash()(id.peer) ^ (id.own * size_t{0x9e3779b97f4a7c15}); }
  };
  static constexpr uint32_t NONE = UINT32_MAX;
  struct Entry {
    Id id;
    uint32_t newer = NONE;
    uint32_t older = NONE;
  };

  MutableByteSpan memoryOf(uint32_t entry) { return memory_.subspan(size_t{entry} * 32, 32); }
  void unlink(uint32_t entry);
  void linkAsNewest(uint32_t entry);
  void drop(uint32_t entry);

  MutableByteSpan memory_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> free_;
  std::unordered_map<Id, uint32_t, IdHash> index_;
  uint32_t newest_ = NONE;
  uint32_t oldest_ = NONE;
};

}  // namespace sallyport::vaultd
