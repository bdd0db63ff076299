// wire_io.h - moving sealed bytes without a buffer of one's own. Part of: netd-worker.
// Reads go into scratch memory of the worker; only what can't move on (the beginning of a frame, bytes that a slow
// reader doesn't take) is copied into a block of its own, counted against the worker's budget. An idle
// connection holds none.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "common/bytes.h"
#include "common/intrusive_list.h"
#include "netd/stats.h"
#include "proto/wire/limits.h"

namespace sallyport::netd {

// How many full frames one turn of a connection moves at most, before the others get theirs.
inline constexpr size_t FRAMES_PER_READ = 4;
inline constexpr size_t SCRATCH_BYTES = (FRAMES_PER_READ + 1) * wire::MAX_FRAME_BYTES;

// All blocks that connections of this worker hold.
class BufferBudget {
 public:
  BufferBudget(Stats& stats) : stats_(stats) {}
  void setLimit(size_t bytes) { limit_ = bytes; }
  bool exceeded() const { return used_ > limit_; }
  bool farExceeded() const { return used_ / 2 > limit_; }
  // Beyond the limit a quarter more, for those who need little.
  bool reserveExceeded() const { return used_ > limit_ && used_ - limit_ > limit_ / 4; }
  size_t used() const { return used_; }
  void take(size_t bytes) {
    used_ += bytes;
    stats_.add(Counter::BufferBytes, bytes);
  }
  void give(size_t bytes) {
    used_ -= bytes;
    stats_.subtract(Counter::BufferBytes, bytes);
  }

 private:
  Stats& stats_;
  size_t limit_ = SIZE_MAX;
  size_t used_ = 0;
};

// Bytes set aside, with a read position.
class Stash {
 public:
  Stash() = default;
  Stash(Stash&& other) noexcept
      : data_(std::move(other.data_)),
        start_(std::exchange(other.start_, 0)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  Stash& operator=(Stash&&) = delete;
  ~Stash() { CHECK(data_ == nullptr); }  // the owner clears it: only it knows the budget

  bool empty() const { return data_ == nullptr; }
  // What the budget counts.
  size_t held() const { return capacity_; }
  ByteSpan rest() const { return {data_.get() + start_, size_ - start_}; }
  MutableByteSpan restMutable() { return {data_.get() + start_, size_ - start_}; }
  void consume(size_t bytes) { start_ += bytes; }
  void set(BufferBudget& budget, std::span<const iovec> parts, size_t skip);
  void set(BufferBudget& budget, ByteSpan bytes);
  // Room for so many bytes behind what is there already; all of it is to be filled, or given back. The block grows by
  // doubling (but not beyond `most`): a stream that comes byte by byte is not copied each time.
  MutableByteSpan extend(BufferBudget& budget, size_t bytes, size_t most = SIZE_MAX);
  void giveBack(size_t bytes) { size_ -= bytes; }
  void clear(BufferBudget& budget);

 private:
  std::unique_ptr<std::byte[]> data_;
  size_t start_ = 0;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

// What a handshake's read brought. Closed is the end of the connection, in whatever way.
enum class Received : uint8_t { Some, NothingYet, Closed };
// Reads what is there into `room` behind the `have` bytes that it holds, and never beyond it: what comes after a
// handshake's packet stays in the socket for the session.
Received receiveInto(int fd, MutableByteSpan room, size_t& have);
// Sends a packet of a handshake. A fresh socket takes it at once; false: it doesn't, so it has failed.
[[nodiscard]] bool sendWhole(int fd, ByteSpan packet);

enum class IoState : uint8_t { Done, Blocked, Failed };

// Writes all parts to a socket, or sets the rest aside in `stash` (which must be empty) and answers Blocked.
IoState sendAll(int fd, std::span<iovec> parts, Stash& stash, BufferBudget& budget);
// Goes on with what was set aside.
IoState flushStash(int fd, Stash& stash, BufferBudget& budget);

}  // namespace sallyport::netd
