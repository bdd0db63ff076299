// pin_page.h - the PIN and what is known of it, in memory that outlives workers. Part of: hsmd (guard and worker).
// One page of memfd_secret made by the guard; each worker maps it. It is how a PIN that was wrong stays wrong: no
// worker to come tries it again, whatever ended the one before. Used by one thread of one process at a time.
#pragma once

#include <optional>
#include <string>

#include "common/bytes.h"
#include "proto/hsm/frames.h"

namespace sallyport::hsmd {

enum class PinState : uint32_t {
  Missing = 0,  // an operator has to give one
  Untried,      // from its source
  Trying,       // C_Login was called with one that was never right, and hasn't returned: if found, in doubt
  Good,         // it was right; stays so while it is tried again
  Wrong,        // refused, and wiped
  Locked,       // the token has locked its PIN; wiped
};

struct PinRecord {
  PinState state;
  uint32_t length;
  std::array<std::byte, hsm::MAX_PIN_BYTES> bytes;
  std::array<char, hsm::MAX_DETAIL_BYTES> why;  // there is none that may be tried; no NUL at the end if it is that long

  // False, and nothing changed, if it is empty or too long.
  bool give(ByteSpan pin);
  ByteSpan pin() const { return ByteSpan(bytes).first(length <= bytes.size() ? length : 0); }
  void forget(PinState next);
  // For people, and never part of a PIN. Gone with the next give() or forget().
  void explain(std::string_view reason);
  std::string reason() const;
  // What a worker that starts makes of what the one before left: a login that never returned is not repeated.
  void settle();
};

// Shared memory as one object of type T, zero at first. Unmapped with the object; the descriptor is the caller's.
class SharedMemory {
 public:
  // memfd_secret, or a sealed memfd where there is none: `secret` says which. -1: neither, errno says why.
  static int create(const char* name, size_t bytes, bool& secret);
  // An ordinary sealed memfd, for what is no secret. -1: errno.
  static int createPlain(const char* name, size_t bytes);
  static std::optional<SharedMemory> map(int fd, size_t bytes);

  SharedMemory(SharedMemory&& other) noexcept : begin_(other.begin_), bytes_(other.bytes_) { other.begin_ = nullptr; }
  SharedMemory& operator=(SharedMemory&&) = delete;
  ~SharedMemory();

  template <typename T>
  T& as() {
    static_assert(std::is_trivially_copyable_v<T>);
    CHECK(sizeof(T) <= bytes_);
    return *static_cast<T*>(begin_);
  }
  MutableByteSpan span() { return {static_cast<std::byte*>(begin_), bytes_}; }

 private:
  SharedMemory(void* begin, size_t bytes) : begin_(begin), bytes_(bytes) {}
  void* begin_;
  size_t bytes_;
};

inline constexpr size_t PIN_PAGE_BYTES = 4096;
static_assert(sizeof(PinRecord) <= PIN_PAGE_BYTES);

}  // namespace sallyport::hsmd
