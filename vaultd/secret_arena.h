// secret_arena.h - the one piece of memory in which long-term secrets live. Part of: vaultd (and its tests).
//
// Made once at start, before lock-down, and never grown: memfd_secret where the kernel has it (no other process can
// read such pages, not even root through ptrace or procfs; they are never swapped nor dumped), else anonymous memory
// that is locked, kept out of core dumps and zeroed in children. Guard pages stand on both sides. The arena is wiped
// when it dies. What must never happen here: a secret copied out into ordinary memory, a slot handed out twice, a
// silent fallback. docs/threat-model.md says what this does not protect from.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"

namespace sallyport::vaultd {

class SecretArena;

// SLOT_BYTES of the arena, or twice as many in one piece: move-only, zero when handed out, wiped and given back when it
// dies. Must die before its arena.
class SecretSlot {
 public:
  static constexpr size_t SLOT_BYTES = 64;
  static constexpr size_t PAIR_BYTES = 2 * SLOT_BYTES;

  SecretSlot() = default;
  SecretSlot(SecretSlot&& other) noexcept;
  SecretSlot& operator=(SecretSlot&& other) noexcept;
  SecretSlot(const SecretSlot&) = delete;
  SecretSlot& operator=(const SecretSlot&) = delete;
  ~SecretSlot();

  // The first N bytes. A slot that was moved from has none.
  template <size_t N>
  std::span<const std::byte, N> expose() const {
    static_assert(N <= PAIR_BYTES);
    CHECK(memory_ != nullptr && N <= bytes_);
    return std::span<const std::byte, N>(memory_, N);
  }
  template <size_t N>
  std::span<std::byte, N> exposeMutable() {
    static_assert(N <= PAIR_BYTES);
    CHECK(memory_ != nullptr && N <= bytes_);
    return std::span<std::byte, N>(memory_, N);
  }
  void wipe();

 private:
  friend class SecretArena;
  SecretSlot(SecretArena* arena, std::byte* memory, size_t bytes) : arena_(arena), memory_(memory), bytes_(bytes) {}
  void giveBack();

  SecretArena* arena_ = nullptr;
  std::byte* memory_ = nullptr;
  size_t bytes_ = 0;
};

class SecretArena {
 public:
  enum class Kind { MemfdSecret, LockedMemory };
  enum class Want { Best, LockedMemory };  // the second is for tests of the fallback

  // memfd_secret counts against RLIMIT_MEMLOCK (8 MiB for an ordinary user), as locked memory does: stay far below.
  static constexpr size_t DEFAULT_BYTES = 256 * 1024;

  // `bytes` is rounded up to whole pages. The error says which call failed and is for people.
  static Result<std::unique_ptr<SecretArena>, std::string> create(size_t bytes = DEFAULT_BYTES, Want want = Want::Best);
  ~SecretArena();
  SecretArena(const SecretArena&) = delete;
  SecretArena& operator=(const SecretArena&) = delete;

  Kind kind() const { return kind_; }
  std::string_view describe() const;                     // "memfd_secret" or "locked memory"
  bool sealedMapping() const { return sealedMapping_; }  // mseal held: not even this process can unmap or reprotect it

  // Ends the process when the arena is full: callers take a number of slots that configuration bounds before.
  SecretSlot takeSlot();
  // PAIR_BYTES in one piece. Pairs that were given back are kept for others, and never become single slots.
  SecretSlot takePair();
  // A block for as long as the arena lives; for the cache of shared keys. Zero when handed out.
  MutableByteSpan takeBlock(size_t bytes);
  size_t freeBytes() const { return capacity_ - used_ + freeSlots_.size() * SecretSlot::SLOT_BYTES; }
  size_t freePairBytes() const { return capacity_ - used_ + freePairs_.size() * SecretSlot::PAIR_BYTES; }
  // Every secret is gone, at once; slots and blocks stay with their holders, full of zeros.
  void wipeAll();

 private:
  friend class SecretSlot;
  SecretArena() = default;
  bool mapMemfdSecret();
  bool mapLocked(std::string& problem);
  void sealMapping();

  Kind kind_ = Kind::LockedMemory;
  bool sealedMapping_ = false;
  std::byte* mapping_ = nullptr;  // guard page, data, guard page
  size_t mappingBytes_ = 0;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
  size_t used_ = 0;
  std::vector<std::byte*> freeSlots_;
  std::vector<std::byte*> freePairs_;
};

}  // namespace sallyport::vaultd
