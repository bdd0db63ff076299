// uses.cc - see uses.h and VaultState::recordUse.
#include "vaultd/uses.h"

#include "common/log.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

bool VaultState::mayUse() const { return recorder == nullptr || recorder->admits(); }

namespace {

// The box didn't open, or the caller can't have got it from a peer of ours.
bool isFailedOpen(const UseRecord& use) {
  return use.verb == Verb::Open && (use.refused == Refusal::BAD_BOX || use.refused == Refusal::BAD_NONCE ||
                                    use.refused == Refusal::LOW_ORDER_KEY);
}

std::string describe(const Caller& caller, pid_t pid) {
  return "socket=" + caller.socket + " uid=" + std::to_string(caller.uid) + " pid=" + std::to_string(pid);
}

AuditRecord noticed(std::string verb, const Caller& caller, pid_t pid, std::string_view key, std::string note) {
  AuditRecord record;
  record.caller = AuditCaller{caller.socket, caller.uid, caller.gid, static_cast<uint32_t>(pid)};
  record.verb = std::move(verb);
  record.key = key;
  record.outcome = "ok";
  record.note = std::move(note);
  return record;
}

}  // namespace

void VaultState::apply(const Config& config, Grants grants) {
  policy = Policy(config, keys);
  authority = Authority(std::move(grants), nowMs());
  keys.setRate(config.vault.handshakesPerSecond);
  salts.setLifeMs(2 * uint64_t{config.limits.handshakeTimeoutMs});
  breakers.setRule({config.vault.breakerFailures, uint64_t{config.vault.breakerWindowS} * 1000,
                    uint64_t{config.vault.breakerPauseS} * 1000});
  if (base != nullptr) base->endIf([this](const BaseSessions::Session& session) { return !inForce(session); });
}

bool VaultState::inForce(const BaseSessions::Session& session) const {
  const PeerRule* rule = policy.peerEntry(session.entry, session.isListen);
  const VersionState version = stateOf(session.version, nowUnix());
  return rule != nullptr && rule->key == session.key && rule->framing.mode == PeerMode::Base &&
         (version == VersionState::Active || version == VersionState::OpenOnly);
}

void VaultState::lock(VaultKey& key) {
  if (base != nullptr) base->endOf(key);
  keys.lock(key);
}

bool VaultState::recordUse(const UseRecord& use) {
  if (isFailedOpen(use) && breakers.failed(use.caller, nowMs())) {
    counters.add(Count::BreakersTripped);
    recordEvent(noticed("breaker_open", use.caller, use.pid, use.key, "too many failed opens"));
    logWarning("breaker opened: too many failed opens " + describe(use.caller, use.pid) +
               " key=" + std::string(use.key));
  }
  if (policy.isHoney(use.key)) alarm(use.caller, use.pid, use.key, name(use.verb));
  const bool recorded = recorder == nullptr || recorder->record(use);
  uses.count(use.verb, recorded || use.refused ? use.refused : std::optional(Refusal::NOT_RECORDED));
  return recorded;
}

void VaultState::alarm(const Caller& caller, pid_t pid, std::string_view key, std::string_view what) {
  counters.add(Count::HoneyUses);
  // Every use is counted; the log gets one a second, so that a flood of uses is no flood of lines.
  if (!alarmRate.take(nowMs())) return;
  recordEvent(noticed("alarm", caller, pid, key, "honey key used: " + std::string(what)));
  logWarning("ALARM: honey key used key=" + std::string(key) + " " + std::string(what) + " " + describe(caller, pid));
}

void VaultState::recordStep(const StepRecord& step) {
  if (recorder != nullptr) recorder->step(step);
}

void VaultState::recordEvent(AuditRecord record) {
  if (recorder != nullptr) recorder->event(std::move(record));
}

}  // namespace sallyport::vaultd
