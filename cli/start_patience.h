// start_patience.h - how long `sallyport up` waits for a daemon's first answer. Part of: cli. Pure.
//
// Before it has its sockets a daemon loads keys: that takes Argon2 and tokens their time, and on a terminal it may be
// asking for a passphrase, which takes as long as it takes. Once connections are taken it has only to lock itself down.
// One that then gives no answer gives none later: it turns us away, or its worker ends again and again.
#pragma once

#include <cstdint>
#include <optional>

namespace sallyport::cli {

class StartPatience {
 public:
  static constexpr uint64_t NOTE_MS = 10'000;
  static constexpr uint64_t LOAD_MS = 300'000;
  static constexpr uint64_t ANSWER_MS = 60'000;  // from the first connection that is taken

  enum class Verdict : uint8_t { Wait, Note, GiveUp };  // Note: once

  // `mayAsk`: it may be asking for a passphrase.
  StartPatience(uint64_t nowMs, bool mayAsk) : startedMs_(nowMs), mayAsk_(mayAsk) {}

  void connected(uint64_t nowMs) {
    if (!connectedMs_) connectedMs_ = nowMs;
  }
  bool wasConnected() const { return connectedMs_.has_value(); }

  Verdict judge(uint64_t nowMs) {
    if (connectedMs_ ? nowMs - *connectedMs_ >= ANSWER_MS : !mayAsk_ && nowMs - startedMs_ >= LOAD_MS)
      return Verdict::GiveUp;
    if (noted_ || nowMs - startedMs_ < NOTE_MS) return Verdict::Wait;
    noted_ = true;
    return Verdict::Note;
  }

 private:
  uint64_t startedMs_;
  bool mayAsk_;
  bool noted_ = false;
  std::optional<uint64_t> connectedMs_;
};

}  // namespace sallyport::cli
