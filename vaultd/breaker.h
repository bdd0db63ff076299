// breaker.h - stops a caller whose boxes don't open. Process: vaultd alone. Pure: time comes in.
// Many failed opens mean a program that feeds us what it can't have got from a peer: forged, replayed under another
// nonce, or recorded from elsewhere. After too many in one window all opens of that caller are refused for a pause;
// what it boxes and signs goes on. A caller is a socket and a uid, so other users, and the same user elsewhere, aren't
// stopped with it, and connecting anew doesn't help.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "common/grants.h"

namespace sallyport::vaultd {

class Breakers {
 public:
  struct Rule {
    uint32_t failures = 100;  // 0: no breaker
    uint64_t windowMs = 60'000;
    uint64_t pauseMs = 60'000;
  };
  static constexpr size_t MAX_CALLERS = 1024;

  // A change of the rule forgets what was counted; breakers that are open stay so.
  void setRule(const Rule& rule);
  bool isOpen(const Caller& caller, uint64_t nowMs) const;
  // One open failed. True if that opened the breaker.
  bool failed(const Caller& caller, uint64_t nowMs);
  size_t openNow(uint64_t nowMs) const;

 private:
  struct Breaker {
    uint64_t windowEndsMs = 0;
    uint32_t failures = 0;
    uint64_t openUntilMs = 0;
  };
  void makeRoom(uint64_t nowMs);

  Rule rule_;
  std::map<std::pair<std::string, uid_t>, Breaker> breakers_;
};

}  // namespace sallyport::vaultd
