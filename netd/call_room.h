// call_room.h - how many calls and questions of all keys are with the vault at once. Part of: netd-worker.
// The vault cuts off a client that has more calls open than LinkLimits allow, and doesn't read on while the calls of
// one that it hasn't answered take 512 KiB. A token that hangs answers none of its own: so that keys like that don't
// use up what there is, a key that has calls under way already begins another only in the first half of the room. The
// second is for those that have none, one call each.
#pragma once

#include <cstddef>

namespace sallyport::netd {

class CallRoom {
 public:
  static constexpr size_t MOST_CALLS = 64;
  static constexpr size_t MOST_ITEMS = 1280;  // and what a last call brings; the largest takes 352 bytes

  // May who has `calls` under way begin one more?
  bool admits(size_t calls) const {
    const size_t part = calls == 0 ? 1 : 2;
    return calls_ < MOST_CALLS / part && items_ < MOST_ITEMS / part;
  }
  void enter(size_t items) {
    ++calls_;
    items_ += items;
  }
  void leave(size_t items) {
    --calls_;
    items_ -= items;
  }

 private:
  size_t calls_ = 0;
  size_t items_ = 0;
};

}  // namespace sallyport::netd
