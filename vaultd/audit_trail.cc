#include "vaultd/audit_trail.h"

#include <algorithm>
#include <chrono>

#include "common/log.h"
#include "vaultd/box.h"
#include "vaultd/counters.h"

namespace sallyport::vaultd {

namespace {

// Kinds of refusals and steps that are summed up at a time; more are written down at once.
constexpr size_t MAX_SUMS = 1024;
constexpr auto PERIOD = 1 * kj::SECONDS;

std::string nameOf(Refusal refusal) {
  return std::string(Counters::nameOf(std::min(static_cast<size_t>(refusal), Counters::REFUSALS - 1)));
}

std::string outcomeOf(std::optional<Refusal> refused) { return refused ? nameOf(*refused) : "ok"; }

AuditRecord recordOf(const UseRecord& use) {
  AuditRecord record;
  record.caller = AuditCaller{use.caller.socket, use.caller.uid, use.caller.gid, static_cast<uint32_t>(use.pid)};
  record.verb = name(use.verb);
  record.key = use.key;
  record.version = use.version;
  record.peer = use.peerName;
  // The key of a stranger is for uses that were carried out: refused ones it could make endlessly different.
  if (record.peer.empty() && use.peer && !use.refused) record.peer = toBase64(use.peer->span());
  record.domain = use.domain;
  record.items = 1;
  record.bytes = use.bytes;
  record.outcome = outcomeOf(use.refused);
  return record;
}

std::string kindOf(const AuditRecord& record) {
  std::string kind = record.verb + '\n' + record.outcome + '\n' + record.key + '\n' + record.entry + '\n' +
                     record.peer + '\n' + record.domain + '\n' + std::to_string(record.version);
  if (record.caller) {
    kind += '\n' + record.caller->socket + '\n' + std::to_string(record.caller->uid) + '\n' +
            std::to_string(record.caller->gid) + '\n' + std::to_string(record.caller->pid);
  }
  return kind;
}

}  // namespace

int64_t AuditTrail::wallMs() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

AuditTrail::AuditTrail(EventLoop& loop, std::unique_ptr<AuditLog> log, const AuditConfig& config, WallClock clock)
    : loop_(loop), log_(std::move(log)), config_(config), clock_(std::move(clock)) {}

bool AuditTrail::record(const UseRecord& use) {
  if (!admits()) {
    ++withheld_;
    return false;
  }
  AuditRecord record = recordOf(use);
  if (use.refused) {
    sum(std::move(record));
    return true;
  }
  ++turnItems_;
  if (open_ && open_->sameKind(record)) {
    ++open_->items;
    open_->bytes += record.bytes;
  } else {
    take(std::move(record));
  }
  return true;
}

void AuditTrail::step(const StepRecord& step) {
  if (step.refused == Refusal::NOT_RECORDED) {
    ++withheld_;
    return;
  }
  AuditRecord record;
  record.verb = step.verb;
  record.entry = step.entry;
  record.items = 1;
  record.outcome = outcomeOf(step.refused);
  if (!config_.handshakes || step.refused) return sum(std::move(record));
  record.peer = step.peer;
  ++turnItems_;
  take(std::move(record));
}

void AuditTrail::event(AuditRecord record) { take(std::move(record)); }

// The record becomes the open one; the one before is finished.
void AuditTrail::take(AuditRecord record) {
  record.timeMs = clock_();
  if (open_) complete_ &= log_->append(std::move(*open_));
  open_ = std::move(record);
  if (scheduled_) return;
  scheduled_ = true;
  loop_.defer([this] { commit(); });
}

void AuditTrail::sum(AuditRecord record) {
  record.timeMs = clock_();
  std::string kind = kindOf(record);
  const auto found = sums_.find(kind);
  if (found != sums_.end()) {
    found->second.items += record.items;
    found->second.bytes += record.bytes;
    return;
  }
  if (sums_.size() >= MAX_SUMS) flushSums();
  sums_.emplace(std::move(kind), std::move(record));
  arm();
}

void AuditTrail::flushSums() {
  for (auto& [kind, record] : sums_) take(std::move(record));
  sums_.clear();
}

kj::Maybe<kj::Promise<bool>> AuditTrail::settled() {
  if (!config_.required || turnItems_ == 0) return nullptr;
  KJ_IF_MAYBE (waiting, waiting_) { return waiting->addBranch(); }
  auto pair = kj::newPromiseAndFulfiller<bool>();
  fulfiller_ = kj::mv(pair.fulfiller);
  return waiting_.emplace(pair.promise.fork()).addBranch();
}

void AuditTrail::commit() {
  scheduled_ = false;
  const bool good = commitNow();
  wipeDeadStack();  // mac keys of records that are written: with one of them the record could be made again
  if (!good && config_.required) withheld_ += turnItems_;
  turnItems_ = 0;
  waiting_ = nullptr;
  KJ_IF_MAYBE (fulfiller, fulfiller_) { (*fulfiller)->fulfill(bool(good)); }
  fulfiller_ = nullptr;
  if (!log_->synced() || !log_->problem().empty()) arm();
}

bool AuditTrail::commitNow() {
  const bool failedBefore = !log_->problem().empty();
  const int64_t nowMs = clock_();
  if (open_) complete_ &= log_->append(std::move(*open_));
  open_.reset();
  const bool complete = std::exchange(complete_, true);
  const bool written = config_.syncAlways ? log_->sync(nowMs) : log_->write(nowMs);
  if (!log_->problem().empty() && !failedBefore) logError("audit log: " + log_->problem());
  return complete && written && log_->problem().empty();
}

void AuditTrail::arm() {
  if (armed_) return;
  armed_ = true;
  ticking_ = loop_.timer().afterDelay(PERIOD).then([this] { tick(); }).eagerlyEvaluate(nullptr);
}

void AuditTrail::tick() {
  const bool failedBefore = !log_->problem().empty();
  flushSums();
  const bool good = failedBefore ? log_->recover(clock_()) : log_->sync(clock_());
  wipeDeadStack();
  if (good && failedBefore) {
    logInfo("audit log: records are written again, lost=" + std::to_string(log_->lost()));
    if (withheld_ > 0) {
      AuditRecord record;
      record.verb = "withheld";
      record.items = std::exchange(withheld_, 0);
      record.outcome = nameOf(Refusal::NOT_RECORDED);
      record.note = "so many uses were refused: they could not be recorded";
      take(std::move(record));
    }
  }
  if (!good && !failedBefore) logError("audit log: " + log_->problem());
  // Not from within the promise that runs us.
  loop_.defer([this] {
    armed_ = false;
    if (!sums_.empty() || !log_->synced() || !log_->problem().empty()) arm();
  });
}

bool AuditTrail::markExported(uint64_t seq) {
  const bool known = log_->markExported(seq, clock_());
  if (!log_->problem().empty()) arm();
  return known;
}

void AuditTrail::stop() {
  flushSums();
  AuditRecord record;
  record.verb = "stop";
  record.outcome = "ok";
  take(std::move(record));
  commit();
  log_->sync(clock_());
}

}  // namespace sallyport::vaultd
