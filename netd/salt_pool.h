// salt_pool.h - salts of one [[connect]] entry that were drawn before a connection needs them. Part of: netd-worker.
// docs/protocol.md §14. With one at hand a connection asks the vault once, when the peer's preamble is there. The vault
// keeps a salt for twice the handshake deadline, so one that is no older than one deadline lasts through a handshake.
// The pool is as large as its use: it grows when it was empty and shrinks when salts grew old in it. Never here: a salt
// that is given out twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

namespace sallyport::netd {

template <typename Salt>
class SaltPool {
 public:
  // Of 8,192 that the vault keeps for all entries and workers.
  static constexpr size_t MAX_AHEAD = 32;

  // One that was asked for less than `lifeMs` ago.
  std::optional<Salt> take(uint64_t nowMs, uint64_t lifeMs) {
    dropOld(nowMs, lifeMs);
    if (drawn_.empty()) {
      ahead_ = ahead_ == 0 ? 1 : ahead_ * 2;
      if (ahead_ > MAX_AHEAD) ahead_ = MAX_AHEAD;
      return std::nullopt;
    }
    std::optional<Salt> salt(std::move(drawn_.front().salt));
    drawn_.pop_front();
    return salt;
  }

  // How many more to ask for now: none while half of them are there or on their way.
  size_t missing() const {
    const size_t have = drawn_.size() + underWay_;
    return have * 2 > ahead_ ? 0 : ahead_ - have;
  }
  void asked() { ++underWay_; }
  void answered(std::optional<Salt> salt, uint64_t askedMs) {
    --underWay_;
    if (salt)
      drawn_.push_back({std::move(*salt), askedMs});
    else
      ahead_ = 0;  // the vault doesn't want to: no more ahead, until there was need again
  }

  size_t size() const { return drawn_.size(); }
  size_t underWay() const { return underWay_; }

 private:
  struct Drawn {
    Salt salt;
    uint64_t askedMs;
  };

  void dropOld(uint64_t nowMs, uint64_t lifeMs) {
    size_t old = 0;
    for (; !drawn_.empty() && nowMs - drawn_.front().askedMs >= lifeMs; ++old) drawn_.pop_front();
    ahead_ -= old < ahead_ ? old : ahead_;
  }

  std::deque<Drawn> drawn_;  // oldest first
  size_t ahead_ = 0;         // how many there are to be
  size_t underWay_ = 0;
};

}  // namespace sallyport::netd
