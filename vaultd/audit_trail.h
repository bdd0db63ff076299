// audit_trail.h - what happens in the vault, on its way into the audit log: put together, written at the end of the
// turn, and waited for where the configuration says so. Process: vaultd alone. See docs/protocol.md §10.
//
//   a use that was carried out   a line; equal ones of one turn of the loop are one line with their number
//   a use that was refused       one line a second and kind, so that a flood of them can't drive out the rest
//   a protocol step              likewise, by entry and outcome; a line each with `handshakes`
//   an action, start, stop       a line
//
// With `required` no answer to a use leaves before its record is written (durable, with fsync = "always"), and while
// records can't be written every use and every step is refused as notRecorded. Actions of operators are never refused:
// a vault whose disk is full must still take a `lock`.
#pragma once

#include <map>

#include "common/config.h"
#include "common/event_loop.h"
#include "vaultd/audit_log.h"
#include "vaultd/uses.h"

namespace sallyport::vaultd {

class AuditTrail final : public UseRecorder {
 public:
  using WallClock = std::function<int64_t()>;  // milliseconds since 1970

  AuditTrail(EventLoop& loop, std::unique_ptr<AuditLog> log, const AuditConfig& config, WallClock clock = wallMs);
  ~AuditTrail() noexcept override {}  // destructors of promises may throw, in theory

  bool admits() const override { return !config_.required || log_->problem().empty(); }
  bool record(const UseRecord& use) override;
  void step(const StepRecord& step) override;
  void event(AuditRecord record) override;
  kj::Maybe<kj::Promise<bool>> settled() override;

  // Writes down the end, and all that waits.
  void stop();

  const AuditLog& log() const { return *log_; }
  bool markExported(uint64_t seq);
  static int64_t wallMs();

 private:
  void take(AuditRecord record);
  void sum(AuditRecord record);
  void flushSums();
  void commit();
  bool commitNow();
  void arm();
  void tick();

  EventLoop& loop_;
  std::unique_ptr<AuditLog> log_;
  const AuditConfig config_;
  WallClock clock_;

  std::optional<AuditRecord> open_;          // the last use of this turn: the next may be like it
  std::map<std::string, AuditRecord> sums_;  // by kind
  uint64_t turnItems_ = 0;                   // uses that this turn's commit decides about
  uint64_t withheld_ = 0;                    // uses refused for want of a record, not yet told
  bool complete_ = true;                     // every record of this turn was taken
  bool scheduled_ = false;
  bool armed_ = false;
  kj::Promise<void> ticking_ = nullptr;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<bool>>> fulfiller_;
  kj::Maybe<kj::ForkedPromise<bool>> waiting_;
};

}  // namespace sallyport::vaultd
