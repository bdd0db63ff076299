// uses.h - the one place that every use of a key by a program passes, before its answer is sent. Process: vaultd alone.
// What is counted, recorded and alarmed hangs here and nowhere else. Nothing secret is in a UseRecord: no text, no
// nonce, no box.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include <kj/async.h>

#include "common/grants.h"
#include "vaultd/audit_record.h"
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

// A protocol step of netd.
struct StepRecord {
  std::string_view verb;   // "seal_cookie", "verify_vouch", "make_vouch"
  std::string_view entry;  // of the configuration; empty for one that isn't there
  std::string_view peer{};
  std::optional<Refusal> refused{};
};

// Writes down what happens.
class UseRecorder {
 public:
  virtual ~UseRecorder() = default;
  // False: records can't be written, and the configuration says: no record, no operation.
  virtual bool admits() const = 0;
  // False: as above, so the answer must not be sent.
  virtual bool record(const UseRecord& use) = 0;
  virtual void step(const StepRecord& step) = 0;
  // What operators do, and what the vault notices: breakers, alarms. Never refused.
  virtual void event(AuditRecord record) = 0;
  // When the uses recorded so far in this turn are written; false: they couldn't be, take the answers back. Null: there
  // is nothing to wait for.
  virtual kj::Maybe<kj::Promise<bool>> settled() = 0;
};

}  // namespace sallyport::vaultd
