// uses.h - the one place that every use of a key by a program passes, before its answer is sent. Process: vaultd alone.
// What is counted, recorded and alarmed hangs here and nowhere else. Nothing secret is in a UseRecord: no text, no
// nonce, no box.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include "common/grants.h"
#include "vaultd/box.h"

namespace sallyport::vaultd {

struct UseRecord {
  const Caller& caller;
  pid_t pid = 0;  // when it connected: for people, not for decisions
  std::string_view key;
  Verb verb;
  uint32_t version = 0;              // of our key; 0: it didn't come so far
  std::optional<PublicKey> peer{};   // box, open; none for a sealed box, or if the request named none
  std::string_view peerName{};       // in [peers]; empty if it isn't there
  std::string_view domain{};         // fresh_nonce
  size_t bytes = 0;                  // of the text; for fresh_nonce: of the nonces
  std::optional<Refusal> refused{};  // none: done
};

// Writes uses down. False: it couldn't, and the configuration says: no record, no operation.
class UseRecorder {
 public:
  virtual ~UseRecorder() = default;
  virtual bool record(const UseRecord& use) = 0;
};

}  // namespace sallyport::vaultd
