// byte_queue.h - bytes that come in behind and leave in front, wiped as they leave. Part of: common (any process).
// Text and vouches wait in such queues. New memory isn't zeroed first; a queue that is empty gives back what it has
// beyond `keepBytes`, so a burst isn't remembered by what idles.
#pragma once

#include <algorithm>
#include <memory>

#include "common/bytes.h"
#include "common/secret_bytes.h"

namespace sallyport {

class ByteQueue {
 public:
  // `leastBytes`: how much memory is taken at a time, at least.
  explicit ByteQueue(size_t keepBytes) : ByteQueue(keepBytes, keepBytes) {}
  ByteQueue(size_t keepBytes, size_t leastBytes) : keepBytes_(keepBytes), leastBytes_(leastBytes) {}
  ByteQueue(const ByteQueue&) = delete;
  ByteQueue& operator=(const ByteQueue&) = delete;
  ~ByteQueue() { wipe(held()); }

  bool empty() const { return start_ == end_; }
  size_t size() const { return end_ - start_; }
  size_t capacity() const { return capacity_; }
  ByteSpan bytes() const { return {data_.get() + start_, size()}; }
  MutableByteSpan mutableBytes() { return held(); }  // for what is decrypted where it lies

  // All the room behind, `wanted` bytes or more: fill it from its beginning and say how far with added().
  MutableByteSpan room(size_t wanted) {
    if (capacity_ - end_ < wanted) makeRoom(wanted);
    return {data_.get() + end_, capacity_ - end_};
  }
  void added(size_t count) {
    CHECK(count <= capacity_ - end_);
    end_ += count;
  }
  void append(ByteSpan bytes) {
    if (bytes.empty()) return;
    std::memcpy(room(bytes.size()).data(), bytes.data(), bytes.size());
    added(bytes.size());
  }

  void consume(size_t count) {
    CHECK(count <= size());
    wipe(held().first(count));
    start_ += count;
    if (!empty()) return;
    start_ = end_ = 0;
    if (capacity_ > keepBytes_) release();
  }
  void clear() {
    wipe(held());
    release();
  }

 private:
  MutableByteSpan held() { return {data_.get() + start_, size()}; }

  void release() {
    data_ = nullptr;
    capacity_ = start_ = end_ = 0;
  }

  // Moves to the front of the memory where that is worth it, else to larger memory. No copy is left behind.
  void makeRoom(size_t wanted) {
    const MutableByteSpan old = held();
    if (start_ >= old.size() && capacity_ - old.size() >= wanted) {
      if (!old.empty()) std::memcpy(data_.get(), old.data(), old.size());
      wipe(old);
    } else {
      const size_t larger = std::max(2 * old.size() + wanted, leastBytes_);
      auto fresh = std::make_unique_for_overwrite<std::byte[]>(larger);
      if (!old.empty()) std::memcpy(fresh.get(), old.data(), old.size());
      wipe(old);
      data_ = std::move(fresh);
      capacity_ = larger;
    }
    start_ = 0;
    end_ = old.size();
  }

  size_t keepBytes_;
  size_t leastBytes_;
  std::unique_ptr<std::byte[]> data_;
  size_t capacity_ = 0;
  size_t start_ = 0;
  size_t end_ = 0;
};

}  // namespace sallyport
