// nonce_ledger.h - gives out each counter at most once, whatever crashes. Process: vaultd alone. See docs/protocol.md
// §6.
//
// The state is two alternating slots of 4 KiB. A slot says: "counters below `bound` may have been used". A counter is
// given out only while it is below a bound that is *durable* (written and fdatasync'ed), so after a crash the stored
// bound lies above everything ever given out, and the ledger goes on from there. (curve_tun's text, read literally,
// stores the bound when the counter passes it: crash, restart, and the same counters come again. tests/unit/vaultd
// keeps that rule as a mutant.)
//
//   start      write the newest slot again as it is and wait for the disk (it may have been in the cache alone);
//              next = max(stored bound, clock floor); store next + 2 R and wait for the disk
//   draw       next++; when no more than R are left below the bound, store next + 2 R and wait for the disk
//
// R = 2^20. The refill is synchronous in the single-threaded vault: one pwrite and fdatasync each 2^20 nonces, measured
// 50 us; a disk that takes 100 ms costs that once in more than 40 s of full load. There is nothing to race with.
//
// Clock floor: (seconds since 2020) << 21. A state restored from an old backup starts above everything used since, if
// the clock is right and the vault has drawn fewer than 2^21 nonces a second on average. A clock that is more than ten
// years ahead of the stored time is not believed.
//
// Instance id: 16 random bytes; every nonce key is derived from it. On any suspicion that the state is not the one we
// wrote last, a fresh id is made, hence a fresh nonce key, and counting goes on: one slot damaged, slots that don't
// follow each other, a clock behind the stored time, another machine, another inode (a copied or restored file),
// another long-term key.
//
// A failed write or fdatasync poisons the ledger for the life of the process: the kernel may have dropped the dirty
// page and report success the next time. It never gives out another counter, and says why. Both slots bad: it doesn't
// open.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/bytes.h"
#include "common/result.h"
#include "vaultd/problem.h"

namespace sallyport::vaultd {

using InstanceId = std::array<std::byte, 16>;

// All that the ledger knows of a disk. Positive or zero: done, or that many bytes; negative: -errno. A short count is
// possible.
class NonceDisk {
 public:
  virtual ~NonceDisk() = default;
  virtual ssize_t read(size_t offset, MutableByteSpan bytes) = 0;
  virtual ssize_t write(size_t offset, ByteSpan bytes) = 0;
  virtual int sync() = 0;
};

// What the state must agree with, or a fresh instance id is made.
struct NonceFacts {
  std::array<std::byte, 16> keyId{};  // of the long-term public key
  std::array<std::byte, 16> place{};  // of the machine and the file
};

class NonceLedger {
 public:
  static constexpr size_t SLOT_BYTES = 4096;
  static constexpr size_t FILE_BYTES = 2 * SLOT_BYTES;
  static constexpr uint64_t RESERVATION = uint64_t{1} << 20;
  static constexpr uint64_t END = uint64_t{1} << 63;  // no counter from here on: the key has to be rotated
  using Image = std::array<std::byte, FILE_BYTES>;
  using WallClock = std::function<uint64_t()>;  // seconds since 1970

  // The content of a new state file: both slots, a random instance id.
  static Image newImage(const NonceFacts& facts, uint64_t wallSeconds);

  // Reads the state and makes the first reservation durable. A state that can't be used is a problem (without the
  // file's name); a reservation that can't be made durable is not: the ledger opens, poisoned. `reservation` is R;
  // tests make it small.
  static Result<std::unique_ptr<NonceLedger>, Problem> open(std::unique_ptr<NonceDisk> disk, const NonceFacts& facts,
                                                            WallClock clock, uint64_t reservation = RESERVATION);
  // Would open() take the state? Nothing is written.
  static Result<void, Problem> inspect(NonceDisk& disk);
  // A ledger that gives out nothing, and why.
  static std::unique_ptr<NonceLedger> unusable(std::string why);

  // The next counter, or nothing.
  std::optional<uint64_t> draw() {
    if (bound_ - next_ <= reservation_) [[unlikely]] {
      if (!refill()) return std::nullopt;
    }
    return next_++;
  }

  const InstanceId& instance() const { return state_.instance; }
  bool ready() const { return !poisoned_; }
  // "ready", or why no counter is given out.
  std::string describe() const { return poisoned_ ? why_ : "ready"; }
  // Why this start made a fresh instance id; empty if it didn't.
  const std::string& renewed() const { return renewed_; }
  uint64_t refills() const { return refills_; }

 private:
  struct Slot {
    uint64_t generation = 0;
    uint64_t bound = 0;
    uint64_t wallSeconds = 0;
    InstanceId instance{};
    NonceFacts facts;
  };
  enum class SlotState { Good, Damaged, OtherVersion };
  static std::array<std::byte, SLOT_BYTES> encode(const Slot& slot);
  static SlotState decode(ByteSpan bytes, size_t index, Slot& slot);
  struct Copies {
    Image image;
    std::array<Slot, 2> slots;
    std::array<bool, 2> good{};  // at least one
  };
  static Result<Copies, Problem> readCopies(NonceDisk& disk);

  NonceLedger() = default;
  Result<void, Problem> readState(const NonceFacts& facts);
  void suspect(const char* why);
  void applyClock();
  bool refill();
  bool store();
  bool writeSlot(size_t index, ByteSpan bytes);
  void poison(std::string why);

  std::unique_ptr<NonceDisk> disk_;
  WallClock clock_;
  uint64_t reservation_ = RESERVATION;
  Slot state_;  // what the newest slot holds, or will hold after the next store
  uint64_t next_ = 0;
  uint64_t bound_ = 0;  // durable; next_ == bound_ while poisoned, so that draw() always comes to refill()
  uint64_t refills_ = 0;
  bool poisoned_ = false;
  std::string why_;
  std::string renewed_;
};

}  // namespace sallyport::vaultd
